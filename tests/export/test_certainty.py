"""Exact bounds against scipy, and the one that is not exact against a simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_vit_plugin.export.quantization.modes.auto.certainty import (
    drop_promised,
    images_needed,
    images_needed_for_drop,
    largest_drop,
    largest_noise,
    largest_share,
    limit,
    most_allowed,
    proves_drop,
)
from keras_vit_plugin.image_model.answers import Answer


@pytest.mark.parametrize("images", [1, 2, 36, 186, 1000, 5000])
@pytest.mark.parametrize("risk", [0.1, 0.1 / 12])
def test_bounds_are_those_of_clopper_and_pearson(images, risk):
    for count in {0, 1, 3, images // 100, images // 2, images - 1, images} & set(range(images + 1)):
        expected = stats.binomtest(count, images, alternative="less").proportion_ci(1 - risk, "exact").high
        assert largest_share(count, images, risk) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("images", [1, 36, 229, 230, 388, 1000])
def test_the_number_of_changes_that_still_proves_a_share(images, share):
    allowed = most_allowed(images, share)
    assert allowed < 0 or stats.binom.cdf(allowed, images, share) <= 0.1
    assert stats.binom.cdf(allowed + 1, images, share) > 0.1
    count, promised = limit(images, share)
    assert (count, promised) == (allowed, share) if allowed >= 0 else promised > share
    assert largest_share(count, images) <= promised + 1e-12
    assert (most_allowed(images_needed(share), share), most_allowed(images_needed(share) - 1, share)) == (0, -1)


def test_wishes_at_the_ends():
    assert limit(100, 1.0) == (100, 1.0)
    assert limit(100, 0.0) == (0, largest_share(0, 100)) and images_needed(0.0) == math.inf
    assert largest_share(0, 32) == pytest.approx(0.0694, abs=1e-4)  # no change of 32: 7 of 100 may be changed


@pytest.mark.parametrize("lost, gained, images, drop", [(0, 0, 40, 0.07), (2, 1, 60, 0.08), (6, 5, 60, 0.1)])
def test_a_drop_is_proved_where_the_worst_binomials_say_so(lost, gained, images, drop):
    most = stats.binomtest(lost + gained, images, alternative="less").proportion_ci(0.98, "exact").high
    worst = 0
    for changes in np.linspace(drop, most, 200):
        lost_share, gained_share = (changes + drop) / 2, (changes - drop) / 2
        gains = np.arange(images + 1)
        losses = np.clip(gains + lost - gained, -1, images - gains)
        chances = stats.binom.pmf(gains, images, gained_share)
        worst = max(worst, (chances * stats.binom.cdf(losses, images - gains, lost_share / (1 - gained_share))).sum())
    assert proves_drop(lost, gained, images, drop) == (worst + 0.02 <= 0.1)
    bound = largest_drop(lost, gained, images)
    assert proves_drop(lost, gained, images, bound) and not proves_drop(lost, gained, images, bound - 1e-3)
    assert bound < largest_share(lost, images) or lost + gained < 5  # gains count


def test_few_images_prove_a_larger_drop():
    assert images_needed_for_drop(0.01) == 308 and images_needed_for_drop(0.0) == math.inf
    assert drop_promised(308, 0.01) == 0.01
    assert drop_promised(307, 0.01) == largest_drop(3, 0, 307) > 0.01


@pytest.mark.parametrize("images", [36, 256])
@pytest.mark.parametrize("task, shape", [("regression", (1,)), ("regression", (3,)), ("embedding", (8,))])
@pytest.mark.parametrize("freedom", [5, 1000])  # of Student's t: errors with heavier tails, and normal ones
def test_the_bound_on_a_relative_error_holds_in_nine_samples_of_ten(images, task, shape, freedom):
    generator = np.random.default_rng(0)
    answer = Answer("y", task)
    reference = 40 + 10 * generator.normal(size=(20_000, *shape))
    errors = generator.standard_t(freedom, reference.shape)
    outputs = reference + errors * generator.gamma(4, 0.25, (20_000, 1))  # images differ in how large their errors are
    true = answer.noise(reference, outputs)
    samples = 500
    bounds = []
    for _ in range(samples):
        drawn = generator.integers(0, len(reference), images)
        bounds.append(largest_noise(answer, reference[drawn], outputs[drawn]))
    broken = np.mean(np.less(bounds, true))
    assert broken <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / samples)
    assert np.median(bounds) < (2 if images == 256 else 4) * true  # and it is worth something


def test_the_bound_on_a_relative_error_knows_no_error_and_no_spread():
    answer = Answer("y", "regression")
    same = np.full((50, 2), 40.0)
    assert largest_noise(answer, same, same) == 0.0
    # A signal counts for a millionth of the outputs' own power at least: float32 holds no less.
    assert largest_noise(answer, same, same + 0.4) == pytest.approx(0.4**2 / (1e-6 * 40.0**2))
