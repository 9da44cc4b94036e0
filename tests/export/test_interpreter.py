"""One place opens interpreters: pixels go in by the input's own scale, and every output comes out as it is meant."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import hostile_tflite
import numpy as np
import pytest
from conftest import REPOSITORY, pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import InvalidModelFile, Runner, Tolerance, debug, export_tflite
from keras_vit_plugin.export.tflite import runner, serve_interpreter
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.foreign_runner import check_runtime_python, foreign_load_error, foreign_runner
from keras_vit_plugin.export.tflite.runner import computed_tensors, open_interpreter


def test_no_other_file_opens_an_interpreter():
    opens = re.compile(r"\bInterpreter\(|interpreter_class\(\)")
    elsewhere = ("runner.py", "serve_interpreter.py")  # that one runs in another Python
    sources = Path(REPOSITORY, "export").rglob("*.py")
    assert [path.name for path in sources if path.name not in elsewhere and opens.search(path.read_text())] == []


def test_a_runtime_that_is_absent_is_passed_over_and_one_that_is_broken_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_runtime.py").write_text("import what_it_needs")
    broken, absent = (("some-runtime", module, "Interpreter") for module in ("broken_runtime", "absent_runtime.part"))
    monkeypatch.setattr(runner, "RUNTIMES", (absent, *runner.RUNTIMES))
    with warnings.catch_warnings(action="error"):
        found = runner.interpreter_class()
    monkeypatch.setattr(runner, "RUNTIMES", (broken, *runner.RUNTIMES))
    told = "some-runtime is installed but cannot be used: No module named 'what_it_needs'. Taking ai-edge-litert."
    with pytest.warns(UserWarning, match=f"^{re.escape(told)}$"):
        assert runner.interpreter_class() is found
    (tmp_path / "old_runtime.py").write_text("Interpreter = object")
    monkeypatch.setattr(runner, "RUNTIMES", (("tflite-runtime", "old_runtime", "Interpreter"),))
    with pytest.raises(
        ImportError, match=r"tflite-runtime is installed but cannot be used: it needs NumPy 1 and this is 2\."
    ):
        runner.interpreter_class()
    monkeypatch.setattr(runner, "RUNTIMES", (absent,))
    with pytest.raises(ImportError, match="^No TFLite interpreter can be imported. Try: pip install ai-edge-litert$"):
        runner.interpreter_class()


class Without:
    """A finder of modules that hides packages."""

    def __init__(self, *packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def no_trace():
    """Forgets the modules of a runtime that a test makes."""
    yield
    for name in ("tflite_runtime", "tflite_runtime.interpreter"):
        sys.modules.pop(name, None)


def test_the_runtimes_at_hand_are_taken_in_their_order(tmp_path, monkeypatch, no_trace):
    import ai_edge_litert.interpreter
    import tensorflow as tf

    assert runner.interpreter_class() is ai_edge_litert.interpreter.Interpreter
    for name in [name for name in sys.modules if name.split(".")[0] == "ai_edge_litert"]:
        monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings(action="error"):
        monkeypatch.setattr(sys, "meta_path", [Without("ai_edge_litert", "tflite_runtime"), *sys.meta_path])
        assert runner.interpreter_class() is tf.lite.Interpreter
        sys.meta_path[0] = Without("ai_edge_litert")
        (tmp_path / "tflite_runtime").mkdir()
        (tmp_path / "tflite_runtime" / "interpreter.py").write_text("class Interpreter: pass")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(np, "__version__", "1.26.4")  # which that runtime is built for
        assert runner.interpreter_module() == "tflite_runtime.interpreter"
        assert runner.interpreter_class() is sys.modules["tflite_runtime.interpreter"].Interpreter


@pytest.fixture(scope="module")
def both_inputs(tmp_path_factory):
    """`{input dtype: (path, report)}` of one model in int8-full, the model, and its images."""
    model, images = kv.build("vit_digits", weights="pretrained"), pixels((8, 8, 1), 8)
    folder, made = tmp_path_factory.mktemp("files"), {}
    for dtype in ("uint8", "int8"):
        path = folder / f"{dtype}.tflite"
        options = {"input_dtype": dtype, "calibration": images, "tolerance": Tolerance(0, -300)}
        made[dtype] = path, export_tflite(model, path, quantize="int8-full", **options)
    return made, model, images


@pytest.mark.long
def test_pixels_less_128_are_told_from_pixels_everywhere(both_inputs):
    made, model, images = both_inputs
    (one, by_pixels), (other, less_128) = made["uint8"], made["int8"]
    np.testing.assert_array_equal(Runner(one.read_bytes())(images), Runner(other.read_bytes())(images))
    np.testing.assert_allclose(less_128.block_snr_db, by_pixels.block_snr_db, atol=0.01)
    assert min(less_128.block_snr_db) > 5
    reports = [debug(model, path, calibration=images) for path in (one, other)]
    assert reports[0].logits_snr_db == pytest.approx(reports[1].logits_snr_db, abs=0.01)
    for path in (one, other):
        graph = read(path.read_bytes()).subgraphs[0]
        shown = next(computed_tensors(path.read_bytes(), images))(int(graph.inputs[0]))
        np.testing.assert_array_equal(shown[0].astype(int) + (128 if path == other else 0), images[0])


@pytest.fixture(scope="module")
def several_outputs():
    """A file with outputs of rank 0, 2 and 4, and what they are of an image."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3), tf.float32, name="images")])
    def outputs(images):
        return {"mean": tf.reduce_mean(images), "features": images * 2.0, "rows": tf.reduce_sum(images, (2, 3))}

    module = tf.Module()
    module.outputs = outputs
    converter = tf.lite.TFLiteConverter.from_concrete_functions([outputs.get_concrete_function()], module)
    return converter.convert(), {
        "mean": lambda images: images.mean((1, 2, 3)),
        "features": lambda images: images * 2.0,
        "rows": lambda images: images.sum((2, 3)),
    }


def test_a_path_is_a_file(several_outputs, tmp_path):
    (tmp_path / "m.tflite").write_bytes(several_outputs[0])
    images = pixels((4, 4, 3), 3)
    for path in (tmp_path / "m.tflite", str(tmp_path / "m.tflite")):
        np.testing.assert_array_equal(Runner(path)(images), Runner(several_outputs[0])(images))
    with pytest.raises(FileNotFoundError, match="No file: '.*none.tflite'"):
        Runner(tmp_path / "none.tflite")


def test_another_python_names_the_operators_as_this_one_does(several_outputs):
    interpreter = open_interpreter(several_outputs[0])
    found = serve_interpreter.nodes(interpreter)
    assert json.loads(json.dumps(found)) == found  # what goes between the two
    for told, node in zip(found, interpreter._get_ops_details(), strict=True):
        assert (told["index"], told["op_name"]) == (node["index"], node["op_name"])
        assert (told["inputs"], told["outputs"]) == (list(node["inputs"]), list(node["outputs"]))


def test_another_python_says_of_inputs_and_outputs_what_this_one_says():
    schema = hostile_tflite.schema
    ends = [hostile_tflite.tensor("images", (1, 2, 3, 1)), hostile_tflite.tensor("flat", (1, 6))]
    for end, (scale, zero_point) in zip(ends, ((0.5, -3), (0.5, 4))):
        end.type = schema.TensorType.INT8
        end.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    sides = hostile_tflite.tensor("sides", (2,), hostile_tflite.INT, 1)
    reshape = hostile_tflite.operator(0, (0, 2), (1,))
    graph = schema.SubGraphT(tensors=[*ends, sides], inputs=[0], outputs=[1], operators=[reshape])
    content = hostile_tflite.packed(hostile_tflite.model(("RESHAPE",), [graph], [np.array([1, 6], np.int32)]))
    interpreter = open_interpreter(content)
    found = serve_interpreter.described([*interpreter.get_input_details(), *interpreter.get_output_details()])
    assert (
        json.loads(json.dumps(found))
        == found
        == [
            {"index": 0, "name": "images", "shape": [1, 2, 3, 1], "quantization": [0.5, -3], "dtype": "int8"},
            {"index": 1, "name": "flat", "shape": [1, 6], "quantization": [0.5, 4], "dtype": "int8"},
        ]
    )


NEEDY_RUNTIME = """
import numpy as np

class Interpreter:
    def __init__(self, model_content, num_threads):
        self.mebibytes = int(model_content)

    def allocate_tensors(self):
        np.ones(self.mebibytes << 20, np.uint8)

    def get_input_details(self):
        return []

    get_output_details = _get_ops_details = _get_full_signature_list = get_input_details
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what a process has")
@pytest.mark.parametrize(
    "wanted, limit, threads, fits",
    [(32, 64, 1, True), (100, 64, 1, False), (100, 64, 4, True), (200, 64, 4, False), (200, 0, 1, True)],
)
def test_a_file_has_its_memory_and_some_for_each_thread(wanted, limit, threads, fits, tmp_path):
    """In MiB; a thread has 16, and no limit is 0."""
    (tmp_path / "needy.py").write_text(NEEDY_RUNTIME)
    program = Path(serve_interpreter.__file__).read_text()
    command = [sys.executable, "-c", program, tmp_path / "needy.py", str(threads), str(limit << 20), "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        serve_interpreter.send(process.stdin, model=np.frombuffer(str(wanted).encode(), np.uint8))
        answer = serve_interpreter.receive(process.stdout)
        process.stdin.close()
    assert list(answer) == (["told"] if fits else ["error"])
    assert fits or "Unable to allocate" in str(answer["error"])


OTHER_RUNTIME = """
from ai_edge_litert.interpreter import Interpreter as Here

class Interpreter(Here):
    def allocate_tensors(self):
        if len(self.get_output_details()) > 1:
            raise ValueError("a test takes files of one output alone")
        super().allocate_tensors()

    def get_tensor(self, index):
        return -super().get_tensor(index)
"""


def test_a_file_runs_on_the_runtime_of_the_python_that_is_named(several_outputs, tmp_path):
    (tmp_path / "tflite_runtime").mkdir()
    (tmp_path / "tflite_runtime" / "__init__.py").write_text("__version__ = '2.14.7'")
    (tmp_path / "tflite_runtime" / "interpreter.py").write_text(OTHER_RUNTIME)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert check_runtime_python(python) == "2.14.7"
    content, images = hostile_tflite.packed(hostile_tflite.classifier()), pixels((2, 2, 1), 3)
    np.testing.assert_allclose(foreign_runner(content, python)(images), -Runner(content)(images))
    assert foreign_load_error(content, python) == ""
    said = "tflite-runtime cannot run this file: a test takes files of one output alone"
    assert foreign_load_error(several_outputs[0], python) == said
    with pytest.raises(InvalidModelFile, match="damaged"):
        foreign_runner(content[:-9] + bytes(9), python)


def test_outputs_of_any_rank_by_name(several_outputs):
    content, expected = several_outputs
    images = pixels((4, 4, 3), 3).astype(np.float32)
    outputs = Runner(content).outputs(images)
    assert outputs.keys() == expected.keys()
    for name, function in expected.items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], function(images), rtol=1e-5)


def test_outputs_of_a_file_without_a_signature_have_the_names_of_their_tensors(several_outputs):
    content, expected = several_outputs
    images = pixels((4, 4, 3), 2).astype(np.float32)
    model = read(content)
    names = [model.subgraphs[0].tensors[index].name.decode() for index in model.subgraphs[0].outputs]
    model.signatureDefs = []
    outputs = Runner(write(model)).outputs(images)
    assert list(outputs) == names
    assert sorted(values.shape for values in outputs.values()) == sorted(
        function(images).shape for function in expected.values()
    )


def test_a_signature_of_other_tensors_is_refused(several_outputs):
    model = read(several_outputs[0])
    model.signatureDefs[0].outputs[0].tensorIndex = int(model.subgraphs[0].inputs[0])
    with pytest.raises(InvalidModelFile, match="names tensors that are no outputs"):
        Runner(write(model))


@pytest.mark.parametrize("dtype, mode", [("int8", "int8-full"), ("int16", "int16x8")])
def test_quantized_outputs_are_dequantized_by_their_own_scale(dtype, mode, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model, images = kv.build("vit_digits", weights="pretrained"), pixels((8, 8, 1), 8)
    options = {"output_dtype": dtype, "calibration": images, "tolerance": Tolerance(0, -300)}
    export_tflite(model, tmp_path / "m.tflite", quantize=mode, **options)
    content = (tmp_path / "m.tflite").read_bytes()
    outputs = Runner(content).outputs(images)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    leaving = interpreter.get_output_details()[0]
    scale, zero_point = leaving["quantization"]
    assert leaving["dtype"] == np.dtype(dtype)
    expected = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        expected.append((interpreter.get_tensor(leaving["index"])[0].astype(float) - zero_point) * scale)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
    np.testing.assert_array_equal(Runner(content)(images), outputs["logits"])
