"""Files on the tflite-runtime of another Python, as `--runtime-python` verifies them."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import InvalidModelFile, Runner, Tolerance, export_tflite
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.foreign_runner import check_runtime_python, foreign_load_error, foreign_runner
from keras_vit_plugin.export.tflite.operators import op_versions
from keras_vit_plugin.image_model.decibels import snr_db

DEVICE_PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
RUN_IMAGES = REPOSITORY / "benchmarks" / "run_images.py"


@pytest.fixture(scope="module")
def device_python():
    if not DEVICE_PYTHON.exists():
        pytest.skip(f"no device environment at {DEVICE_PYTHON}: run `make .venv-device/installed`")
    return DEVICE_PYTHON


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`{mode: path}` of a tiny model, and images."""
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 7)
    folder, paths = tmp_path_factory.mktemp("files"), {}
    for name, options in (
        ("float32", {"quantize": "float32", "target": "tflite-runtime", "batch_size": 3, "outputs": ("embedding",)}),
        ("int8-full", {"quantize": "int8-full", "target": "tflite-runtime", "input_dtype": "int8"}),
        ("int16x8", {"quantize": "int16x8"}),
    ):
        paths[name] = folder / f"{name}.tflite"
        export_tflite(model, paths[name], calibration=images, tolerance=Tolerance(0, -300), **options)
    return paths, images


def test_a_python_is_told_by_its_version(device_python):
    assert check_runtime_python(device_python) == check_runtime_python(str(device_python)) == "2.14.0"


def test_a_python_is_looked_at_before_it_is_needed(tmp_path):
    text = tmp_path / "python"
    for wrong in (tmp_path / "nowhere", tmp_path, text):
        with pytest.raises(ValueError, match="`runtime_python` must be the path of a Python with tflite-runtime, got "):
            check_runtime_python(wrong)
        text.write_text("no program")
    text.chmod(0o755)
    with pytest.raises(ValueError, match="cannot be run as a Python"):
        check_runtime_python(text)
    with pytest.raises(ValueError, match="cannot import tflite-runtime: ModuleNotFoundError: No module named"):
        check_runtime_python(sys.executable)


def test_the_answers_are_those_of_that_runtime(device_python, files, tmp_path):
    paths, images = files
    one = paths["int8-full"]
    np.save(tmp_path / "pixels.npy", (images.astype(np.int16) - 128).astype(np.int8))
    arguments = ["tflite_runtime.interpreter", one, tmp_path / "pixels.npy", "1", tmp_path / "logits.npy"]
    subprocess.run([device_python, RUN_IMAGES, *arguments], capture_output=True, check=True)
    logits = foreign_runner(one.read_bytes(), device_python)(images)
    np.testing.assert_array_equal(logits, np.load(tmp_path / "logits.npy"))
    assert logits.std() > 0


def test_all_outputs_by_name_in_batches(device_python, files):
    paths, images = files
    content = paths["float32"].read_bytes()
    runner, here = foreign_runner(content, device_python), Runner(content).outputs(images)
    assert runner.batch_size == 3 and runner.image_shape == images.shape[1:]
    there = runner.outputs(images)
    assert there.keys() == here.keys() == {"logits", "embedding"}
    for name, values in there.items():
        assert snr_db(here[name], values) > 80 and values.dtype == np.float32


def test_what_it_cannot_load_or_run_is_a_sentence(device_python, files):
    paths, images = files
    content = paths["int16x8"].read_bytes()
    with pytest.raises(InvalidModelFile, match="tflite-runtime cannot run this file: .*quantize.cc"):
        foreign_runner(content, device_python)
    assert "quantize.cc" in foreign_load_error(content, device_python)
    assert foreign_load_error(paths["int8-full"].read_bytes(), device_python) == ""
    with pytest.raises(InvalidModelFile, match="tflite-runtime cannot run this file: .*Dimension mismatch"):
        foreign_runner(paths["int8-full"].read_bytes(), device_python)(pixels((9, 9, 3), 1))
    with pytest.raises(InvalidModelFile, match="damaged"):
        foreign_runner(content[:-9] + bytes(9), device_python)


def test_a_runtime_that_dies_is_a_sentence(files, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(InvalidModelFile, match="tflite-runtime ended with code 3 on this file: out of luck"):
        foreign_runner(files[0]["float32"].read_bytes(), python)


def test_the_table_of_op_versions_is_what_that_runtime_has(device_python, files):
    model = read(files[0]["float32"].read_bytes())
    assert op_versions(model)["FULLY_CONNECTED"] <= 11
    for code in model.operatorCodes:
        code.version = 12 if code.builtinCode == 9 else code.version  # FULLY_CONNECTED, which 2.17 had first
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in foreign_load_error(
        write(model), device_python
    )


def test_an_export_is_verified_on_the_runtime_it_is_for(device_python, tmp_path):
    model = kv.build("vit_test")
    options = {"target": "tflite-runtime", "calibration": pixels(model.image_shape, 16)}
    report = kv.export.export_tflite(model, tmp_path / "m.tflite", **options, runtime_python=device_python)
    assert report.verified_by == "tflite-runtime 2.14.0" and report.parity.snr_db > 80
    assert report.file.metadata["verified_by"] == "tflite-runtime 2.14.0"
    elsewhere = kv.export.export_tflite(model, tmp_path / "m.tflite", **options)
    assert elsewhere.verified_by.startswith("ai-edge-litert")
    with pytest.raises(ValueError, match="goes with target='tflite-runtime', got target='litert'"):
        kv.export.export_tflite(model, tmp_path / "n.tflite", runtime_python=device_python)
    with pytest.raises(ValueError, match="cannot import tflite-runtime"):
        kv.export.export_tflite(model, tmp_path / "n.tflite", target="tflite-runtime", runtime_python=sys.executable)
