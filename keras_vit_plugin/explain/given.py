"""Arguments in the sentences of errors."""

import operator

from keras_vit_plugin.images.preprocessing import shortened


def in_short(value):
    """A value in a sentence: an array by its shape and dtype, anything else by the beginning of its `repr`."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if not value.shape:
            return shortened(value.item() if hasattr(value, "item") else value)
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return shortened(value)


def positive(value, name):
    """An integer from 1 on.

    Raises:
        ValueError: it is none; `name` is that of the argument.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {name}={in_short(value)}.")
    return count
