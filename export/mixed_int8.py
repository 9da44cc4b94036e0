"""The `int8` mode: dense layers and attention matmuls in int8, float where the CPU has no integer kernel.

XNNPACK runs an int8 BATCH_MATMUL only where the right-hand side has zero point 0, and a dense layer in int8 in two ways:
with fixed scales, or quantizing each token on the fly, which is slower and more accurate. Which of them, or float, is
measured: each op is quantized alone, and one that costs the logits too much steps back.
"""

import numpy as np

from . import recipes
from .calibrate import observe, quantizer_ranges
from .graph import Graph
from .interpreter import Runner
from .progress import track
from .round_weights import RoundedWeights
from .spec import gelu

PREFERENCES = ("speed", "accuracy")
# The signal-to-noise ratio of the logits in dB below which an op steps back when it alone is in int8: a matmul or a dense
# layer from fixed scales, a dense layer from int8 altogether.
FIXED_SNR_DB = {"speed": 30.0, "accuracy": 35.0}
ON_THE_FLY_SNR_DB = {"speed": -np.inf, "accuracy": 40.0}
MEASURED_IMAGES = 16
MANY_ROWS = 16  # a dense layer on fewer gains nothing by fixed scales
READERS = {"GELU": gelu}


def quantize_mixed_int8(content, images, prefer):
    """Quantizes a float file to `int8`.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        prefer: `"speed"`, or `"accuracy"`, which keeps more matmuls in float, the dense layers before a matmul off
            fixed scales, and in float16 the weights of the few dense layers that int8 disturbs most.

    Returns:
        The file as bytes.
    """
    graph = Graph(content)
    calibration = observe(content, images)
    rounded = RoundedWeights(graph, calibration)
    ranges = _ranges(graph, calibration.observations)
    images = images[np.linspace(0, len(images) - 1, min(MEASURED_IMAGES, len(images))).astype(int)]
    reference = Runner(content)(images)

    def snr_db(**plan):
        file = rounded.put_into(_quantize(content, graph, ranges, **plan))
        noise = np.mean((Runner(file)(images) - reference) ** 2)
        return 10 * np.log10(np.mean(reference**2) / max(noise, 1e-30))

    fixed = [op for op in graph.of_kind("BATCH_MATMUL") if _bounds_the_scores(graph, op)]
    candidates = [op for op in graph.of_kind("BATCH_MATMUL") if op not in fixed]
    dense_layers = graph.of_kind("FULLY_CONNECTED", "CONV_2D")
    if prefer == "speed":
        candidates += [op for op in dense_layers if graph.rows(op.outputs[0]) >= MANY_ROWS]
    for operator in track(candidates, "Measuring fixed scales"):
        if snr_db(fixed=[operator]) >= FIXED_SNR_DB[prefer]:
            fixed.append(operator)
    on_the_fly = [op for op in dense_layers if op not in fixed]
    if np.isfinite(ON_THE_FLY_SNR_DB[prefer]):
        on_the_fly = [
            op
            for op in track(on_the_fly, "Measuring dense layers")
            if snr_db(on_the_fly=[op]) >= ON_THE_FLY_SNR_DB[prefer]
        ]
    left = [op for op in dense_layers if op not in fixed and op not in on_the_fly]
    return rounded.put_into(_quantize(content, graph, ranges, fixed=fixed, on_the_fly=on_the_fly, float16=left))


def _bounds_the_scores(graph, matmul):
    """Whether `exp` takes its output as it is: only fixed scales keep it from overflowing on images never seen."""
    return any(graph.kind(reader) == "EXP" for reader in graph.consumers.get(int(matmul.outputs[0]), ()))


def _ranges(graph, observations):
    """Per tensor the range to quantize it with.

    The least rounding and clipping error, measured behind the one function that reads the tensor, but nothing clipped
    of the attention scores, whose largest decide everything, nor of a matmul's right-hand side, whose range is also
    made to have zero point 0.
    """
    ranges = {
        tensor: observation.least_error(READERS.get(_only_reader(graph, tensor)))
        for tensor, observation in observations.items()
    }
    for dense in graph.of_kind("FULLY_CONNECTED"):
        if graph.rows(dense.outputs[0]) >= MANY_ROWS:
            entering = int(dense.inputs[0])
            ranges |= {int(move.inputs[0]): ranges[entering] for move in graph.moves_before(entering)}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        left, right, output = int(matmul.inputs[0]), int(matmul.inputs[1]), int(matmul.outputs[0])
        unclipped = [right]
        if _only_reader(graph, output) in ("SOFTMAX", None):
            unclipped += [left, output]
        ranges |= {tensor: observations[tensor].full() for tensor in unclipped if tensor in observations}
        if right in ranges:
            largest = max(map(abs, ranges[right])) or 1.0
            ranges[right] = (-largest * 128 / 127, largest)
        for tensor in (left, right):
            ranges |= {int(move.inputs[0]): ranges[tensor] for move in graph.moves_before(tensor)}
        ranges |= {int(move.outputs[0]): ranges[output] for move in graph.moves_after(output)}
    return quantizer_ranges(graph, ranges)


def _only_reader(graph, tensor):
    """The kind of the one operator that reads a tensor, or None where there are several or none."""
    readers = graph.consumers.get(tensor, ())
    return graph.kind(readers[0]) if len(readers) == 1 else None


def _quantize(content, graph, ranges, fixed=(), on_the_fly=(), float16=()):
    """A file with these ops on fixed scales, these dense layers on the fly, these with float16 weights, all else float."""
    from ai_edge_quantizer import quantizer

    moves = []
    for operator in fixed:
        entering = operator.inputs[:2] if graph.kind(operator) == "BATCH_MATMUL" else operator.inputs[:1]
        moves += [move for tensor in entering for move in graph.moves_before(int(tensor))]
        if graph.kind(operator) == "BATCH_MATMUL":
            moves += graph.moves_after(int(operator.outputs[0]))
    with recipes.silence():
        engine = quantizer.Quantizer(content)
        for operators, config, algorithm in (
            (on_the_fly, recipes.dynamic(), quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT),
            (float16, recipes.float16_weights(), quantizer.AlgorithmName.FLOAT_CASTING),
            ((*fixed, *moves), recipes.static(), quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT),
        ):
            for operator in operators:
                engine.update_quantization_recipe(
                    recipes.scope(graph, operator), graph.kind(operator), config, algorithm
                )
        return bytes((engine.quantize(ranges) if fixed else engine.quantize()).quantized_model)
