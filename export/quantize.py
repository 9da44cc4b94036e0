"""Quantization recipes for ai-edge-quantizer."""

import contextlib
import io
import logging

from .calibrate import activation_ranges
from .flatbuffer import drop_unused_tensors, requantize_pixels

MODES = ("float32", "float16", "dynamic", "int8-full")
NEEDS_CALIBRATION = ("int8-full",)


def quantize(content, mode, calibration=None):
    """Quantizes a float32 TFLite file.

    Args:
        content: bytes of a float32 file with the signature `serving_default(images) -> logits`.
        mode: one of `MODES`.
        calibration: raw pixels 0..255, `(N, H, W, C)`, for the modes in `NEEDS_CALIBRATION`.

    Returns:
        The file as bytes.
    """
    if mode == "int8-full":
        return _int8_full(content, calibration)
    return {"float32": bytes, "float16": _float16, "dynamic": _dynamic}[mode](content)


def _float16(content):
    """Weights in float16, dequantized when the file is loaded."""
    from ai_edge_quantizer import qtyping, quantizer

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    with _silence():
        engine = quantizer.Quantizer(content)
        engine.update_quantization_recipe(".*", "*", config, quantizer.AlgorithmName.FLOAT_CASTING)
        return bytes(engine.quantize().quantized_model)


def _dynamic(content):
    """Weights in int8 per channel, activations quantized on the fly."""
    from ai_edge_quantizer import quantizer, recipe

    with _silence():
        return bytes(quantizer.Quantizer(content, recipe.dynamic_wi8_afp32()).quantize().quantized_model)


def _int8_full(content, calibration):
    """Every tensor between input and output in int8; uint8 pixels in, float32 logits out."""
    from ai_edge_quantizer import quantizer, recipe

    ranges = activation_ranges(content, calibration)
    with _silence():
        engine = quantizer.Quantizer(content, recipe.static_wi8_ai8())
        engine.update_quantization_recipe(".*", "OUTPUT", algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        quantized = bytes(engine.quantize(ranges).quantized_model)
    return drop_unused_tensors(requantize_pixels(quantized))


@contextlib.contextmanager
def _silence():
    """Holds back the quantizer's own progress bars and size table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
