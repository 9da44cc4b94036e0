"""The helper that holds tests to what the docs claim, and the docs to what was measured."""

from types import SimpleNamespace

import numpy as np
import pytest
from accuracy import MODES, WRITER, as_markdown, quoted
from claims import ROWS, check_claim, claim, least_share, least_snr_db
from conftest import REPOSITORY
from readme import END, begin

BEGIN = begin(WRITER)
ROW = {
    "mode": "int8",
    "images": 400,
    "agreement": 0.95,
    "snr_db": 20.0,
    "snr_db_error": 0.25,
    "top1": 0.85,
    "top1_keras": 0.86,
}


def parity(**changes):
    figures = {"images": 100, "agreement": 0.95, "snr_db": 20.0}
    figures |= {"top1_accuracy_model": 0.86, "top1_accuracy_tflite": 0.85}
    return SimpleNamespace(**figures | changes)


def test_a_bound_is_the_claim_less_two_standard_errors():
    np.testing.assert_allclose(least_share(0.9, 10_000, 1_000_000), 0.9 - 2 * 0.003, atol=2e-4)
    assert 0.99 < least_share(1.0, 500, 500) < 1.0  # all of 500 are no certainty
    assert least_snr_db(ROW, 400) == 19.5 and least_snr_db(ROW, 100) == 19.0


@pytest.mark.parametrize("changed, claimed_on, images", [(2, 500, 125), (0, 500, 25), (25, 500, 125), (250, 500, 50)])
def test_a_bound_on_few_images_is_missed_as_rarely_as_one_on_many(changed, claimed_on, images):
    generator = np.random.default_rng(0)
    rates = generator.beta(changed + 0.5, claimed_on - changed + 0.5, 100_000)  # that the claim allows
    shares = 1 - generator.binomial(images, rates) / images
    bound = least_share(1 - changed / claimed_on, images, claimed_on)
    assert np.mean(shares < bound) < 0.023  # beyond two standard errors
    assert np.mean(shares < bound + 1.5 / images) > 0.023  # and no image more than it takes


@pytest.mark.parametrize(
    "worse", [{"agreement": 0.88}, {"snr_db": 18.9}, {"top1_accuracy_tflite": 0.77}, {"images": 401}]
)
def test_what_is_worse_than_the_claim_and_its_noise_fails(worse):
    check_claim(parity(), ROW)
    with pytest.raises(AssertionError):
        check_claim(parity(**worse), ROW)


def test_float32_keeps_every_answer():
    row = ROW | {"mode": "float32", "agreement": 1.0}
    check_claim(parity(agreement=1.0), row)
    with pytest.raises(AssertionError):
        check_claim(parity(agreement=0.9975, images=400), row)


def test_what_is_not_claimed_is_named():
    with pytest.raises(LookupError, match="says nothing of 'vit', 'int8' on 'here': run benchmarks/accuracy.py"):
        claim("vit", "int8", "here")


def test_the_readme_quotes_what_was_measured():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert BEGIN in text and END in text
    assert {row["mode"] for row in ROWS if row["model"] == "DeiT-tiny"} == set(MODES)  # or `quoted` changes nothing
    assert quoted(text, ROWS) == text


def test_the_page_of_accuracy_is_what_was_measured():
    assert as_markdown(ROWS) == (REPOSITORY / "docs" / "accuracy.md").read_text(encoding="utf-8")


def test_a_page_is_quoted_once_every_mode_is_measured():
    text = f"before\n{BEGIN}old\n{END}behind\n"
    code = {"size_bytes": 6_200_000, "model": "DeiT-tiny"}
    rows = [ROW | code | {"mode": mode, "set": part} for mode in MODES for part in ("chosen", "others")]
    assert quoted(text, rows[:-2]) == text
    page = quoted(text, [*rows[:-1], rows[-1] | {"images": 20, "agreement": 0.9}])
    assert page.startswith(f"before\n{BEGIN}| mode | MB | chosen: same answer") and page.endswith(f"{END}behind\n")
    assert "| `int8-full` (every tensor integer) | 6.2 | 95.0% | 20.0 | 85.0% | 95.0% | 20.0 | 85.0% |\n" in page
    assert "90.0% | 20.0 | 85.0% (of 20 photos; Keras 86.0%) |\n" in page
    assert quoted(page, [*rows[:-1], rows[-1] | {"images": 20, "agreement": 0.9}]) == page
