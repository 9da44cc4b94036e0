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
from keras_vit_plugin.export.tflite.flatbuffer import read, seal, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import _redirect, dequantize_pixels, float16_constants
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.preprocessing import pixel_normalization


@pytest.mark.sampled(1)
def test_equal_vectors_are_stored_once_and_nothing_changes(tiny_model, tmp_path):
    from ai_edge_litert.tools import flatbuffer_utils

    images = pixels(tiny_model.image_shape, 20)
    path = tmp_path / "m.tflite"
    export_tflite(tiny_model, path, quantize="int8-full", calibration=images, tolerance=Tolerance(0, 0))
    content = path.read_bytes()
    unshared = seal(flatbuffer_utils.convert_object_to_bytearray(read(content)))
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
