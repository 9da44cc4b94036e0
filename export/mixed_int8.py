"""The `int8` mode: dense layers and attention matmuls in int8, float where the CPU has no integer kernel.

XNNPACK runs an int8 BATCH_MATMUL only where the right-hand side has zero point 0. Which matmuls are worth it is
measured: each is made int8 alone, and those that cost too much stay in float.
"""

import re

import numpy as np

from .calibrate import observe, quantizer_ranges
from .graph import Graph
from .interpreter import Runner
from .progress import track

PREFERENCES = ("speed", "accuracy")
# A matmul stays in float where its int8 error alone, in the logits, is above this signal-to-noise ratio in dB.
MATMUL_SNR_DB = {"speed": 30.0, "accuracy": 35.0}
MEASURED_IMAGES = 16


def quantize_mixed_int8(content, images, prefer):
    """Quantizes a float file to `int8`.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        prefer: `"speed"` quantizes the inputs and outputs of the dense layers with fixed scales, `"accuracy"` each
            token on the fly.

    Returns:
        The file as bytes.
    """
    graph = Graph(content)
    ranges = quantizer_ranges(graph, _ranges(graph, observe(content, images)))
    dense = graph.of_kind("FULLY_CONNECTED", "CONV_2D")
    matmuls = graph.of_kind("BATCH_MATMUL")
    # The first layer sees pixels of the full range, and the last gives the answer: neither bears a fixed scale well.
    static = dense[1:-1] if prefer == "speed" else []
    images = images[np.linspace(0, len(images) - 1, min(MEASURED_IMAGES, len(images))).astype(int)]

    def quantized(static_dense, static_matmuls):
        return _quantize(content, graph, ranges, dense, static_dense, static_matmuls)

    reference = Runner(content)(images)
    base = _noise(quantized([], []), images, reference)
    limit = 10 ** (-MATMUL_SNR_DB[prefer] / 10)
    chosen = [
        matmul
        for matmul in track(matmuls, "Measuring attention matmuls")
        if _noise(quantized([], [matmul]), images, reference) - base <= limit
    ]
    return quantized(static, chosen)


def _noise(content, images, reference):
    """Mean squared error of the logits over their mean square."""
    return np.mean((Runner(content)(images) - reference) ** 2) / np.mean(reference**2)


def _ranges(graph, observations):
    """Per tensor the range to quantize it with: nothing clipped around matmuls, least error elsewhere."""
    ranges = {tensor: observation.least_error() for tensor, observation in observations.items()}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        for tensor in (*matmul.inputs[:2], *matmul.outputs):
            if int(tensor) in observations:
                ranges[int(tensor)] = observations[int(tensor)].full()
        right = int(matmul.inputs[1])
        if right in ranges:
            largest = max(map(abs, ranges[right])) or 1.0
            ranges[right] = (-largest * 128 / 127, largest)  # zero point 0
        for tensor in map(int, matmul.inputs[:2]):
            for move in graph.moves_before(tensor):
                ranges[int(move.inputs[0])] = ranges[tensor]
        for move in graph.moves_after(int(matmul.outputs[0])):
            ranges[int(move.outputs[0])] = ranges[int(matmul.outputs[0])]
    return ranges


def _quantize(content, graph, ranges, dense, static_dense, static_matmuls):
    from ai_edge_quantizer import quantizer

    from .quantize import dynamic_config, silence, static_config

    moves = []
    for matmul in static_matmuls:
        moves += [move for tensor in matmul.inputs[:2] for move in graph.moves_before(int(tensor))]
        moves += graph.moves_after(int(matmul.outputs[0]))
    for layer in static_dense:
        moves += graph.moves_before(int(layer.inputs[0]))
    with silence():
        engine = quantizer.Quantizer(content)
        for kind in ("FULLY_CONNECTED", "CONV_2D"):
            engine.update_quantization_recipe(".*", kind, dynamic_config())
        for operator in (*static_dense, *static_matmuls, *moves):
            # A scope is the operator's output name with a semicolon behind it.
            scope = f"^{re.escape(graph.output_name(operator))};?$"
            engine.update_quantization_recipe(scope, graph.kind(operator), static_config())
        static = bool(static_dense or static_matmuls)
        return bytes((engine.quantize(ranges) if static else engine.quantize()).quantized_model)
