"""The aarch64 wheels of both runtimes under qemu: files run there, and answer what they answer here."""

import numpy as np
import pytest
from conftest import DEIT, pixels, real_data

import keras_vit_plugin as kv
from keras_vit_plugin.export import Runner
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.gather import gather_images
from keras_vit_plugin.images.preprocessing import preprocessing_of
from keras_vit_plugin.presets.digits import load_digits_split

PHOTOS = 1
RUNTIMES = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}  # of each target


@pytest.fixture(scope="module")
def arm():
    import arm

    return arm


@pytest.fixture(scope="module")
def userland(arm, tmp_path_factory):
    if missing := arm.missing_tools(counting=False):
        pytest.skip(f"running ARM programs needs tools that are missing: {missing}")
    return arm.prepare(tmp_path_factory.mktemp("arm"))


def assert_same_answers(arm, userland, path, target, images, least_snr_db):
    """The answers on every CPU there are those here, but for the rounding of other kernels."""
    here = Runner(path.read_bytes())(images)
    for cpu in arm.CPUS:
        there = arm.logits(userland, RUNTIMES[target], path, images, cpu)
        assert snr_db(here, there) >= least_snr_db
        np.testing.assert_array_equal(there.argmax(1), here.argmax(1))


@pytest.mark.parametrize(
    "mode, target, least_snr_db",
    [
        ("dynamic", "litert", 30),
        ("int8", "litert", 25),
        ("int8-full", "litert", 20),
        ("int8", "tflite-runtime", 25),  # and dynamic: the same file
        ("int8-full", "tflite-runtime", 20),
    ],
)
@pytest.mark.sampled(2)
def test_answers_there_are_those_here(mode, target, least_snr_db, arm, userland, tmp_path):
    (x_train, _), (x_test, _) = load_digits_split()
    model, path = kv.build("vit_digits", weights="pretrained"), tmp_path / "m.tflite"
    kv.export.export_tflite(model, path, quantize=mode, target=target, calibration=x_train[:64])
    assert_same_answers(arm, userland, path, target, x_test[:20], least_snr_db)


@pytest.mark.parametrize("mode, least_snr_db", [("dynamic", 20), ("int8", 20)])
@pytest.mark.sampled(1)
def test_deit_tiny_answers_there_as_here(mode, least_snr_db, arm, userland, deit_file):
    photos = gather_images(real_data("imagenet_eval"), preprocessing_of(kv.build(DEIT)), "images", PHOTOS)
    assert_same_answers(arm, userland, deit_file(mode), "litert", photos, least_snr_db)


@pytest.mark.long
def test_arm_instructions_grow_with_the_model(arm, userland, tmp_path):
    if missing := arm.missing_tools():
        pytest.skip(f"counting ARM instructions needs tools that are missing: {missing}")
    counts = {}
    for preset in ("vit_test", "vit_digits"):
        model = kv.build(preset)
        path = tmp_path / f"{preset}.tflite"
        kv.export.export_tflite(model, path)
        image = pixels(model.image_shape, 1)
        counts[preset] = [arm.instructions_per_inference(userland, path, image, "cortex-a76", 1000) for _ in range(2)]
    assert abs(counts["vit_digits"][0] - counts["vit_digits"][1]) < 0.05 * counts["vit_digits"][0]
    assert 1e4 < max(counts["vit_test"]) < min(counts["vit_digits"]) < 1e8
