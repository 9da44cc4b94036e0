"""Ranges that the logits choose."""

import numpy as np
import pytest
from conftest import pixels

from keras_vit_plugin.export import gradients
from keras_vit_plugin.export.calibrate import observe, rounded
from keras_vit_plugin.export.flatbuffer import add_missing_biases
from keras_vit_plugin.export.gradients import FACTORS, scaled_ranges
from keras_vit_plugin.export.graph import Graph
from keras_vit_plugin.export.lower import lower, stream_name
from keras_vit_plugin.export.preprocessing import pixel_normalization
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec import from_keras


@pytest.mark.parametrize("weights", ["softmax", "integer_unit"])
def test_the_chosen_range_moves_the_oracles_logits_least(tiny_model, weights):
    images = pixels(tiny_model.image_shape, 16)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    content = add_missing_biases(lower(spec, attention_weights=weights))
    graph = Graph(content)
    tensor = next(index for index in graph.producer if graph.name(index).split(";")[0] == stream_name(0))
    stream = spec.streams(images)[0]
    # Four times too wide, so that a narrower one must be found; each factor's true cost, by the oracle's other blocks.
    wide = (4 * float(stream.min()), 4 * float(stream.max()))

    def cost(factor):
        x = rounded(stream, wide[0] * factor, wide[1] * factor)
        for block in spec.blocks[1:]:
            x = block(x)
        return np.mean((spec.classify(x) - spec.forward(images)) ** 2)

    chosen = scaled_ranges(content, {tensor: wide}, images)[tensor]
    factor = chosen[1] / wide[1]
    assert chosen[0] == pytest.approx(wide[0] * factor) and factor in FACTORS
    assert cost(factor) <= 1.3 * min(cost(other) for other in FACTORS) < cost(1.0)


def test_a_graph_without_derivatives_keeps_its_ranges(tiny_model, monkeypatch):
    images = pixels(tiny_model.image_shape, 2)
    content = add_missing_biases(lower(from_keras(tiny_model, *pixel_normalization(tiny_model, 3))))
    ranges = {tensor: seen.full() for tensor, seen in observe(content, images).observations.items()}
    assert scaled_ranges(content, ranges, images) != ranges
    known = gradients._operations
    monkeypatch.setattr(gradients, "_operations", lambda: {"ADD": known()["ADD"]})
    assert scaled_ranges(content, ranges, images) == ranges
