"""Weights from Keras's own files: `.weights.h5`, `.keras`, and KerasHub preset folders.

The tensors are compared by their path in the HDF5 file with those the model itself would save, so that one error can
list all that do not fit, and position embeddings of another image size can be resized on the way.
"""

import io
import json
import math
import zipfile
from pathlib import Path

import h5py
import numpy as np

from keras_vit_plugin.checkpoints.fit import check_fit, fit_positions
from keras_vit_plugin.checkpoints.positions import square_grid
from keras_vit_plugin.geometry import patch_grid
from keras_vit_plugin.temporary import temporary_folder

HDF5_BYTES = 4096  # that a file has for a tensor besides its values


def read_keras_tensors(path):
    """All model tensors of a `.weights.h5`, a `.keras` or a preset folder as `{path in the file: array}`.

    Raises:
        ValueError: the file is damaged, or the folder is no preset.
    """
    path = Path(path)
    try:
        if path.is_dir():
            tensors = _read_h5(path / "task.weights.h5") if (path / "task.weights.h5").exists() else {}
            backbone = _read_h5(path / "model.weights.h5")
            return {**tensors, **{f"layers/vi_t_backbone/{name}": value for name, value in backbone.items()}}
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return _read_h5(io.BytesIO(archive.read("model.weights.h5")))
        return _read_h5(path)
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"weights={str(path)!r} is damaged or incomplete: {error}") from error


def _read_h5(file):
    tensors = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            tensors[name] = item[()]

    with h5py.File(file) as h5:
        h5.visititems(visit)
    return tensors


def read_patch_grid(path):
    """The grid of patches `(rows, columns)` that a `.keras` or preset folder was made for; None where it says none."""
    path = Path(path)
    if path.is_dir():
        text = (path / "config.json").read_text(encoding="utf-8") if (path / "config.json").exists() else "{}"
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json").decode()
    else:
        return None
    for config in _nested_dictionaries(json.loads(text)):
        if config.get("image_shape") and config.get("patch_size"):
            patch_size = config["patch_size"]
            return patch_grid(config["image_shape"], patch_size if isinstance(patch_size, int) else tuple(patch_size))
    return None


def _nested_dictionaries(value):
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _nested_dictionaries(item)


def assign_keras_tensors(model, tensors, source, source_grid=None, new_head=False):
    """Writes tensors named as Keras saves them into a model; position embeddings are resized to its image size.

    Args:
        model: a `ViTImageClassifier` or `SimpleViT`.
        tensors: `{path in the file: array}`.
        source: what to call the tensors in an error.
        source_grid: the grid of patches the tensors are for, from `read_patch_grid`; None where it is not known.
        new_head: leave the classification head alone, and ignore one in `tensors`.

    Raises:
        ValueError: see `check_fit`; no weight of the model has changed.
    """
    trunk = getattr(model, "backbone", model)
    with temporary_folder(sum(4 * math.prod(weight.shape) + HDF5_BYTES for weight in model.weights)) as folder:
        own = folder / "model.weights.h5"
        model.save_weights(own)
        expected = {name: value.shape for name, value in _read_h5(own).items()}
        heads = [name for name in expected if name.startswith("layers/dense")]
        tensors = dict(tensors)
        if new_head:
            for name in heads:
                expected.pop(name)
                tensors.pop(name, None)
        last = len(trunk.tokens.weights) - 1  # `position_embedding` is the last variable of its layer
        positions = next(name for name in expected if name.endswith(f"prefix_tokens_and_positions/vars/{last}"))
        if positions in tensors:
            prefix = trunk.tokens.num_positioned_prefix_tokens
            grid = patch_grid(model.image_shape, trunk.patch_size)
            if source_grid is None:  # the file does not say: the model's own where it fits, else a square
                count = tensors[positions].shape[1] - prefix
                source_grid = grid if count == grid[0] * grid[1] else square_grid(count)
            tensors[positions] = fit_positions(tensors[positions], prefix, source_grid, grid)
        check_fit(expected, tensors, source, heads)
        with h5py.File(own, "r+") as h5:
            for name in expected:
                h5[name][...] = np.asarray(tensors[name])
        model.load_weights(own)
