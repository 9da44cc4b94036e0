"""The quantization modes."""

from keras_vit_plugin.image_model.answers import LOGITS

from ..targets.xnnpack import DEFAULT_CPU
from ..tflite.graph import Graph
from ..tflite.loadable import loadable
from .modes.int4 import BLOCK_SIZES, quantize_int4
from .modes.int8 import PREFERENCES, quantize_mixed_int8
from .modes.integer_only import quantize_integer_only
from .quantizer import Quantizer, Rule, dynamic, float16_weights, int8_weights, rule_for
from .steps.calibration import observe
from .steps.integer_kernels import check_integer_only, check_no_control_flow, with_integer_kernels
from .steps.prepare import prepared
from .steps.round_weights import rounded_kernels, with_kernels

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
    answers=(LOGITS,),
    cpu=DEFAULT_CPU,
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
        answers: what the outputs of the file are, an `Answer` for each in the order of the graph's outputs: noise is
            measured by them. Outputs behind the last of them do not count.
        cpu: a key of `op_costs.COSTS`, for `int8`.

    Returns:
        The file as bytes.

    Raises:
        NotIntegerOnly: a mode in `INTEGER_ONLY` would leave an op in float.
    """
    if mode in ("dynamic", "int8") and not integer_dense:
        return _int8_weights(content, calibration)
    if mode == "int8":
        return quantize_mixed_int8(content, calibration, prefer, answers, cpu)
    if mode in INTEGER_ONLY:
        bits = INTEGER_ONLY[mode]
        check_no_control_flow(content, mode)
        content = with_integer_kernels(content, bits)
        content = quantize_integer_only(content, calibration, bits, input_dtype, output_dtype, answers)
        check_integer_only(content, mode)
        return content
    if mode == "int4":
        return quantize_int4(content, calibration, block_size, answers)
    if mode == "dynamic":
        return _dynamic(content, calibration)
    return {"float32": bytes, "float16": _float16}[mode](content)


def _float16(content):
    """Weights in float16, dequantized when the file is loaded."""
    return Quantizer(content).quantized([Rule("*", float16_weights())])


def _dynamic(content, images):
    """Weights in int8 per channel, activations quantized on the fly; in float what the runtime does not load so."""
    content = _rounded(content, images)
    graph = Graph(content)

    def quantized(left_in_float):
        rules = [Rule("*", dynamic()), *(rule_for(graph, operator) for operator in left_in_float)]
        return Quantizer(content).quantized(rules)

    return loadable(quantized, graph)


def _int8_weights(content, images):
    """Weights in int8 per channel, dequantized when the file is loaded."""
    kinds = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
    return Quantizer(_rounded(content, images)).quantized([Rule(kind, int8_weights()) for kind in kinds])


def _rounded(content, images):
    """A float file whose dense kernels are on the grid that int8 per channel has, rounded by what enters them."""
    content = prepared(content)
    if images is None:
        return content
    return with_kernels(content, rounded_kernels(Graph(content), observe(content, images).entering))
