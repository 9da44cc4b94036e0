"""GPTQ: rounded weights that keep what a layer computes."""

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.quantization.steps import calibration, round_weights, sensitivity
from keras_vit_plugin.export.quantization.steps.calibration import Entering, observe
from keras_vit_plugin.export.quantization.steps.round_weights import (
    LARGEST,
    gptq,
    rounded_kernel,
    rounded_kernels,
    with_kernels,
)
from keras_vit_plugin.export.quantization.steps.sensitivity import sensitive_entering
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.images.preprocessing import pixel_normalization


@pytest.fixture
def layer():
    """A kernel, its steps, and correlated activations `(rows, inputs)`."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(24, 150))
    activations = generator.normal(size=(2000, 20)) @ generator.normal(size=(20, 150))
    activations += 0.1 * generator.normal(size=activations.shape)
    return kernel, np.abs(kernel).max(1) / LARGEST[8], activations


def test_the_output_changes_less_than_with_nearest_weights(layer):
    kernel, scale, activations = layer

    def error(rounded):
        return np.mean((activations @ (rounded * scale[:, None] - kernel).T) ** 2)

    nearest = np.round(kernel / scale[:, None])
    rounded = gptq(kernel, scale, activations.T @ activations)
    assert rounded.dtype == np.int8
    assert error(rounded) < 0.3 * error(nearest)
    assert np.abs(rounded - nearest).max() < 12  # it stays near: the steps moved are not a new solution


def test_every_channel_keeps_a_largest_weight(layer):
    kernel, scale, activations = layer
    rounded = gptq(kernel, scale, activations.T @ activations)
    assert (np.abs(rounded.astype(int)).max(1) == LARGEST[8]).all()
    peak = np.abs(kernel).argmax(1)
    rows = np.arange(len(kernel))
    np.testing.assert_array_equal(rounded[rows, peak], np.sign(kernel[rows, peak]) * LARGEST[8])


def test_without_correlation_the_nearest_weights_are_best(layer):
    kernel, scale, _ = layer
    rounded = gptq(kernel, scale, np.eye(kernel.shape[1]))
    np.testing.assert_array_equal(rounded, np.round(kernel / scale[:, None]))


def test_the_products_are_those_of_what_enters_each_dense_layer():
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    content = add_missing_biases(lower(spec))
    images = pixels(model.image_shape, 5)
    graph, calibration = Graph(content), observe(Graph(content), images)
    first = calibration.entering[int(graph.of_kind("FULLY_CONNECTED")[0].inputs[1])]
    assert first.rows == len(images) * len(spec.positions)
    # The patch layer reads the pixels themselves.
    assert np.trace(first.products) == pytest.approx((images.astype(np.float64) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize("bits, blocks", [(8, 1), (4, 1), (4, 5)])
def test_of_a_very_wide_layer_the_diagonal_is_enough(layer, bits, blocks):
    kernel, _, activations = layer
    products = np.square(activations).sum(0)
    rounded = rounded_kernel(kernel, Entering(products, len(activations)), bits, blocks)
    parts, found = (each.reshape(len(kernel), blocks, -1) for each in (kernel, rounded))
    step = np.abs(found).max(2, keepdims=True) / LARGEST[bits]
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-4)
    plain_step = np.abs(parts).max(2, keepdims=True) / LARGEST[bits]
    plain = np.round(parts / plain_step) * plain_step
    weighed = products.reshape(blocks, -1)
    assert (np.square(found - parts) * weighed).sum() <= 1.001 * (np.square(plain - parts) * weighed).sum()


def test_a_very_wide_layer_clips_nothing_in_eight_bits(layer):
    kernel, _, activations = layer
    kernel[:, 3] *= 8
    products = np.square(activations).sum(0)
    products[3] = 0  # so that a clipped peak would cost nothing
    rounded = rounded_kernel(kernel, Entering(products, len(activations)))
    step = np.abs(kernel).max(1, keepdims=True) / LARGEST[8]
    np.testing.assert_allclose(rounded, np.round(kernel / step) * step, rtol=1e-5)


@pytest.mark.parametrize("sensitive", [False, True])
def test_products_of_a_very_wide_layer_are_their_diagonal(sensitive, monkeypatch):
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    content = add_missing_biases(lower(spec))
    images = pixels(model.image_shape, 5)
    of = sensitive_entering if sensitive else lambda content, images: observe(Graph(content), images).entering
    whole = of(content, images)
    for module in (calibration, sensitivity):
        monkeypatch.setattr(module, "WIDEST", 0)
    for tensor, entering in of(content, images).items():
        np.testing.assert_allclose(entering.products, np.diag(whole[tensor].products), rtol=1e-4)
        assert entering.rows == pytest.approx(whole[tensor].rows)


def test_a_file_takes_other_kernels_and_nothing_else_changes():
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    content = add_missing_biases(lower(spec))
    graph = Graph(content)
    kernels = rounded_kernels(graph, observe(Graph(content), pixels(model.image_shape, 5)).entering)
    assert len(kernels) == len(graph.of_kind("FULLY_CONNECTED"))
    changed = Graph(with_kernels(content, kernels))
    for tensor in range(len(graph.subgraph.tensors)):
        before, after = (each.model.buffers[each.subgraph.tensors[tensor].buffer].data for each in (graph, changed))
        if tensor in kernels:
            np.testing.assert_array_equal(changed.constant(tensor), kernels[tensor])
            step = np.abs(graph.constant(tensor)).max(1, keepdims=True) / LARGEST[8]
            whole = kernels[tensor] / step
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
        else:
            np.testing.assert_array_equal(before, after)


def test_four_bits_clip_where_that_costs_less(layer):
    kernel, _, activations = layer
    kernel = kernel.astype(np.float32)
    kernel[:, 3] *= 8  # an outlier in every channel
    rounded = rounded_kernel(kernel, Entering(activations.T @ activations, len(activations)), bits=4)
    steps = np.abs(rounded).max(1, keepdims=True) / LARGEST[4]
    np.testing.assert_allclose(rounded / steps, np.round(rounded / steps), atol=1e-4)
    assert (steps[:, 0] < np.abs(kernel).max(1) / LARGEST[4]).any()

    def error(candidate):
        return np.mean((activations @ (candidate - kernel).T) ** 2)

    widest = np.abs(kernel).max(1, keepdims=True) / LARGEST[4]
    assert error(rounded) < 0.3 * error(np.round(kernel / widest) * widest)


@pytest.mark.parametrize("blocks", [1, 3])
def test_each_step_of_rounding_to_four_bits_lessens_the_error(layer, blocks, monkeypatch):
    kernel, _, activations = layer
    entering = Entering(activations.T @ activations, len(activations))

    def error():
        rounded = rounded_kernel(kernel, entering, 4, blocks)
        parts = rounded.reshape(len(kernel), blocks, -1)
        steps = np.abs(parts).max(2, keepdims=True) / LARGEST[4]
        np.testing.assert_allclose(parts / steps, np.round(parts / steps), atol=1e-4)
        return np.mean((activations @ (rounded - kernel).T) ** 2)

    best = error()
    monkeypatch.setattr(round_weights, "DESCENTS", 0)
    once = error()
    monkeypatch.setattr(round_weights, "CLIP_FACTORS", np.ones(1))
    assert best < 0.99 * once < 0.99 * error()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_layer_that_nothing_enters_keeps_weights_near(layer, bits):
    kernel, *_ = layer
    rounded = rounded_kernel(kernel, Entering(np.zeros((150, 150)), 1), bits)
    step = np.abs(kernel).max(1, keepdims=True) / LARGEST[bits]
    nearest = np.round(kernel / step) * step
    assert np.square(rounded - kernel).sum() <= 1.0001 * np.square(nearest - kernel).sum()
