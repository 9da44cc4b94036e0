"""Files on tflite-runtime 2.14.0 with NumPy 1, in the environment that the Makefile makes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.presets.digits import load_digits_split

DEVICE_PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
CLASSIFY = REPOSITORY / "examples" / "on_device" / "classify.py"


@pytest.fixture(scope="module")
def device_python():
    if not DEVICE_PYTHON.exists():
        pytest.skip(f"no device environment at {DEVICE_PYTHON}: run `make .venv-device/installed`")
    return DEVICE_PYTHON


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    images, _ = load_digits_split()[1]
    for i, image in enumerate(images[:50]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def classify(python, model, photos):
    printed = subprocess.run(
        [python, CLASSIFY, model, *photos, "--json"], capture_output=True, text=True, check=True
    ).stdout
    return [json.loads(line)["top"] for line in printed.splitlines()]


@pytest.mark.parametrize("mode", ["float32", "int8-full"])
def test_the_on_device_example_gives_the_same_answers_on_both_runtimes(mode, device_python, photos, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    path = tmp_path / "m.tflite"
    calibration = load_digits_split()[0][0]
    kv.export.export_tflite(model, path, quantize=mode, calibration=calibration, labels=list("0123456789"))
    old, new = classify(device_python, path, photos), classify(sys.executable, path, photos)
    assert [top[0]["label"] for top in old] == [top[0]["label"] for top in new]
    pairs = [(a[0]["probability"], b[0]["probability"]) for a, b in zip(old, new)]
    # Integer kernels may round a last bit differently; the answers' probabilities then differ by a step.
    assert max(abs(a - b) for a, b in pairs) <= (1e-4 if mode == "float32" else 0.1)
    ours = np.asarray([model.predict(np.asarray(Image.open(p))[None, ..., None], verbose=0).argmax() for p in photos])
    agreement = np.mean([int(top[0]["label"]) == answer for top, answer in zip(old, ours)])
    assert agreement >= (1.0 if mode == "float32" else 0.95)


@pytest.mark.parametrize("python", ["device", "own"])
def test_the_on_device_example_on_a_batch_and_on_probabilities(python, device_python, photos, tmp_path):
    digits = kv.build("vit_digits", weights="pretrained")
    softmax = kv.ViTImageClassifier(digits.backbone, 10, digits.preprocessor, activation="softmax")
    softmax.output_dense.set_weights(digits.output_dense.get_weights())
    kv.export.export_tflite(softmax, tmp_path / "m.tflite", batch_size=4)
    answers = classify(device_python if python == "device" else sys.executable, tmp_path / "m.tflite", photos[:3])
    expected = softmax.predict(np.stack([np.asarray(Image.open(p))[..., None] for p in photos[:3]]), verbose=0)
    for top, probabilities in zip(answers, expected):
        assert abs(top[0]["probability"] - probabilities.max()) < 1e-4


def test_the_device_environment_is_what_it_says(device_python):
    code = "import numpy, tflite_runtime as t; print(numpy.__version__, t.__version__)"
    printed = subprocess.run([device_python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["1.26.4", "2.14.0"]
