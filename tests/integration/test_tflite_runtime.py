"""Files on tflite-runtime 2.14.0 with NumPy 1, in the environment that the Makefile makes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import DEIT, REPOSITORY, pixels, real_data
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.images.gather import gather_labelled
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.presets.digits import load_digits_split

DEVICE_PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
RUN_IMAGES = REPOSITORY / "benchmarks" / "run_images.py"
EXAMPLE = REPOSITORY / "examples" / "on_device" / "vit.py"


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
        [python, EXAMPLE, "classify", model, *photos, "--json"], capture_output=True, text=True, check=True
    ).stdout
    return [json.loads(line)["top"] for line in printed.splitlines()]


def device_logits(python, model, images, folder):
    """What tflite-runtime gives for raw pixels `(N, H, W, C)`."""
    np.save(folder / "pixels.npy", images)
    arguments = ["tflite_runtime.interpreter", model, folder / "pixels.npy", "1", folder / "logits.npy"]
    subprocess.run([python, RUN_IMAGES, *arguments], capture_output=True, check=True)
    return np.load(folder / "logits.npy")


@pytest.mark.parametrize("mode", ["float32", "int8-full"])
@pytest.mark.long
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


@pytest.mark.parametrize(
    "mode, agreement, snr_db", [("float32", 1.0, 95), ("float16", 1.0, 50), ("dynamic", 1.0, 35), ("int8", 1.0, 35)]
)
@pytest.mark.sampled(1)
def test_every_mode_of_the_target_is_right_there(mode, agreement, snr_db, device_python, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (calibration, _), (images, _) = load_digits_split()
    path = tmp_path / "m.tflite"
    kv.export.export_tflite(model, path, quantize=mode, target="tflite-runtime", calibration=calibration)
    parity = compare(keras_logits(model, images, 1 / 127.5, -1.0), device_logits(device_python, path, images, tmp_path))
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db


@pytest.mark.parametrize("mode, agreement, snr_db", [("float32", 1.0, 80), ("int8", 0.97, 26), ("int8-full", 0.9, 14)])
@pytest.mark.sampled(0)
def test_deit_tiny_there_on_real_photos(mode, agreement, snr_db, device_python, deit_file, tmp_path):
    model = kv.build(DEIT, weights=real_data("weights", f"{DEIT}_in1k.npz"))
    photos, _ = gather_labelled(real_data("imagenet_eval"), None, preprocessing_of(model), (), 1000, limit=40)
    reference = keras_logits(model, photos, *pixel_normalization(model, 3))
    path = deit_file(mode, "tflite-runtime")
    parity = compare(reference, device_logits(device_python, path, photos, tmp_path))
    assert parity.top1_agreement >= agreement and parity.snr_db >= snr_db


@pytest.mark.parametrize("mode", ["float32", "dynamic", "int8"])
def test_any_keras_model_there(mode, device_python, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, activation="gelu"),
            layers.LayerNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    images = pixels((12, 12, 3), 30)
    path = tmp_path / "m.tflite"
    options = {"mean": 0.5, "std": 0.5, "calibration": images, "tolerance": kv.export.Tolerance(0, 20)}
    kv.export.export_tflite(model, path, quantize=mode, target="tflite-runtime", **options)
    logits = device_logits(device_python, path, images, tmp_path)
    assert compare(keras_logits(model, images, 1 / 127.5, -1.0), logits).snr_db > (80 if mode == "float32" else 30)


@pytest.mark.parametrize("python", ["device", "own"])
@pytest.mark.sampled(1)
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
