"""The `int8` mode: dense layers and attention matmuls in int8, float where the CPU has no integer kernel.

XNNPACK runs an int8 BATCH_MATMUL only where the right-hand side has zero point 0. Which matmuls are worth it is
measured: each is made int8 alone, and those that cost too much stay in float. A dense layer gets fixed scales where
its output goes into an integer matmul anyway; everywhere else each token is quantized on the fly, which is as fast,
since it needs no conversion of the output, and more accurate.
"""

import re

import numpy as np

from .calibrate import observe, quantizer_ranges
from .graph import Graph
from .interpreter import Runner
from .progress import track

PREFERENCES = ("speed", "accuracy")
# A matmul stays in float where its own int8 error in the logits is above this signal-to-noise ratio in dB.
MATMUL_SNR_DB = {"speed": 30.0, "accuracy": 35.0}
MEASURED_IMAGES = 32
SCORE_READERS = ("SOFTMAX", "REDUCE_MAX", "SUB", "EXP")


def quantize_mixed_int8(content, images, prefer):
    """Quantizes a float file to `int8`.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        prefer: `"speed"`, or `"accuracy"`, which keeps more matmuls and the layer that reads the pixels in float, and
            the dense layers before a matmul off fixed scales.

    Returns:
        The file as bytes.
    """
    graph = Graph(content)
    ranges = quantizer_ranges(graph, _ranges(graph, observe(content, images)))
    images = images[np.linspace(0, len(images) - 1, min(MEASURED_IMAGES, len(images))).astype(int)]
    reference = Runner(content)(images)

    float_dense = graph.of_kind("FULLY_CONNECTED", "CONV_2D")[:1] if prefer == "accuracy" else []

    def noise(matmuls):
        """Mean squared error of the logits over their mean square."""
        logits = Runner(_quantize(content, graph, ranges, float_dense, [], matmuls))(images)
        return np.mean((logits - reference) ** 2) / np.mean(reference**2)

    base = noise([])
    limit = 10 ** (-MATMUL_SNR_DB[prefer] / 10)
    chosen = [
        matmul
        for matmul in track(graph.of_kind("BATCH_MATMUL"), "Measuring attention matmuls")
        if noise([matmul]) - base <= limit
    ]
    static_dense = _dense_before(graph, chosen) if prefer == "speed" else []
    return _quantize(content, graph, ranges, float_dense, static_dense, chosen)


def _dense_before(graph, matmuls):
    """The dense layers whose output reaches one of these matmuls by moves alone."""
    layers = {}
    for matmul in matmuls:
        for tensor in map(int, matmul.inputs[:2]):
            moves = graph.moves_before(tensor)
            source = graph.producer.get(int(moves[-1].inputs[0]) if moves else tensor)
            if source is not None and graph.kind(source) == "FULLY_CONNECTED":
                layers[int(source.outputs[0])] = source
    return list(layers.values())


def _ranges(graph, observations):
    """Per tensor the range to quantize it with.

    The least rounding and clipping error, but nothing clipped of the attention scores, whose largest decide everything,
    nor of a matmul's right-hand side, whose range is also made to have zero point 0.
    """
    ranges = {tensor: observation.least_error() for tensor, observation in observations.items()}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        left, right, output = int(matmul.inputs[0]), int(matmul.inputs[1]), int(matmul.outputs[0])
        unclipped = [right]
        if any(graph.kind(reader) in SCORE_READERS for reader in graph.consumers.get(output, ())):
            unclipped += [left, output]
        ranges |= {tensor: observations[tensor].full() for tensor in unclipped if tensor in observations}
        if right in ranges:
            largest = max(map(abs, ranges[right])) or 1.0
            ranges[right] = (-largest * 128 / 127, largest)
        for tensor in (left, right):
            for move in graph.moves_before(tensor):
                ranges[int(move.inputs[0])] = ranges[tensor]
        for move in graph.moves_after(output):
            ranges[int(move.outputs[0])] = ranges[output]
    return ranges


def _quantize(content, graph, ranges, float_dense, static_dense, static_matmuls):
    """A file with these dense layers in float, these and the matmuls on fixed scales, all others on the fly."""
    from ai_edge_quantizer import quantizer

    from .quantize import dynamic_config, silence, static_config

    moves = []
    for matmul in static_matmuls:
        moves += [move for tensor in matmul.inputs[:2] for move in graph.moves_before(int(tensor))]
        moves += graph.moves_after(int(matmul.outputs[0]))
    with silence():
        engine = quantizer.Quantizer(content)
        for kind in ("FULLY_CONNECTED", "CONV_2D"):
            engine.update_quantization_recipe(".*", kind, dynamic_config())
        for operator in float_dense:
            engine.update_quantization_recipe(
                _scope(graph, operator), graph.kind(operator), algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
            )
        for operator in (*static_dense, *static_matmuls, *moves):
            engine.update_quantization_recipe(_scope(graph, operator), graph.kind(operator), static_config())
        static = bool(static_dense or static_matmuls)
        return bytes((engine.quantize(ranges) if static else engine.quantize()).quantized_model)


def _scope(graph, operator):
    """A pattern for this operator alone: the quantizer matches its output name with a semicolon behind it."""
    return f"^{re.escape(graph.output_name(operator))};?$"
