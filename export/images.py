"""Images from wherever the caller has them, checked before any long work starts."""

import hashlib
import itertools
import warnings
from pathlib import Path

import numpy as np

from .preprocessing import image_files
from .progress import track

CALIBRATION_IMAGES = 64
MORE_CALIBRATION_IMAGES = 256  # for weights of 4 bits, whose rounding and gains are learned from them
FEW_IMAGES = 16


def gather_images(source, preprocessing, argument, limit=None):
    """Raw pixels from a folder, an array, an iterable of images or batches, or a `tf.data.Dataset`.

    Args:
        source: what the caller passed.
        preprocessing: a `Preprocessing`, applied to image files; arrays must have its shape already.
        argument: name of the caller's argument, for errors.
        limit: take at most this many images, evenly spread over a folder or an array.

    Returns:
        uint8 `(N, H, W, C)`.

    Raises:
        ValueError: no images, a file that is no image, or arrays of another shape, range or dtype.
    """
    if isinstance(source, (str, Path)):
        paths = spread(image_files(source)[0], limit)
        return np.stack([preprocessing.load(path) for path in track(paths, "Reading images")])
    if hasattr(source, "shape"):
        images = spread(np.asarray(source), limit)
    else:
        images = _from_iterable(source, preprocessing.image_shape, argument, limit)
    return _checked(images, preprocessing.image_shape, argument)


def gather_labelled(source, labels, preprocessing, class_names, num_classes, argument="images", limit=None):
    """Raw pixels and class indices (or None) for `verify`.

    Args:
        source: an image folder or an array of pixels.
        labels: class indices for an array; a folder brings its own.
        preprocessing: a `Preprocessing`.
        class_names: names of the classes in index order, to read label names; may be empty.
        num_classes: number of classes of the model.
        argument: name of the caller's argument, for errors.
        limit: take at most this many images, as for `gather_images`; not with `labels`.

    Raises:
        ValueError: labels that are not one class index of the model per image, or labels beside a folder.
    """
    if isinstance(source, (str, Path)):
        if labels is not None:
            raise ValueError("`labels` is for an array of images; a folder brings its own.")
        paths, names = image_files(source)
        labels = None if names is None else _class_indices(names, class_names, num_classes)
        paths, labels = spread(paths, limit), None if labels is None else spread(labels, limit)
        images = np.stack([preprocessing.load(path) for path in track(paths, "Reading images")])
    else:
        images = gather_images(source, preprocessing, argument, limit)
    if labels is None:
        return images, None
    labels = np.asarray(labels)
    if labels.shape != (len(images),):
        raise ValueError(f"`labels` must hold one class index per image, got {labels.shape} for {len(images)} images.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"Labels must be 0..{num_classes - 1}, they run from {labels.min()} to {labels.max()}.")
    return images, labels


def fingerprint(images):
    """A hash of pixels `(N, H, W, C)`."""
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def synthetic_images(image_shape, count=16, seed=0):
    """Smooth random colour fields, uint8 `(count, H, W, C)`: a stand-in where no real image is at hand."""
    from PIL import Image

    height, width, channels = image_shape
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        sides = generator.integers(2, 9, 2)
        planes = [
            Image.fromarray(generator.uniform(0, 255, sides).astype(np.float32)).resize((width, height), Image.BICUBIC)
            for _ in range(channels)
        ]
        images.append(np.stack([np.asarray(plane) for plane in planes], -1))
    return np.clip(np.stack(images), 0, 255).astype(np.uint8)


def spread(items, limit):
    if limit is None or len(items) <= limit:
        return items
    indices = np.linspace(0, len(items) - 1, limit).round().astype(int)
    return items[indices] if hasattr(items, "shape") else [items[index] for index in indices]


def _from_iterable(source, image_shape, argument, limit):
    images = []
    try:
        for item in source:
            item = np.asarray(item[0] if isinstance(item, (tuple, list)) else item)  # (images, labels) of a dataset
            images.extend(item if item.ndim == len(image_shape) + 1 else [item])
            if limit is not None and len(images) >= limit:
                break
    except TypeError as error:
        raise ValueError(
            f"`{argument}` must be a folder, an array, an iterable of arrays or a tf.data.Dataset, got {type(source)}."
        ) from error
    images = list(itertools.islice(images, limit))
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(f"`{argument}` holds images of different shapes: {shapes[:3]}; all must be {image_shape}.")
    return np.stack(images) if images else np.zeros((0, *image_shape))


def _checked(images, image_shape, argument):
    if len(images) == 0:
        raise ValueError(f"`{argument}` holds no images.")
    if images.shape[1:] != tuple(image_shape):
        raise ValueError(f"`{argument}` must have shape (N, {', '.join(map(str, image_shape))}), got {images.shape}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.number):
        raise ValueError(f"`{argument}` must hold pixels 0..255, got dtype {images.dtype}.")
    images = np.asarray(images, np.float64)
    if not np.isfinite(images).all():
        raise ValueError(f"`{argument}` holds NaN or infinity; pixels are 0..255.")
    low, high = images.min(), images.max()
    if low < 0 or high > 255:
        raise ValueError(f"`{argument}` must hold raw pixels 0..255, its values run from {low:.4g} to {high:.4g}.")
    if high <= 1:
        raise ValueError(
            f"`{argument}` must hold raw pixels 0..255, its values run to {high:.4g}: multiply them by 255."
        )
    return np.round(images).astype(np.uint8)


def check_calibration(images):
    """Complains about images `(N, H, W, C)` that ranges cannot be measured on.

    Raises:
        ValueError: they are black, or each of one colour.
    """
    if images.max() <= 1:
        raise ValueError(f"`calibration` must hold raw pixels 0..255, its values run to {images.max()}.")
    flat = (images == images[:, :1, :1]).all((1, 2, 3))
    if flat.all():
        raise ValueError("`calibration` holds images of one colour each: no range can be measured on them.")
    if flat.any():
        warnings.warn(f"`calibration`: {flat.sum()} of {len(images)} images are of one colour each.", stacklevel=3)
    if len(images) < FEW_IMAGES:
        warnings.warn(
            f"`calibration` holds {len(images)} image(s): ranges measured on fewer than {FEW_IMAGES} may not fit "
            "others.",
            stacklevel=3,
        )


def _class_indices(names, class_names, num_classes):
    """Class indices from labels: numbers as they are, names by the class names, else in sorted order if all occur."""
    if set(names) <= set(class_names):
        return [list(class_names).index(name) for name in names]
    if all(name.isdecimal() for name in names):
        return [int(name) for name in names]
    order = sorted(set(names))
    if not class_names and len(order) == num_classes:
        return [order.index(name) for name in names]
    known = f"the {len(class_names)} class names in the file" if class_names else f"all of the {num_classes} classes"
    warnings.warn(f"The {len(order)} label names are not {known}: no accuracy is computed.", stacklevel=4)
    return None
