"""Whether what the tables of a `.tflite` refer to is there, and as large as they say: interpreters take it on trust."""

import functools
import math

import numpy as np

LARGEST_TENSOR = 1 << 31  # bytes
OPTIONAL = -1  # in the place of an input that an operator does without
BITS = {
    **dict.fromkeys(("INT2",), 2),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    **dict.fromkeys(("BOOL", "INT8", "UINT8", "FLOAT8_E4M3FN", "FLOAT8_E5M2"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT32"), 32),
    **dict.fromkeys(("INT64", "UINT64", "FLOAT64", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}
UNSIZED = ("STRING", "RESOURCE", "VARIANT")


def check_consistent(model, size):
    """Looks at all that an object tree refers to.

    Args:
        model: the schema's object tree as the bytes have it: buffers behind the tables are still places in the file.
        size: of the file in bytes.

    Raises:
        ValueError: an index, a place or a size is wrong; says which.
    """
    if model.externalBuffers or model.externalBufferGroups:
        raise ValueError("its weights are in other files")
    for what in ("operatorCodes", "subgraphs", "buffers"):
        if getattr(model, what) is None or not (getattr(model, what) or what == "operatorCodes"):
            raise ValueError(f"it has no {what}")
    _check_buffers(model.buffers, size)
    for number, code in enumerate(model.operatorCodes):
        _check_code(number, code)
    for graph in model.subgraphs:
        _check_graph(graph, model, size)
    for entry in model.metadata or []:
        _text(entry.name, "the name of an entry of metadata")
        _index(entry.buffer, model.buffers, "buffer", "an entry of metadata")
    for signature in model.signatureDefs or []:
        _check_signature(signature, model)


def _check_buffers(buffers, size):
    behind = 0
    for number, buffer in enumerate(buffers):
        if buffer.offset > 1 and buffer.offset + buffer.size > size:
            raise ValueError(f"buffer {number} ends behind the file")
        behind += buffer.size if buffer.offset > 1 else 0
    if behind > size:
        raise ValueError("its buffers hold more bytes than the file")


def _check_code(number, code):
    kind = max(code.builtinCode, code.deprecatedBuiltinCode)
    if kind not in builtin_names():
        raise ValueError(f"operator code {number} is {kind}, which the schema does not have")
    if builtin_names()[kind] == "CUSTOM" and not _text(code.customCode, f"the name of operator code {number}"):
        raise ValueError(f"operator code {number} is CUSTOM without a name")


def _check_graph(graph, model, size):
    for what in ("tensors", "operators"):
        if getattr(graph, what) is None:
            raise ValueError(f"a graph has no {what}")
    for number, tensor in enumerate(graph.tensors):
        _check_tensor(number, tensor, graph, model)
    _text(graph.name, "the name of a graph")
    given = {*_indices(graph.inputs, graph.tensors, "the graph's inputs")}
    for number, tensor in enumerate(graph.tensors):
        buffer = model.buffers[tensor.buffer]
        stored = buffer.data is not None or buffer.size
        if stored or tensor.isVariable or 0 in sides_of(tensor):
            given.add(number)
    for number, operator in enumerate(graph.operators):
        _check_operator(number, operator, graph, model, size, given)
        given |= set(map(int, _list(operator.outputs)))
    for index in _indices(graph.outputs, graph.tensors, "the graph's outputs"):
        if index not in given:
            raise ValueError(f"nothing computes output {index}")


def _check_operator(number, operator, graph, model, size, given):
    """Looks at one operator, `given` the tensors that have values before it runs."""
    what = f"operator {number}"
    _index(operator.opcodeIndex, model.operatorCodes, "operator code", what)
    for index in _indices(operator.inputs, graph.tensors, f"the inputs of {what}", OPTIONAL):
        if index != OPTIONAL and index not in given:
            raise ValueError(f"{what} reads tensor {index}, which nothing has computed before")
    outputs = set(_indices(operator.outputs, graph.tensors, f"the outputs of {what}", OPTIONAL))
    for index in sorted(outputs & given - {OPTIONAL}):
        raise ValueError(f"{what} writes tensor {index}, which has values already")
    _indices(operator.intermediates, graph.tensors, f"the intermediates of {what}", OPTIONAL)
    if operator.largeCustomOptionsOffset > 1 and (
        operator.largeCustomOptionsOffset + operator.largeCustomOptionsSize > size
    ):
        raise ValueError(f"the options of {what} end behind the file")


def _check_tensor(number, tensor, graph, model):
    what = f"tensor {number}"
    _text(tensor.name, f"the name of {what}")
    _index(tensor.buffer, model.buffers, "buffer", what)
    if tensor.externalBuffer:
        raise ValueError(f"the values of {what} are in another file")
    if tensor.type not in type_names():
        raise ValueError(f"{what} has type {tensor.type}, which the schema does not have")
    sides, kind = sides_of(tensor), type_names()[tensor.type]
    if any(side < 0 for side in sides):
        raise ValueError(f"{what} has the shape {sides}")
    if kind not in UNSIZED:
        taken = -(-math.prod(sides) * BITS[kind] // 8)
        buffer = model.buffers[tensor.buffer]
        held = buffer.size if buffer.offset > 1 else 0 if buffer.data is None else len(buffer.data)
        if taken > LARGEST_TENSOR:
            raise ValueError(f"{what} of the shape {sides} takes {taken} bytes, more than {LARGEST_TENSOR}")
        if held and held != taken and tensor.sparsity is None:
            raise ValueError(f"{what} of the shape {sides} takes {taken} bytes, its buffer holds {held}")
    _check_quantization(what, tensor.quantization, sides, graph.tensors)


def _check_quantization(what, quantization, sides, tensors):
    if quantization is None:
        return
    scales, zero_points = np.asarray(_list(quantization.scale)), np.asarray(_list(quantization.zeroPoint))
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise ValueError(f"a scale of {what} is no positive number")
    if (abs(zero_points) > np.iinfo(np.int32).max).any():
        raise ValueError(f"a zero point of {what} is no integer of 32 bits")
    if len(scales) and len(zero_points) not in (1, len(scales)):
        raise ValueError(f"{what} has {len(scales)} scales and {len(zero_points)} zero points")
    axis = quantization.quantizedDimension
    if len(scales) > 1 and not (0 <= axis < len(sides) and sides[axis] == len(scales)):
        raise ValueError(f"{what} of the shape {sides} has {len(scales)} scales on axis {axis}")
    for field in ("scales", "zeroPoints"):  # of a scale for every block, tensors of their own
        _index(getattr(quantization.details, field, OPTIONAL), tensors, "tensor", what, OPTIONAL)


def _check_signature(signature, model):
    _text(signature.signatureKey, "the name of a signature")
    _index(signature.subgraphIndex, model.subgraphs, "graph", "a signature")
    for entry in (*_list(signature.inputs), *_list(signature.outputs)):
        if not _text(entry.name, "a name in a signature"):
            raise ValueError("a signature has a tensor without a name")
        _index(entry.tensorIndex, model.subgraphs[signature.subgraphIndex].tensors, "tensor", "a signature")


def _list(values):
    return [] if values is None else values


def sides_of(tensor):
    """The shape of a tensor of the schema as a list, empty where it has none."""
    return [int(side) for side in _list(tensor.shape)]


def _index(index, entries, kind, what, least=0):
    if not least <= index < len(entries):
        raise ValueError(f"{what} has {kind} {index} of {len(entries)}")


def _indices(indices, tensors, what, least=0):
    found = [int(index) for index in _list(indices)]
    for index in found:
        _index(index, tensors, "tensor", what, least)
    return found


def _text(text, what):
    try:
        return (text or b"").decode()
    except UnicodeDecodeError:
        raise ValueError(f"{what} is no text in UTF-8") from None


@functools.cache
def builtin_names():
    """`{number: name}` of the operators that the schema has."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


@functools.cache
def type_names():
    """`{number: name}` of the types of tensors."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
