"""The quantization modes."""

from . import recipes
from .calibrate import observe, quantizer_ranges
from .flatbuffer import drop_unused_tensors, requantize_pixels
from .graph import Graph
from .mixed_int8 import PREFERENCES, quantize_mixed_int8
from .round_weights import rounded_kernels, with_kernels

__all__ = ["MODES", "NEEDS_CALIBRATION", "PREFERENCES", "quantize"]

MODES = ("float32", "float16", "dynamic", "int8", "int8-full")
NEEDS_CALIBRATION = ("int8", "int8-full")


def quantize(content, mode, calibration=None, prefer="speed"):
    """Quantizes a float32 TFLite file.

    Args:
        content: bytes of a float32 file with the signature `serving_default(images) -> logits`.
        mode: one of `MODES`.
        calibration: raw pixels 0..255, `(N, H, W, C)`; for the modes in `NEEDS_CALIBRATION`, and for a more accurate
            `dynamic`.
        prefer: one of `PREFERENCES`, for `int8`.

    Returns:
        The file as bytes.
    """
    if mode == "int8":
        return quantize_mixed_int8(content, calibration, prefer)
    if mode in ("dynamic", "int8-full"):
        return {"dynamic": _dynamic, "int8-full": _int8_full}[mode](content, calibration)
    return {"float32": bytes, "float16": _float16}[mode](content)


def _float16(content):
    """Weights in float16, dequantized when the file is loaded."""
    from ai_edge_quantizer import quantizer

    with recipes.silence():
        engine = quantizer.Quantizer(content)
        config, algorithm = recipes.float16_weights(), quantizer.AlgorithmName.FLOAT_CASTING
        engine.update_quantization_recipe(".*", "*", config, algorithm)
        return bytes(engine.quantize().quantized_model)


def _dynamic(content, images):
    """Weights in int8 per channel, activations quantized on the fly."""
    from ai_edge_quantizer import quantizer, recipe

    if images is not None:
        graph = Graph(content)
        content = with_kernels(content, rounded_kernels(graph, observe(content, images)))
    with recipes.silence():
        return bytes(quantizer.Quantizer(content, recipe.dynamic_wi8_afp32()).quantize().quantized_model)


def _int8_full(content, images):
    """Every tensor between input and output in int8; uint8 pixels in, float32 logits out."""
    from ai_edge_quantizer import quantizer, recipe

    graph = Graph(content)
    calibration = observe(content, images)
    ranges = {tensor: seen.least_error() for tensor, seen in calibration.observations.items()}
    content = with_kernels(content, rounded_kernels(graph, calibration))
    with recipes.silence():
        engine = quantizer.Quantizer(content, recipe.static_wi8_ai8())
        engine.update_quantization_recipe(".*", "OUTPUT", algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        quantized = bytes(engine.quantize(quantizer_ranges(graph, ranges)).quantized_model)
    return drop_unused_tensors(requantize_pixels(quantized))
