"""Sizes of images and patches."""

import operator


def as_pair(value):
    """`(height, width)` from one integer or a pair of them.

    Raises:
        ValueError: not a positive integer or a pair of them.
    """
    try:
        pair = (
            tuple(operator.index(side) for side in value) if hasattr(value, "__len__") else (operator.index(value),) * 2
        )
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"Expected a positive integer or a pair of them (height, width), got {value!r}.")
    return pair


def patch_grid(image_shape, patch_size):
    """Patches per column and row: `(H // patch_height, W // patch_width)`.

    Raises:
        ValueError: the image is not `(height, width, channels)`, or a side is not divisible by the patch.
    """
    if len(image_shape) != 3 or None in tuple(image_shape):
        raise ValueError(f"`image_shape` must be a full (height, width, channels), got {tuple(image_shape)}.")
    patch_size = as_pair(patch_size)
    for side, size, patch in zip(("height", "width"), image_shape, patch_size):
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            raise ValueError(
                f"The image {side} must be divisible by the patch {side}, got {size} and {patch}; "
                f"{f'{below} or ' if below else ''}{above} would fit."
            )
    return image_shape[0] // patch_size[0], image_shape[1] // patch_size[1]
