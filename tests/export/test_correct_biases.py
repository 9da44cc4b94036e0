"""Biases that take back the mean error of int8 inputs."""

import numpy as np
import pytest

import keras_vit_plugin as kv
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.quantization.modes.int8 import _quantize
from keras_vit_plugin.export.quantization.quantizer import Quantizer
from keras_vit_plugin.export.quantization.steps.calibration import observe, quantizer_ranges
from keras_vit_plugin.export.quantization.steps.correct_biases import corrected_biases
from keras_vit_plugin.export.quantization.steps.levels import FIXED, ON_THE_FLY
from keras_vit_plugin.export.quantization.steps.round_weights import with_kernels
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.presets.digits import load_digits_split


@pytest.mark.parametrize("hidden_level", [FIXED, ON_THE_FLY])
def test_the_files_logits_lose_their_mean_error(hidden_level):
    model = kv.build("vit_digits", weights="pretrained")
    images = load_digits_split()[0][0][:64]
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 1)))
    content = add_missing_biases(lower(spec))
    graph = Graph(content)
    output = next(
        op for op in graph.of_kind("FULLY_CONNECTED") if graph.kind(graph.source(int(op.inputs[0]))) == "GELU"
    )
    hidden = graph.source(int(graph.source(int(output.inputs[0])).inputs[0]))
    # Four times too wide for GELU's small values: its grid rounds them all one way.
    ranges = {tensor: seen.full() for tensor, seen in observe(Graph(content), images).observations.items()}
    ranges[int(output.inputs[0])] = tuple(4 * end for end in ranges[int(output.inputs[0])])
    plan = {FIXED: [output], ON_THE_FLY: []}
    plan[hidden_level].append(hidden)
    biases = corrected_biases(graph, content, plan[FIXED], ranges, images)
    assert set(biases) == {int(dense.inputs[2]) for dense in plan[FIXED]}
    expected = spec.forward(images)

    def mean_error(file):
        quantized = _quantize(Quantizer(file), graph, quantizer_ranges(graph, ranges), plan)
        return np.abs((Runner(quantized)(images) - expected).mean(0)).max()

    assert mean_error(with_kernels(content, biases)) < 0.5 * mean_error(content)
