"""Changes to the arrays of .npz and .safetensors files."""

import io
import json
import struct

import numpy as np
from mutate_bytes import EXTREMES
from mutate_json import changed_json
from mutate_text import ODD_NAMES
from mutate_zip import array_header, members, write
from mutation import Unfit, refused

HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % (1 << 40),
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % (1 << 29),
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2.5), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': 'nothing', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U%s', 'fortran_order': False, 'shape': (1,), }" % (1 << 29),
    "[" * 60 + "]" * 60,
    "\x1b[31m",
    "",
)


def as_npy(values, pickles=False):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=pickles)
    return file.getvalue()


def change_of_an_array(change):
    """A mutation of .npz by a function of `(values, random)`, which returns the bytes of the .npy, or None."""

    def mutation(path, random):
        contents = members(path)
        name = random.choice(sorted(contents))
        changed = change(np.load(io.BytesIO(contents.pop(name))), random)
        if changed is not None:
            contents[name] = changed
        write(path, contents.items())

    mutation.__name__ = change.__name__
    mutation.refused = getattr(change, "refused", False)
    return mutation


@refused
def array_removed(values, random):
    return None


@refused
def array_pickled(values, random):
    return as_npy(np.array([values, {}], object), pickles=True)


@refused
def array_with_another_header(values, random):
    return array_header(random.choice(HEADERS)) + values.tobytes()


def array_of_another_type(values, random):
    kinds = ("f2", "f8", ">f4", "i1", "i8", "bool", "c8", "S4", "U4", "M8[s]", "V8")
    return as_npy(np.zeros(values.shape, random.choice(kinds)))


@refused
def array_of_another_shape(values, random):
    shapes = [(), (0,), (1, 1, 1, 1, 1, 1), (*values.shape, 2), (1 << 20, 1)]
    return as_npy(np.zeros(random.choice([shape for shape in shapes if shape != values.shape]), values.dtype))


@refused
def array_not_finite(values, random):
    if values.dtype.kind != "f":
        raise Unfit
    values.reshape(-1)[random.randrange(values.size)] = random.choice((np.nan, np.inf, -np.inf))
    return as_npy(values)


def names_made_odd(values, random):
    """Of an index: a photo's name, or what the vectors are."""
    if values.dtype.kind != "U":
        raise Unfit
    names = [str(name) for name in values]
    names[random.randrange(len(names))] = random.choice(ODD_NAMES)
    return as_npy(np.array(names))


def array_in_another_order(values, random):
    return as_npy(np.asfortranarray(values))


ARRAYS = tuple(
    change_of_an_array(change)
    for change in (
        array_removed,
        array_pickled,
        array_with_another_header,
        array_with_another_header,
        array_of_another_type,
        array_of_another_shape,
        array_not_finite,
        array_in_another_order,
    )
)
INDEX = (*ARRAYS, *[change_of_an_array(names_made_odd)] * 3)


# ---- .safetensors: 8 bytes of the header's length, the header as JSON, the numbers ----


def parts(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(path, header, numbers):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


@refused
def header_length_made_extreme(path, random):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    value = random.choice((*EXTREMES, length - 1, length + 1, len(content))) % 2**64
    path.write_bytes(struct.pack("<Q", value) + content[8:])


def header_changed(path, random):
    header, numbers = parts(path)
    put_together(path, changed_json(json.dumps(header), random).encode("utf-8", "surrogatepass"), numbers)


@refused
def offset_made_extreme(path, random):
    header, numbers = parts(path)
    offsets = header[random.choice(sorted(set(header) - {"__metadata__"}))]["data_offsets"]
    place = random.randrange(2)
    offsets[place] = random.choice([value for value in (*EXTREMES, len(numbers) + 4) if value != offsets[place]])
    put_together(path, header, numbers)


def type_changed(path, random):
    header, numbers = parts(path)
    entry = header[random.choice(sorted(set(header) - {"__metadata__"}))]
    entry["dtype"] = random.choice(("I32", "F16", "BF16", "F64", "F8_E4M3", "BOOL", "nothing", ""))
    put_together(path, header, numbers)


@refused
def numbers_not_finite(path, random):
    header, numbers = parts(path)
    start = 4 * random.randrange(len(numbers) // 4)
    value = struct.pack("<f", random.choice((float("nan"), float("inf"))))
    put_together(path, header, numbers[:start] + value + numbers[start + 4 :])


def tensor_doubled(path, random):
    """The same key twice in the header."""
    header, numbers = parts(path)
    name = random.choice(sorted(header))
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    put_together(path, text.encode(), numbers)


SAFETENSORS = (
    header_length_made_extreme,
    header_changed,
    header_changed,
    offset_made_extreme,
    type_changed,
    numbers_not_finite,
    tensor_doubled,
)
