"""Do these tensors fit this model? One error that lists every tensor that does not."""

import numpy as np

from keras_vit_plugin.checkpoints.positions import resize_positions

SHOWN = 10  # problems of one file


def check_fit(expected, tensors, source, head_names):
    """Compares tensors with what a model needs.

    Args:
        expected: `{name: shape}` of the model.
        tensors: `{name: array}` of the file.
        source: what to call the file in the error.
        head_names: names of the classification head among `expected`.

    Raises:
        ValueError: tensors are missing, extra, of another shape, or hold NaN or infinity.
    """
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in tensors]
    problems += [f"extra: {name} {tensors[name].shape}" for name in tensors if name not in expected]
    for name, shape in expected.items():
        if name not in tensors:
            continue
        if tensors[name].shape != shape:
            problems.append(f"misshapen: {name} has {tensors[name].shape}, the model needs {shape}")
        elif not np.isfinite(np.asarray(tensors[name], np.float32)).all():
            problems.append(f"not finite: {name} holds NaN or infinity")
    if not problems:
        return
    hint = ""
    if any(f" {name} " in problem for name in head_names for problem in problems):
        hint = "\nTo keep a new head and load the rest: build(..., weights=..., new_head=True) in Python."
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    shown = "\n  ".join(problems[:SHOWN])
    raise ValueError(f"{source} does not fit the model, {count}:\n  {shown}{more}{hint}")


def fit_positions(positions, num_prefix, source_grid, grid):
    """Position embeddings `(1, num_prefix + patches, D)` resized to a grid of patches.

    Args:
        positions: of the file.
        num_prefix: rows in front that belong to no patch.
        source_grid: `(rows, columns)` of the file's patches; None where it is not known and nothing can be resized.
        grid: `(rows, columns)` of the model.
    """
    if positions.ndim != 3 or source_grid is None or tuple(source_grid) == tuple(grid):
        return positions
    patches = resize_positions(positions[0, num_prefix:], source_grid, grid)
    return np.concatenate([positions[:, :num_prefix], patches[None]], axis=1)
