"""What a `.tflite` really contains, and what its delegate takes of it."""

import hashlib
import re
from collections import Counter
from dataclasses import asdict, dataclass

from keras_vit_plugin.files import read_file

from .consistency import sides_of
from .errors import InvalidModelFile
from .flatbuffer import naming_the_file, read
from .foreign_runner import guarded_interpreter
from .metadata import read_metadata
from .operators import op_name, op_versions, tensor_type
from .runtime_versions import min_runtime
from .stored_metadata import get_metadata


@dataclass(frozen=True)
class FileReport:
    """The contents of a `.tflite`.

    `sha256` is the hash of the whole file, as `sha256sum` gives it, and as a release can tell it.
    `float_tensors` counts float16 and float32 tensors other than the graph's inputs and outputs. `delegate_partitions`
    counts the pieces that XNNPACK runs, `nodes_outside_delegate` the ops by name that it leaves to the interpreter;
    both are None where ai-edge-litert cannot load the file, and `load_error` says why.
    """

    size_bytes: int
    sha256: str
    ops: dict[str, int]
    op_versions: dict[str, int]
    min_runtime: str | None
    inputs: list[dict]
    outputs: list[dict]
    float_tensors: int
    flex_ops: int
    max_rank: int
    delegate_partitions: int | None
    nodes_outside_delegate: dict[str, int] | None
    load_error: str | None
    metadata: dict

    def to_dict(self):
        return asdict(self)


def inspect(file, sha256=None):
    """Reads a `.tflite`.

    Args:
        file: a path, or the bytes.
        sha256: what the SHA-256 of the whole file must be, 64 hexadecimal digits; None takes any.

    Returns:
        A `FileReport`.

    Raises:
        FileNotFoundError: no file at the path.
        InvalidModelFile: it is no TFLite model, a damaged one, or another than `sha256` says.
        ValueError: `sha256` is no such hash.
    """
    content = file if isinstance(file, (bytes, bytearray)) else read_file(file)
    found = hashlib.sha256(content).hexdigest()
    with naming_the_file(file):
        _check_hash(found, sha256)
        model = read(content)
        read_metadata(model)
    graph = model.subgraphs[0]
    ops = Counter(op_name(model, operator) for operator in graph.operators)
    ends = {*graph.inputs, *graph.outputs}
    inner = [tensor for index, tensor in enumerate(graph.tensors) if index not in ends]
    try:
        partitions, outside = _delegated(content)
        load_error = None
    except InvalidModelFile as error:
        partitions, outside, load_error = None, None, str(error)
    versions = op_versions(model)
    return FileReport(
        size_bytes=len(content),
        sha256=found,
        ops=dict(ops.most_common()),
        op_versions=versions,
        min_runtime=min_runtime(versions),
        inputs=[_describe(graph.tensors[index]) for index in graph.inputs],
        outputs=[_describe(graph.tensors[index]) for index in graph.outputs],
        float_tensors=sum(tensor_type(tensor) in ("FLOAT16", "FLOAT32") for tensor in inner),
        flex_ops=sum(count for name, count in ops.items() if name.startswith("Flex")),
        max_rank=max((len(sides_of(tensor)) for tensor in graph.tensors), default=0),
        delegate_partitions=partitions,
        nodes_outside_delegate=outside,
        load_error=load_error,
        metadata=get_metadata(model),
    )


def _check_hash(found, wanted):
    if wanted is None:
        return
    wanted = wanted.strip()
    if not re.fullmatch("[0-9a-fA-F]{64}", wanted):
        raise ValueError(f"`sha256` (--check) must be 64 hexadecimal digits, got {wanted!r}.")
    if wanted.lower() != found:
        raise InvalidModelFile(f"its SHA-256 is {found}, not {wanted.lower()}: it is another file, or a changed one")


def _describe(tensor):
    quantization = tensor.quantization
    scale = None if quantization is None or quantization.scale is None else [float(s) for s in quantization.scale]
    described = {
        "name": tensor.name.decode(),
        "shape": sides_of(tensor),
        "dtype": tensor_type(tensor).lower(),
    }
    if scale:
        described |= {"scale": scale[0], "zero_point": int(quantization.zeroPoint[0])}
    return described


def _delegated(content):
    """How many pieces XNNPACK takes, and the ops by name it leaves."""
    nodes = guarded_interpreter(content)._get_ops_details()
    producer = {int(index): node for node in nodes if node["op_name"] != "DELEGATE" for index in node["outputs"]}
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    taken = set()
    for delegate in delegates:
        # The nodes behind the delegate's outputs, back to its inputs.
        entries, todo = set(map(int, delegate["inputs"])), list(map(int, delegate["outputs"]))
        while todo:
            node = producer.get(todo.pop())
            if node is None or node["index"] in taken:
                continue
            taken.add(node["index"])
            todo.extend(int(index) for index in node["inputs"] if int(index) not in entries)
    outside = Counter(node["op_name"] for node in nodes if node["op_name"] != "DELEGATE" and node["index"] not in taken)
    return len(delegates), dict(outside.most_common())
