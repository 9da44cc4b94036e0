"""Recurrent layers, loops and branches: their graphs are several, and give results that nothing reads."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import pixels
from keras import layers
from quantized import quantized

from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.quantization.modes.integer_only import NotIntegerOnly
from keras_vit_plugin.export.quantization.steps.calibration import observe
from keras_vit_plugin.export.quantization.steps.prepare import prepared
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.operators import op_name
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import add_missing_biases, drop_unused_tensors
from keras_vit_plugin.image_model.image_model import ImageModel

SHAPE = (8, 8, 3)
LEAST_DB = {"dynamic": 25, "int8": 25, "int4": 8}
INTEGERS = {"int8-full": 12, "int16x8": 12}


def between(*parts):
    """What converts a model of a convolution, these layers and a dense head."""
    keras.utils.set_random_seed(1)
    return ImageModel(
        keras.Sequential([keras.Input(SHAPE), layers.Conv2D(8, 4, strides=4), *parts, layers.Dense(5)]), 1 / 127.5, -1.0
    )


@functools.cache
def recurrent(cell, unroll):
    return between(layers.Reshape((4, 8)), getattr(layers, cell)(6, unroll=unroll))


class Layer(layers.Layer):
    """A dense layer of its own, from which others make loops and branches."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="bias")

    def dense(self, x):
        return tf.tanh(tf.matmul(x, self.kernel) + self.bias)


class Loop(Layer):
    """The same dense layer once, and three times in a loop."""

    def call(self, x):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.dense(x)), (0, self.dense(x)))[1]


class Branch(Layer):
    """Of the two branches always the first, which the converter cannot know."""

    def call(self, x):
        return tf.cond(tf.reduce_sum(x) > -1e9, lambda: self.dense(x), lambda: self.dense(3 * x))


class Counter(Layer):
    """A state, written and never used."""

    def build(self, shape):
        super().build(shape)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x):
        self.count.assign_add(1.0)
        return self.dense(x)


@functools.cache
def controlled(layer):
    return between(layers.Flatten(), layers.Dense(8), layer())


def lowered(model):
    return add_missing_biases(lower_keras(model))


def snr_db(model, content):
    images = pixels(SHAPE, 16)
    (expected,), (answer,) = model(images), model.answers
    return -10 * np.log10(answer.noise(expected, Runner(content)(images)))


@pytest.mark.parametrize("mode", LEAST_DB)
@pytest.mark.parametrize("cell, unroll", [("GRU", False), ("LSTM", False), ("GRU", True), ("LSTM", True)])
@pytest.mark.sampled(5)
def test_recurrent_layers_are_right(cell, unroll, mode):
    model = recurrent(cell, unroll)
    assert snr_db(model, quantized(lowered(model), mode, pixels(SHAPE, 16))) >= LEAST_DB[mode]


@pytest.mark.parametrize("mode", INTEGERS)
def test_unrolled_layers_are_in_integers(mode):
    model = recurrent("LSTM", True)
    assert snr_db(model, quantized(lowered(model), mode, pixels(SHAPE, 16))) >= INTEGERS[mode]


@pytest.mark.parametrize("unroll, kind", [(False, "WHILE"), (True, "SPLIT")])
def test_results_that_nothing_reads_have_no_range(unroll, kind):
    content = lowered(recurrent("LSTM", unroll))
    graph = Graph(content)
    given = {int(index) for operator in graph.of_kind(kind) for index in operator.outputs}
    unread = {index for index in given if graph.dtype(index) == "FLOAT32" and not graph.is_read(index)}
    observed = observe(Graph(content), pixels(SHAPE, 4)).observations.keys()
    assert unread and not unread & observed
    assert {index for index in graph.producer if graph.dtype(index) == "FLOAT32"} - unread <= observed


@pytest.mark.parametrize("mode", LEAST_DB)
@pytest.mark.parametrize("layer", [Loop, Branch, Counter])
@pytest.mark.sampled(5)
def test_loops_branches_and_states_are_right(layer, mode):
    model = controlled(layer)
    assert snr_db(model, quantized(lowered(model), mode, pixels(SHAPE, 16))) >= LEAST_DB[mode]


@pytest.mark.parametrize("mode", INTEGERS)
@pytest.mark.parametrize("layer, op", [(Loop, "WHILE"), (Branch, "IF"), (Counter, "CALL_ONCE")])
def test_modes_of_integers_refuse_loops_and_branches_by_name(layer, op, mode):
    with pytest.raises(NotIntegerOnly, match=rf"{mode}' promises .* in float: {op} \(1\). Take quantize='int8'"):
        quantized(lowered(controlled(layer)), mode, pixels(SHAPE, 16))


def test_a_kernel_that_a_loop_reads_too_becomes_two():
    content = lowered(controlled(Loop))
    model = read(prepared(content))
    first, second = (
        {graph.tensors[op.inputs[1]].buffer for op in graph.operators if op_name(model, op) == "FULLY_CONNECTED"}
        for graph in (model.subgraphs[0], model.subgraphs[2])
    )
    assert second and not first & second
    images = pixels(SHAPE, 4)
    np.testing.assert_array_equal(Runner(write(model))(images), Runner(content)(images))


def test_several_outputs_behind_a_loop_keep_their_names():
    image = keras.Input(SHAPE)
    x = layers.GRU(6)(layers.Reshape((4, 8))(layers.Conv2D(8, 4, strides=4)(image)))
    model = ImageModel(keras.Model(image, {"a": layers.Dense(5)(x), "b": layers.Dense(3)(x)}), 1 / 127.5, -1.0)
    content = lowered(model)
    images = pixels(SHAPE, 4)
    dropped, whole = (Runner(file).outputs(images) for file in (drop_unused_tensors(content), content))
    assert dropped.keys() == {"a", "b"}
    for name, values in whole.items():
        np.testing.assert_array_equal(dropped[name], values)
