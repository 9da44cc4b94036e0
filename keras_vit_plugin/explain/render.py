"""Arrays of an `Explanation` as pixels and tiles, without text: what the page and the picture both show."""

import numpy as np
from PIL import Image

ATTENTION, SIMILARITY = "inferno", "viridis"  # colour maps of matplotlib, even to the eye and for the colour-blind
LEAST_SIDE, MOST_SIDE = 224, 448  # pixels of the longer side of a photo, so that a page is small;
SMALL_SIDE = 288  # of a photo in a row of many
COARSE = 7  # with fewer patches in a row or column their edges are shown
TILE = 16  # values of the shorter side of a tile, at least, so that gaps are thin beside it


def in_colour(values, colour_map=ATTENTION):
    """Values 0..1 of any shape as uint8 RGB, NaN as black."""
    from matplotlib import colormaps

    return np.asarray(colormaps[colour_map](np.asarray(values, np.float64), bytes=True))[..., :3]


def stretched(values):
    """Values scaled so that the least is 0 and the largest 1; 0.5 all over where they are equal."""
    values = np.asarray(values, np.float64)
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.full_like(values, 0.5)


def of_largest(maps):
    """Each map of `(..., rows, columns)` divided by its own largest value."""
    maps = np.asarray(maps, np.float64)
    return maps / np.maximum(maps.max((-2, -1), keepdims=True), 1e-30)


def as_rgb(photo, longest=MOST_SIDE):
    """A photo, uint8 `(H, W, C)`, as RGB; of other channels than one or three their mean."""
    if photo.shape[-1] != 3:
        photo = photo.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, -1)
    longer = max(photo.shape[:2])
    if longer > longest:
        height, width = (max(round(side * longest / longer), 1) for side in photo.shape[:2])
        return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
    factor = -(-LEAST_SIDE // longer)
    return photo.repeat(factor, 0).repeat(factor, 1)


def photo_with(photo, grid, longest=MOST_SIDE):
    """A grid over the grey photo, from its least value, which leaves the photo grey, to its largest, which is bright.

    Args:
        photo: uint8 `(H, W, C)`.
        grid: `(rows, columns)`; None leaves the photo as it is.
        longest: pixels of the longer side, at most.

    Returns:
        uint8 RGB whose longer side has `LEAST_SIDE` to `longest` pixels.
    """
    if grid is None:
        return as_rgb(photo, longest)
    grey = as_rgb(photo, longest).mean(-1, keepdims=True)
    height, width = grey.shape[:2]
    small = Image.fromarray(stretched(grid).astype(np.float32))
    method = Image.Resampling.NEAREST if min(grid.shape) < COARSE else Image.Resampling.BICUBIC
    heat = np.clip(np.asarray(small.resize((width, height), method)), 0, 1)
    share = 0.2 + 0.6 * heat[..., None]
    return ((1 - share) * grey + share * in_colour(heat)).round().astype(np.uint8)


def filters_as_rgb(filters):
    """Filters `(N, h, w, 1 or 3)` of -1..1 as uint8 RGB `(N, h, w, 3)`, mid-grey for a weight of 0."""
    pixels = (127.5 + 127.5 * np.asarray(filters)).round().clip(0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def mosaic(tiles):
    """Tiles side by side with gaps of NaN.

    Args:
        tiles: `(down, across, height, width)` or, in colour, `(down, across, height, width, 3)`.

    Returns:
        `(values, repeats)`: float64 `(down * (height * repeats + 1) - 1, across * (width * repeats + 1) - 1)`, with the
        3 behind if there was one, where each value stands `repeats` times in both directions.
    """
    repeats = -(-TILE // min(np.shape(tiles)[2:4]))
    tiles = np.repeat(np.repeat(tiles, repeats, 2), repeats, 3)
    down, across, height, width, *channels = tiles.shape
    framed = np.full((down, height + 1, across, width + 1, *channels), np.nan)
    framed[:, :height, :, :width] = np.swapaxes(tiles, 1, 2)
    return framed.reshape(down * (height + 1), across * (width + 1), *channels)[:-1, :-1], repeats
