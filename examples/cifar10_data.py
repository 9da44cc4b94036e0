"""What `cifar10_simple_vit.py` reads: CIFAR-10, and photos to look at; and the folder that it writes to."""

import os
from pathlib import Path

import numpy as np

from keras_vit_plugin.checkpoints.stored_tensor import is_integer
from keras_vit_plugin.checkpoints.tensor_files import open_tensor_file

CLASSES = 10
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
TRAINING_IMAGES = 1000  # that the notebook trains and validates on
PHOTOS = ("cifar10", "scikit-image")
# Of scikit-image, each given to the public domain by CC0.
FREE_PHOTOS = ("chelsea", "coffee", "rocket", "camera")


def load_cifar10(path=None):
    """CIFAR-10's arrays.

    Args:
        path: an `.npz` with x_train, y_train, x_test and y_test; None takes what `keras.datasets` downloads.

    Returns:
        `x_train, y_train, x_test, y_test`: uint8 images `(N, 32, 32, 3)` and int32 classes `(N,)`.

    Raises:
        ValueError: the file is no `.npz`, is damaged, or has other arrays; or there is no download. One sentence.
    """
    if path is None:
        import keras

        try:
            (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
        except Exception as error:  # Keras raises no special kind
            raise ValueError(f"CIFAR-10 cannot be downloaded, `--data FILE.npz` reads it: {error}") from error
        return x_train, y_train.ravel().astype(np.int32), x_test, y_test.ravel().astype(np.int32)
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"`--data` must be an .npz file with {', '.join(ARRAYS)}, got {str(path)!r}.")
    if not path.exists():
        raise ValueError(f"`--data` names no file: {str(path)!r}.")
    with open_tensor_file(path, "--data") as tensors:
        missing = [name for name in ARRAYS if name not in tensors]
        if missing:
            raise ValueError(f"`--data` must have {', '.join(ARRAYS)}; {str(path)!r} lacks {', '.join(missing)}.")
        for part, least in (("train", TRAINING_IMAGES), ("test", 1)):
            _check(path, part, tensors[f"x_{part}"], tensors[f"y_{part}"], least)
        try:
            x_train, y_train, x_test, y_test = (tensors[name].read() for name in ARRAYS)
        except Exception as error:  # zipfile, zlib and NumPy raise several kinds
            raise ValueError(f"`--data` is damaged: {str(path)!r} ({error}).") from error
    for part, classes in (("train", y_train), ("test", y_test)):
        if classes.min() < 0 or classes.max() >= CLASSES:
            found = f"{classes.min()}..{classes.max()}"
            raise ValueError(f"`--data` must have classes 0..9 in y_{part}; {str(path)!r} has {found}.")
    return x_train, y_train.ravel().astype(np.int32), x_test, y_test.ravel().astype(np.int32)


def _check(path, part, images, classes, least):
    """Raises `ValueError` unless the headers of a part's two arrays are those of CIFAR-10."""
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"`--data` must have uint8 pixels (N, 32, 32, 3) as x_{part}; {str(path)!r} has {images.dtype} "
            f"{images.shape}."
        )
    if images.shape[0] < least:
        raise ValueError(f"`--data` must have {least} images or more as x_{part}; {str(path)!r} has {images.shape[0]}.")
    if not is_integer(classes.dtype) or classes.shape not in ((images.shape[0],), (images.shape[0], 1)):
        raise ValueError(
            f"`--data` must have one integer class per image as y_{part}; {str(path)!r} has {classes.dtype} "
            f"{classes.shape} for {images.shape[0]} images."
        )


def photos_to_show(kind, x_test):
    """Four photos to look at, uint8 `(4, 32, 32, 3)`; fewer where there are fewer test images.

    Args:
        kind: `"cifar10"`, the first of the test images, or `"scikit-image"`, photos that anybody may publish.
        x_test: CIFAR-10's test images.

    Raises:
        ImportError: scikit-image is not installed.
    """
    if kind == "cifar10":
        return x_test[:4]
    try:
        import skimage.data
    except ImportError as error:
        raise ImportError("`--photos scikit-image` needs: pip install scikit-image") from error
    from PIL import Image, ImageOps

    photos = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in FREE_PHOTOS]
    return np.stack([np.asarray(ImageOps.fit(photo, (32, 32))) for photo in photos])


def make_folder(path):
    """Makes the folder of `--output`.

    Raises:
        ValueError: it is a file, or cannot be written; one sentence.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`--output` must be a folder, {str(path)!r} cannot be one: {error.strerror}.") from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"`--output` must be a folder that can be written, {str(path)!r} cannot.")
