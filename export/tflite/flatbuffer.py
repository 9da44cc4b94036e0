"""The bytes of a `.tflite` and its object tree: looked at before they are trusted, read, written with a checksum."""

import contextlib
import hashlib
import threading
from collections import deque
from pathlib import Path

import numpy as np

from .bounded_reader import read_bounded
from .consistency import check_consistent
from .errors import InvalidModelFile

METADATA_START = b'{"keras_vit_plugin":'
CHECKSUM_KEY = b'"content_sha256": "'
LARGEST_SHARED = 1 << 16  # bytes of a vector that is looked for among those written
MOST_REMEMBERED = 64  # files found good; an export looks at some of its own several times
LAST_OLD_CODE = 127  # the old field for op codes holds one byte; PLACEHOLDER_FOR_GREATER_OP_CODES

_lock = threading.Lock()
_found_good = deque(maxlen=MOST_REMEMBERED)  # SHA-256 of contents


@contextlib.contextmanager
def naming_the_file(file):
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
    place = _checksum_place(content)
    whole = place is not None and bytes(content[place : place + 64]) == _content_hash(content, place)
    if not whole and (place is not None or METADATA_START in content):
        raise InvalidModelFile(
            "a damaged TFLite model: it is not what was exported, by the hash in its metadata; copy or export it again"
        )


def with_checksum(content):
    """Writes the hash of a file into its metadata, where it has some: the last thing to do to the bytes.

    The hash is SHA-256 of the whole file with 64 zeros in the place of its 64 hexadecimal digits.
    """
    place = _checksum_place(content)
    if place is None:
        return bytes(content)
    return bytes(content[:place]) + _content_hash(content, place) + bytes(content[place + 64 :])


def _checksum_place(content):
    place = content.find(CHECKSUM_KEY)
    return None if place < 0 else place + len(CHECKSUM_KEY)


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
    """The bytes of an object tree, with the checksum where there is metadata.

    Equal short vectors are stored once: a channel's zero point takes 8 bytes.

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
    content = with_checksum(builder.Output())
    if _checksum_place(content) is None:  # a finished file has a checksum
        trust(content)
    return content
