"""Changes to `.tflite` files by the schema, and to what the exporter stores in them; anyone can seal them again."""

import hashlib
import json
import re
import struct

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from mutate_bytes import EXTREMES
from mutate_json import changed_json
from mutate_text import ODD_NAMES
from mutation import Unfit

NAME = b"keras_vit_plugin"
START = b'{"keras_vit_plugin":'
SEAL = re.compile(rb'"content_sha256": "(.{64})"', re.DOTALL)
TRIES = 20


def read(content):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def write(model):
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def sealed(content):
    """The bytes with the hash in their metadata made right, where they have one: SHA-256 with zeros in its place."""
    found = SEAL.search(content)
    if found is None:
        return content
    digest = hashlib.sha256(content[: found.start(1)] + b"0" * 64 + content[found.end(1) :]).hexdigest()
    return content[: found.start(1)] + digest.encode() + content[found.end(1) :]


def is_sealed(content):
    """Whether the bytes have a hash in their metadata, and it is right."""
    found = SEAL.search(content)
    return found is not None and sealed(content) == content


def sealed_again(mutation):
    """The mutation, and then the hash is made right."""

    def both(path, random):
        mutation(path, random)
        path.write_bytes(sealed(path.read_bytes()))

    both.__name__ = mutation.__name__
    return both


def tables(model):
    """Every table of the object tree but the buffers."""
    found, todo = [], [model]
    while todo:
        table = todo.pop()
        found.append(table)
        for value in vars(table).values():
            children = value if isinstance(value, list) else [value]
            todo += [
                child for child in children if hasattr(child, "__dict__") and not isinstance(child, schema.BufferT)
            ]
    return found


def field_changed(path, random):
    """One field of one table becomes extreme, is emptied, or is lost."""
    for _ in range(TRIES):
        model = read(path.read_bytes())
        table = random.choice(tables(model))
        names = [name for name, value in vars(table).items() if value is not None]
        if not names:
            continue
        name = random.choice(names)
        setattr(table, name, other_value(getattr(table, name), random))
        try:
            path.write_bytes(write(model))
        except Exception:  # the schema's writer refuses what the format has no place for
            continue
        return
    raise Unfit


def other_value(value, random):
    small = random.choice((*EXTREMES, 2, 3, 5, 7, 16, 100, 1000))
    if isinstance(value, (bool, int)):
        return small
    if isinstance(value, float):
        return random.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    if isinstance(value, (bytes, str)):
        return random.choice((b"", b"x" * 100_000, b"\x1b[31m", b"\xff\xfe"))
    if isinstance(value, np.ndarray) and value.size:
        if random.random() < 0.15:
            return random.choice((value[:-1], np.concatenate([value, value]), value[:0]))
        changed = value.copy()
        place = random.randrange(changed.size)
        if changed.dtype.kind == "f":
            changed.flat[place] = random.choice((0.0, -1.0, np.nan, np.inf, 1e38, 1e-45))
        else:
            changed.flat[place] = np.array(small).astype(changed.dtype)
        return changed
    if isinstance(value, list) and value:
        changed = list(value)
        place = random.randrange(len(changed))
        if random.random() < 0.5:
            del changed[place]
        else:
            changed.append(changed[place])
        return changed
    return None


def numbers_changed(path, random):
    """The numbers of a buffer: NaN, infinity, or fewer than the tensor has."""
    model = read(path.read_bytes())
    buffer = random.choice([buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data) >= 4])
    data = bytes(bytearray(buffer.data))
    start = 4 * random.randrange(len(data) // 4)
    value = random.choice((struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), b"\xff\xff\xff\x7f"))
    changed = random.choice((data[:start], data[:start] + value + data[start + 4 :], data + data))
    if data.startswith(START):
        raise Unfit
    buffer.data = np.frombuffer(changed, np.uint8)
    path.write_bytes(write(model))


def stored_text(model):
    """`(buffer, JSON text)` of what the exporter stores."""
    entry = next((entry for entry in model.metadata or () if bytes(entry.name) == NAME), None)
    if entry is None:
        raise Unfit
    buffer = model.buffers[entry.buffer]
    return buffer, bytes(bytearray(buffer.data)).decode()


def metadata_changed(path, random):
    """One value of what the exporter stores."""
    model = read(path.read_bytes())
    buffer, text = stored_text(model)
    stored = json.loads(text)
    digest = stored.pop("content_sha256")
    changed = changed_json(json.dumps(stored), random)
    if changed.endswith("}") and changed != "{}" and random.random() < 0.9:  # so that it can be sealed
        changed = changed[:-1] + f', "content_sha256": "{digest}"}}'
    buffer.data = np.frombuffer(changed.encode("utf-8", "surrogatepass"), np.uint8)
    path.write_bytes(write(model))


def class_name_changed(path, random):
    model = read(path.read_bytes())
    buffer, text = stored_text(model)
    stored = json.loads(text)
    if not stored.get("labels"):
        raise Unfit
    stored["labels"][random.randrange(len(stored["labels"]))] = random.choice(ODD_NAMES)
    buffer.data = np.frombuffer(json.dumps(stored).encode(), np.uint8)
    path.write_bytes(write(model))


TFLITE = (field_changed, field_changed, field_changed, field_changed, numbers_changed)
METADATA = (*[metadata_changed] * 4, *[class_name_changed] * 2)
RESEALED = tuple(map(sealed_again, (*TFLITE, *METADATA)))
