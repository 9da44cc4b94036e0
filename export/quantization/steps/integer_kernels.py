"""Integers alone: ops that have no integer kernels are written in others, and what is left in float is named."""

from collections import Counter

import numpy as np

from ...tflite.flatbuffer import read, write
from ...tflite.operators import op_name, operator_code, tensor_type

FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
CONTROL_FLOW = ("WHILE", "IF", "CALL_ONCE")  # their other subgraphs run on values of which nothing is measured


def float_ops(model):
    """The ops that read or write a float tensor, but for the conversions around them and at the graph's ends.

    A DEQUANTIZE that only a QUANTIZE reads counts, since it has no float op to serve.

    Args:
        model: the schema's object tree.

    Returns:
        `{op name: count}`, the most frequent first; empty where everything between input and output is integer.
    """
    found = Counter()
    for graph in model.subgraphs:
        names = [op_name(model, operator) for operator in graph.operators]
        entering_quantize = {
            int(operator.inputs[0]) for name, operator in zip(names, graph.operators) if name == "QUANTIZE"
        }
        for name, operator in zip(names, graph.operators):
            indices = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
            in_float = any(tensor_type(graph.tensors[index]) in FLOATS for index in indices)
            serves = name == "QUANTIZE" or (name == "DEQUANTIZE" and int(operator.outputs[0]) not in entering_quantize)
            if in_float and not serves:
                found[name] += 1
    return dict(found.most_common())


def control_flow(content):
    """The loops and branches of a float file, which stay in float, `{op name: count}`."""
    model = read(content)
    names = [op_name(model, operator) for operator in model.subgraphs[0].operators]
    return Counter(name for name in names if name in CONTROL_FLOW)


def with_integer_kernels(content, activation_bits):
    """Writes `-x` as `x * -1`, and with 16 bits `(x - y)^2` as `d * d`, in a float file: those have integer kernels.

    Keras's layer normalization is made of both.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    for graph in model.subgraphs:
        for operator in list(graph.operators):
            name, output = op_name(model, operator), graph.tensors[operator.outputs[0]]
            if tensor_type(output) != "FLOAT32":
                continue
            if name == "NEG":
                model.buffers.append(schema.BufferT(data=np.array([-1], np.float32).view(np.uint8)))
                graph.tensors.append(
                    schema.TensorT(shape=[], buffer=len(model.buffers) - 1, name=output.name + b"/minus_one")
                )
                operator.inputs = [operator.inputs[0], len(graph.tensors) - 1]
            elif name == "SQUARED_DIFFERENCE" and activation_bits == 16:
                graph.tensors.append(schema.TensorT(shape=output.shape, name=output.name + b"/difference"))
                difference = len(graph.tensors) - 1
                subtract = schema.OperatorT(
                    opcodeIndex=operator_code(model, "SUB"),
                    inputs=operator.inputs,
                    outputs=[difference],
                    builtinOptionsType=schema.BuiltinOptions.SubOptions,
                    builtinOptions=schema.SubOptionsT(),
                )
                graph.operators.insert(graph.operators.index(operator), subtract)
                operator.inputs = [difference, difference]
            else:
                continue
            operator.opcodeIndex = operator_code(model, "MUL")
            operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
            operator.builtinOptions = schema.MulOptionsT()
    return write(model)
