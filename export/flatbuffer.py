"""Changes to a `.tflite` that its converter cannot be told to make, on the schema of ai-edge-litert."""

import contextlib
import copy
import hashlib
import json
import math
import threading
from collections import Counter, deque
from pathlib import Path

import numpy as np

from .bounded_reader import read_bounded
from .consistency import builtin_names, check_consistent, type_names

METADATA_NAME = "keras_vit_plugin"
METADATA_START = b'{"keras_vit_plugin":'
SEAL = b'"content_sha256": "'
LONGEST_METADATA = 1 << 22  # bytes, as many as programs on devices look through
LARGEST_SHARED = 1 << 16  # bytes of a vector that is looked for among those written
MOST_REMEMBERED = 64  # files found good; an export looks at some of its own several times
LAST_OLD_CODE = 127  # the old field for op codes holds one byte; PLACEHOLDER_FOR_GREATER_OP_CODES

_lock = threading.Lock()
_found_good = deque(maxlen=MOST_REMEMBERED)  # SHA-256 of contents


class InvalidModelFile(ValueError):
    """The bytes are no TFLite model, not those that were exported, do not run, or take something else than images."""


@contextlib.contextmanager
def naming(file):
    """Lets an `InvalidModelFile` begin with the path of the file; `file` may be bytes, which have none."""
    try:
        yield
    except InvalidModelFile as error:
        if isinstance(file, (str, Path)):
            raise InvalidModelFile(f"{file}: {error}") from error
        raise


def check_whole(content):
    """Looks at the bytes of a `.tflite` before an interpreter does: damaged ones can make it crash, or answer wrong.

    Raises:
        InvalidModelFile: they are no TFLite model, or have the metadata of this package and not the hash in them.
    """
    if len(content) < 16 or bytes(content[4:8]) != b"TFL3":
        raise InvalidModelFile(f"no TFLite model: {len(content)} bytes without the identifier TFL3")
    place = _seal_place(content)
    sealed = place is not None and bytes(content[place : place + 64]) == _content_hash(content, place)
    if not sealed and (place is not None or METADATA_START in content):
        raise InvalidModelFile(
            "a damaged TFLite model: it is not what was exported, by the hash in its metadata; copy or export it again"
        )


def seal(content):
    """Writes the hash of a file into its metadata, where it has some: the last thing to do to the bytes.

    The hash is SHA-256 of the whole file with 64 zeros in the place of its 64 hexadecimal digits.
    """
    place = _seal_place(content)
    if place is None:
        return bytes(content)
    return bytes(content[:place]) + _content_hash(content, place) + bytes(content[place + 64 :])


def _seal_place(content):
    place = content.find(SEAL)
    return None if place < 0 else place + len(SEAL)


def _content_hash(content, place):
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * 64)
    digest.update(view[place + 64 :])
    return digest.hexdigest().encode()


def check_file(content):
    """Looks at all of a `.tflite` that an interpreter takes on trust: what its tables refer to is there.

    The last contents that were found good, or that this process wrote between two steps, are remembered by their hash.

    Raises:
        InvalidModelFile: as for `check_whole`; or an offset, an index or a size in it is wrong.
    """
    digest = hashlib.sha256(content).digest()
    with _lock:
        if digest in _found_good:
            return
    check_whole(content)
    try:
        check_consistent(read_bounded(content), len(content))
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged table makes the generated reader do
        reason = error if isinstance(error, ValueError) else f"an offset leads out of its {len(content)} bytes"
        raise InvalidModelFile(f"a damaged TFLite model: {str(reason):.200}") from error
    trust(content)


def trust(content):
    """Lets `check_file` pass a file: an export looks at what it makes when it is finished, not at each step."""
    digest = hashlib.sha256(content).digest()
    with _lock:
        _found_good.append(digest)


def read(content):
    """The schema's object tree of a `.tflite`.

    What a file may leave out, such as the inputs of an operator, is empty in the tree and not None.

    Raises:
        InvalidModelFile: as for `check_file`.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    check_file(content)
    model = flatbuffer_utils.read_model_from_bytearray(bytes(content))
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes):  # data behind the tables; as an array it is written at once, not by the byte
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    _fill_in(model)
    return model


def _fill_in(model):
    """Puts what is empty where a file has nothing, and the codes of operators where files of before 2020 have none."""
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for entry in (*model.subgraphs, *(signature for signature in model.signatureDefs or [])):
        entry.inputs, entry.outputs = entry.inputs or [], entry.outputs or []
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = tensor.name or b""
        for operator in graph.operators:
            operator.inputs, operator.outputs = operator.inputs or [], operator.outputs or []
    for entry in model.metadata or []:
        entry.name = entry.name or b""


def write(model):
    """The sealed bytes of an object tree. Equal short vectors are stored once: a channel's zero point takes 8 bytes.

    Every op code also goes into the field where readers of before 2020, and OpenVINO, look for it: without it they take
    the op for ADD, whose code is 0. Source: the comment of `OperatorCode` in the schema.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):
        def __init__(self):
            super().__init__(1 << 20)
            self.places = {}

        def CreateNumpyVector(self, values):  # the name is the library's
            if values.nbytes > LARGEST_SHARED:
                return super().CreateNumpyVector(values)
            key = values.dtype.str, values.tobytes()
            if key not in self.places:
                self.places[key] = super().CreateNumpyVector(values)
            return self.places[key]

    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = min(code.builtinCode, LAST_OLD_CODE)
    builder = SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    content = seal(builder.Output())
    if _seal_place(content) is None:  # a finished file has a seal
        trust(content)
    return content


def op_name(model, operator):
    """The builtin name of an operator, or the custom code of a custom or flex one."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = builtin_names()[code.builtinCode]
    return code.customCode.decode() if name == "CUSTOM" else name


def op_versions(model):
    """`{op name: highest version}` over the ops that the graphs use."""
    versions = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = op_name(model, operator)
            versions[name] = max(versions[name], model.operatorCodes[operator.opcodeIndex].version)
    return dict(versions)


def hybrid_ops(model):
    """The names of ops whose input is float and whose weights are integer."""
    found = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = op_name(model, operator)
            if name in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
                entering, weights = (tensor_type(graph.tensors[index]) for index in operator.inputs[:2])
                if entering == "FLOAT32" and weights in ("INT8", "INT4"):
                    found.add(name)
    return sorted(found)


def tensor_type(tensor):
    """The name of a tensor's type, such as `"INT8"`."""
    return type_names()[tensor.type]


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


def operator_code(model, name):
    """The index of a builtin operator's code, added where the file has none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if builtin_names()[code.builtinCode] == name:
            return index
    value = getattr(schema.BuiltinOperator, name)
    model.operatorCodes.append(schema.OperatorCodeT(builtinCode=value, version=1))
    return len(model.operatorCodes) - 1


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


def set_metadata(content, values, length=0):
    """Stores a dictionary as JSON in the file, and `content_sha256`, which `check_whole` looks at.

    Its text begins with the first key, so that a program without the schema can find it by searching for that. It is
    filled up with blanks to `length` characters, so that a file's size can be known before what it says.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    text = json.dumps({**values, "content_sha256": "0" * 64})
    text = (text[:-1].ljust(length - 1) + "}").encode()
    if len(text) > LONGEST_METADATA:
        raise ValueError(f"`labels` and what else a file says of itself take {len(text)} bytes of {LONGEST_METADATA}.")
    stored = schema.BufferT(data=np.frombuffer(text, np.uint8))
    for item in model.metadata or []:
        if item.name.decode() == METADATA_NAME:
            model.buffers[item.buffer] = stored
            return write(model)
    model.buffers.append(stored)
    entry = schema.MetadataT(name=METADATA_NAME.encode(), buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    return write(model)


def check_same_but_metadata(content, other):
    """Raises `ValueError` unless two finished files of one length differ in this package's metadata alone."""

    def rest(whole):
        start = whole.find(METADATA_START)
        end = whole.find(b"}", whole.find(SEAL))
        return len(whole), start, whole[:start], whole[end:]

    if rest(content) != rest(other):
        raise ValueError("The file that would be written is not the one that was verified.")


def get_metadata(model):
    """The dictionary that `set_metadata` stored, or an empty one.

    Raises:
        InvalidModelFile: what is stored is no JSON object, or none of a size that is ever written.
    """
    for item in model.metadata or []:
        if item.name.decode() == METADATA_NAME:
            return _json_object(model.buffers[item.buffer].data)
    return {}


def _json_object(data):
    size = 0 if data is None else len(data)
    if not 0 < size <= LONGEST_METADATA:
        raise InvalidModelFile(f"its metadata has {size} bytes, not 1 to {LONGEST_METADATA}")
    try:
        values = json.loads(bytes(data).decode(), parse_float=_finite, parse_constant=_finite)
        json.dumps(values, ensure_ascii=False).encode()  # half a character, which JSON can hold, has no bytes
    except (ValueError, RecursionError) as error:
        raise InvalidModelFile(f"its metadata is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidModelFile(f"its metadata is no JSON object, but {type(values).__name__}")
    return values


def _finite(text):
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no number")
    return float(text)
