"""litert-quantizer, which writes the integer kernels into a file: the only module that imports it."""

import contextlib
import re
from dataclasses import dataclass

from keras_vit_plugin.progress import stage
from keras_vit_plugin.quiet import quiet_python

ALL = ".*"


class NotQuantizable(ValueError):
    """The quantizer does not take a model, or what it was told of it."""


@dataclass(frozen=True)
class Rule:
    """How the operators of a kind are quantized; a later rule counts for more.

    Attributes:
        kind: of the operators, such as `"FULLY_CONNECTED"`; `"*"` is every kind.
        config: what `dynamic`, `static`, `float16_weights` or `int8_weights` give; None leaves them in float.
        pattern: a regular expression that the name of their output matches.
    """

    kind: str
    config: object = None
    pattern: str = ALL


def rule_for(graph, operator, config=None):
    """The `Rule` for one operator of a float file: the quantizer matches its output name with a semicolon behind it."""
    return Rule(graph.kind(operator), config, f"^{re.escape(graph.output_name(operator))};?$")


class Quantizer:
    """A float file that is quantized by one set of rules after the other; reading it once saves time.

    Args:
        content: bytes of the float file.
    """

    def __init__(self, content):
        from litert_quantizer import quantizer

        with refusing_in_a_sentence():
            self._quantizer = quantizer.Quantizer(content)

    def quantized(self, rules, ranges=None):
        """The quantized file, as bytes.

        Args:
            rules: `Rule`s; what none of them is about stays in float.
            ranges: `{tensor name: {"min": array, "max": array}}` of the activations, where a config is `static`.

        Raises:
            NotQuantizable: the quantizer refuses the model or a rule.
        """
        from litert_quantizer import qtyping, quantizer

        names = quantizer.AlgorithmName
        with refusing_in_a_sentence():
            self._quantizer.load_quantization_recipe([])
            for rule in rules:
                if rule.config is None:
                    algorithm = {"algorithm_key": names.NO_QUANTIZE}
                elif rule.config.weight_tensor_config.dtype == qtyping.TensorDataType.FLOAT:
                    algorithm = {"op_config": rule.config, "algorithm_key": names.FLOAT_CASTING}
                else:
                    algorithm = {"op_config": rule.config, "algorithm_key": names.MIN_MAX_UNIFORM_QUANT}
                self._quantizer.update_quantization_recipe(rule.pattern, rule.kind, **algorithm)
            return bytes(self._quantizer.quantize(ranges).quantized_model)


@contextlib.contextmanager
def refusing_in_a_sentence():
    """Holds back the quantizer's own progress bars and size table, and says what it refuses in a sentence."""
    with stage("Quantizing"), quiet_python():
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # whatever it raises
            text = " ".join(str(error).split())
            kind = re.search(r"TFLOperationName\.(\w+)", text)
            raise NotQuantizable(
                f"The quantizer does not take {kind[1] if kind else 'this model'} in this mode: {text.split('. ')[0]}. "
                "Take a mode that computes in float, or replace these layers."
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


def _weights(bits, block_size=None, per_tensor=False):
    from litert_quantizer import qtyping

    granularity = "CHANNELWISE" if block_size is None else f"BLOCKWISE_{block_size}"
    granularity = "TENSORWISE" if per_tensor else granularity
    return qtyping.TensorQuantizationConfig(
        num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity[granularity]
    )
