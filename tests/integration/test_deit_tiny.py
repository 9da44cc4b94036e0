"""The main job on real weights and 500 real photos, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import real_data

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
