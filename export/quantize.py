"""The quantization modes."""

from . import recipes
from .calibrate import observe
from .float_ops import check_integer_only, with_integer_kernels
from .graph import Graph
from .integer_only import quantize_integer_only
from .low_bit import BLOCK_SIZES, quantize_int4
from .mixed_int8 import PREFERENCES, quantize_mixed_int8
from .round_weights import rounded_kernels, with_kernels

__all__ = ["BLOCK_SIZES", "INTEGER_ONLY", "MODES", "NEEDS_CALIBRATION", "PREFERENCES", "quantize"]

MODES = ("float32", "float16", "dynamic", "int8", "int8-full", "int16x8", "int4")
INTEGER_ONLY = {"int8-full": 8, "int16x8": 16}  # bits of activations
NEEDS_CALIBRATION = ("int8", "int4", *INTEGER_ONLY)


def quantize(
    content,
    mode,
    calibration=None,
    prefer="speed",
    input_dtype="uint8",
    output_dtype="float32",
    block_size=None,
    integer_dense=True,
):
    """Quantizes a float32 TFLite file.

    Args:
        content: bytes of a float32 file with the signature `serving_default(images) -> logits`.
        mode: one of `MODES`.
        calibration: raw pixels 0..255, `(N, H, W, C)`; for the modes in `NEEDS_CALIBRATION`, and for a more accurate
            `dynamic`.
        prefer: one of `PREFERENCES`, for `int8`.
        input_dtype, output_dtype: for the modes in `INTEGER_ONLY`, as for `quantize_integer_only`.
        block_size: for `int4`, as for `quantize_int4`.
        integer_dense: whether the runtime has fast integer dense layers; without them `dynamic` and `int8` hold
            weights in int8 and compute in float.

    Returns:
        The file as bytes.

    Raises:
        NotIntegerOnly: a mode in `INTEGER_ONLY` would leave an op in float.
    """
    if mode in ("dynamic", "int8") and not integer_dense:
        return _int8_weights(content, calibration)
    if mode == "int8":
        return quantize_mixed_int8(content, calibration, prefer)
    if mode in INTEGER_ONLY:
        bits = INTEGER_ONLY[mode]
        content = with_integer_kernels(content, bits)
        content = quantize_integer_only(content, calibration, bits, input_dtype, output_dtype)
        check_integer_only(content, mode)
        return content
    if mode == "int4":
        return quantize_int4(content, calibration, block_size)
    if mode == "dynamic":
        return _dynamic(content, calibration)
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

    content = _rounded(content, images)
    with recipes.silence():
        return bytes(quantizer.Quantizer(content, recipe.dynamic_wi8_afp32()).quantize().quantized_model)


def _int8_weights(content, images):
    """Weights in int8 per channel, dequantized when the file is loaded."""
    from ai_edge_quantizer import quantizer

    content = _rounded(content, images)
    with recipes.silence():
        engine = quantizer.Quantizer(content)
        for kind in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
            engine.update_quantization_recipe(".*", kind, recipes.int8_weights())
        return bytes(engine.quantize().quantized_model)


def _rounded(content, images):
    """A float file whose dense kernels are on the grid that int8 per channel has, rounded by what enters them."""
    if images is None:
        return content
    return with_kernels(content, rounded_kernels(Graph(content), observe(content, images).entering))
