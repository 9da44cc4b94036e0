"""What becomes of an export for GPUs where the GPU is absent, wrong, broken or slow: programs that stand in for one."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import ParityError, ParityReport, Tolerance, UnsupportedByTarget, export_tflite
from keras_vit_plugin.export.tflite import webgpu, webgpu_interpreter
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.webgpu import GpuReport, find_gpu
from keras_vit_plugin.image_model.answers import LOGITS

gpu_parity = importlib.import_module("keras_vit_plugin.export.verification.gpu_parity")
STAND_IN = """
import os, time
from ai_edge_litert.interpreter import Interpreter as OnCpu

class Interpreter(OnCpu):
    device = "a GPU of a test"

    def __init__(self, model_content, num_threads):
        super().__init__(model_content=model_content, num_threads=num_threads)
        self.content = model_content

    def get_tensor(self, index):
        values = super().get_tensor(index)
        if len(self.content) > {bytes}:
            {does}
        return values
"""
PROBE_BYTES = 2000  # more than the file has that a GPU is looked for with, less than an exported one


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes the accelerator a program that does something with what files of so many bytes answer."""

    def use(does, bytes=PROBE_BYTES):
        path = tmp_path / "stand_in.py"
        path.write_text(STAND_IN.format(does=does, bytes=bytes))
        monkeypatch.setattr(webgpu, "PROGRAM", path)

    return use


@pytest.fixture(scope="module")
def model():
    made = kv.build("vit_test")
    randomize(made)
    return made


def export(model, path):
    images = pixels(model.image_shape, 8)
    return export_tflite(model, path, quantize="float16", target="gpu", verification=images)


def test_verify_says_it_of_a_file_that_was_right_elsewhere(model, tmp_path, stand_in):
    stand_in("pass")
    assert export(model, tmp_path / "m.tflite").parity.gpu.adapter == "a GPU of a test"
    stand_in("values = -values")
    report = kv.export.verify(model, tmp_path / "m.tflite", pixels(model.image_shape, 3))
    wanted = kv.export.wanted_of(tmp_path / "m.tflite", report)
    assert report.gpu.images == 3 and report.gpu.snr_db["logits"] < 0 < 40 < report.snr_db
    assert not wanted.holds(report) and wanted.holds(replace(report, gpu=None))


def test_the_report_says_why_a_file_was_not_run_on_a_gpu(model, tmp_path, monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "no driver.json"))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "no driver.json"))
    report = export(model, tmp_path / "m.tflite")
    assert report.parity.gpu == GpuReport(reason="LiteRT's WebGPU accelerator finds no GPU")
    assert "on a GPU: not run: LiteRT's WebGPU accelerator finds no GPU" in str(report)
    assert "GPU" not in report.verified_by and report.others_snr_db["logits in half precision"] > 40


def test_a_file_that_the_gpu_computes_wrong_is_not_written(model, tmp_path, stand_in):
    stand_in("values = -values")
    with pytest.raises(ParityError, match=r"Besides: logits at -\d.* dB on a GPU of a test\. Nothing was written"):
        export(model, tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_that_ends_the_driver_is_not_written(model, tmp_path, stand_in):
    stand_in("os.abort()")
    with pytest.raises(UnsupportedByTarget, match="run there: LiteRT's WebGPU accelerator was ended by signal 6"):
        export(model, tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_that_holds_up_the_driver_is_not_waited_for(stand_in, monkeypatch):
    monkeypatch.setattr(webgpu, "SPARE_SECONDS", 1)
    stand_in("time.sleep(60)", bytes=0)
    assert find_gpu() == ("", "LiteRT's WebGPU accelerator took more than 1 seconds on a sigmoid")


def test_outputs_besides_the_models_own_are_compared_on_the_gpu_too(model, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parity, "find_gpu", lambda: ("a GPU of a test", ""))
    monkeypatch.setattr(gpu_parity, "gpu_runner", Runner)
    path, images = tmp_path / "m.tflite", pixels(model.image_shape, 4)
    kv.export.export_tflite(model, path, outputs=("embedding",))
    found = Runner(path).outputs(images)
    wrong = found["embedding"] + np.abs(found["embedding"]).mean()
    report = gpu_parity.gpu_report(path.read_bytes(), images, [found["logits"]], [LOGITS], {"embedding": wrong})
    assert report.snr_db.keys() == {"logits", "embedding"}
    assert report.snr_db["logits"] > 100 and report.snr_db["embedding"] < 20


def test_a_large_file_is_waited_for_longer(monkeypatch):
    given = {}
    monkeypatch.setattr(webgpu, "Runner", lambda content, interpreter: None)
    monkeypatch.setattr(webgpu, "ForeignInterpreter", lambda *arguments, **options: given.update(options))
    for megabytes in (0, 30):
        webgpu.gpu_runner(bytes(megabytes * 10**6))
        assert given["seconds"] == webgpu.SPARE_SECONDS + webgpu.SECONDS_PER_MEGABYTE * megabytes


@pytest.mark.parametrize(
    "does, reason",
    [
        ("values = values * 0", "a GPU of a test computes one sigmoid wrong"),
        ("os.abort()", "LiteRT's WebGPU accelerator was ended by signal 6 (Aborted) on a sigmoid"),
        ("raise RuntimeError('out of memory')", "LiteRT's WebGPU accelerator cannot run a sigmoid: out of memory"),
    ],
)
def test_a_gpu_that_cannot_compute_one_operator_is_none(stand_in, does, reason):
    stand_in(does, bytes=0)
    assert find_gpu() == ("", reason)


def test_a_runtime_that_names_no_gpu_is_none(stand_in):
    stand_in("pass")
    webgpu.PROGRAM.write_text(webgpu.PROGRAM.read_text().replace('"a GPU of a test"', '""'))
    assert find_gpu() == ("", "LiteRT's WebGPU accelerator does not name its GPU")


def test_the_accelerator_runs_a_file_and_names_its_gpu(monkeypatch):
    """By its own road, but to the CPU."""
    said = "INFO: Selected adapter: A GPU, arch=gen-9, backend=Vulkan, adapterType=CPU"
    monkeypatch.setattr(webgpu_interpreter, "HardwareAccelerator", SimpleNamespace(GPU=HardwareAccelerator.CPU))
    monkeypatch.setattr(webgpu_interpreter, "_printed", lambda: said)
    content, values = webgpu._logistic(), np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    interpreter = webgpu_interpreter.Interpreter(content)
    assert interpreter.device == "A GPU, Vulkan, CPU"
    expected = 1 / (1 + np.exp(-values))
    np.testing.assert_allclose(Runner(content, interpreter=interpreter)(values), expected, rtol=1e-5)
    said = "INFO: nothing of a GPU"
    assert webgpu_interpreter.Interpreter(content).device == ""


def test_every_output_must_hold_on_the_gpu():
    near = ParityReport(images=8, agreement=1.0, snr_db=60.0, max_abs_error=0.0)
    wanted = Tolerance(0.99, 40.0)
    for snr_db, holds in (
        ({"logits": 31.0, "attention": 24.5}, True),  # 10 dB less than in half precision, and of attention 6 dB less
        ({"logits": 31.0, "attention": 23.5}, False),
        ({"logits": 29.0}, False),
        ({"logits": np.float64(-300.0)}, False),
        ({}, True),
    ):
        assert wanted.holds(replace(near, gpu=GpuReport("a GPU", "", 4, snr_db))) == holds
