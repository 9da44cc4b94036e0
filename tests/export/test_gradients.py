"""What the gradients of the logits decide: ranges, and how much each row counts in rounding weights."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.quantization.steps import sensitivity
from keras_vit_plugin.export.quantization.steps.calibration import observe, rounded
from keras_vit_plugin.export.quantization.steps.sensitivity import (
    FACTORS,
    LogitGradients,
    scaled_ranges,
    sensitive_entering,
)
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite import execute
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.graph_form import GraphForm
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.export.tflite.tensor_names import stream_name
from keras_vit_plugin.image_model.answers import LOGITS, Answer
from keras_vit_plugin.images.preprocessing import pixel_normalization


@pytest.mark.parametrize("weights", ["softmax", "integer_unit"])
@pytest.mark.sampled(3)
def test_the_chosen_range_moves_the_oracles_logits_least(tiny_model, weights):
    images = pixels(tiny_model.image_shape, 16)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    content = add_missing_biases(lower(spec, form=GraphForm(attention=weights)))
    graph = Graph(content)
    tensor = next(index for index in graph.producer if graph.name(index).split(";")[0] == stream_name(0))
    stream = spec.streams(images)[0]
    # Four times too wide, so that a narrower one must be found; each factor's true cost, by the oracle's other blocks.
    wide = (4 * float(stream.min()), 4 * float(stream.max()))

    def cost(factor):
        x = rounded(stream, wide[0] * factor, wide[1] * factor)
        for block in spec.blocks[1:]:
            x = block(x)
        return np.mean(LOGITS.error(spec.forward(images), spec.classify(x)) ** 2)

    chosen = scaled_ranges(content, {tensor: wide}, images)[tensor]
    factor = chosen[1] / wide[1]
    assert chosen[0] == pytest.approx(wide[0] * factor) and factor in FACTORS
    assert cost(factor) <= 1.3 * min(cost(other) for other in FACTORS) < cost(1.0)


@pytest.mark.sampled(1)
def test_a_graph_without_derivatives_keeps_its_ranges(tiny_model, monkeypatch):
    images = pixels(tiny_model.image_shape, 2)
    content = add_missing_biases(lower(from_keras(tiny_model, *pixel_normalization(tiny_model, 3))))
    ranges = {tensor: seen.full() for tensor, seen in observe(Graph(content), images).observations.items()}
    assert scaled_ranges(content, ranges, images) != ranges
    known = execute.operations()
    monkeypatch.setattr(execute, "operations", lambda: {"ADD": known["ADD"]})
    assert scaled_ranges(content, ranges, images) == ranges


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.sampled(3)
def test_rows_count_as_much_as_they_move_the_oracles_logits(tiny_model, batch_size):
    images = pixels(tiny_model.image_shape, 6)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    content = add_missing_biases(lower(spec, batch_size=batch_size))
    graph = Graph(content)
    entering, all_rows = sensitive_entering(content, images), observe(Graph(content), images).entering
    assert set(entering) == set(all_rows)
    # The head reads one row per image, and its answers are the logits: each counts the same.
    head = int(graph.of_kind("FULLY_CONNECTED")[-1].inputs[1])
    np.testing.assert_allclose(
        entering[head].products / np.trace(entering[head].products),
        all_rows[head].products / np.trace(all_rows[head].products),
        atol=1e-3,
    )


@pytest.mark.sampled(2)
def test_a_row_counts_by_the_oracles_derivatives(tiny_model):
    image = pixels(tiny_model.image_shape, 1)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), image)
    content = add_missing_biases(lower(spec))
    graph = Graph(content)
    first, *others = spec.blocks
    attention, mlp = first.residuals
    kernel = mlp.body.output.kernel.T.astype(np.float32)
    written = next(
        int(dense.inputs[1])
        for dense in graph.of_kind("FULLY_CONNECTED")
        if np.array_equal(graph.constant(int(dense.inputs[1])), kernel)
    )

    def logits(x):
        for block in others:
            x = block(x)
        return spec.classify(x)

    entered = []

    def recorded(x):
        entered.append(x[0])
        return mlp.body.output(x)

    (stream,) = replace(first, residuals=(attention, replace(mlp, body=replace(mlp.body, output=recorded))))(
        spec.embed(image)
    )
    signs = np.random.default_rng(0).normal(size=(1, tiny_model.num_classes))
    signs -= signs.mean()  # an offset of all logits changes no answer
    signs *= np.sqrt(signs.size - 1) / np.linalg.norm(signs)
    power = np.square(spec.forward(image) - spec.forward(image).mean()).mean()
    signs /= np.sqrt(power * tiny_model.num_classes)
    steps = 1e-4 * np.eye(stream.size).reshape(-1, *stream.shape)
    slopes = ((logits(stream + steps) - logits(stream - steps)) @ signs[0] / 2e-4).reshape(stream.shape)
    weights = np.sqrt(np.square(slopes).mean(1))
    (rows,) = entered
    entering = sensitive_entering(content, image)[written]
    expected = rows.T @ (weights[:, None] * rows)
    np.testing.assert_allclose(entering.products, expected, atol=1e-3 * np.abs(expected).max())
    assert entering.rows == pytest.approx(weights.sum() ** 2 / np.square(weights).sum(), rel=1e-3)


@pytest.mark.sampled(1)
def test_every_row_counts_once_without_derivatives(tiny_model, monkeypatch):
    images = pixels(tiny_model.image_shape, 2)
    content = add_missing_biases(lower(from_keras(tiny_model, *pixel_normalization(tiny_model, 3))))
    known = execute.operations()
    monkeypatch.setattr(execute, "operations", lambda: {"ADD": known["ADD"]})
    entering, all_rows = sensitive_entering(content, images), observe(Graph(content), images).entering
    assert set(entering) == set(all_rows)
    for tensor, seen in all_rows.items():
        np.testing.assert_array_equal(entering[tensor].products, seen.products)


def test_probes_of_classes_have_no_offset_and_one_length_in_every_row():
    graph = SimpleNamespace(subgraph=SimpleNamespace(outputs=[7, 8]), shape={7: (3, 5), 8: (3, 2)}.get)
    answers, scales = (LOGITS, Answer("size", "regression")), (0.5, 1.0)
    directions, signs = sensitivity.random_probes(graph, answers, scales, np.random.default_rng(0))
    np.testing.assert_allclose(directions.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 0.5 * np.sqrt(5 - 1), rtol=1e-5)
    assert len(np.unique(directions)) == directions.size and set(signs.ravel()) == {-1, 1}


def test_a_compiled_graph_does_not_hold_the_weights():
    """TensorFlow takes 2 GB in one, less than the weights of ViT-H."""
    model = kv.build("vit_digits")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 1)), pixels(model.image_shape, 2))
    graph = Graph(add_missing_biases(lower(spec)))
    gradients = LogitGradients(graph)
    shape = graph.shape(graph.image)
    compiled = gradients.compiled.get_concrete_function(
        np.zeros(shape, np.float32), [np.ones(graph.shape(graph.subgraph.outputs[0]), np.float32)]
    )
    held = compiled.graph.as_graph_def().ByteSize()
    assert held < sum(np.prod(weight.shape) * 4 for weight in model.weights) / 2
