"""Which images are calibrated on, and on which others it is verified: never the same."""

from dataclasses import dataclass

import numpy as np

from keras_vit_plugin.images.gather import (
    check_calibration,
    fingerprint,
    gather_images,
    gather_labelled,
)
from keras_vit_plugin.images.synthetic import synthetic_images
from keras_vit_plugin.warn import warn

HELD_OUT_IMAGES = 128  # at most, to verify on


def split_indices(count, calibrating, held_out, judging=False):
    """Indices of the images to calibrate on, evenly spread, and of those held out, `(calibration, held out)`.

    Args:
        count: of all images.
        calibrating: most images to calibrate on.
        held_out: most images to hold out; 0 holds none.
        judging: whether the held-out images choose between files: then half are held out where there are few.
    """
    least, share = (1, 2) if judging else (2, 4)
    spare = max(least, min(held_out, count // share)) if held_out and count >= 2 * least else 0
    calibration = np.unique(np.linspace(0, count - 1, min(calibrating, count - spare)).round().astype(int))
    rest = np.setdiff1d(np.arange(count), calibration)
    chosen = np.linspace(0, len(rest) - 1, min(held_out, len(rest))).round().astype(int)
    return calibration, rest[chosen]


def gather_calibration(source, preprocessing, mode, held_out=HELD_OUT_IMAGES, class_names=(), num_classes=0):
    """Images to calibrate a mode on, and others of the same source to judge on.

    Args:
        source: as for `gather_images`.
        preprocessing: a `Preprocessing`.
        mode: a `Mode`; for one that chooses by images, half of them are held out where there are few.
        held_out: most images to hold out.
        class_names, num_classes: as for `gather_labelled`; without classes no labels are read.

    Returns:
        uint8 images to calibrate on, uint8 images held out, and the class indices of these or None. Images that repeat
        others are left out, and a warning says so.
    """
    calibrating = mode.calibration_images
    limit = calibrating + held_out
    if num_classes:
        images, labels = gather_labelled(source, None, preprocessing, class_names, num_classes, "calibration", limit)
    else:
        images, labels = gather_images(source, preprocessing, "calibration", limit), None
    images, labels = without_repeats(images, labels)
    calibration, rest = split_indices(len(images), calibrating, held_out, mode.chooses)
    return images[calibration], images[rest], None if labels is None else labels[rest]


def without_repeats(images, labels):
    """Calibration images and their labels, the first of each that are equal: a repeat is no other image to judge on."""
    first = {}
    for place, image in enumerate(images):
        first.setdefault(fingerprint(image), place)
    kept = list(first.values())
    if len(kept) == len(images):
        return images, labels
    warn(f"`calibration`: {len(kept)} of the {len(images)} images taken are distinct; repeats are left out.")
    return images[kept], None if labels is None else np.asarray(labels)[kept]


def without_calibration(images, labels, calibration):
    """Verification images and their labels less those that were calibrated on.

    Raises:
        ValueError: none is left.
    """
    fitted = set(map(fingerprint, calibration))
    others = np.array([fingerprint(image) not in fitted for image in images], bool)
    if not others.any():
        raise ValueError(
            f"`verification` holds nothing but the {len(calibration)} images that the file is calibrated on; those "
            "verify nothing. Pass others, or leave `verification` out: then some calibration images are held out."
        )
    if not others.all():
        count = len(images) - others.sum()
        warn(f"`verification`: {count} of {len(images)} images are calibrated on and left out.")
    return images[others], None if labels is None else np.asarray(labels)[others]


@dataclass(frozen=True)
class Images:
    """The images of one export, uint8 `(N, H, W, C)` each.

    Attributes:
        calibration: what weights, ranges and gains are fitted on; None where nothing is.
        held_out, held_out_labels: what a mode that chooses does so by, and their class indices or None.
        verification, labels: what the file is verified on, and their class indices or None.
        verified_on: `"verification"` (the caller's), `"held-out"` (calibration images that nothing was fitted on) or
            `"synthetic"`.
        most_held_out: how many calibration images were to be held out, at most.
    """

    calibration: np.ndarray | None
    held_out: np.ndarray | None
    held_out_labels: np.ndarray | None
    verification: np.ndarray
    labels: np.ndarray | None
    verified_on: str
    most_held_out: int = 0


def gather_all(
    calibration, verification, mode, to_choose_by, preprocessing, class_names, num_classes, narrow_range=False
):
    """The `Images` of an export.

    Args:
        calibration, verification: what the caller passed, or None.
        mode: a `Mode`.
        to_choose_by: how many images a mode that chooses does so by.
        preprocessing, class_names, num_classes: as for `gather_labelled`.
        narrow_range: as for `check_calibration`.

    Raises:
        ValueError: images are unfit, or none is left to verify on.
    """
    chosen_by = chosen_by_labels = images = labels = None
    verified_on, held_out = "synthetic", 0
    if calibration is not None:
        held_out = to_choose_by if mode.chooses else HELD_OUT_IMAGES if verification is None else 0
        calibration, rest, rest_labels = gather_calibration(
            calibration, preprocessing, mode, held_out, class_names, num_classes if held_out else 0
        )
        check_calibration(np.concatenate([calibration, rest]), narrow_range)
        if mode.chooses:
            if len(rest) == 0:
                raise ValueError(
                    f"`calibration` holds {len(calibration)} image: quantize={mode.name!r} calibrates on some and "
                    f"tries files on others; give {mode.calibration_images + to_choose_by}."
                )
            chosen_by, chosen_by_labels = rest, rest_labels
        if len(rest):
            images, labels, verified_on = rest, rest_labels, "held-out"
    if verification is not None:
        verified_on = "verification"
        if num_classes:
            images, labels = gather_labelled(
                verification, None, preprocessing, class_names, num_classes, "verification"
            )
        else:
            images, labels = gather_images(verification, preprocessing, "verification"), None
        if calibration is not None:
            images, labels = without_calibration(images, labels, calibration)
    if images is None:
        images = synthetic_images(preprocessing.image_shape)
    return Images(calibration, chosen_by, chosen_by_labels, images, labels, verified_on, held_out)
