"""Files for GPUs in LiteRT's WebGPU accelerator, on Chromium's Vulkan driver: it computes on the CPU, in float32."""

import os
from ctypes.util import find_library
from pathlib import Path
from unittest import mock

import pytest
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import InvalidModelFile, Tolerance, export_tflite
from keras_vit_plugin.export.tflite.webgpu import gpu_runner
from keras_vit_plugin.export.verification.gpu_parity import gpu_report
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.presets.digits import load_digits_split

pytestmark = pytest.mark.long
HALF_PRECISION_DB = 40


@pytest.fixture(scope="module")
def gpu(every_core):
    """A GPU's name, Chromium's software one where the machine has no other; skipped without either."""
    import browser

    with mock.patch.dict(os.environ):  # which find_any_gpu may change
        adapter, reason = browser.find_any_gpu()
        if not adapter:
            driver = any(Path(folder, browser.VULKAN_DRIVER).exists() for folder in browser.FOLDERS)
            (pytest.fail if driver and find_library("vulkan") else pytest.skip)(reason)
        yield adapter


@pytest.fixture(scope="module")
def tiny():
    model = kv.build("vit_test")
    randomize(model)
    return model, pixels(model.image_shape, 8)


def test_a_tiny_model_with_all_outputs_is_verified_on_the_gpu(gpu, tiny, tmp_path):
    model, images = tiny
    options = {"quantize": "float16", "target": "gpu", "outputs": ("embedding", "attention")}
    report = export_tflite(model, tmp_path / "m.tflite", verification=images, **options)
    found = report.parity.gpu
    assert (found.adapter, found.reason, found.images) == (gpu, "", 4) and gpu in report.verified_by
    assert set(found.snr_db) == {"logits", "embedding", "attention"}
    assert min(found.snr_db.values()) > HALF_PRECISION_DB
    assert f"dB on 4 image(s), {gpu}" in str(report)


def test_verify_runs_a_trained_model_there(gpu, tmp_path):
    model, images = kv.build("vit_digits", weights="pretrained"), load_digits_split()[1][0][:4]
    export_tflite(model, tmp_path / "m.tflite", quantize="float16", target="gpu", verification=images)
    report = kv.export.verify(model, tmp_path / "m.tflite", images)
    assert (report.gpu.adapter, report.gpu.images) == (gpu, 4)
    assert report.gpu.snr_db["logits"] > HALF_PRECISION_DB


def test_a_file_for_litert_is_noticed_as_wrong(gpu, tiny, tmp_path):
    """It loads, is said to run on the GPU entirely, and is far from its model, one image or several."""
    model, images = tiny
    export_tflite(model, tmp_path / "m.tflite", verification=images)
    expected = keras_logits(model, images, 1 / 127.5, -1.0)
    for count in (1, 8):
        report = gpu_report((tmp_path / "m.tflite").read_bytes(), images[:count], (expected[:count],), (LOGITS,))
        assert (report.adapter, report.images) == (gpu, 4 if count > 1 else 2) and report.snr_db["logits"] < 20
        assert Tolerance(0.99, HALF_PRECISION_DB).too_far(report.snr_db)


def test_an_operator_that_the_gpu_lacks_is_refused(gpu):
    import tensorflow as tf

    module = tf.Module()
    signature = tf.TensorSpec((1, 1, 1, 4), tf.float32)
    remainder = tf.function(lambda x: tf.cast(tf.cast(x, tf.int64) % 3, tf.float32), input_signature=[signature])
    content = tf.lite.TFLiteConverter.from_concrete_functions([remainder.get_concrete_function()], module).convert()
    with pytest.raises(InvalidModelFile, match="WebGPU accelerator cannot run this file: Some ops are not accelerated"):
        gpu_runner(content)
