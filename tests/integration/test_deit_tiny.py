"""The main job on real weights and 500 real photos."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DEIT, real_data
from judged import Judge

import keras_vit_plugin as kv

COMMAND = Path(sys.executable).with_name("keras-vit")


@pytest.fixture(scope="module")
def judge():
    return Judge(kv.build(DEIT, weights=real_data("weights", f"{DEIT}_in1k.npz")))


@pytest.mark.parametrize(
    "mode, options, agreement, snr_db, top1, megabytes",
    [
        ("float32", {}, 1.0, 100, 0.86, 23.3),
        ("float16", {}, 0.998, 50, 0.86, 11.8),
        ("dynamic", {}, 0.98, 27.5, 0.86, 6.2),
        ("int8", {"prefer": "accuracy"}, 0.985, 28.5, 0.86, 7.2),
        ("int8-full", {}, 0.945, 14.8, 0.855, 6.2),
        ("int4", {}, 0.91, 12.0, 0.83, 3.7),
        pytest.param("auto", {"min_agreement": 0.99}, 0.985, 27.5, 0.86, 11.8, marks=pytest.mark.long),
    ],
)
def test_deit_tiny_on_500_photos(judge, mode, options, agreement, snr_db, top1, megabytes, deit_file):
    path = deit_file(mode, **options)
    assert path.stat().st_size <= megabytes * 1e6
    parity = judge.parity(path)
    assert parity.images == 500
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db
    assert parity.top1_accuracy_model >= 0.86 and parity.top1_accuracy_tflite >= top1


def test_int8_by_the_command_line(judge, deit_file):
    weights, path = real_data("weights", f"{DEIT}_in1k.npz"), deit_file("int8")
    assert path.stat().st_size <= 6.5e6
    arguments = ("verify", DEIT, path, "--weights", weights, "--images", real_data("imagenet_eval"), "--json")
    result = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["images"] == 500
    assert report["agreement"] >= 0.97 and report["snr_db"] >= 18.3
    assert report["top1_accuracy_model"] >= 0.86 and report["top1_accuracy_tflite"] >= 0.86
    # The same figures as those of the other tests of this file, which run the Keras model once for all.
    np.testing.assert_allclose(report["snr_db"], judge.parity(path).snr_db, rtol=1e-3)
