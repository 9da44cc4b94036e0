"""Images from wherever the caller has them, checked before any long work starts."""

import hashlib
import itertools
from pathlib import Path

import numpy as np

from keras_vit_plugin.images.folders import check_channels, class_indices, image_files, load_images, readable_images
from keras_vit_plugin.images.streams import as_class_indices, read_stream, refuse_given_labels, spread_files
from keras_vit_plugin.images.streams import spread as spread
from keras_vit_plugin.progress import track
from keras_vit_plugin.warn import warn

CALIBRATION_IMAGES = 64
MORE_CALIBRATION_IMAGES = 256  # for weights of 4 bits, whose rounding and gains are learned from them
FEW_IMAGES = 16
NARROW_RANGE = 64  # of 255: ranges measured on less contrast do not hold for other images
MOST_PIXELS = 99.9  # percent of the pixels make the range: some specks do not


def gather_images(source, preprocessing, argument, limit=None):
    """Raw pixels from a folder, an array, or an iterable of images, batches or files, such as a `tf.data.Dataset`.

    Args:
        source: what the caller passed: a folder, or as for `read_stream`.
        preprocessing: a `Preprocessing`, applied to image files; arrays must have its shape already.
        argument: name of the caller's argument, for errors.
        limit: take at most this many images, evenly spread where the source has a length. None takes all, but no more
            than 1 GB of pixels, and 1,024 where there may be no end: a warning says so.

    Returns:
        uint8 `(N, H, W, C)`. A file of a folder that cannot be read is named in a warning and left out.

    Raises:
        ValueError: no images that can be read, arrays of another shape, range or dtype, or files for a model that takes
            other than 1 or 3 channels.
    """
    if not isinstance(source, (str, Path)):
        return read_stream(source, preprocessing, argument, limit)[0]
    check_channels(preprocessing, argument)
    paths = spread_files(image_files(source)[0], limit, preprocessing.image_shape, argument)
    return load_images(paths, preprocessing)[0]


def gather_labelled(source, labels, preprocessing, class_names, num_classes, argument="images", limit=None):
    """Raw pixels and class indices (or None) for `verify`.

    Args:
        source: as for `gather_images`.
        labels: class indices `(N,)` for a source that brings none.
        preprocessing: a `Preprocessing`.
        class_names: names of the classes in index order, to read label names; may be empty.
        num_classes: number of classes of the model; 1 where it says yes or no, whose indices are 0 and 1; 0 where it
            tells none apart: then no labels are read.
        argument: name of the caller's argument, for errors.
        limit: take at most this many images, as for `gather_images`; not with `labels`.

    Returns:
        uint8 `(N, H, W, C)`, and `(N,)` integers or None. Labels of the source that are not sure to be classes of the
        model give None, and a warning that says why.

    Raises:
        ValueError: as for `gather_images`; or `labels` that are not one class index of the model per image, or that
            come beside a folder; or a `source` `(images, labels)` whose labels are not one per image.
    """
    _refuse_labels_beside_a_folder(labels, source)
    if not num_classes:
        if labels is not None:
            raise ValueError("`labels` is for a model that tells classes apart; this one does not.")
        return gather_images(source, preprocessing, argument, limit), None
    if isinstance(source, (str, Path)):
        check_channels(preprocessing, argument)
        paths, found = _files_and_classes(source, class_names, num_classes)
        paths, found = (
            None if items is None else spread_files(items, limit, preprocessing.image_shape, argument)
            for items in (paths, found)
        )
        images, found = load_images(paths, preprocessing, found)
        return images, None if found is None else np.asarray(found)
    images, found = read_stream(source, preprocessing, argument, limit)
    if labels is None:
        if found is None:
            refuse_given_labels(source, argument)
        indices = as_class_indices(found, num_classes)
        if found is not None and indices is None:
            warn(
                f"No accuracy is computed: the labels of `{argument}` are neither class indices "
                f"0..{max(2, num_classes) - 1} nor one-hot."
            )
        return images, indices
    return images, _checked_indices(labels, len(images), max(2, num_classes) - 1)


def _files_and_classes(folder, class_names, num_classes):
    """The paths of a folder's images, and the class index of each, or None."""
    paths, names, folders = image_files(folder)
    if names is None or not num_classes:
        return paths, None
    return paths, class_indices(names, folders, class_names, num_classes)


def labelled_batches(source, labels, preprocessing, class_names, num_classes, at_once):
    """Yields what `gather_labelled` gives, `at_once` images at a time: of a folder no more are in memory, so all count.

    Args:
        source, labels, preprocessing, class_names, num_classes: as for `gather_labelled`.
        at_once: images of all batches but the last.
    """
    if not isinstance(source, (str, Path)):
        images, found = gather_labelled(source, labels, preprocessing, class_names, num_classes)
        for start in track(range(0, len(images), at_once), "Comparing"):
            yield images[start : start + at_once], None if found is None else found[start : start + at_once]
        return
    _refuse_labels_beside_a_folder(labels, source)
    check_channels(preprocessing, "images")
    paths, found = _files_and_classes(source, class_names, num_classes)
    images = readable_images(paths, preprocessing, "Comparing")
    while batch := list(itertools.islice(images, at_once)):
        places, pixels = zip(*batch)
        yield np.stack(pixels), None if found is None else np.asarray([found[place] for place in places])


def _refuse_labels_beside_a_folder(labels, source):
    if labels is not None and isinstance(source, (str, Path)):
        raise ValueError("`labels` is for an array of images; a folder brings its own.")


def _checked_indices(labels, count, last):
    """`labels` as class indices `(count,)`, or a `ValueError`."""
    try:
        labels = np.asarray(labels)
    except ValueError:  # lists of unequal lengths
        labels = np.asarray(labels, object)
    if labels.shape != (count,):
        raise ValueError(f"`labels` must hold one class index per image, got {labels.shape} for {count} images.")
    wrong = np.flatnonzero(~np.isin(labels, np.arange(last + 1)))
    if len(wrong):
        raise ValueError(
            f"`labels` must hold class indices 0..{last}, got {labels.tolist()[wrong[0]]!r} for image {wrong[0]}."
        )
    return labels.astype(int)


def fingerprint(images):
    """A hash of pixels `(N, H, W, C)`."""
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def check_calibration(images, narrow_range=False):
    """Complains about images `(N, H, W, C)` that ranges cannot be measured on.

    Args:
        images: raw pixels 0..255.
        narrow_range: whether images of little contrast are meant.

    Raises:
        ValueError: they are black, each of one colour, or of a narrow range.
    """
    if images.max() <= 1:
        raise ValueError(f"`calibration` must hold raw pixels 0..255, its values run to {images.max()}.")
    flat = (images == images[:, :1, :1]).all((1, 2, 3))
    if flat.all():
        raise ValueError("`calibration` holds images of one colour each: no range can be measured on them.")
    low, high = np.percentile(images, [100 - MOST_PIXELS, MOST_PIXELS])
    if high - low < NARROW_RANGE and not narrow_range:
        raise ValueError(
            f"`calibration` holds pixels from {low:.0f} to {high:.0f} alone: ranges measured on so little contrast do "
            "not hold for other images. Give images as they will come, or, if all to come are like these, say so: "
            "narrow_range=True (--narrow-range)."
        )
    if flat.any():
        warn(f"`calibration`: {flat.sum()} of {len(images)} images are of one colour each.")
    if len(images) < FEW_IMAGES:
        warn(
            f"`calibration` holds {len(images)} image(s): ranges measured on fewer than {FEW_IMAGES} may not fit "
            "others."
        )
