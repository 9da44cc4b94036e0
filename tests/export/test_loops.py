"""Recurrent layers, loops and branches: their graphs are several, and give results that nothing reads."""

import functools

import keras
import numpy as np
import pytest
from conftest import pixels
from keras import layers

from keras_vit_plugin.export.calibrate import observe
from keras_vit_plugin.export.flatbuffer import add_missing_biases
from keras_vit_plugin.export.graph import Graph
from keras_vit_plugin.export.interpreter import Runner
from keras_vit_plugin.export.keras_model import ImageModel
from keras_vit_plugin.export.lower import lower_keras
from keras_vit_plugin.export.quantize import quantize

SHAPE = (8, 8, 3)
LEAST_DB = {"dynamic": 25, "int8": 25, "int4": 8}
INTEGERS = {"int8-full": 12, "int16x8": 12}


def on_tokens(layer):
    """A model with this layer on four tokens, and what converts it."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    tokens = layers.Reshape((4, 8))(layers.Conv2D(8, 4, strides=4)(image))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(layer(tokens))))


@functools.cache
def recurrent(cell, unroll):
    model = on_tokens(getattr(layers, cell)(6, unroll=unroll))
    return ImageModel(model, 1 / 127.5, -1.0)


def lowered(model):
    return add_missing_biases(lower_keras(model))


def snr_db(model, content):
    images = pixels(SHAPE, 16)
    (expected,), (answer,) = model(images), model.answers
    return -10 * np.log10(answer.noise(expected, Runner(content)(images)))


@pytest.mark.parametrize("mode", LEAST_DB)
@pytest.mark.parametrize("cell, unroll", [("GRU", False), ("LSTM", False), ("GRU", True), ("LSTM", True)])
def test_recurrent_layers_are_right(cell, unroll, mode):
    model = recurrent(cell, unroll)
    assert snr_db(model, quantize(lowered(model), mode, pixels(SHAPE, 16))) >= LEAST_DB[mode]


@pytest.mark.parametrize("mode", INTEGERS)
def test_unrolled_layers_are_in_integers(mode):
    model = recurrent("LSTM", True)
    assert snr_db(model, quantize(lowered(model), mode, pixels(SHAPE, 16))) >= INTEGERS[mode]


@pytest.mark.parametrize("unroll, kind", [(False, "WHILE"), (True, "SPLIT")])
def test_results_that_nothing_reads_have_no_range(unroll, kind):
    content = lowered(recurrent("LSTM", unroll))
    graph = Graph(content)
    given = {int(index) for operator in graph.of_kind(kind) for index in operator.outputs}
    unread = {index for index in given if graph.dtype(index) == "FLOAT32" and not graph.is_read(index)}
    observed = observe(content, pixels(SHAPE, 4)).observations.keys()
    assert unread and not unread & observed
    assert {index for index in graph.producer if graph.dtype(index) == "FLOAT32"} - unread <= observed
