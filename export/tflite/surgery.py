"""Changes to a `.tflite` that neither its converter nor the quantizer can be told to make."""

import copy

import numpy as np

from .flatbuffer import read, write
from .operators import op_name, operator_code, tensor_type


def outputs_in_order(content, names):
    """Puts the graph's outputs in the order of these names of its signature; the converter sorts them."""
    model = read(content)
    outputs = model.signatureDefs[0].outputs
    order = sorted(outputs, key=lambda output: names.index(output.name.decode()))
    model.subgraphs[0].outputs = [output.tensorIndex for output in order]
    return write(model)


def add_missing_biases(content):
    """Gives every dense and convolution without a bias one of zeros.

    tflite-runtime 2.14 on ARM crashes at the first per-channel int8 dense without a bias.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if op_name(model, operator) not in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
                continue
            if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
                continue
            output = graph.tensors[operator.outputs[0]]
            channels = int(output.shape[-1])
            model.buffers.append(schema.BufferT(data=np.zeros(channels, np.float32).view(np.uint8)))
            bias = schema.TensorT(
                shape=[channels],
                type=schema.TensorType.FLOAT32,
                buffer=len(model.buffers) - 1,
                name=output.name + b"/zero_bias",
            )
            graph.tensors.append(bias)
            operator.inputs = [*operator.inputs[:2], len(graph.tensors) - 1]
    return write(model)


def requantize_pixels(content, dtype="uint8"):
    """Replaces `uint8 -> CAST -> float -> QUANTIZE` at the input by integers alone.

    uint8 pixels get scale 1 and zero point 0: their values are the pixels. int8 ones are the pixels less 128. What
    reads the pixels in float gets them from a DEQUANTIZE.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]
    image = graph.inputs[0]
    cast = next(op for op in graph.operators if op_name(model, op) == "CAST" and list(op.inputs) == [image])
    name, pixels = graph.tensors[image].name, int(cast.outputs[0])
    readers = [operator for operator in graph.operators if pixels in map(int, operator.inputs)]
    in_float = [operator for operator in readers if op_name(model, operator) != "QUANTIZE"]
    if in_float:
        graph.tensors.append(copy.deepcopy(graph.tensors[pixels]))
        graph.tensors[-1].name += b"/dequantized"
        for operator in in_float:
            inputs = [len(graph.tensors) - 1 if int(index) == pixels else index for index in operator.inputs]
            operator.inputs = inputs
        dequantize = schema.OperatorT(
            opcodeIndex=operator_code(model, "DEQUANTIZE"), inputs=[pixels], outputs=[len(graph.tensors) - 1]
        )
        graph.operators.insert(graph.operators.index(cast) + 1, dequantize)
    graph.tensors[pixels].type = schema.TensorType.INT8
    graph.tensors[pixels].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[-128])
    graph.tensors[image].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    for quantize in readers:
        quantized = int(quantize.outputs[0])
        if op_name(model, quantize) == "QUANTIZE" and tensor_type(graph.tensors[quantized]) == "INT8":
            _redirect(model, quantized, pixels)
            graph.operators.remove(quantize)
    if dtype == "int8":
        graph.operators.remove(cast)
        graph.inputs, graph.tensors[pixels].name = [pixels], name
    else:
        cast.opcodeIndex, cast.builtinOptionsType, cast.builtinOptions = operator_code(model, "QUANTIZE"), 0, None
    return write(model)


def dequantize_pixels(content):
    """Makes the `CAST` of uint8 pixels to float a `DEQUANTIZE` with scale 1, which delegates take.

    A file without such a cast stays as it is.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]
    image = graph.inputs[0]
    readers = [operator for operator in graph.operators if image in operator.inputs]
    if tensor_type(graph.tensors[image]) != "UINT8" or [op_name(model, op) for op in readers] != ["CAST"]:
        return content
    graph.tensors[image].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    readers[0].opcodeIndex = operator_code(model, "DEQUANTIZE")
    readers[0].builtinOptionsType, readers[0].builtinOptions = 0, None
    return write(model)


def float16_constants(content, size):
    """Stores what additions add, where it is a float32 constant of at least `size` values, in float16."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]
    for addition in [operator for operator in graph.operators if op_name(model, operator) == "ADD"]:
        for index in map(int, addition.inputs):
            tensor = graph.tensors[index]
            data = model.buffers[tensor.buffer].data
            if tensor_type(tensor) != "FLOAT32" or data is None or len(data) < 4 * size:
                continue
            halves = np.frombuffer(bytes(data), np.float32).astype(np.float16)
            model.buffers.append(schema.BufferT(data=halves.view(np.uint8)))
            stored = schema.TensorT(
                shape=tensor.shape,
                type=schema.TensorType.FLOAT16,
                buffer=len(model.buffers) - 1,
                name=tensor.name + b"/float16",
            )
            graph.tensors.append(stored)
            tensor.buffer = 0
            dequantize = schema.OperatorT(
                opcodeIndex=operator_code(model, "DEQUANTIZE"), inputs=[len(graph.tensors) - 1], outputs=[index]
            )
            graph.operators.insert(graph.operators.index(addition), dequantize)
    model.buffers = _used_buffers(model)
    return write(model)


def _used_buffers(model):
    """The buffers that a tensor or a metadata entry refers to, which are told their new places."""
    entries = [tensor for graph in model.subgraphs for tensor in graph.tensors] + list(model.metadata or [])
    used = [0, *sorted({entry.buffer for entry in entries} - {0})]
    places = {old: new for new, old in enumerate(used)}
    for entry in entries:
        entry.buffer = places[entry.buffer]
    return [model.buffers[old] for old in used]


def name_outputs(content, in_float):
    """Lets the signature and the graph have the same outputs.

    Behind an op that it does not know, litert-quantizer makes what QUANTIZE gives the output, and the signature keeps
    what goes in.

    Args:
        content: bytes of the file.
        in_float: whether the output is what goes in.
    """
    model = read(content)
    graph = model.subgraphs[0]
    entered = {int(op.outputs[0]): int(op.inputs[0]) for op in graph.operators if op_name(model, op) == "QUANTIZE"}
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            for place, given in enumerate(map(int, graph.outputs)):
                if entered.get(given) == entry.tensorIndex and in_float:
                    graph.outputs[place] = entry.tensorIndex
                elif entered.get(given) == entry.tensorIndex:
                    entry.tensorIndex = given
    return write(model)


def in_integer(content, kinds):
    """Lets operators of these kinds compute on integers where they stand between DEQUANTIZE and QUANTIZE.

    Their kernels for integers are of version 2. REDUCE_MAX gives what it takes, so that QUANTIZE stays behind it where
    the two have other scales, as behind pixels.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    for operator in list(graph.operators):
        if op_name(model, operator) not in kinds:
            continue
        entering = producer[int(operator.inputs[0])]
        leaving = [other for other in graph.operators if int(operator.outputs[0]) in map(int, other.inputs)]
        around = {op_name(model, entering), *(op_name(model, other) for other in leaving)}
        if around != {"DEQUANTIZE", "QUANTIZE"}:
            continue
        operator.inputs = [entering.inputs[0], *operator.inputs[1:]]
        in_float = int(operator.outputs[0])
        taken, given = (graph.tensors[int(index)] for index in (entering.inputs[0], leaving[0].outputs[0]))
        if op_name(model, operator) == "REDUCE_MAX" and not _same_scale(taken, given):
            graph.tensors.append(copy.deepcopy(graph.tensors[in_float]))
            graph.tensors[-1].name += b"/integer"
            graph.tensors[-1].type, graph.tensors[-1].quantization = taken.type, copy.deepcopy(taken.quantization)
            operator.outputs = [len(graph.tensors) - 1]
            for other in leaving:
                other.inputs = operator.outputs
        else:
            operator.outputs = leaving[0].outputs
            for other in leaving:
                graph.operators.remove(other)
                _redirect(model, int(other.outputs[0]), int(leaving[0].outputs[0]))
        if in_float in map(int, graph.outputs):
            dequantize = schema.OperatorT(
                opcodeIndex=operator_code(model, "DEQUANTIZE"), inputs=operator.outputs, outputs=[in_float]
            )
            graph.operators.insert(graph.operators.index(operator) + 1, dequantize)
        code = model.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, 2)
    read_by_some = {int(index) for operator in graph.operators for index in operator.inputs} | set(graph.outputs)
    graph.operators = [operator for operator in graph.operators if read_by_some & set(map(int, operator.outputs))]
    return write(model)


def _same_scale(one, other):
    """Whether two quantized tensors hold one value as the same integer."""
    scales = [
        (tensor.type, list(tensor.quantization.scale), list(tensor.quantization.zeroPoint)) for tensor in (one, other)
    ]
    return scales[0] == scales[1]


def _redirect(model, old, new):
    """Lets every reader of the tensor `old` of the first subgraph read `new`, and outputs be it."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        operator.inputs = [new if int(index) == old else index for index in operator.inputs]
    graph.outputs = [new if int(index) == old else index for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex


def drop_unused_tensors(content):
    """Removes tensors that no operator, input or output refers to."""
    model = read(content)
    new_indices = []  # of every subgraph
    for graph in model.subgraphs:
        used = sorted(
            {*graph.inputs, *graph.outputs}
            | {index for operator in graph.operators for index in (*operator.inputs, *operator.outputs) if index >= 0}
        )
        new_index = {old: new for new, old in enumerate(used)} | {-1: -1}
        new_indices.append(new_index)
        graph.tensors = [graph.tensors[index] for index in used]
        graph.inputs = [new_index[index] for index in graph.inputs]
        graph.outputs = [new_index[index] for index in graph.outputs]
        for operator in graph.operators:
            operator.inputs = [new_index[index] for index in operator.inputs]
            operator.outputs = [new_index[index] for index in operator.outputs]
    for signature in model.signatureDefs or []:
        graph, new_index = model.subgraphs[signature.subgraphIndex], new_indices[signature.subgraphIndex]
        for maps, indices in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
            for entry in maps:
                entry.tensorIndex = indices[0] if len(maps) == 1 else new_index[entry.tensorIndex]
    return write(model)
