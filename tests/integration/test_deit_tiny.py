"""The main job on real weights and 500 real photos, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import pixels, randomize, real_data
from rotated_models import rotate_stream_of

import keras_vit_plugin as kv
from keras_vit_plugin.export.images import gather_labelled
from keras_vit_plugin.export.preprocessing import preprocessing_of

COMMAND = Path(sys.executable).with_name("keras-vit")
PRESET = "deit_tiny_patch16_224"


def keras_vit_json(*arguments):
    result = subprocess.run([COMMAND, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "mode, options, agreement, snr_db, megabytes",
    [
        ("float32", (), 1.0, 100, 23.3),
        ("float16", (), 0.998, 50, 11.8),
        ("dynamic", (), 0.98, 27.5, 6.2),
        ("int8", (), 0.97, 18.3, 6.5),
        ("int8", ("--prefer", "accuracy"), 0.985, 28.5, 7.2),
        ("int8-full", (), 0.95, 15, 6.2),
        ("int4", (), 0.92, 12, 3.7),
        ("auto", ("--min-agreement", "0.99"), 0.985, 28.5, 11.8),
    ],
)
def test_deit_tiny_on_500_photos(mode, options, agreement, snr_db, megabytes, tmp_path):
    weights = real_data("weights", f"{PRESET}_in1k.npz")
    path = tmp_path / "m.tflite"
    calibration = real_data("imagenet_calibration")
    exported = keras_vit_json(
        *("export", PRESET, path, "--quantize", mode, *options, "--weights", weights, "--calibration", calibration),
        *("--labels", real_data("imagenet_labels.txt")),
    )
    assert exported["size_bytes"] <= megabytes * 1e6
    images = real_data("imagenet_eval")
    report = keras_vit_json("verify", PRESET, path, "--weights", weights, "--images", images)
    assert report["images"] == 500
    assert report["top1_agreement"] >= agreement
    assert report["snr_db"] >= snr_db
    assert report["top1_accuracy_model"] >= 0.86
    assert report["top1_accuracy_tflite"] >= {"int8-full": 0.855, "int4": 0.82}.get(mode, 0.86)


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
    print(parity)
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - drop
