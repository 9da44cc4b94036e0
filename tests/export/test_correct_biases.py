"""Biases that take back the mean error of int8 inputs."""

import numpy as np
import pytest
from conftest import pixels

from keras_vit_plugin.export.calibrate import observe, rounded
from keras_vit_plugin.export.correct_biases import corrected_biases
from keras_vit_plugin.export.flatbuffer import add_missing_biases
from keras_vit_plugin.export.graph import Graph
from keras_vit_plugin.export.interpreter import computed_tensors
from keras_vit_plugin.export.lower import lower
from keras_vit_plugin.export.preprocessing import pixel_normalization
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec import from_keras, gelu


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_layers_outputs_have_the_mean_they_had(tiny_model, batch_size):
    images = pixels(tiny_model.image_shape, 8)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    content = add_missing_biases(lower(spec, batch_size))
    graph = Graph(content)
    layers = graph.of_kind("FULLY_CONNECTED")
    # Coarse ranges that clip: the errors are large and have a mean.
    ranges = {
        tensor: (0.3 * low, 8 * high)
        for tensor, (low, high) in ((t, seen.full()) for t, seen in observe(content, images).observations.items())
    }
    biases = corrected_biases(graph, content, layers, ranges, images)
    assert set(biases) == {int(dense.inputs[2]) for dense in layers}
    for dense in layers:
        index, kernel, bias = map(int, dense.inputs)
        source = graph.source(index)
        before, after = [], []
        for tensor in computed_tensors(content, images):
            values = tensor(index)
            entering = values
            if source is not None and graph.kind(source) == "GELU":
                hidden = int(source.inputs[0])
                entering = gelu(rounded(tensor(hidden), *ranges[hidden])).reshape(values.shape)
            error = (rounded(entering, *ranges[index]) - values).reshape(-1, values.shape[-1])
            before.append(error @ graph.constant(kernel).T)
            after.append(before[-1] + biases[bias] - graph.constant(bias))
        before, after = np.concatenate(before).mean(0), np.concatenate(after).mean(0)
        assert np.abs(after).max() <= 1e-3 * np.abs(before).max() + 1e-6
