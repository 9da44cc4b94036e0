"""What a file says of itself, a JSON object in its metadata."""

import json
import math

import numpy as np

from .errors import InvalidModelFile
from .flatbuffer import CHECKSUM_KEY, METADATA_START, read, write

METADATA_NAME = "keras_vit_plugin"
LONGEST_METADATA = 1 << 22  # bytes, as many as programs on devices look through


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
        end = whole.find(b"}", whole.find(CHECKSUM_KEY))
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
