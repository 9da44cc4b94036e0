"""The modes in which every tensor between input and output is an integer: `int8-full` and `int16x8`."""

from dataclasses import dataclass
from typing import ClassVar

from ...tflite.capabilities import Capability
from ...tflite.flatbuffer import read, write
from ...tflite.graph import Graph
from ...tflite.graph_form import GraphForm
from ...tflite.loadable import loadable
from ...tflite.operators import op_name, tensor_type
from ...tflite.surgery import drop_unused_tensors, in_integer, name_outputs, requantize_pixels
from ..mode import Mode, Whole
from ..quantizer import Quantizer, Rule, rule_for, static
from ..steps.calibration import observe, quantizer_ranges
from ..steps.integer_kernels import control_flow, float_ops, with_integer_kernels
from ..steps.prepare import prepared
from ..steps.round_weights import rounded_kernels, with_kernels
from ..steps.sensitivity import scaled_ranges
from ..tolerance import Tolerance

# Ops that the runtimes compute in integer and litert-quantizer does not know.
UNKNOWN_TO_THE_QUANTIZER = ("EXP", "REDUCE_MAX")
TABLES = ("EXP", "GELU", "LOG", "LOGISTIC", "RSQRT", "SOFTMAX", "SQRT", "TANH")  # of 513 values in int16
HEADROOM = {8: 1.25, 16: 2.0}  # of a range, by bits: clipping costs more than coarser steps
INT16_VERSION = {"ADD": 3, "SUB": 5}  # of int16 with any scales, as TFLite's converter numbers them


class NotIntegerOnly(ValueError):
    """A mode that promises integers alone left an op in float."""


class IntegerOnly(Mode):
    """The modes in which every tensor between input and output is an integer."""

    bits: ClassVar[int]  # of activations

    def form(self, extremes, has):
        return GraphForm(gelu="op")

    def prepare(self, content, setting):
        self._refuse(control_flow(content))
        content = with_integer_kernels(content, self.bits)
        content = quantize_integer_only(
            content, setting.images, self.bits, setting.input_dtype, setting.output_dtype, setting.answers
        )
        self._refuse(float_ops(read(content)))
        return Whole(content)

    def _refuse(self, left):
        """Raises `NotIntegerOnly` where an op is left in float, `{op name: count}`."""
        if left:
            ops = ", ".join(f"{name} ({count})" for name, count in left.items())
            raise NotIntegerOnly(
                f"quantize={self.name!r} promises integers between input and output, and this model would keep in "
                f"float: {ops}. Take quantize='int8', which computes in float where it must, or replace these layers."
            )


@dataclass(frozen=True)
class Int8Full(IntegerOnly):
    """Every tensor between input and output in int8."""

    bits = 8
    name = "int8-full"
    aliases = ("w8a8", "full", "int8_full", "int8full", "full-int8", "full_integer")
    summary = "every tensor between input and output in int8"
    advice = '"int16x8", or "int8" where the device computes in float too'
    needs = frozenset({Capability.INTEGERS})
    tolerance = Tolerance(0.92, 10.0)
    input_dtypes = ("uint8", "int8")
    output_dtypes = ("float32", "int8")

    def form(self, extremes, has):
        return GraphForm(gelu="op", attention="integer_unit", norm_epsilon=extremes().epsilon_counts)


@dataclass(frozen=True)
class Int16x8(IntegerOnly):
    """Weights in int8, activations in int16, for integer hardware that needs accuracy."""

    bits = 16
    name = "int16x8"
    aliases = ("w8a16", "int16", "16x8")
    summary = "int8 weights and int16 activations, for integer hardware that needs accuracy"
    advice = '"float16" where the device computes in float'
    needs = frozenset({Capability.INTEGERS, Capability.INT16_ACTIVATIONS})
    tolerance = Tolerance(0.97, 22.0)
    input_dtypes = ("uint8", "int8")
    output_dtypes = ("float32", "int16")


def quantize_integer_only(content, images, activation_bits, input_dtype, output_dtype, answers):
    """Quantizes a float file so that nothing but the logits is float.

    Args:
        content: bytes of the float file, whose input is uint8.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        activation_bits: 8 or 16.
        input_dtype: `"uint8"`, or `"int8"` for pixels less 128.
        output_dtype: `"float32"`, or `"int8"` (`"int16"` with 16 bits) for logits as they are quantized.
        answers: what the outputs of the file are, in their order.

    Returns:
        The file as bytes. An operator that the runtime does not load in integer stays in float, where
        `IntegerOnly` refuses it.
    """
    content = prepared(content)
    graph = Graph(content)
    calibration = observe(graph, images)
    ranges = _ranges(graph, content, calibration.observations, images, activation_bits, answers)
    content = with_kernels(content, rounded_kernels(graph, calibration.entering))

    def quantized(left_in_float):
        rules = [
            Rule("*", static(activation_bits)),
            Rule("BATCH_MATMUL", static(activation_bits, per_tensor=True)),
            *([Rule("OUTPUT")] if output_dtype == "float32" else []),
            *(rule_for(graph, operator) for operator in left_in_float),
        ]
        file = Quantizer(content).quantized(rules, quantizer_ranges(graph, ranges))
        file = name_outputs(file, output_dtype == "float32")
        file = in_integer(requantize_pixels(file, input_dtype), UNKNOWN_TO_THE_QUANTIZER)
        return _any_scales(_unread_results(drop_unused_tensors(file)))

    return loadable(quantized, graph)


def _unread_results(content):
    """Gives results that nothing reads the type and the scale of what stands beside them.

    The quantizer leaves them in float, and XNNPACK refuses a SPLIT of several types.
    """
    graph = Graph(content)
    for operator in graph.operators:
        tensors = [graph.subgraph.tensors[index] for index in (*operator.outputs, *operator.inputs) if index >= 0]
        scaled = [tensor for tensor in tensors if getattr(tensor.quantization, "scale", None) is not None]
        unread = [int(index) for index in operator.outputs if not graph.is_read(int(index))]
        for index in unread if scaled else ():
            if graph.dtype(index) == "FLOAT32":
                result = graph.subgraph.tensors[index]
                result.type, result.quantization = scaled[0].type, scaled[0].quantization
    return write(graph.model)


def _any_scales(content):
    """Lets ADD and SUB in int16 take any scales.

    Without that, kernels shift by whole bits where all three scales happen to be powers of two, and refuse scales of
    which none is that of the output. Source: tensorflow/lite/kernels/add.cc.
    """
    model = read(content)
    tensors = model.subgraphs[0].tensors
    for operator in model.subgraphs[0].operators:
        name = op_name(model, operator)
        if name in INT16_VERSION and tensor_type(tensors[operator.outputs[0]]) == "INT16":
            operator.builtinOptions.potScaleInt16 = False
            code = model.operatorCodes[operator.opcodeIndex]
            code.version = max(code.version, INT16_VERSION[name])
    return write(model)


def _answers(graph):
    """The outputs, and what they are moved from."""
    outputs = set(map(int, graph.subgraph.outputs))
    return outputs | {int(move.inputs[0]) for output in outputs for move in graph.moves_before(output)}


def _in_tables(graph):
    """The tensors of which kernels look a function up in a table over their range: headroom would make it coarser."""
    read = {int(operator.inputs[0]) for operator in graph.of_kind(*TABLES)}
    for index in [*read]:
        added = graph.producer.get(index)
        if added is not None and graph.kind(added) == "ADD":  # of a norm's epsilon
            read |= set(map(int, added.inputs))
    return read


def _ranges(graph, content, observations, images, bits, answers):
    """Per tensor the range to quantize it with, `{tensor: (low, high)}`.

    With 8 bits the one whose error moves the logits least; of the answers, and with 16 bits, all that was seen and
    headroom for what other images bring. Where an op would only change the scale of its values, its output takes the
    scale of its input.
    """
    full = {tensor: seen.full() for tensor, seen in observations.items()}
    wide = {tensor: (HEADROOM[bits] * low, HEADROOM[bits] * high) for tensor, (low, high) in full.items()}
    if bits == 8:
        found = {id(seen): seen.least_error() for seen in {id(seen): seen for seen in observations.values()}.values()}
        ranges = {tensor: found[id(seen)] for tensor, seen in observations.items()}
        ranges = scaled_ranges(content, ranges, images, answers)
        ranges |= {tensor: wide[tensor] for tensor in _answers(graph) & wide.keys()}
    else:
        ranges = wide | {tensor: full[tensor] for tensor in (_in_tables(graph) - _answers(graph)) & full.keys()}
    for matmul in graph.of_kind("BATCH_MATMUL"):  # XNNPACK takes it where the right-hand side has zero point 0
        right = int(matmul.inputs[1])
        if right in ranges:  # a constant's range is that of its values
            largest = max(map(abs, ranges[right])) or 1.0
            same = [right, *(int(move.inputs[0]) for move in graph.moves_before(right))]
            same = [tensor for tensor in same if tensor in ranges]
            ranges |= dict.fromkeys(same, (-largest * 128 / 127, largest))
    for joined in graph.of_kind("CONCATENATION"):
        ranges |= {int(part): ranges[int(joined.outputs[0])] for part in joined.inputs if int(part) in ranges}
    for largest in graph.of_kind("REDUCE_MAX"):
        if int(largest.inputs[0]) in ranges:
            ranges[int(largest.outputs[0])] = ranges[int(largest.inputs[0])]
    for norm in graph.of_kind("RSQRT"):  # the epsilon is less than a step
        added = graph.producer.get(int(norm.inputs[0]))
        if added is not None and graph.kind(added) == "ADD":
            values = [int(index) for index in added.inputs if int(index) in ranges]
            if len(values) == 1:  # the other is the epsilon, a constant
                ranges[int(added.outputs[0])] = ranges[values[0]]
    return ranges
