"""Quantization recipes for ai-edge-quantizer."""

import contextlib
import io
import logging

from .calibrate import observe, quantizer_ranges
from .flatbuffer import drop_unused_tensors, requantize_pixels
from .graph import Graph
from .mixed_int8 import PREFERENCES, quantize_mixed_int8

__all__ = ["ATTENTION_WEIGHTS", "MODES", "NEEDS_CALIBRATION", "PREFERENCES", "quantize"]

MODES = ("float32", "float16", "dynamic", "int8", "int8-full")
NEEDS_CALIBRATION = ("int8", "int8-full")
# How `lower` is to write attention for a mode, where it is not softmax.
ATTENTION_WEIGHTS = {("int8", "speed"): "root"}


def quantize(content, mode, calibration=None, prefer="speed"):
    """Quantizes a float32 TFLite file.

    Args:
        content: bytes of a float32 file with the signature `serving_default(images) -> logits`.
        mode: one of `MODES`.
        calibration: raw pixels 0..255, `(N, H, W, C)`, for the modes in `NEEDS_CALIBRATION`.
        prefer: one of `PREFERENCES`, for `int8`.

    Returns:
        The file as bytes.
    """
    if mode == "int8":
        return quantize_mixed_int8(content, calibration, prefer)
    if mode == "int8-full":
        return _int8_full(content, calibration)
    return {"float32": bytes, "float16": _float16, "dynamic": _dynamic}[mode](content)


def dynamic_config():
    """int8 weights per channel, activations quantized on the fly."""
    from ai_edge_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        weight_tensor_config=_int8_weights(), compute_precision=qtyping.ComputePrecision.INTEGER
    )


def static_config():
    """int8 weights per channel, int8 activations with fixed scales."""
    from ai_edge_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=_int8_weights(),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def _int8_weights():
    from ai_edge_quantizer import qtyping

    return qtyping.TensorQuantizationConfig(
        num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
    )


def _float16(content):
    """Weights in float16, dequantized when the file is loaded."""
    from ai_edge_quantizer import qtyping, quantizer

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    with silence():
        engine = quantizer.Quantizer(content)
        engine.update_quantization_recipe(".*", "*", config, quantizer.AlgorithmName.FLOAT_CASTING)
        return bytes(engine.quantize().quantized_model)


def _dynamic(content):
    """Weights in int8 per channel, activations quantized on the fly."""
    from ai_edge_quantizer import quantizer, recipe

    with silence():
        return bytes(quantizer.Quantizer(content, recipe.dynamic_wi8_afp32()).quantize().quantized_model)


def _int8_full(content, calibration):
    """Every tensor between input and output in int8; uint8 pixels in, float32 logits out."""
    from ai_edge_quantizer import quantizer, recipe

    graph = Graph(content)
    observations = observe(content, calibration)
    ranges = quantizer_ranges(graph, {tensor: seen.least_error() for tensor, seen in observations.items()})
    with silence():
        engine = quantizer.Quantizer(content, recipe.static_wi8_ai8())
        engine.update_quantization_recipe(".*", "OUTPUT", algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        quantized = bytes(engine.quantize(ranges).quantized_model)
    return drop_unused_tensors(requantize_pixels(quantized))


@contextlib.contextmanager
def silence():
    """Holds back the quantizer's own progress bars and size table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
