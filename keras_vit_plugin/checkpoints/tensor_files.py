"""Tensors by name in `.npz` and `.safetensors`; no pickle is opened."""

import contextlib
import functools
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_vit_plugin.checkpoints.archives import open_archive
from keras_vit_plugin.checkpoints.limits import RefusedFile, check_regular, first_line, named
from keras_vit_plugin.checkpoints.stored_tensor import BFLOAT16, StoredTensor

NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
SAFETENSORS_FLOATS = {
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


@contextlib.contextmanager
def open_tensor_file(path, argument="weights"):
    """`{name: StoredTensor}` of a `.npz` or `.safetensors` file, to be read within the context.

    Args:
        path: of the file.
        argument: what to call it in an error.

    Raises:
        ImportError: a `.safetensors` file without the safetensors package.
        ValueError: the file is damaged, or would become too large.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with named(f"{argument}={str(path)!r}"):
            check_regular(path)
            tensors = (_safetensors if path.suffix == ".safetensors" else _npz)(path, stack)
        yield tensors


def _npz(path, stack):
    archive = stack.enter_context(open_archive(path))
    return {member.filename.removesuffix(".npy"): _npy(archive, member) for member in archive.infolist()}


def _npy(archive, member):
    """The tensor in a member, by its header alone."""
    try:
        with archive.open(member) as content:
            shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(content)](content)
            start = content.tell()
    except (zipfile.BadZipFile, zlib.error, OSError):
        raise
    except Exception as error:  # NumPy parses the header as Python
        raise RefusedFile(f"its member {member.filename!r} has no header of an array: {first_line(error)}") from error
    if dtype.hasobject:
        raise RefusedFile(f"its member {member.filename!r} holds Python objects, a pickle, which is not opened")
    if start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise RefusedFile(f"its member {member.filename!r} of {member.file_size} bytes holds no {shape} of {dtype}")
    return StoredTensor(shape, dtype, functools.partial(_read_npy, archive, member))


def _read_npy(archive, member):
    with archive.open(member) as content:
        return np.lib.format.read_array(content, allow_pickle=False)


def _safetensors(path, stack):
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError("Reading .safetensors needs: pip install 'keras-vit-plugin[checkpoints]'") from error
    file = stack.enter_context(safe_open(path, framework="numpy"))
    tensors = {}
    for name in file.keys():  # noqa: SIM118 - it is no dict
        header = file.get_slice(name)
        dtype = SAFETENSORS_FLOATS.get(header.get_dtype(), header.get_dtype())
        tensors[name] = StoredTensor(tuple(header.get_shape()), dtype, functools.partial(file.get_tensor, name))
    return tensors
