"""Images out of arrays, lists of files, datasets and generators, which may have labels and may have no end."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_vit_plugin.images.folders import check_channels, load_images
from keras_vit_plugin.warn import warn

MOST_STREAMED = 1024  # images of a source that has no end, or does not say how long it is
MOST_BYTES = 1 << 30  # of pixels that are held
READ_THROUGH = 4096  # images of a dataset that is read to its end for some from all over it
IMAGE_KEYS = ("images", "image", "pixel_values", "pixels")
LABEL_KEYS = ("labels", "label")
ENOUGH_FOR_CLASSES = 16


def spread(items, limit):
    """`limit` of the items, evenly over all, the first and the last among them; all where there are no more.

    Args:
        items: a list, or an array `(N, ...)`.
        limit: how many, or None for all.
    """
    if limit is None or len(items) <= limit:
        return items
    indices = np.linspace(0, len(items) - 1, limit).round().astype(int)
    return items[indices] if hasattr(items, "shape") else [items[index] for index in indices]


def spread_files(items, limit, image_shape, argument):
    """As `spread`, and never more than memory should hold: a warning says so."""
    most = _most_held(image_shape)
    if limit is None and len(items) > most:
        warn(f"`{argument}`: {most} of its {len(items)} images are taken, evenly spread.")
        limit = most
    return spread(items, limit)


def read_stream(source, preprocessing, argument, limit=None):
    """Pixels and labels out of what is no folder.

    Args:
        source: an array of images; a pair of such an array and labels; or an iterable (a list, a generator, a
            `tf.data.Dataset`, a `keras.utils.PyDataset`) whose items are images or batches, paths of files, pairs
            `(images, labels)`, or dicts with the keys image and label. Of one without an end 1,024 are taken.
        preprocessing: a `Preprocessing`.
        argument: name of the caller's argument, for errors.
        limit: take at most this many; evenly spread where the source has a length.

    Returns:
        uint8 `(N, H, W, C)`, and the labels as they came, `(N, ...)`; None where there are none, or not one per image,
        as those of a model with several outputs.

    Raises:
        ValueError: no images, or arrays of another shape, range or dtype; or files, for a model that takes other than
            1 or 3 channels.
    """
    shape = preprocessing.image_shape
    paths = _paths(source)
    if paths is not None:
        check_channels(preprocessing, argument)
        return load_images(spread_files(paths, limit, shape, argument), preprocessing)
    if hasattr(source, "shape"):
        taken = [(spread(np.asarray(source), limit), None)]
    else:
        taken = _taken(source, preprocessing, argument, limit)
    images, labels, highest = [], [], 0
    for pixels, answers in taken:
        images.append(_as_pixels(pixels, shape, argument))
        labels.append(answers)
        highest = max(highest, 255 if pixels.dtype == np.uint8 else pixels.max(initial=0))
    if not sum(map(len, images)):
        raise ValueError(f"`{argument}` holds no images.")
    if highest <= 1:
        raise ValueError(
            f"`{argument}` must hold raw pixels 0..255, its values run to {highest:.4g}: multiply them by 255."
        )
    alike = len({None if answers is None else answers.shape[1:] for answers in labels}) == 1
    labels = np.concatenate(labels) if alike and labels[0] is not None else None
    if labels is not None and len(labels) == limit and limit >= ENOUGH_FOR_CLASSES and (labels == labels[:1]).all():
        warn(f"The {limit} images taken of `{argument}` are all of one class: shuffle it.")
    return np.concatenate(images), labels


def _taken(source, preprocessing, argument, limit):
    """Yields `(pixels, labels)`, batch by batch, as many as are wanted."""
    length = _length(source)
    held = _most_held(preprocessing.image_shape)
    most = limit if limit is not None else held if length is not None else min(held, MOST_STREAMED)
    items = _items(source, length, argument)
    first = next(items, None)
    if first is None:
        return
    each = len(_parts(first, preprocessing, argument)[0])
    in_order = _is_in_order(source, length)
    if length is not None and length * each > most and (in_order or length * each <= READ_THROUGH):
        if limit is None:
            _say_cap(argument, most, "evenly spread")
        rows = _wanted_rows(length * each, each, most)
        numbered = (
            ((place, source[place]) for place in rows) if in_order else enumerate(itertools.chain([first], items))
        )
        for place, item in numbered:
            if place in rows:
                pixels, labels = _parts(item, preprocessing, argument)
                kept = [row for row in rows[place] if row < len(pixels)]  # the last batch may be smaller
                yield pixels[kept], None if labels is None else labels[kept]
        return
    left = most
    for item in itertools.islice(itertools.chain([first], items), most + 1):  # batches may be empty
        if left <= 0:
            break
        pixels, labels = _parts(item, preprocessing, argument)
        yield pixels[:left], None if labels is None else labels[:left]
        left -= len(pixels)
    else:
        return
    if limit is None:
        _say_cap(argument, most, "the first")


def _say_cap(argument, most, which):
    warn(
        f"`{argument}`: {most} images are taken, {which}; it has more, or no end. Give a folder, an array or a list of "
        "files for others."
    )


def _most_held(image_shape):
    return max(1, MOST_BYTES // int(np.prod(image_shape)))


def _wanted_rows(total, each, most):
    """`{item: rows in it}` of `most` images evenly over `total`, `each` to an item."""
    rows = {}
    for index in np.linspace(0, total - 1, most).round().astype(int).tolist():
        rows.setdefault(index // each, []).append(index % each)
    return rows


def _length(source):
    """How many items a source has; None where it does not say or has no end."""
    if _is_one_item(source):
        return 1
    try:
        if hasattr(source, "cardinality"):  # tf.data: negative where unknown or infinite
            length = int(source.cardinality())
            return length if length >= 0 else None
        return source.num_batches if hasattr(source, "num_batches") else len(source)
    except (TypeError, NotImplementedError):
        return None


def _is_in_order(source, length):
    """Whether items can be had by their place."""
    return length is not None and hasattr(source, "__getitem__") and not _is_one_item(source)


def _items(source, length, argument):
    if _is_one_item(source):
        return iter([source])
    if _is_in_order(source, length) and not hasattr(source, "__iter__"):
        return (source[place] for place in range(length))
    try:
        return iter(source)
    except TypeError as error:
        raise ValueError(
            f"`{argument}` must be a folder, an array, an iterable of images, batches, files or (images, labels), or a "
            f"tf.data.Dataset, got {type(source)}."
        ) from error


def _is_one_item(source):
    """A dict of arrays, or a pair of images and labels, in the place of an iterable of such."""
    if isinstance(source, Mapping):
        return True
    pair = isinstance(source, tuple) and len(source) in (2, 3)
    return pair and len(_shape_of(source[0])) == 4 and _may_be_labels(source[1])


def _may_be_labels(value):
    """Whether it is no image and no batch: labels, or a list of those of several outputs."""
    return all(len(_shape_of(part)) < 3 for part in (value if isinstance(value, (tuple, list)) else [value]))


def _shape_of(value):
    """The shape of what may be no array; `()` of lists of unequal lengths."""
    try:
        return np.shape(value)
    except ValueError:
        return ()


def refuse_given_labels(source, argument):
    """Raises `ValueError` where all images are given in one array beside labels, which are not one per image.

    Args:
        source: as for `read_stream`, which found no labels in it.
        argument: name of the caller's argument.
    """
    images = labels = None
    if isinstance(source, Mapping):
        images, labels = (_first_of(source, keys) for keys in (IMAGE_KEYS, LABEL_KEYS))
    elif _is_one_item(source):
        images, labels = source[:2]
    if labels is None:
        return
    number = len(labels) if hasattr(labels, "__len__") else 1
    raise ValueError(
        f"The labels of `{argument}` must be one class index or one-hot row per image, got {type(labels).__name__} of "
        f"{number} for {len(images)} images."
    )


def _first_of(mapping, keys):
    return next((mapping[key] for key in keys if key in mapping), None)


def _parts(item, preprocessing, argument):
    """Pixels `(N, H, W, C)` and labels `(N, ...)` or None of one item."""
    shape, labels = preprocessing.image_shape, None
    images = item
    if isinstance(item, (tuple, list)) and item and not _is_batch(item, shape):
        images, labels = item[0], item[1] if len(item) > 1 else None
    if isinstance(images, Mapping):
        labels = labels if labels is not None else _first_of(images, LABEL_KEYS)
        keys = [key for key in IMAGE_KEYS if key in images]
        if not keys:
            raise ValueError(
                f"`{argument}` gives dicts with the keys {', '.join(map(repr, images))}: none is {IMAGE_KEYS[0]!r} or "
                f"{IMAGE_KEYS[1]!r}. Map them to (images, labels)."
            )
        images = images[keys[0]]
    paths = _paths([images] if _is_path(images) else images)
    if paths is not None:
        check_channels(preprocessing, argument)
        pixels = np.stack([preprocessing.load(path) for path in paths])
    else:
        pixels = np.asarray(images)
        if pixels.ndim == len(shape):
            pixels = pixels[None]
    if pixels.shape[1:] != tuple(shape):
        raise ValueError(f"`{argument}` must hold images of shape {tuple(shape)}, got {pixels.shape[1:]} in one item.")
    return pixels, _labels_of(labels, len(pixels))


def _labels_of(labels, count):
    """Labels `(count, ...)` of an item's images, or None where they are not one per image."""
    if labels is None or isinstance(labels, Mapping):
        return None
    if isinstance(labels, tuple) and (len(labels) != count or any(map(_shape_of, labels))):
        return None  # of several outputs
    try:
        labels = np.asarray(labels)
    except ValueError:  # arrays of unequal shapes
        return None
    if count == 1 and (labels.ndim == 0 or len(labels) != 1):  # of an image that is no batch
        labels = labels[None]
    return labels if labels.ndim and len(labels) == count else None


def _is_batch(item, shape):
    return isinstance(item, list) and all(_is_path(each) or _shape_of(each) == tuple(shape) for each in item)


def _paths(source):
    """A list of files, or None where the source is no list or array of these."""
    dtype = getattr(source, "dtype", None)
    if getattr(dtype, "kind", None) in ("S", "U", "O") or getattr(dtype, "name", None) == "string":  # NumPy, TensorFlow
        source = np.asarray(source).ravel().tolist()
    if not isinstance(source, (list, tuple)) or not source or not all(map(_is_path, source)):
        return None
    return [Path(os.fsdecode(path)) for path in source]


def _is_path(value):
    return isinstance(value, (str, bytes, Path))


def _as_pixels(images, image_shape, argument):
    """uint8 `(N, H, W, C)`, checked."""
    if len(images) == 0:
        return np.zeros((0, *image_shape), np.uint8)
    if images.shape[1:] != tuple(image_shape):
        raise ValueError(f"`{argument}` must have shape (N, {', '.join(map(str, image_shape))}), got {images.shape}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.number):
        raise ValueError(f"`{argument}` must hold pixels 0..255, got dtype {images.dtype}.")
    if not np.isfinite(images).all():
        raise ValueError(f"`{argument}` holds NaN or infinity; pixels are 0..255.")
    low, high = images.min(), images.max()
    if low < 0 or high > 255:
        raise ValueError(f"`{argument}` must hold raw pixels 0..255, its values run from {low:.4g} to {high:.4g}.")
    return np.round(images).astype(np.uint8)


def as_class_indices(labels, num_classes):
    """Class indices `(N,)` of labels that came with images: such indices, or one-hot rows; None where they are neither.

    Args:
        labels: `(N,)`, `(N, 1)` or `(N, num_classes)`, or None.
        num_classes: of the model; 1 for one that says yes or no.
    """
    if labels is None or not (np.issubdtype(labels.dtype, np.number) or labels.dtype == bool):
        return None
    count = max(2, num_classes)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] == count:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        return labels.argmax(1) if one_hot else None
    if labels.ndim != 1 or (labels != np.round(labels)).any() or labels.min() < 0 or labels.max() >= count:
        return None
    return labels.astype(int)
