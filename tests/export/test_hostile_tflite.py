"""Files that anyone could send: refused with a sentence, or run in a process that ends alone."""

import resource
import sys
from pathlib import Path

import flatbuffers
import hostile_tflite
import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from keras_vit_plugin.cli.classify import classify_files
from keras_vit_plugin.export import InvalidModelFile, Runner, inspect
from keras_vit_plugin.export.tflite import bounded_reader, foreign_runner
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.foreign_runner import _last_line, check_runs, guarded_runner
from keras_vit_plugin.export.tflite.operators import op_versions
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

IMAGES = np.zeros((1, 2, 2, 1), np.uint8)


def changed(change):
    """The bytes of the small classifier after `change(tree, its graph)`."""
    tree = hostile_tflite.classifier()
    change(tree, tree.subgraphs[0])
    return hostile_tflite.packed(tree)


def setting(what, name, value):
    """A change of one attribute: `what` finds the object in `(tree, graph)`."""
    return lambda tree, graph: setattr(what(tree, graph), name, value)


def tensor_of(number):
    return lambda tree, graph: graph.tensors[number]


def first_operator(tree, graph):
    return graph.operators[0]


def quantized(**values):
    made = {"scale": [0.5], "zeroPoint": [0], **values}
    return setting(tensor_of(2), "quantization", hostile_tflite.schema.QuantizationParametersT(**made))


def a_signature(key=b"s", name=b"x", tensor=3, graph=0):
    entry = hostile_tflite.schema.TensorMapT(name=name, tensorIndex=tensor)
    made = hostile_tflite.schema.SignatureDefT(inputs=[], outputs=[entry], signatureKey=key, subgraphIndex=graph)
    return lambda tree, graph: setattr(tree, "signatureDefs", [made])


WRONG = {
    "the name of an entry of metadata is no text in UTF-8": lambda tree, graph: setattr(
        tree, "metadata", [hostile_tflite.schema.MetadataT(name=b"\xff\xfe", buffer=0)]
    ),
    "it has no buffers": lambda tree, graph: tree.buffers.clear(),
    "it has no subgraphs": lambda tree, graph: tree.subgraphs.clear(),
    "a graph has no operators": lambda tree, graph: setattr(graph, "operators", None),
    "its weights are in other files": setting(
        lambda tree, graph: tree, "externalBuffers", [hostile_tflite.schema.ExternalBufferT()]
    ),
    "operator code 0 is 9999": lambda tree, graph: setattr(tree.operatorCodes[0], "builtinCode", 9999),
    "operator code 1 is CUSTOM without a name": lambda tree, graph: setattr(tree.operatorCodes[1], "builtinCode", 32),
    "operator 0 has operator code 2 of 2": setting(first_operator, "opcodeIndex", 2),
    "the inputs of operator 0 has tensor 4 of 4": setting(first_operator, "inputs", [0, 4]),
    "the inputs of operator 0 has tensor -2 of 4": setting(first_operator, "inputs", [0, -2]),
    "the outputs of operator 0 has tensor 9 of 4": setting(first_operator, "outputs", [9]),
    "operator 0 reads tensor 3, which nothing has computed": setting(first_operator, "inputs", [3, 1]),
    "operator 0 writes tensor 1, which has values already": setting(first_operator, "outputs", [1]),
    "the options of operator 0 end behind the file": lambda tree, graph: (
        setattr(graph.operators[0], "largeCustomOptionsOffset", 100),
        setattr(graph.operators[0], "largeCustomOptionsSize", 10**6),
    ),
    "the graph's outputs has tensor 7 of 4": lambda tree, graph: setattr(graph, "outputs", [7]),
    "tensor 1 has buffer 2 of 2": setting(tensor_of(1), "buffer", 2),
    "tensor 2 has type 99": setting(tensor_of(2), "type", 99),
    r"tensor 2 has the shape \[1, -4\]": setting(tensor_of(2), "shape", [1, -4]),
    r"tensor 2 of the shape \[1000000, 1000000\] takes 4000000000000 bytes": setting(
        tensor_of(2), "shape", [10**6] * 2
    ),
    r"tensor 1 of the shape \[3\] takes 12 bytes, its buffer holds 8": setting(tensor_of(1), "shape", [3]),
    "the name of tensor 2 is no text": setting(tensor_of(2), "name", b"\xff\xfe"),
    "a scale of tensor 2 is no positive number": quantized(scale=[float("nan")]),
    "a zero point of tensor 2": quantized(zeroPoint=[1 << 40]),
    "tensor 2 has 1 scales and 3 zero points": quantized(zeroPoint=[0, 0, 0]),
    r"tensor 2 of the shape \[1, 4\] has 3 scales on axis 1": quantized(
        scale=[0.5] * 3, zeroPoint=[0] * 3, quantizedDimension=1
    ),
    "a signature has graph 5 of 1": a_signature(graph=5),
    "a signature has tensor 50 of 4": a_signature(tensor=50),
    "the name of a signature is no text": a_signature(key=b"\xff"),
    "buffer 1 ends behind the file": lambda tree, graph: tree.buffers.__setitem__(
        1, hostile_tflite.schema.BufferT(offset=8, size=1 << 40)
    ),
    "more bytes than the file": lambda tree, graph: tree.buffers.extend(
        [hostile_tflite.schema.BufferT(offset=8, size=400)] * 9
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_tables_refer_to_is_there(said):
    content = changed(WRONG[said])
    for take in (read, Runner, inspect, check_runs):
        with pytest.raises(InvalidModelFile, match=f"a damaged TFLite model: .*{said}"):
            take(content)


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_from_two_on_an_offset_is_a_place_in_the_file(offset):
    """0 and 1 are offsets of values in the table itself, whose size is not told."""

    def refusal(*sizes):
        own = np.array([1, 4], np.int32).view(np.uint8) if offset < 2 else None
        buffers = [hostile_tflite.schema.BufferT(data=own, offset=offset, size=size) for size in sizes]
        content = changed(lambda tree, graph: tree.buffers.__setitem__(slice(1, None), buffers))
        try:
            read(content)
        except InvalidModelFile as error:
            return str(error)
        return ""

    assert refusal(8) == ""
    if offset < 2:
        assert refusal(4) == refusal(1 << 40) == refusal(8, *[400] * 9) == ""
        return
    assert refusal(4).endswith("tensor 1 of the shape [2] takes 8 bytes, its buffer holds 4")
    assert refusal(1 << 40).endswith("buffer 1 ends behind the file")
    assert refusal(8, *[400] * 9).endswith("its buffers hold more bytes than the file")


def test_the_file_that_the_others_come_from_is_whole():
    content = changed(lambda tree, graph: None)
    np.testing.assert_allclose(guarded_runner(content)(IMAGES), Runner(content)(IMAGES))
    assert inspect(content).load_error is None and inspect(content).ops == {"RESHAPE": 1, "SOFTMAX": 1}


def test_every_changed_byte_is_survived():
    """Each byte of the tables in turn, at its extremes: refused, or run in a process of its own."""
    content = changed(lambda tree, graph: None)
    refused = 0
    for place in range(len(content)):
        for value in (0, 0x7F, 0xFF):
            bad = content[:place] + bytes([value]) + content[place + 1 :]
            try:
                read(bad)
            except InvalidModelFile as error:
                refused += 1
                assert len(str(error)) < 300
    assert refused > len(content)


def many_times_one_tensor(count):
    """Bytes of a file whose graph has one tensor `count` times."""
    builder = flatbuffers.Builder(1 << 20)
    schema = hostile_tflite.schema
    shape = builder.CreateNumpyVector(np.zeros(1000, np.int32))
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_small_file_does_not_become_a_large_tree(monkeypatch):
    with pytest.raises(InvalidModelFile, match="share vectors that take more memory than the file"):
        read(many_times_one_tensor(10_000))
    monkeypatch.setattr(bounded_reader, "MOST_TABLES", 1000)
    with pytest.raises(InvalidModelFile, match="more than 1000 tables"):
        read(many_times_one_tensor(2000))


def test_a_vector_as_long_as_numbers_go_is_refused():
    content = changed(lambda tree, graph: None)
    place = content.index(b"made by a test") - 4
    with pytest.raises(InvalidModelFile, match="a text at .* ends behind the file"):
        read(content[:place] + b"\xff\xff\xff\x7f" + content[place + 4 :])
    end = place + 4 + len(b"made by a test")
    with pytest.raises(InvalidModelFile, match="the text at .* has no end"):
        read(content[:end] + b"!" + content[end + 1 :])


def test_operator_codes_of_files_from_before_2020():
    def old(tree, graph):
        for code in tree.operatorCodes:
            code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0

    content = changed(old)
    assert inspect(content).ops == {"RESHAPE": 1, "SOFTMAX": 1} and op_versions(read(content)).keys() == {
        "RESHAPE",
        "SOFTMAX",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="a process there has no signals to end by")
class TestAnInterpreterThatEnds:
    """Each of these files is whole: only running it tells."""

    def test_by_a_crash(self, tmp_path):
        path = tmp_path / "m.tflite"
        path.write_bytes(hostile_tflite.looping(body_calls_itself=True))
        with pytest.raises(InvalidModelFile, match=r"was ended by signal 11 .* on this file"):
            guarded_runner(path.read_bytes())
        assert "signal 11" in inspect(path).load_error
        Image.new("L", (2, 2)).save(tmp_path / "p.png")
        with pytest.raises(InvalidModelFile, match=r"m\.tflite: ai-edge-litert was ended by signal 11"):
            list(classify_files(path, [tmp_path / "p.png"], pixels="0..255"))

    def test_never(self, monkeypatch):
        monkeypatch.setattr(foreign_runner, "SPARE_SECONDS", 3)
        runner = guarded_runner(hostile_tflite.looping())
        with pytest.raises(InvalidModelFile, match="^ai-edge-litert took more than 3 seconds on this file$"):
            runner(IMAGES)

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what a process has")
    def test_by_want_of_memory(self):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        with pytest.raises(InvalidModelFile, match="says no reason why it fails; it may take 1024 MiB of memory"):
            guarded_runner(hostile_tflite.filling(50_000, 20_000)).outputs(IMAGES)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert after <= max(before, 1 << 20)  # KiB; a fork counts with the memory of its parent
        assert guarded_runner(hostile_tflite.filling(2, 3)).outputs(IMAGES)["filled"].shape == (1, 2, 3)


def test_the_process_ends_with_its_runner():
    code = """
import hostile_tflite, os, sys
from keras_vit_plugin.export.tflite.foreign_runner import guarded_runner
runner = guarded_runner(hostile_tflite.packed(hostile_tflite.classifier()))
number = runner.interpreter._process.pid
del runner
try:
    os.kill(number, 0)
except ProcessLookupError:
    print("gone")
"""
    assert run_python(code, PYTHONPATH=str(Path(hostile_tflite.__file__).parent)).strip() == "gone"


def test_an_output_of_another_shape_than_it_says_is_refused(monkeypatch):
    runner = Runner(hostile_tflite.packed(hostile_tflite.classifier()))
    runner.output["shape"] = np.array([1, 3])
    with pytest.raises(InvalidModelFile, match=r"'probabilities' is \[1, 4\], not \[1, 3\] as it says"):
        runner(IMAGES)


def test_a_file_of_texts_is_no_image_model():
    content = changed(setting(tensor_of(3), "type", hostile_tflite.schema.TensorType.STRING))
    with pytest.raises(InvalidModelFile):
        guarded_runner(content)


def test_not_a_number_is_said(tmp_path):
    content = changed(lambda tree, graph: setattr(graph.operators[1].builtinOptions, "beta", float("nan")))
    (tmp_path / "m.tflite").write_bytes(content)
    Image.new("L", (2, 2), 9).save(tmp_path / "p.png")
    (said,) = classify_files(tmp_path / "m.tflite", [tmp_path / "p.png"], pixels="0..255")
    assert said["error"].startswith(f"{tmp_path / 'p.png'}: {tmp_path / 'm.tflite'} answers with NaN or infinity")


@pytest.mark.parametrize("wrong", [0, -5, 257, 1.5, "2"])
def test_threads_are_a_positive_integer(wrong):
    content = hostile_tflite.packed(hostile_tflite.classifier())
    for take in (Runner, guarded_runner):
        with pytest.raises(ValueError, match=f"`num_threads` must be 1 to 256 or None, got .*={wrong!r}"):
            take(content, wrong)


@pytest.mark.parametrize(
    "text, said",
    [
        (b"", "has 0 bytes"),
        (b"[" * 100_000, "no JSON"),
        (b'{"keras_vit_plugin":' + b'{"a":' * 100_000, "no JSON"),
        (b"[1]", "no JSON object, but list"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1e999}', "1e999 is no number"),
        (b'{"a": "\\ud800"}', "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b" " * (1 << 23), "has 8388608 bytes"),
    ],
)
def test_metadata_that_are_no_json(text, said):
    def store(tree, graph):
        data = np.frombuffer(text, np.uint8) if text else None
        tree.buffers.append(hostile_tflite.schema.BufferT(data=data))
        tree.metadata = [hostile_tflite.schema.MetadataT(name=b"keras_vit_plugin", buffer=len(tree.buffers) - 1)]

    content = changed(store)
    if b'{"keras_vit_plugin":' in content:
        said = "not what was exported"
    with pytest.raises(InvalidModelFile, match=said):
        inspect(content)


def test_metadata_of_three_megabytes_are_written_and_read():
    stored = {"keras_vit_plugin": "1", "labels": ["a" * (3 << 20)]}
    content = set_metadata(hostile_tflite.packed(hostile_tflite.classifier()), stored)
    assert get_metadata(read(content))["labels"] == stored["labels"]


def test_metadata_too_long_to_be_read_are_not_written():
    with pytest.raises(ValueError, match="`labels` and what else a file says of itself take"):
        set_metadata(
            hostile_tflite.packed(hostile_tflite.classifier()), {"keras_vit_plugin": "1", "labels": ["a" * (1 << 22)]}
        )


def test_a_file_is_known_by_its_hash(tmp_path):
    content = hostile_tflite.packed(hostile_tflite.classifier())
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    found = inspect(path).sha256
    for right in (found, found.upper(), f" {found}\n"):  # as `sha256sum` has it
        assert inspect(path, right).sha256 == found
    other = found[:-1] + ("0" if found[-1] != "0" else "1")
    with pytest.raises(InvalidModelFile, match=rf"m\.tflite: its SHA-256 is {found}, not {other}"):
        inspect(path, other)
    for wrong in ("", "abc", found + "0", found[:-1] + "g"):
        with pytest.raises(ValueError, match="`sha256` .--check. must be 64 hexadecimal digits, got"):
            inspect(path, wrong)


@pytest.mark.parametrize("text, line", [("one\ntwo.\n", "two"), ("", "it says nothing"), (" \n", "it says nothing")])
def test_of_what_a_process_printed_the_last_line_is_quoted(text, line):
    assert _last_line(text) == line
