"""Position embeddings for another image size (arXiv:2010.11929, section 3.2)."""

import numpy as np
from PIL import Image


def resize_positions(positions, source_grid, target_grid):
    """Resizes a grid of position embeddings by antialiased bicubic interpolation.

    Args:
        positions: `(source_rows * source_columns, D)` float.
        source_grid: `(rows, columns)` of the source.
        target_grid: `(rows, columns)` wanted; neither needs to be square.

    Returns:
        `(target_rows * target_columns, D)` float32; unchanged where the grids are equal.
    """
    positions = np.asarray(positions, np.float32)
    if tuple(source_grid) == tuple(target_grid):
        return positions
    planes = positions.reshape(*source_grid, -1).transpose(2, 0, 1)  # (D, rows, columns)
    rows, columns = target_grid
    resized = [np.asarray(Image.fromarray(plane).resize((columns, rows), Image.BICUBIC)) for plane in planes]
    return np.stack(resized, axis=-1).reshape(rows * columns, -1)


def square_grid(count):
    """The square grid of `count` patches, or None where `count` is no positive square number."""
    side = round(max(count, 0) ** 0.5)
    return (side, side) if side and side * side == count else None
