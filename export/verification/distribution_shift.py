"""How a quantized file does on images unlike those that it is verified on.

Ranges measured on dull images hold for dull images. The same file is therefore run on the verification images
stretched to full contrast and on synthetic ones, where its error must stay bounded.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit_plugin.image_model.decibels import as_db
from keras_vit_plugin.images.gather import spread
from keras_vit_plugin.images.synthetic import synthetic_images

from .range_use import RangeUse, range_use

CONTRAST_STRETCHED, SYNTHETIC = "contrast-stretched", "synthetic"
SHIFTED_IMAGES = {CONTRAST_STRETCHED: 12, SYNTHETIC: 12}
SLACK_DB = 3.0  # that the error on such images may be larger than the tolerance


@dataclass(frozen=True)
class ShiftReport:
    """A file against its Keras model on images unlike those that it is verified on.

    Attributes:
        kind: `"contrast-stretched"` copies of the verification images, or `"synthetic"` images.
        images: how many the model has an answer for.
        unanswered: how many it gives NaN or infinity for, which are left out.
        snr_db: signal-to-noise ratio of the worst output; its signal is that of the verification images where that is
            the larger, since on other images the model may say nothing at all. None where no image has an answer.
        ranges: what these images need of the file's ranges; None where it holds none.
    """

    kind: str
    images: int
    unanswered: int
    snr_db: float | None
    ranges: RangeUse | None

    @property
    def words(self):
        """The ratio, and what it was not measured on."""
        left_out = f"the model gives NaN or infinity on {self.unanswered} of {self.images + self.unanswered}"
        if self.snr_db is None:
            return f"not measured: {left_out}"
        return f"{self.snr_db:.1f} dB" + (f" ({left_out})" if self.unanswered else "")


def shift_reports(images, answers, references, reference_of, outputs_of, file, float_file):
    """The `ShiftReport`s of a file.

    Args:
        images: the verification images, uint8 `(N, H, W, C)`.
        answers: the `Answer`s of the file's outputs.
        references: the model's outputs for `images`, one for each answer.
        reference_of, outputs_of: functions from images to the outputs of the model and of the file.
        file: the `Graph` of the file.
        float_file: the `Graph` of the float file that it was made of.
    """
    powers = [answer.power(reference) for answer, reference in zip(answers, references)]
    made = {
        CONTRAST_STRETCHED: contrast_stretched(spread(images, SHIFTED_IMAGES[CONTRAST_STRETCHED])),
        SYNTHETIC: synthetic_images(images.shape[1:], SHIFTED_IMAGES[SYNTHETIC]),
    }
    reports = []
    for kind, shifted in made.items():
        wanted = reference_of(shifted)
        finite = np.all([np.isfinite(each).reshape(len(shifted), -1).all(1) for each in wanted], 0)
        unanswered = int(len(finite) - finite.sum())
        if not finite.any():
            reports.append(ShiftReport(kind, 0, unanswered, None, None))
            continue
        shifted, wanted = shifted[finite], [each[finite] for each in wanted]
        noise = max(
            answer.noise(reference, given, np.maximum(power, answer.power(reference)))
            for answer, reference, given, power in zip(answers, wanted, outputs_of(shifted), powers)
        )
        ranges = range_use(file, float_file, shifted)
        reports.append(ShiftReport(kind, len(shifted), unanswered, as_db(noise), ranges))
    return tuple(reports)


def contrast_stretched(images):
    """Images `(N, H, W, C)` whose darkest pixel is 0 and whose brightest is 255, each by a linear map; uint8."""
    low, high = (limit(images, axis=(1, 2, 3), keepdims=True).astype(np.float32) for limit in (np.min, np.max))
    return np.round((images - low) / np.maximum(high - low, 1) * 255).astype(np.uint8)


def shifted_too_far(reports, min_snr_db):
    """Why a file is too far from its model on images unlike those that it is verified on; empty where it is not.

    Args:
        reports: of `shift_reports`.
        min_snr_db: what the file must keep on the verification images.
    """
    least = min_snr_db - SLACK_DB
    measured = [each for each in reports if each.snr_db is not None]
    far = [f"{each.snr_db:.1f} dB on {each.kind} images" for each in measured if not each.snr_db >= least]
    if not far:
        return ""
    uses = [each.ranges for each in reports if each.ranges is not None]
    outside = ""
    if any(use.share for use in uses):
        outside = (
            f" Up to {max(use.share for use in uses):.1%} of their values lie outside the calibrated ranges, by up to "
            f"{max(use.excess for use in uses):.0%} of a range."
        )
    return (
        f"{' and '.join(far)} (wanted {least:.0f} dB): it is right for images like the calibration's alone.{outside} "
        "Calibrate on images of more contrast and variety, or, if all images to come are like these, say so: "
        "narrow_range=True (--narrow-range)."
    )
