"""Weights from Keras's own files: `.weights.h5`, `.keras`, and KerasHub preset folders.

The tensors are compared by their path in the HDF5 file with those the model itself would save, so that one error can
list all that do not fit, and position embeddings of another image size can be resized on the way.
"""

import contextlib
import math
from pathlib import Path

import h5py
import numpy as np

from keras_vit_plugin.checkpoints.archives import open_archive, read_json_member, unpack
from keras_vit_plugin.checkpoints.fit import fit_positions, read_fitting
from keras_vit_plugin.checkpoints.hdf5 import open_hdf5, stored_tensors
from keras_vit_plugin.checkpoints.limits import RefusedFile, check_regular, first_line, named, read_json_file
from keras_vit_plugin.checkpoints.plain_keras import is_of_plain_keras, with_own_paths
from keras_vit_plugin.checkpoints.positions import square_grid
from keras_vit_plugin.checkpoints.stored_tensor import BFLOAT16
from keras_vit_plugin.geometry import patch_grid
from keras_vit_plugin.temporary import temporary_folder

HDF5_BYTES = 4096  # that a file has for a tensor besides its values

WEIGHTS = "model.weights.h5"


@contextlib.contextmanager
def open_keras_tensors(path):
    """All model tensors of a `.weights.h5`, a `.keras` or a preset folder, to be read within the context.

    Yields:
        `{path in the file: StoredTensor}` and the grid of patches `(rows, columns)` that the file was made for, None
        where it says none.

    Raises:
        ValueError: the file is damaged, would become too large or leads to other files, or the folder is no preset.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with named(f"weights={str(path)!r}"):
            opened = _open_folder if path.is_dir() else _open_archive if path.suffix == ".keras" else _open_weights
            tensors, grid = opened(path, stack)
        yield tensors, grid


def _open_folder(path, stack):
    config = read_json_file(path / "config.json") if (path / "config.json").exists() else {}
    backbone, _ = _open_weights(path / WEIGHTS, stack)
    task = _open_weights(path / "task.weights.h5", stack)[0] if (path / "task.weights.h5").exists() else {}
    return {**task, **{f"layers/vi_t_backbone/{name}": value for name, value in backbone.items()}}, _grid_in(config)


def _open_archive(path, stack):
    check_regular(path)
    archive = stack.enter_context(open_archive(path))
    folder = stack.enter_context(temporary_folder())
    unpack(archive, folder, WEIGHTS)
    _, datasets = stack.enter_context(open_hdf5(folder / WEIGHTS, path.stat().st_size))
    return _of_model(datasets), _grid_in(read_json_member(archive, "config.json"))


def _open_weights(path, stack):
    if not path.exists():
        raise RefusedFile(f"it has no file {path.name}")
    check_regular(path)
    return _of_model(stack.enter_context(open_hdf5(path))[1]), None


def _of_model(datasets):
    tensors = stored_tensors(datasets)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer/")}


def _grid_in(config):
    """The grid of patches that a config says its model has; None where it says none."""
    configs = [config]
    while configs:
        config = configs.pop(0)
        configs += [value for value in config.values() if isinstance(value, dict)]
        image_shape, patch_size = config.get("image_shape"), config.get("patch_size")
        if image_shape and patch_size:
            try:
                return patch_grid(image_shape, patch_size)
            except (TypeError, ValueError, IndexError) as error:
                given = f"image_shape={image_shape!r} and patch_size={patch_size!r}"
                raise RefusedFile(f"its config.json has {given:.200}: {first_line(error):.200}") from error
    return None


def assign_keras_tensors(model, tensors, source, source_grid=None, new_head=False):
    """Writes tensors named as Keras saves them into a model; position embeddings are resized to its image size.

    Args:
        model: a `ViTImageClassifier` or `SimpleViT`.
        tensors: `{path in the file: StoredTensor}`; also of the teaching notebook's model in layers of Keras's own.
        source: what to call the tensors in an error.
        source_grid: the grid of patches the tensors are for, None where it is not known.
        new_head: leave the classification head alone, and ignore one in `tensors`.

    Raises:
        ValueError: see `read_fitting`; no weight of the model has changed.
    """
    trunk = getattr(model, "backbone", model)
    with temporary_folder(sum(_bytes(weight) + HDF5_BYTES for weight in model.weights)) as folder:
        own = folder / WEIGHTS
        model.save_weights(own)
        with open_hdf5(own) as (_, datasets):
            expected = {name: (tensor.shape, tensor.dtype) for name, tensor in _of_model(datasets).items()}
        heads = [name for name in expected if name.startswith("layers/dense")]
        if is_of_plain_keras(tensors):
            tensors = with_own_paths(tensors, model, expected, source)
        tensors = dict(tensors)
        if new_head:
            for name in heads:
                expected.pop(name)
                tensors.pop(name, None)
        last = len(trunk.tokens.weights) - 1  # `position_embedding` is the last variable of its layer
        positions = next(name for name in expected if name.endswith(f"prefix_tokens_and_positions/vars/{last}"))
        if positions in tensors and len(tensors[positions].shape) == 3:
            prefix = trunk.tokens.num_positioned_prefix_tokens
            grid = patch_grid(model.image_shape, trunk.patch_size)
            if source_grid is None:  # the file does not say: the model's own where it fits, else a square
                count = tensors[positions].shape[1] - prefix
                source_grid = grid if count == grid[0] * grid[1] else square_grid(count)
            tensors[positions] = fit_positions(tensors[positions], prefix, source_grid, grid)
        arrays = read_fitting(expected, tensors, source, heads)
        with h5py.File(own, "r+") as h5:
            for name, array in arrays.items():
                h5[name][...] = array.view("V2") if array.dtype == BFLOAT16 else array
        model.load_weights(own)


def _bytes(weight):
    return math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
