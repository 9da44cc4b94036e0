"""Files and folders of whole models, looked at before Keras or KerasHub opens them.

Keras itself refuses links and datasets in other files when it comes to them, but neither all types nor what becomes
less than 4 GB, and it builds whatever its config describes before it looks at the weights.
"""

import contextlib
import math
import threading
from collections import Counter
from pathlib import Path

import keras

from keras_vit_plugin.checkpoints.archives import open_archive, unpack
from keras_vit_plugin.checkpoints.hdf5 import OPTIMIZER, check_chunks, dtype_of, open_hdf5, size_of
from keras_vit_plugin.checkpoints.keras_files import WEIGHTS
from keras_vit_plugin.checkpoints.limits import (
    RefusedFile,
    check_expansion,
    check_json_size,
    check_regular,
    most_bytes,
    parse_json,
    read_json_file,
)
from keras_vit_plugin.checkpoints.stored_tensor import is_float
from keras_vit_plugin.temporary import temporary_folder

INDEXES = ("model.weights.json", "model.safetensors.index.json")  # which file holds which tensor
BYTES_PER_WEIGHT = 4
LONGEST_SEQUENTIAL = 256  # layers
_building = threading.Lock()


def load_archive(path):
    """The model in a `.keras` file, not compiled, and its config."""
    with open_archive(path) as archive, temporary_folder() as folder:
        unpack(archive, folder, "config.json", WEIGHTS, "assets/", *({"metadata.json"} & set(archive.namelist())))
        size = path.stat().st_size
        config = read_json_file(folder / "config.json")
        _check_sequentials(config)
        others = _check_weights(folder / WEIGHTS, size)
        with limited_weights(size):
            model = keras.saving.load_model(folder, compile=False)
        check_types(model, others)
        return model, config


def load_hdf5(path):
    """The model in an `.h5` file, not compiled, and the config of its training, `{}` where there is none."""
    others = _check_weights(path, path.stat().st_size)
    with open_hdf5(path) as (file, _):
        training = parse_json(file.attrs.get("training_config", "{}"), "training_config")
        _check_sequentials(parse_json(file.attrs.get("model_config", "{}"), "model_config"))
    with limited_weights(path.stat().st_size):
        model = keras.saving.load_model(path, compile=False)
    check_types(model, others)
    return model, training


@contextlib.contextmanager
def checked_folder(path):
    """Within the context, a preset folder can be loaded that was looked at first.

    Yields:
        A function that takes the loaded model and raises `RefusedFile` where the types of its weights were others.

    Raises:
        RefusedFile: the folder holds a pipe, a config or weights that are too large, or leads to other files.
    """
    files = list(path.iterdir())
    for file in files:
        if not file.is_dir():
            _of(file, check_regular, file)
        if file.suffix == ".json":
            _of(file, check_json_size, file.stat().st_size, "text")
        if file.name in INDEXES:
            _check_index(file)
    size = sum(file.stat().st_size for file in files if file.is_file())
    others = [each for file in files if file.suffix == ".h5" for each in _of(file, _check_weights, file, size)]
    with limited_weights(size):
        yield lambda model: check_types(model, others)


def _of(file, check, *arguments):
    """What a check of one file of a folder gives; a reason to refuse it names the file."""
    try:
        return check(*arguments)
    except RefusedFile as error:
        raise RefusedFile(f"in its {file.name}, {error}") from error


def _check_index(file):
    """Raises where the list of a checkpoint's parts names a file that is not beside it."""
    parts = read_json_file(file).get("weight_map")
    for part in parts.values() if isinstance(parts, dict) else ():
        for name in part if isinstance(part, list) else [part]:
            if not isinstance(name, str) or Path(name).name != name:
                raise RefusedFile(f"its {file.name} names {name!r}, which is no file of the folder")


def _check_weights(path, file_bytes):
    """Looks at a weights file that Keras will open; `(path in the file, shape, dtype)` of what is no float."""
    with open_hdf5(path, file_bytes) as (file, datasets):
        for dataset in datasets.values():
            check_chunks(dataset)
        _check_lists(file, file_bytes)
        return [
            (name, dataset.shape, dtype_of(dataset))
            for name, dataset in datasets.items()
            if not name.startswith(OPTIMIZER) and not is_float(dtype_of(dataset))
        ]


def _check_sequentials(config):
    """Raises for a `Sequential` of many layers: Keras builds it once more for each."""
    parts = [config]
    while parts:
        part = parts.pop()
        parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if isinstance(part, dict) and part.get("class_name") == "Sequential" and isinstance(part.get("config"), dict):
            layers = part["config"].get("layers")
            if isinstance(layers, list) and len(layers) > LONGEST_SEQUENTIAL:
                raise RefusedFile(
                    f"its config has a Sequential of {len(layers)} layers, at most {LONGEST_SEQUENTIAL} are built"
                )


def _check_lists(file, file_bytes):
    """Raises where a group of an `.h5` lists weights that are more than the file; one can be listed many times."""
    listed = 0

    def add(path, group):
        nonlocal listed
        if f"{path}/".startswith(OPTIMIZER):
            return
        for attribute in group.attrs:
            if attribute.startswith("weight_names"):
                listed += sum(size_of(group[name]) for name in group.attrs[attribute])

    file.visititems(add)
    check_expansion("what it lists", listed, file_bytes)


def check_types(model, others):
    """Raises where a file holds integers or truth values that a model does not have: Keras takes them as floats.

    Args:
        model: as loaded.
        others: `(path in the file, shape, dtype)` of what is no float.
    """
    own = Counter(tuple(v.shape) for v in model.variables if "float" not in str(v.dtype))
    for path, shape, dtype in others:
        if not own[shape]:
            raise RefusedFile(f"its tensor {path!r} is {dtype}, the model has no weight of shape {shape} that is")
        own[shape] -= 1


@contextlib.contextmanager
def limited_weights(file_bytes):
    """Within the context, this thread builds no more weights than a file of `file_bytes` bytes can fill."""
    thread, limit, total = threading.get_ident(), most_bytes(file_bytes), 0
    add_weight = keras.layers.Layer.add_weight

    def counted(layer, shape=None, *arguments, **options):
        nonlocal total
        if threading.get_ident() == thread:
            total += BYTES_PER_WEIGHT * math.prod(shape if isinstance(shape, (tuple, list)) else [shape or 1])
            if total > limit:
                raise RefusedFile(
                    f"its config describes weights of more than {limit / 1e6:,.0f} MB, in {file_bytes / 1e6:,.2f} MB"
                )
        return add_weight(layer, shape, *arguments, **options)

    with _building:
        keras.layers.Layer.add_weight = counted
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = add_weight
