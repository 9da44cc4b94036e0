"""Do these tensors fit this model? One error that lists every tensor that does not."""

import math

import numpy as np

from keras_vit_plugin.checkpoints.limits import named
from keras_vit_plugin.checkpoints.positions import resize_positions
from keras_vit_plugin.checkpoints.stored_tensor import StoredTensor, is_float, is_integer
from keras_vit_plugin.warn import warn

SHOWN = 10  # problems of one file
LONGEST_NAME = 200  # characters


def read_fitting(expected, tensors, source, head_names):
    """Reads the tensors that a model needs; names, shapes and types are compared before a value is read.

    float16, bfloat16 and float32 are taken as they are. float64 is rounded to the model's type, with a warning where
    that changes a value. Integers are taken where the model has integers, such as the states of random generators.

    Args:
        expected: `{name: (shape, dtype)}` of the model.
        tensors: `{name: StoredTensor}` of the file.
        source: what to call the file in the error.
        head_names: names of the classification head among `expected`.

    Returns:
        `{name: array}` of the model's types, for every name in `expected`.

    Raises:
        ValueError: tensors are missing, extra, of another shape or type, or hold NaN, infinity or what the model's type
            cannot hold.
    """
    problems = [f"missing: {name} {shape}" for name, (shape, _) in expected.items() if name not in tensors]
    problems += [f"extra: {_shown(name)} {tensor.shape}" for name, tensor in tensors.items() if name not in expected]
    arrays, rounded = {}, []
    for name, (shape, dtype) in expected.items():
        if name not in tensors:
            continue
        problem = _mismatch(name, tensors[name], shape, dtype)
        if not problem:
            with named(f"weights={source!r}"):
                array = tensors[name].read()
            with np.errstate(over="ignore"):
                arrays[name] = array.astype(dtype)
            problem = _unrepresented(name, array, arrays[name])
            if array.dtype.itemsize > arrays[name].dtype.itemsize == 4 and not np.array_equal(array, arrays[name]):
                rounded.append(name)
        problems += [problem] if problem else []
    if problems:
        raise ValueError(f"{source} does not fit the model, {_listed(problems, head_names)}")
    if rounded:
        warn(f"{source}: {len(rounded)} float64 tensors are rounded to float32.")
    return arrays


def _mismatch(name, tensor, shape, dtype):
    """What is wrong with a tensor by its header; None if nothing is."""
    needed = np.dtype(dtype)
    if not (is_float(tensor.dtype) if is_float(needed) else is_integer(tensor.dtype)):
        return f"of another type: {name} is {tensor.dtype}, the model needs {needed}"
    if tensor.shape != shape:
        return f"misshapen: {name} has {tensor.shape}, the model needs {shape}"
    return None


def _unrepresented(name, array, converted):
    """What of an array the model's type cannot hold; None if it holds all."""
    if not is_float(array.dtype):
        same = np.array_equal(array, converted)
        return None if same else f"out of range: {name} is {array.dtype}, the model needs {converted.dtype}"
    if not np.isfinite(array).all():
        return f"not finite: {name} holds NaN or infinity"
    if not np.isfinite(converted).all():
        return f"out of range: {name} holds {np.abs(array).max():.3g}, beyond the model's {converted.dtype}"
    return None


def _listed(problems, head_names):
    hint = ""
    if any(f" {name} " in problem for name in head_names for problem in problems):
        hint = "\nTo keep a new head and load the rest: build(..., weights=..., new_head=True) in Python."
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    shown = "\n  ".join(problems[:SHOWN])
    return f"{count}:\n  {shown}{more}{hint}"


def _shown(name):
    """A name from a file on one line."""
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    return short if short.isprintable() else ascii(short)


def fit_positions(positions, num_prefix, source_grid, grid):
    """Position embeddings `(1, num_prefix + patches, D)`, to be resized to a grid of patches when they are read.

    Args:
        positions: `StoredTensor` of the file.
        num_prefix: rows in front that belong to no patch.
        source_grid: `(rows, columns)` of the file's patches; None where it is not known and nothing can be resized.
        grid: `(rows, columns)` of the model.
    """
    if source_grid is None or tuple(source_grid) == tuple(grid) or not is_float(positions.dtype):
        return positions
    if positions.shape[:-1] != (1, num_prefix + math.prod(source_grid)):
        return positions

    def read():
        array = np.asarray(positions.read(), np.float32)
        patches = resize_positions(array[0, num_prefix:], source_grid, grid)
        return np.concatenate([array[:, :num_prefix], patches[None]], axis=1)

    shape = (1, num_prefix + math.prod(grid), positions.shape[-1])
    return StoredTensor(shape, np.dtype(np.float32), read)
