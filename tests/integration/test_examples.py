"""The examples run as they stand."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, real_data
from PIL import Image

import keras_vit_plugin as kv


def run_example(name, *arguments):
    result = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / name, *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_the_notebooks_run_on_cifar10(tmp_path):
    printed = run_example("cifar10_simple_vit.py", "--data", real_data("cifar10_subset.npz"), "--output", tmp_path)
    assert "Epoch 5/5" in printed and "25/25" in printed  # 800 images in batches of 32
    losses = [float(line.split("val_loss: ")[1]) for line in printed.splitlines() if "val_loss" in line]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 2.2  # ten classes at chance: ln 10 = 2.3
    agreement = float(printed.split("same answer on ")[1].split("%")[0])
    assert agreement >= 95
    for picture in ("curves.png", "predictions.png"):
        assert np.asarray(Image.open(tmp_path / picture).convert("L")).std() > 5
    assert kv.export.inspect(tmp_path / "simple_vit_dynamic.tflite").metadata["labels"][0] == "airplane"


def test_the_notebooks_run_on_made_data(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8),
        "y_train": generator.integers(0, 10, 1000),
        "x_test": generator.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8),
        "y_test": generator.integers(0, 10, 50),
    }
    np.savez(tmp_path / "data.npz", **arrays)
    printed = run_example("cifar10_simple_vit.py", "--data", tmp_path / "data.npz", "--output", tmp_path, "--epochs", 1)
    assert "same answer on" in printed


@pytest.mark.long
def test_the_digits_training_script_learns(tmp_path):
    path = tmp_path / "w.weights.h5"
    printed = run_example("train_vit_digits.py", "--output", path, "--epochs", 10)
    assert float(printed.split("held-out accuracy ")[1].split()[0]) > 0.5
    kv.build("vit_digits", weights=path)
