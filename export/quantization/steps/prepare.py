"""A float file in the form that the quantizing modes take: constants of their own, constant matrices on the right."""

import copy

import numpy as np

from ...tflite.flatbuffer import read, write
from ...tflite.operators import op_name, operator_code, tensor_type
from ...tflite.surgery import _used_buffers, drop_unused_tensors

WITH_KERNELS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


def prepared(content):
    """A float file that computes the same, whose constants can be changed and quantized one by one.

    Raises:
        InvalidModelFile: as for `read`.
    """
    model = read(content)
    changed = [tie_kernels(model), unshare_constants(model), constants_on_the_right(model)]
    if not any(changed):
        return content
    model = read(drop_unused_tensors(write(model)))
    model.buffers = _used_buffers(model)
    return write(model)


def tie_kernels(model):
    """Lets layers whose kernels are the same bytes in the same shape read one tensor: such kernels stay tied.

    Returns:
        Whether it changed anything.
    """
    graph, first, changed = model.subgraphs[0], {}, False
    for operator in _layers(model):
        index = int(operator.inputs[1])
        tensor = graph.tensors[index]
        if not _is_constant(model, tensor):
            continue
        place = op_name(model, operator), tensor.buffer, tuple(tensor.shape)
        same = first.setdefault(place, index)
        if same != index:
            operator.inputs = [operator.inputs[0], same, *operator.inputs[2:]]
            changed = True
    return changed


def unshare_constants(model):
    """Gives every dense layer and convolution a kernel and a bias that nothing else reads.

    The converter stores equal constants once, and biases that start as zeros are equal. A kernel that several layers
    share stays shared: it is quantized once. Layers in the body of a loop read what they read before.

    Returns:
        Whether it changed anything.
    """
    graph, changed = model.subgraphs[0], False
    readers = {}  # of a buffer: which layers' kernel or bias it is, or a tensor that something else reads
    layers = {id(operator) for operator in _layers(model)}
    for operator in graph.operators:
        for position, index in enumerate(map(int, operator.inputs)):
            if index < 0 or not _is_constant(model, graph.tensors[index]):
                continue
            kernel = id(operator) in layers and position == 1
            bias = id(operator) in layers and position == 2
            role = ("kernel", index) if kernel else ("bias", id(operator)) if bias else ("other", index)
            readers.setdefault(graph.tensors[index].buffer, set()).add(role)
    for number, other in enumerate(model.subgraphs[1:], 1):  # bodies of loops and branches
        for index, tensor in enumerate(other.tensors):
            readers.setdefault(tensor.buffer, set()).add(("other", (number, index)))
    copies = {}
    for operator in _layers(model):
        for position, index in list(enumerate(map(int, operator.inputs)))[1:3]:
            if index < 0 or not _is_constant(model, graph.tensors[index]):
                continue
            if len(readers[graph.tensors[index].buffer]) > 1:
                key = index if position == 1 else (index, id(operator))
                if key not in copies:
                    copies[key] = _copied(model, index, f"/own_{len(graph.tensors)}")
                inputs = list(operator.inputs)
                inputs[position] = copies[key]
                operator.inputs, changed = inputs, True
    return changed


def constants_on_the_right(model):
    """Turns `A B` with a constant A into `(B' A')'`: kernels take integer constants on the right only.

    Returns:
        Whether it changed anything.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, changed = model.subgraphs[0], False
    for operator in [operator for operator in graph.operators if op_name(model, operator) == "BATCH_MATMUL"]:
        left, right = map(int, operator.inputs)
        constant, output = graph.tensors[left], graph.tensors[operator.outputs[0]]
        if not _is_constant(model, constant) or tensor_type(constant) != "FLOAT32":
            continue
        if _is_constant(model, graph.tensors[right]):
            continue
        values = np.frombuffer(bytes(model.buffers[constant.buffer].data), np.float32).reshape(constant.shape)
        if not operator.builtinOptions.adjX:
            values = values.swapaxes(-1, -2)
        turned = _copied(model, left, f"/turned_{len(graph.tensors)}")
        graph.tensors[turned].shape = list(values.shape)
        model.buffers[graph.tensors[turned].buffer].data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        swapped = [*output.shape[:-2], output.shape[-1], output.shape[-2]]
        product = _appended(graph, swapped, schema.TensorType.FLOAT32, 0, output.name + b"/turned")
        order = np.array([*range(len(swapped) - 2), len(swapped) - 1, len(swapped) - 2], np.int32)
        model.buffers.append(schema.BufferT(data=order.view(np.uint8)))
        buffer, name = len(model.buffers) - 1, output.name + b"/order"
        permutation = _appended(graph, [len(order)], schema.TensorType.INT32, buffer, name)
        transpose = schema.OperatorT(
            opcodeIndex=operator_code(model, "TRANSPOSE"),
            inputs=[product, permutation],
            outputs=list(operator.outputs),
            builtinOptionsType=schema.BuiltinOptions.TransposeOptions,
            builtinOptions=schema.TransposeOptionsT(),
        )
        operator.builtinOptions.adjX = not operator.builtinOptions.adjY
        operator.builtinOptions.adjY = False
        operator.inputs, operator.outputs, changed = [right, turned], [product], True
        graph.operators.insert(graph.operators.index(operator) + 1, transpose)
    return changed


def _layers(model):
    return [operator for operator in model.subgraphs[0].operators if op_name(model, operator) in WITH_KERNELS]


def _is_constant(model, tensor):
    return model.buffers[tensor.buffer].data is not None


def _copied(model, index, suffix):
    """The index of a copy of a constant tensor with a buffer of its own."""
    graph = model.subgraphs[0]
    tensor = copy.copy(graph.tensors[index])
    model.buffers.append(copy.copy(model.buffers[tensor.buffer]))
    tensor.buffer, tensor.name = len(model.buffers) - 1, tensor.name + suffix.encode()
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _appended(graph, shape, dtype, buffer, name):
    from ai_edge_litert import schema_py_generated as schema

    graph.tensors.append(schema.TensorT(shape=shape, type=dtype, buffer=buffer, name=name))
    return len(graph.tensors) - 1
