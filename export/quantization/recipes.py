"""What litert-quantizer is told: how an op is quantized, and which op."""

import contextlib
import re

from keras_vit_plugin.progress import stage
from keras_vit_plugin.quiet import quiet_python


class NotQuantizable(ValueError):
    """The quantizer does not take a model, or what it was told of it."""


@contextlib.contextmanager
def silence():
    """Holds back the quantizer's own progress bars and size table, and says what it refuses in a sentence.

    Raises:
        NotQuantizable: it raised whatever it does.
    """
    with stage("Quantizing"), quiet_python():
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            kind = re.search(r"TFLOperationName\.(\w+)", text)
            raise NotQuantizable(
                f"The quantizer does not take {kind[1] if kind else 'this model'} in this mode: {text.split('. ')[0]}. "
                "Take quantize='float16', or replace these layers."
            ) from error


def dynamic(weight_bits=8, block_size=None):
    """Weights of 8 or 4 bits per channel, or per block of its inputs, activations quantized on the fly."""
    from litert_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        weight_tensor_config=_weights(weight_bits, block_size), compute_precision=qtyping.ComputePrecision.INTEGER
    )


def static(activation_bits=8, per_tensor=False):
    """int8 weights per channel, activations of 8 or 16 bits with fixed scales.

    `per_tensor` weights are for BATCH_MATMUL, whose integer kernels read the first scale only.
    """
    from litert_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=activation_bits, symmetric=activation_bits == 16
        ),
        weight_tensor_config=_weights(8, per_tensor=per_tensor),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def float16_weights():
    """Weights in float16, dequantized when the file is loaded."""
    from litert_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )


def int8_weights():
    """Weights in int8 per channel, dequantized when the file is loaded."""
    from litert_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        weight_tensor_config=_weights(8), compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )


def engine(content):
    """The quantizer of a float file."""
    from litert_quantizer import quantizer

    with silence():
        return quantizer.Quantizer(content)


def scope(graph, operator):
    """A pattern for this operator alone: the quantizer matches its output name with a semicolon behind it."""
    return f"^{re.escape(graph.output_name(operator))};?$"


def _weights(bits, block_size=None, per_tensor=False):
    from litert_quantizer import qtyping

    granularity = "CHANNELWISE" if block_size is None else f"BLOCKWISE_{block_size}"
    granularity = "TENSORWISE" if per_tensor else granularity
    return qtyping.TensorQuantizationConfig(
        num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity[granularity]
    )
