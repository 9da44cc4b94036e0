"""`quantize="auto"`: the cheapest file that a measurement on images shows to be good enough."""

import math
from dataclasses import dataclass

import numpy as np

from .low_bit import Int4
from .mixed_int8 import MixedInt8
from .quantize import quantize
from .verify import compare, tflite_logits

ORDERS = ("speed", "size")
# In each mode the steps from the cheapest to the most accurate: which operators leave int8, or which layers keep 8 bits
# of their 4, follows from what each was measured to cost.
INT8_SNR_DB = {"speed": (18.0, 21.0, 24.0), "accuracy": (26.0, 28.0, 29.5, 31.0, 33.0, 36.0)}
INT4_EXTRA_SIZE = (0.165, 0.3, 0.5)
ERRORS = 1.3  # standard errors between an estimate and what is promised, about nine chances in ten


@dataclass(frozen=True)
class Wish:
    """What a file must keep.

    Args:
        min_agreement: share of images, 0..1, with the Keras model's top-1 answer.
        max_top1_drop: top-1 accuracy lost, in points of percent; needs labelled images.
        max_size: bytes.
    """

    min_agreement: float | None = None
    max_top1_drop: float | None = None
    max_size: int | None = None

    def __post_init__(self):
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ValueError(f"`min_agreement` must be in 0..1, got {self.min_agreement}.")
        if self.max_top1_drop is not None and not 0 <= self.max_top1_drop <= 100:
            raise ValueError(f"`max_top1_drop` must be in points of percent, 0..100, got {self.max_top1_drop}.")
        if self.max_size is not None and not self.max_size > 0:
            raise ValueError(f"`max_size` must be a positive number of bytes, got {self.max_size}.")

    @property
    def of_accuracy(self):
        """Whether it says how good the file must be; if not, the best file of the size is wanted."""
        return self.min_agreement is not None or self.max_top1_drop is not None

    def is_small(self, size_bytes):
        return self.max_size is None or size_bytes <= self.max_size

    def __str__(self):
        parts = {
            "min_agreement": f"at least {self.min_agreement or 0:.1%} of the answers",
            "max_top1_drop": f"a top-1 drop of at most {self.max_top1_drop} points",
            "max_size": f"at most {(self.max_size or 0) / 1e6:.2f} MB",
        }
        return " and ".join(text for name, text in parts.items() if getattr(self, name) is not None)


@dataclass(frozen=True)
class Candidate:
    """A file that was made and judged.

    Attributes:
        name: the mode, and with which exceptions.
        mode, prefer: as for `export_tflite`.
        size_bytes: its size, at most.
        agreement: estimate of the share of images with the Keras model's answer.
        agreement_kept: what it is with about 90 % certainty at least.
        top1_drop: lost accuracy in points; None without labels.
        top1_drop_kept: what it is with about 90 % certainty at most.
        snr_db: of the logits.
        fits: whether it is what was wished for.
    """

    name: str
    mode: str
    prefer: str
    size_bytes: int
    agreement: float
    agreement_kept: float
    top1_drop: float | None
    top1_drop_kept: float | None
    snr_db: float
    fits: bool


def search(files, calibration, images, reference, answers, wish, order, metadata_bytes):
    """Makes candidates, the cheapest first, until one fits.

    Args:
        files: `FloatFiles`.
        calibration: raw pixels to calibrate on.
        images: raw pixels to judge on, others where possible.
        reference: the Keras model's logits on them.
        answers: their class indices, or None.
        wish: a `Wish`.
        order: `"speed"` or `"size"`: what is cheap.
        metadata_bytes: what is added to the file afterwards, at most.

    Returns:
        The file as bytes, its `Candidate`, and all that were tried, in that order. Where none fits it is the best of
        those that are small enough, or of all.
    """
    tried = []
    for name, mode, prefer, content in _candidates(files, calibration, order):
        if any(content == other for _, other in tried):
            continue
        size = len(content) + metadata_bytes
        outputs = tflite_logits(content, images)
        tried.append((_judged(name, mode, prefer, size, outputs, reference, answers, wish), content))
        if wish.of_accuracy and tried[-1][0].fits:
            break
    candidates = tuple(candidate for candidate, _ in tried)

    def merit(pair):
        candidate, _ = pair
        return candidate.fits, wish.is_small(candidate.size_bytes), candidate.agreement_kept, candidate.snr_db

    best, content = max(tried, key=merit)
    return content, best, candidates


def explanation(chosen, candidates, wish, order, num_images):
    """Why this one, in a sentence or two."""
    cheapest = {"speed": "fastest", "size": "smallest"}[order]
    measured = f"an estimated {chosen.agreement:.1%} of the answers, {chosen.agreement_kept:.1%} with 90 % certainty"
    if chosen.top1_drop is not None:
        measured += f", top-1 {-chosen.top1_drop:+.1f} points, {-chosen.top1_drop_kept:+.1f} with 90 % certainty"
    measured += f" ({num_images} calibration images), {chosen.size_bytes / 1e6:.2f} MB"
    if not chosen.fits:
        return f"None of {len(candidates)} files keeps {wish}. The best is {chosen.name}: it keeps {measured}."
    if not wish.of_accuracy:
        return f"{chosen.name}: of {len(candidates)} files the most accurate with {wish}. It keeps {measured}."
    place = "the first" if len(candidates) == 1 else f"the first that fits of {len(candidates)}"
    return f"{chosen.name}: {place} tried, {cheapest} first, for {wish}. It keeps {measured}."


def _candidates(files, calibration, order):
    """`(name, mode, prefer, bytes)` of one file after the other, the cheapest first."""

    def int8(prefer):
        engine = MixedInt8(files.lowered("int8", prefer), calibration, prefer)
        for snr_db in INT8_SNR_DB[prefer]:
            yield f"int8, budget {snr_db:g} dB", "int8", prefer, engine.within(snr_db)

    def int4():
        engine = Int4(files.lowered("int4"), calibration)
        for share in INT4_EXTRA_SIZE:
            yield f"int4, {share:.0%} in 8 bits", "int4", "speed", engine.within(math.inf, share)

    def whole(*modes):
        for mode in modes:
            content = files.lowered(mode)
            yield mode, mode, "speed", quantize(content, mode, calibration, integer_dense=files.target.integer_dense)

    if not files.target.integer_dense:  # then int8 is the same file as dynamic
        yield from whole("dynamic", "float16", "float32")
        return
    if order == "speed":
        yield from int8("speed")
    else:
        yield from int4()
        yield from whole("dynamic")
    yield from int8("accuracy")
    yield from whole("float16", "float32")


def _judged(name, mode, prefer, size_bytes, outputs, reference, answers, wish):
    agreement, error = expected_agreement(reference, outputs)
    kept = max(agreement - ERRORS * error, 0.0)
    drop = drop_kept = None
    if answers is not None:
        lost = (reference.argmax(1) == answers).astype(float) - (outputs.argmax(1) == answers)
        drop = 100 * lost.mean()
        drop_kept = drop + ERRORS * 100 * lost.std() / math.sqrt(len(lost))
    fits = (
        wish.is_small(size_bytes)
        and (wish.min_agreement is None or kept >= wish.min_agreement)
        and (wish.max_top1_drop is None or drop_kept <= wish.max_top1_drop)
    )
    snr_db = compare(reference, outputs).snr_db
    return Candidate(name, mode, prefer, size_bytes, agreement, kept, drop, drop_kept, snr_db, fits)


def expected_agreement(reference, outputs):
    """The share of images like these that keep their top-1 class, and the standard error of that number.

    Counting changed answers says little where one in a hundred changes. All images say how large the errors are, and
    how far ahead of the others the first class is: an error that is normal with an image's own standard deviation
    overtakes a lead with a probability that is known.

    Args:
        reference, outputs: logits `(N, classes)` of the model and of the file.
    """
    errors = outputs.astype(np.float64) - reference
    first = reference.argmax(1)
    rows = np.arange(len(reference))
    leads = reference[rows, first][:, None] - reference
    differences = errors[rows, first][:, None] - errors
    others = np.ones(reference.shape, bool)
    others[rows, first] = False
    deviation = np.sqrt(np.square(differences).sum(1) / np.maximum(others.sum(1), 1))[:, None] + 1e-12
    overtakes = np.vectorize(math.erfc, otypes=[float])(leads / deviation / math.sqrt(2)) / 2
    changes = 1 - np.prod(np.where(others, 1 - overtakes, 1), axis=1)
    return float(1 - changes.mean()), float(changes.std() / math.sqrt(len(changes)))
