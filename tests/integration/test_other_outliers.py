"""Real weights whose residual stream has other outliers: nothing is tuned to one checkpoint."""

import numpy as np
import pytest
from conftest import pixels, randomize, real_data
from rotated_models import rotate_stream_of

import keras_vit_plugin as kv
from keras_vit_plugin.export.images import gather_labelled
from keras_vit_plugin.export.preprocessing import preprocessing_of

PRESET = "deit_tiny_patch16_224"


def test_a_rotated_stream_is_the_same_function_with_other_outliers():
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape).astype("float32") / 255
    before, kernel = np.asarray(model(images)), np.asarray(model.backbone.blocks[0].mlp.output_dense.kernel)
    rotate_stream_of(model)
    np.testing.assert_allclose(model(images), before, atol=1e-4)
    assert np.abs(np.asarray(model.backbone.blocks[0].mlp.output_dense.kernel) - kernel).max() > 0.1


@pytest.mark.parametrize(
    "mode, photos, agreement, snr_db, drop",
    [("int8-full", 500, 0.945, 14.5, 0.02), ("int16x8", 60, 0.96, 29, 0.03), ("int4", 500, 0.92, 12, 0.03)],
)
def test_a_mode_is_as_good_with_other_outliers(mode, photos, agreement, snr_db, drop, tmp_path):
    model = kv.build(PRESET, weights=real_data("weights", f"{PRESET}_in1k.npz"))
    rotate_stream_of(model, seed=1)
    path = tmp_path / "m.tflite"
    kv.export.export_tflite(model, path, quantize=mode, calibration=real_data("imagenet_calibration"))
    images, labels = gather_labelled(
        real_data("imagenet_eval"), None, preprocessing_of(model), (), model.num_classes, limit=photos
    )
    parity = kv.export.verify(model, path, images, labels)
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - drop
