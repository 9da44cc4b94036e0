"""Changes to a file after its conversion: fewer bytes, the same answers."""

import copy

import hostile_tflite
import numpy as np
import pytest
from conftest import pixels

from keras_vit_plugin.export import Tolerance, export_tflite
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite.flatbuffer import read, with_checksum, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.operators import op_versions
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import _redirect, dequantize_pixels, float16_constants, in_integer
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.preprocessing import pixel_normalization


@pytest.mark.sampled(1)
def test_equal_vectors_are_stored_once_and_nothing_changes(tiny_model, tmp_path):
    from ai_edge_litert.tools import flatbuffer_utils

    images = pixels(tiny_model.image_shape, 20)
    path = tmp_path / "m.tflite"
    export_tflite(tiny_model, path, quantize="int8-full", calibration=images, tolerance=Tolerance(0, 0))
    content = path.read_bytes()
    unshared = with_checksum(flatbuffer_utils.convert_object_to_bytearray(read(content)))
    assert len(write(read(unshared))) <= 0.95 * len(unshared)
    np.testing.assert_array_equal(Runner(content)(images), Runner(unshared)(images))
    before, after = Graph(unshared), Graph(write(read(unshared)))
    for one, other in zip(before.subgraph.tensors, after.subgraph.tensors, strict=True):
        assert one.name == other.name and list(one.shape) == list(other.shape)
        if one.quantization is not None and one.quantization.scale is not None:
            np.testing.assert_array_equal(one.quantization.scale, other.quantization.scale)
            np.testing.assert_array_equal(one.quantization.zeroPoint, other.quantization.zeroPoint)


def test_the_source_of_a_tensor_is_behind_all_that_moves_its_values():
    tree = hostile_tflite.classifier()
    graph = tree.subgraphs[0]
    graph.tensors += [hostile_tflite.tensor(name, (1, 4)) for name in ("moved", "moved twice")]
    graph.operators += [hostile_tflite.operator(0, (number, 1), (number + 1,)) for number in (3, 4)]
    graph.outputs = [5]
    graph = Graph(write(tree))
    assert [graph.kind(graph.source(tensor)) for tensor in (3, 4, 5)] == ["SOFTMAX"] * 3
    assert graph.source(2) is graph.source(0) is None  # it is the image, moved or not


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.sampled(3)
def test_positions_in_float16(tiny_model, batch_size):
    images = pixels(tiny_model.image_shape, 4)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)))
    content = lower(spec, batch_size)
    halved = float16_constants(content, size=spec.positions.size)
    stored = [tensor for tensor in Graph(halved).subgraph.tensors if tensor.name.endswith(b"/float16")]
    assert len(stored) == 1
    assert 50 < snr_db(Runner(content)(images), Runner(halved)(images)) < 120
    assert float16_constants(content, size=10**9) == write(read(content))


@pytest.mark.sampled(2)
def test_a_tensor_is_redirected_in_the_first_subgraph_alone(tiny_model):
    """A body of a loop has tensors of its own, of the same numbers."""
    spec = from_keras(tiny_model, 1 / 255, 0.0)
    model = read(lower(spec))
    first, body = model.subgraphs[0], copy.deepcopy(model.subgraphs[0])
    model.subgraphs.append(body)
    old = int(first.operators[0].outputs[0])
    before = [list(map(int, operator.inputs)) for operator in body.operators]
    _redirect(model, old, int(first.inputs[0]))
    assert [list(map(int, operator.inputs)) for operator in body.operators] == before
    assert not any(old in map(int, operator.inputs) for operator in first.operators)


def test_pixels_are_dequantized_once(tiny_model):
    content = lower(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)))
    images = pixels(tiny_model.image_shape, 4)
    changed = dequantize_pixels(content)
    assert [Graph(each).kind(Graph(each).operators[0]) for each in (content, changed)] == ["CAST", "DEQUANTIZE"]
    np.testing.assert_array_equal(Runner(content)(images), Runner(changed)(images))
    assert dequantize_pixels(changed) == changed
    floats = lower(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), input_dtype="float32")
    assert dequantize_pixels(floats) == floats


def between_conversions(kind, entering, leaving):
    """Bytes of a file: an operator on dequantized integers, whose result is quantized.

    Args:
        kind: `"EXP"` or `"REDUCE_MAX"`.
        entering, leaving: type, scale and zero point of what is dequantized and of what is made of the result.
    """
    schema, tensor = hostile_tflite.schema, hostile_tflite.tensor
    codes, images = ("QUANTIZE", "DEQUANTIZE", kind), (1, 4, 4, 1)
    results = (1, 4, 1) if kind == "REDUCE_MAX" else images
    made = [tensor("images", images), tensor("integers", images), tensor("numbers", images)]
    made += [tensor("results", results), tensor("answers", results), tensor("axis", (1,), hostile_tflite.INT, 1)]
    for place, (of_type, scale, zero_point) in ((1, entering), (4, leaving)):
        made[place].type = getattr(schema.TensorType, of_type)
        made[place].quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    options = ("ReducerOptions", {"keepDims": False}) if kind == "REDUCE_MAX" else ("ExpOptions", {})
    computed = hostile_tflite.operator(2, (2, 5) if kind == "REDUCE_MAX" else (2,), (3,), options[0], **options[1])
    ends = [
        hostile_tflite.operator(code, (taken,), (given,)) for code, taken, given in ((0, 0, 1), (1, 1, 2), (0, 3, 4))
    ]
    graph = schema.SubGraphT(tensors=made, inputs=[0], outputs=[4], operators=[*ends[:2], computed, ends[2]])
    return write(hostile_tflite.model(codes, [graph], [np.array([1], np.int32)]))


@pytest.mark.parametrize(
    "kind, leaving, behind",
    [
        ("REDUCE_MAX", ("INT8", 1.0, -128), []),
        ("REDUCE_MAX", ("INT8", 2.0, -128), ["QUANTIZE"]),
        ("REDUCE_MAX", ("INT8", 1.0, -100), ["QUANTIZE"]),
        ("REDUCE_MAX", ("INT16", 1.0, 0), ["QUANTIZE"]),
        ("EXP", ("INT8", 1.0, -128), []),
    ],
)
def test_an_operator_in_integers_gives_what_it_gave_between_conversions(kind, leaving, behind):
    """REDUCE_MAX only compares: what it gives has the scale of what it takes."""
    entering = ("INT8", 0.02, -128) if kind == "EXP" else ("INT8", 1.0, -128)
    content = between_conversions(kind, entering, leaving)
    changed = in_integer(content, (kind,))
    graph = Graph(changed)
    assert list(map(graph.kind, graph.operators)) == ["QUANTIZE", kind, *behind]
    (operator,) = graph.of_kind(kind)
    assert {graph.dtype(int(index)) for index in (operator.inputs[0], operator.outputs[0])} == {"INT8"}
    assert op_versions(graph.model)[kind] == 2
    images = pixels((4, 4, 1), 3) * (0.02 if kind == "EXP" else 1)
    expected, found = (Runner(each)(images) for each in (content, changed))
    exact = kind == "REDUCE_MAX" and not behind
    np.testing.assert_allclose(found, expected, atol=0 if exact else leaving[1])
    assert in_integer(content, ("LOG",)) == write(read(content))  # of a kind that is not asked for


def test_a_result_that_is_an_output_too_stays_in_float():
    tree = read(between_conversions("EXP", ("INT8", 0.02, -128), ("INT8", 1.0, -128)))
    tree.subgraphs[0].outputs = [4, 3]
    content, images = write(tree), pixels((4, 4, 1), 3) * 0.02
    changed = in_integer(content, ("EXP",))
    graph = Graph(changed)
    assert list(map(graph.kind, graph.operators)) == ["QUANTIZE", "EXP", "DEQUANTIZE"]
    for expected, found in zip(Runner(content).in_order(images), Runner(changed).in_order(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1.0)
