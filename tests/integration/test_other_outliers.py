"""Real weights whose residual stream has other outliers: nothing is tuned to one checkpoint."""

import numpy as np
import pytest
from conftest import pixels, randomize, real_data
from judged import Judge
from rotated_models import rotate_stream_of

import keras_vit_plugin as kv

PRESET = "deit_tiny_patch16_224"


def test_a_rotated_stream_is_the_same_function_with_other_outliers():
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape).astype("float32") / 255
    before, kernel = np.asarray(model(images)), np.asarray(model.backbone.blocks[0].mlp.output_dense.kernel)
    rotate_stream_of(model)
    np.testing.assert_allclose(model(images), before, atol=1e-4)
    assert np.abs(np.asarray(model.backbone.blocks[0].mlp.output_dense.kernel) - kernel).max() > 0.1


@pytest.fixture(scope="module")
def judge():
    model = kv.build(PRESET, weights=real_data("weights", f"{PRESET}_in1k.npz"))
    return Judge(rotate_stream_of(model, seed=1))


@pytest.mark.parametrize(
    "mode, options, photos, agreement, snr_db, drop",
    [
        pytest.param("dynamic", {}, 500, 0.975, 26, 0.005, marks=pytest.mark.long),
        pytest.param("int8", {}, 500, 0.97, 17, 0.015, marks=pytest.mark.long),
        ("int8-full", {}, 500, 0.935, 14.0, 0.02),
        pytest.param("int16x8", {}, 60, 0.96, 29, 0.03, marks=pytest.mark.long),
        pytest.param("int4", {}, 500, 0.94, 12.5, 0.02, marks=pytest.mark.long),
        pytest.param("auto", {"min_agreement": 0.99}, 500, 0.98, 28, 0.01, marks=pytest.mark.long),
    ],
)
def test_a_mode_is_as_good_with_other_outliers(judge, mode, options, photos, agreement, snr_db, drop, tmp_path):
    path = tmp_path / "m.tflite"
    calibration = real_data("imagenet_calibration")
    kv.export.export_tflite(judge.model, path, quantize=mode, calibration=calibration, **options)
    parity = judge.parity(path, photos)
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - drop
