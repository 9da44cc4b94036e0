"""The modes in which every tensor between input and output is an integer: `int8-full` and `int16x8`."""

from . import recipes
from .calibrate import observe, quantizer_ranges
from .flatbuffer import drop_unused_tensors, in_integer, requantize_pixels
from .gradients import scaled_ranges
from .graph import Graph
from .round_weights import rounded_kernels, with_kernels

# Ops that the runtimes compute in integer and ai-edge-quantizer does not know.
UNKNOWN_TO_THE_QUANTIZER = ("EXP", "REDUCE_MAX")


def quantize_integer_only(content, images, activation_bits, input_dtype="uint8", output_dtype="float32"):
    """Quantizes a float file so that nothing but the logits is float.

    Args:
        content: bytes of the float file, whose input is uint8.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        activation_bits: 8 or 16.
        input_dtype: `"uint8"`, or `"int8"` for pixels less 128.
        output_dtype: `"float32"`, or `"int8"` (`"int16"` with 16 bits) for logits as they are quantized.

    Returns:
        The file as bytes.
    """
    from ai_edge_quantizer import quantizer

    graph = Graph(content)
    calibration = observe(content, images)
    ranges = _ranges(graph, content, calibration.observations, images, activation_bits)
    content = with_kernels(content, rounded_kernels(graph, calibration.entering))
    with recipes.silence():
        engine = quantizer.Quantizer(content)
        engine.update_quantization_recipe(".*", "*", recipes.static(activation_bits))
        if output_dtype == "float32":
            engine.update_quantization_recipe(".*", "OUTPUT", algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        quantized = bytes(engine.quantize(quantizer_ranges(graph, ranges)).quantized_model)
    quantized = requantize_pixels(quantized, input_dtype)
    return drop_unused_tensors(in_integer(quantized, UNKNOWN_TO_THE_QUANTIZER))


def _ranges(graph, content, observations, images, bits):
    """Per tensor the range to quantize it with, `{tensor: (low, high)}`.

    With 8 bits the one whose error moves the logits least; 16 bits clip nothing. Where an op would only change the
    scale of its values, its output takes the scale of its input.
    """
    if bits == 8:
        ranges = {tensor: seen.least_error() for tensor, seen in observations.items()}
        ranges = scaled_ranges(content, ranges, images)
    else:
        ranges = {tensor: seen.full() for tensor, seen in observations.items()}
    for matmul in graph.of_kind("BATCH_MATMUL"):  # XNNPACK takes it where the right-hand side has zero point 0
        right = int(matmul.inputs[1])
        largest = max(map(abs, ranges[right])) or 1.0
        same = [right, *(int(move.inputs[0]) for move in graph.moves_before(right))]
        ranges |= dict.fromkeys(same, (-largest * 128 / 127, largest))
    for joined in graph.of_kind("CONCATENATION"):
        ranges |= {int(part): ranges[int(joined.outputs[0])] for part in joined.inputs if int(part) in ranges}
    for largest in graph.of_kind("REDUCE_MAX"):
        ranges[int(largest.outputs[0])] = ranges[int(largest.inputs[0])]
    for norm in graph.of_kind("RSQRT"):  # the epsilon is less than a step
        added = graph.producer.get(int(norm.inputs[0]))
        if added is not None and graph.kind(added) == "ADD":
            ranges[int(added.outputs[0])] = ranges[int(added.inputs[0])]
    return ranges
