"""Models with other outliers and of other shapes: nothing is tuned to one checkpoint.

What is claimed of them, the worst as the best, is in `docs/accuracy.json`.
"""

import numpy as np
import pytest
from accuracy import exported
from claims import check_claim, claim
from conftest import real_data
from judged import Judge
from judged_models import MODELS, OUTLIERS, add_outliers, digits_with_outliers, small_on_digits

import keras_vit_plugin as kv
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.presets.digits import load_digits_split

pytestmark = pytest.mark.usefixtures("all_tuning_steps")
# Of some hundred claims those that are quick to make anew; all are measured by `make accuracy`.
HELD = [("digits, registers", "int8-full"), ("digits, post-norm", "int4")]


@pytest.fixture(scope="module")
def digits():
    """The digits, `(x_train, y_train), (x_test, y_test)`."""
    return load_digits_split()


def unevenness(model, images):
    """How much larger the largest channel of the keys and values of a head is than the middle one, behind all rewrites
    that the export makes; the mean over the blocks."""
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, images.shape[-1])), images)
    x, ratios = spec.embed(images), []
    for block in spec.blocks:
        attention, tokens = block.attention, block.residuals[0].entering(x)
        for dense in (attention.key, attention.value):
            if dense is not None:
                ranges = np.abs(attention.heads(dense, tokens)).max((0, 2))  # (heads, d)
                ratios.append((ranges.max(1) / np.median(ranges, axis=1)).mean())
        x = block(x)
    return np.mean(ratios)


def test_outliers_in_attention_are_the_same_function_and_no_rewrite_takes_them_out(digits):
    images = digits[1][0][:16]
    model = kv.build("vit_digits", weights="pretrained")
    normalized = images * np.float32(1 / 127.5) - 1
    before, uneven = np.asarray(model(normalized)), unevenness(model, images)
    add_outliers(model, ("attention",))
    np.testing.assert_allclose(model(normalized), before, atol=2e-3)
    assert unevenness(model, images) > 1.2 * uneven


def test_outliers_in_the_hidden_layers_are_as_large_as_they_are_said_to_be():
    model = kv.build("vit_digits", weights="pretrained")
    before = np.asarray(model.backbone.blocks[1].mlp.hidden.kernel)
    add_outliers(model, ("hidden",))
    ratios = np.linalg.norm(model.backbone.blocks[1].mlp.hidden.kernel, axis=0) / np.linalg.norm(before, axis=0)
    np.testing.assert_allclose(sorted(set(ratios.round(3))), [1, 16], rtol=1e-3)


@pytest.mark.parametrize("mode", ["dynamic", "int8", "int8-full"])
@pytest.mark.parametrize("kind", OUTLIERS)
@pytest.mark.sampled(1)
def test_a_file_of_a_model_with_outliers_keeps_what_is_claimed(kind, mode, tmp_path):
    subject = digits_with_outliers(kind)
    check(subject, f"digits, {kind} outliers", mode, tmp_path)


@pytest.mark.long
def test_a_model_trained_here_is_better_than_chance_and_loads_again(tmp_path):
    subject = small_on_digits("no class token", epochs=2, cache=tmp_path)
    images, classes = subject.judged["digits_test"]
    judge = Judge(subject.model, folder=images, labels=classes)
    assert (judge.reference.argmax(1) == classes).mean() > 0.5
    again = small_on_digits("no class token", epochs=2, cache=tmp_path)  # from the file
    np.testing.assert_array_equal(Judge(again.model, folder=images, labels=classes).reference, judge.reference)


@pytest.mark.long
@pytest.mark.parametrize("model, mode", HELD)
def test_what_is_claimed_holds(model, mode, tmp_path):
    check(MODELS[model](real_data()), model, mode, tmp_path)


def check(subject, model, mode, folder):
    """Asserts that a mode's file keeps what is claimed of it on every set, and is refused where that is claimed."""
    path = folder / "m.tflite"
    content, refused = exported(subject, mode)
    path.write_bytes(content)
    for part, (images, classes) in subject.judged.items():
        row = claim(model, mode, part)
        assert bool(refused) == bool(row["refused"])
        count = None if row["images"] == (len(images) if classes is not None else 0) else row["images"]
        check_claim(Judge(subject.model, folder=images, labels=classes).parity(path, count), row)
