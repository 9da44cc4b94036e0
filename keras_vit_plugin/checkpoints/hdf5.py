"""HDF5 files of strangers: links, types and sizes are looked at before a value is read.

HDF5 can take a value from any file of the machine, through links, external and virtual datasets, and can make gigabytes
of a few bytes, through fill values and compression. Keras writes none of these.
"""

import contextlib
import functools
import math
import re
import subprocess
import sys
import zlib

import h5py
import numpy as np
from h5py import h5d, h5t, h5z

from keras_vit_plugin.checkpoints.limits import RefusedFile, check_expansion
from keras_vit_plugin.checkpoints.stored_tensor import BFLOAT16, StoredTensor

FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)  # others may be plugins
CHECKSUM = 4  # bytes that fletcher32 adds to a chunk
LARGEST_ATTRIBUTE = 2**17  # bytes; Keras splits longer lists of names
LISTS = re.compile(r"(layer|weight)_names\d*")  # the lists of texts that Keras writes
DEEPEST = 64  # groups in groups
OPTIMIZER = ("optimizer/", "optimizer_weights/")  # never read
# Texts of one length in a list can be one and the same in the file, so that what they become is seen by reading them.
READ_LISTS = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
except ImportError:
    pass
import h5py
with h5py.File(sys.argv[1], "r") as file:
    for path, names in zip(sys.argv[3::2], sys.argv[4::2]):
        file[path].attrs[names]
"""
LISTS_BYTES, LISTS_SECONDS = 2**29, 30  # that reading them may take, of memory h5py itself included
UNREAD_TYPES = {
    h5t.STRING: "text",
    h5t.REFERENCE: "references",
    h5t.COMPOUND: "records",
    h5t.VLEN: "lists of any length",
    h5t.OPAQUE: "opaque bytes",
    h5t.BITFIELD: "bit fields",
    h5t.ENUM: "an enumeration",
    h5t.ARRAY: "arrays",
    h5t.TIME: "times",
}


@contextlib.contextmanager
def open_hdf5(path, file_bytes=None):
    """The datasets of an HDF5 file, all of them numbers that lie in the file itself.

    Args:
        path: of the file.
        file_bytes: size of the file that `path` was unpacked from; None where it is a file of its own.

    Yields:
        `(h5py.File, {path in the file: h5py.Dataset})`.

    Raises:
        RefusedFile: the file leads out of itself, holds other things than numbers, or would become too large.
    """
    with h5py.File(path, "r") as file:
        lists = []
        datasets = dict(_walk(file, lists))
        if lists:
            _check_lists_are_short(path, lists)
        _check_sizes(datasets, path.stat().st_size, file_bytes or path.stat().st_size)
        yield file, datasets


def stored_tensors(datasets):
    """`{path: StoredTensor}` of what `open_hdf5` gives."""
    return {
        path: StoredTensor(dataset.shape, dtype_of(dataset), functools.partial(_read, dataset))
        for path, dataset in datasets.items()
    }


def _read(dataset):
    check_chunks(dataset)
    array = np.asarray(dataset[()])
    return array.view(BFLOAT16) if dtype_of(dataset) == BFLOAT16 else array


def _walk(file, lists):
    """Yields `(path, dataset)`; follows no link but those to objects of the file, each once.

    Args:
        file: an `h5py.File`.
        lists: takes up `(path, name)` of every attribute that is a list of texts.
    """
    seen, groups = {_address(file)}, [("", file)]
    _check_attributes("/", file, lists)
    while groups:
        prefix, group = groups.pop()
        if prefix.count("/") > DEEPEST:
            raise RefusedFile(f"{prefix[:80]!r}... in it lies in more than {DEEPEST} groups")
        for name in group:
            path = prefix + name
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                raise RefusedFile(f"{path!r} in it is a link, which could lead to another file")
            item = group[name]
            if not isinstance(item, (h5py.Group, h5py.Dataset)):
                raise RefusedFile(f"{path!r} in it is neither a group nor a dataset")
            if _address(item) in seen:
                raise RefusedFile(f"{path!r} in it has a second name")
            seen.add(_address(item))
            _check_attributes(path, item, lists)
            if isinstance(item, h5py.Group):
                groups.append((f"{path}/", item))
            else:
                _check_storage(path, item)
                yield path, item


def _address(item):
    return h5py.h5o.get_info(item.id).addr


def _check_storage(path, dataset):
    """Raises unless a dataset lies in its own file, as numbers, through filters that are HDF5's own."""
    properties = dataset.id.get_create_plist()
    # Before the shape is asked for, which opens the files that a virtual dataset is made of.
    if properties.get_layout() == h5d.VIRTUAL:
        raise RefusedFile(f"its dataset {path!r} is virtual: it takes its values from other files")
    if properties.get_external_count():
        raise RefusedFile(f"its dataset {path!r} takes its values from another file, {properties.get_external(0)[0]!r}")
    filters = _filters(dataset)
    if len(set(filters)) < len(filters) or not set(filters) <= set(FILTERS):
        raise RefusedFile(f"its dataset {path!r} is compressed by other means than gzip: HDF5 filters {filters}")
    kind = dataset.id.get_type().get_class()
    if dtype_of(dataset) is None and not path.startswith(OPTIMIZER):
        raise RefusedFile(f"its dataset {path!r} holds {UNREAD_TYPES.get(kind, 'an unknown type')}, not numbers")
    if dataset.shape is None:
        raise RefusedFile(f"its dataset {path!r} is empty")


def _filters(dataset):
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def dtype_of(dataset):
    """The NumPy dtype of a dataset of numbers or truth values; None for other datasets."""
    kind = dataset.id.get_type().get_class()
    if kind in (h5t.INTEGER, h5t.FLOAT) or (kind == h5t.ENUM and dataset.dtype == bool):
        return dataset.dtype
    # HDF5 has no bfloat16. Keras writes its bytes as they are, and says so in an attribute.
    if kind == h5t.OPAQUE and dataset.dtype.itemsize == 2 and _text(dataset, "dtype") == "bfloat16":
        return BFLOAT16
    return None


def _text(item, name):
    """An attribute that is one text, or None."""
    return item.attrs[name] if name in item.attrs and item.attrs.get_id(name).shape == () else None


def _check_lists_are_short(path, lists):
    """Raises where lists of texts would take much memory or time, by reading them in a process of its own."""
    arguments = [str(path), str(LISTS_BYTES), *(each for pair in lists for each in pair)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", READ_LISTS, *arguments], capture_output=True, timeout=LISTS_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise RefusedFile(f"its lists of names take more than {LISTS_SECONDS} s to read") from None
    if done.returncode:
        raise RefusedFile("its lists of names cannot be read, or not in 0.5 GB of memory")


def _check_attributes(path, item, lists):
    """Raises for an attribute that is neither numbers nor text, or is long; adds lists of texts to `lists`."""
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        kind, count = attribute.get_type(), math.prod(attribute.shape or ())
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.STRING):
            raise RefusedFile(f"the attribute {name!r} of {path!r} in it is neither numbers nor text")
        if kind.get_class() == h5t.STRING and kind.is_variable_str() and count > 1:
            if not LISTS.fullmatch(name):
                raise RefusedFile(f"the attribute {name!r:.200} of {path!r:.200} in it is a list of texts")
            lists.append((path, name))
        if count * kind.get_size() > LARGEST_ATTRIBUTE:
            raise RefusedFile(f"the attribute {name!r} of {path!r} in it is longer than {LARGEST_ATTRIBUTE} bytes")


def _check_sizes(datasets, own_bytes, file_bytes):
    declared = stored = 0
    for path, dataset in datasets.items():
        size, kept = size_of(dataset), dataset.id.get_storage_size()
        if size and not kept:
            raise RefusedFile(f"its dataset {path!r} of shape {dataset.shape} was never written")
        chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize  # is read as a whole
        declared += max(size, chunk if kept else 0)
        stored += kept
    if stored > own_bytes:
        raise RefusedFile("its datasets overlap")
    check_expansion("what it holds", declared, file_bytes)


def size_of(dataset):
    """Bytes of a dataset's values in memory."""
    return math.prod(dataset.shape) * dataset.dtype.itemsize


def check_chunks(dataset):
    """Raises `RefusedFile` where a compressed chunk is longer than it should be: HDF5 would inflate all of it."""
    filters = _filters(dataset)
    if h5z.FILTER_DEFLATE not in filters:
        return
    bit = 1 << filters.index(h5z.FILTER_DEFLATE)
    limit = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM
    places = []
    dataset.id.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
    for place in places:
        skipped_filters, content = dataset.id.read_direct_chunk(place)
        if not skipped_filters & bit and len(zlib.decompressobj().decompress(content, limit + 1)) > limit:
            raise RefusedFile(f"a chunk of its dataset {dataset.name!r} is longer than {limit} bytes")
