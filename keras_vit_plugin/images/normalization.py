"""How raw pixels become a model's input, and who says so."""

import numpy as np

from keras_vit_plugin.images.model_pixels import pixels_of_first_layers
from keras_vit_plugin.warn import warn

# What a model takes -> scale and offset of pixels 0..255.
RANGES = {"0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0), "0..255": (1.0, 0.0)}


def image_converter(model):
    """The KerasHub image converter of a model, or None."""
    return getattr(getattr(model, "preprocessor", None), "image_converter", None)


def pixel_normalization(model, channels, mean=None, std=None, pixels=None):
    """`(scale, offset)` that turn pixels of 0..255 into the model's input: `pixels * scale + offset`.

    Args:
        model: a Keras model.
        channels: of its images.
        mean, std: for pixels scaled to 0..1, per channel or one number.
        pixels: instead of these, the range that it takes: a key of `RANGES`. Where all are None, the model is asked:
            its input's dtype, its image converter, or the scaling that its first layers do.

    Returns:
        Two float64 arrays of shape `(channels,)`.

    Raises:
        ValueError: neither the arguments nor the model say it, or not for this many channels; or the input is of an
            integer dtype, and they say something other than 0..255.
    """
    scale, offset, words = _normalization(model, channels, mean, std, pixels)
    told = _told_by_model(model, channels)[0] if mean is not None or pixels is not None else None
    if told is not None and not (np.allclose(scale, told[0], rtol=1e-3) and np.allclose(offset, told[1], atol=1e-2)):
        warn(f"{words[0].upper()}{words[1:]} are taken, though the model says otherwise: {told[2]}.")
    elif words.startswith("pixels 0..1 (") and "Normalization" in words:
        warn(
            "The model begins with Normalization: by its mean it takes pixels of 0..1. Bright images of -1..1 have "
            "such a mean too: if it was trained on those, pass `pixels` (--pixels)."
        )
    return scale, offset


def pixel_words(model, channels, mean=None, std=None, pixels=None):
    """What `pixel_normalization` took and from where, such as `"raw pixels 0..255 (the model begins with
    Rescaling(1/255))"`. Arguments and errors are its own."""
    return _normalization(model, channels, mean, std, pixels)[2]


def two_lines(preprocessing, model, mean=None, std=None, pixels=None):
    """Two lines of Python with which the Keras model answers as its file does.

    They make `answers` of `pixels`, uint8 `(N, H, W, C)` of the size that the file takes, from `model` and `np`.

    Args:
        preprocessing: of the model.
        model, mean, std, pixels: as for `pixel_normalization`.
    """
    scale, offset, _ = _normalization(model, preprocessing.channels, mean, std, pixels)
    first = 'x = pixels.astype("float32")'
    if (scale != 1).any():
        first += f" * np.float32({_in_code(scale)})"
    if (offset != 0).any():
        first += f" + np.float32({_in_code(offset)})"
    if getattr(model, "preprocessor", None) is None:
        return first, "answers = model.predict(x)"
    converter = image_converter(model)
    does = "preprocess again"
    if converter is not None and converter.image_size is not None:
        height, width = preprocessing.resize or preprocessing.size
        does = f"resize to {height}x{width}"
        if (height, width) != tuple(preprocessing.size):
            does += f", crop to {preprocessing.size[0]}x{preprocessing.size[1]}"
    return first, f"answers = model(x, training=False)  # model.predict would {does} first"


def _in_code(values):
    return repr(float(values[0])) if (values == values[0]).all() else repr([float(value) for value in values])


def _normalization(model, channels, mean, std, pixels):
    """`(scale, offset, words)`."""
    if (mean is None) != (std is None):
        raise ValueError(f"Pass `mean` and `std` together, got mean={mean}, std={std}.")
    if pixels is not None and std is not None:
        raise ValueError(f"Pass `pixels` or `mean` and `std`, got pixels={pixels!r}, mean={mean}, std={std}.")
    if pixels is not None and pixels not in RANGES:
        raise ValueError(f"`pixels` must be one of {', '.join(RANGES)}; got pixels={pixels!r}.")
    given = None
    if std is not None:
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"`mean` must be finite and `std` positive, got mean={mean}, std={std}.")
        scale, offset = _per_channel(1 / (255 * std), channels, "std"), _per_channel(-mean / std, channels, "mean")
        given = scale, offset, "pixels normalized by `mean` and `std`"
    elif pixels is not None:
        given = *(_per_channel(value, channels, "pixels") for value in RANGES[pixels]), f"pixels {pixels} (as given)"
    dtype = _integer_input(model)
    if dtype is not None:
        told, _ = _told_by_model(model, channels)
        if given is not None and not (np.allclose(given[0], 1, atol=1e-6) and np.allclose(given[1], 0, atol=1e-4)):
            raise ValueError(
                f"The model's input is {dtype}: it takes pixels 0..255 as they are, got mean={mean}, std={std}, "
                f"pixels={pixels!r}."
            )
        return told
    if given is not None:
        return given
    told, says = _told_by_model(model, channels)
    if told is not None:
        return told
    does = (
        f"begins with {says}, which more than one range suits" if says else "does not say how pixels become its input"
    )
    raise ValueError(
        f"{type(model).__name__} {does}. Pass `pixels` (--pixels): '0..1', '-1..1' or '0..255', as it was trained; or "
        "`mean` and `std` (--mean, --std) for pixels scaled to 0..1."
    )


def _told_by_model(model, channels):
    """`(scale, offset, words)` or None, and what the model begins with, in words."""
    if dtype := _integer_input(model):
        if np.iinfo(dtype).max < 255:
            raise ValueError(
                f"The model's input is {dtype}, which does not hold pixels of 0..255: give it another dtype."
            )
        return (np.ones(channels), np.zeros(channels), f"raw pixels 0..255 (the model's input is {dtype})"), ""
    converter = image_converter(model)
    if converter is not None:
        scale = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
        scale, offset = _per_channel(scale, channels, "scale"), _per_channel(offset, channels, "offset")
        return (scale, offset, "pixels normalized by the model's image converter"), ""
    if hasattr(model, "pixel_scale"):
        scale = _per_channel(model.pixel_scale, channels, "scale")
        offset = _per_channel(model.pixel_offset, channels, "offset")
        return (scale, offset, "pixels normalized by the model's `pixel_scale` and `pixel_offset`"), ""
    taken, words = pixels_of_first_layers(model)
    if taken is None:
        return None, words
    scale, offset = (_per_channel(value, channels, "pixels") for value in RANGES[taken])
    raw = "raw pixels" if taken == "0..255" else "pixels"
    return (scale, offset, f"{raw} {taken} (the model begins with {words})"), words


def _integer_input(model):
    """The dtype of the model's input where it is an integer one, else None."""
    inputs = getattr(model, "inputs", None) or []
    dtype = str(inputs[0].dtype) if len(inputs) == 1 else ""
    return dtype if dtype.startswith(("int", "uint")) else None


def _per_channel(value, channels, name):
    value = np.asarray(value, np.float64)
    if value.size not in (1, channels):
        raise ValueError(f"`{name}` must be one number or one per channel ({channels}), got {value.size}.")
    return np.broadcast_to(value.ravel(), (channels,))
