"""`quantize="auto"`: the cheapest file that held-out images show to be good enough.

The files are tried from the most accurate to the cheapest, each with the same exact test, and the cheapest before the
first failure is taken. A file that is not good enough can only be taken if the first such file in this order passes its
test: the risk of the whole search is that of one test, however many files are tried (fixed-sequence testing: Maurer,
Hothorn and Lehmacher 1995). From the cheapest up every file would be another chance to pass by luck.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from keras_vit_plugin.image_model.answers import BINARY, CLASSES, LOGITS

from ...verification.verify import SNR_CEILING_DB, TOLERANCES, tflite_logits
from ..modes.int4 import Int4
from ..modes.int8 import MixedInt8
from ..quantize import quantize
from .certainty import (
    FEW_FOR_NOISE,
    RISK,
    drop_promised,
    images_needed,
    images_needed_for_drop,
    largest_drop,
    largest_noise,
    largest_share,
    limit,
    proves_drop,
)
from .constraints import Wish

__all__ = ["Candidate", "Wish", "explanation", "search"]
ORDERS = ("speed", "size")
# In each mode the steps from the most accurate to the cheapest: which operators leave int8, or which layers keep 8 bits
# of their 4, follows from what each was measured to cost.
INT8_SNR_DB = {"accuracy": (36.0, 33.0, 31.0, 29.5, 28.0, 26.0), "speed": (24.0, 21.0, 18.0)}
INT4_EXTRA_SIZE = (0.5, 0.3, 0.165)
MOST_CANDIDATES = 2 + len(INT8_SNR_DB["accuracy"]) + max(len(INT8_SNR_DB["speed"]), 1 + len(INT4_EXTRA_SIZE))


@dataclass(frozen=True)
class Candidate:
    """A file that was made and judged on held-out images.

    What is "certain" holds with a probability of at least 90 % over the draw of the images, for all files of a search
    at once. It is therefore not better than what was wished for, of which alone it was tested.

    Attributes:
        name: the mode, and with which exceptions.
        mode, prefer: as for `export_tflite`.
        size_bytes: its size.
        agreement: share of the held-out images with the Keras model's decision, of the worst label or output; None
            where nothing is decided.
        agreement_kept: what it certainly is at least on images like these.
        top1_drop: accuracy lost on the held-out images, in points; None without labels.
        top1_drop_kept: what it certainly is at most.
        snr_db: of the answers, of the worst output.
        fits: whether it is what was wished for.
        relative_error: root mean square error over the spread of the model's answers, of the worst output.
        relative_error_kept: what it is at most, in about nine cases of ten; None where it is not asked for.
    """

    name: str
    mode: str
    prefer: str
    size_bytes: int
    agreement: float | None
    agreement_kept: float | None
    top1_drop: float | None
    top1_drop_kept: float | None
    snr_db: float
    fits: bool
    relative_error: float = 0.0
    relative_error_kept: float | None = None


def search(
    files,
    calibration,
    images,
    reference,
    labels,
    wish,
    order,
    metadata_bytes=0,
    *,
    answers=(LOGITS,),
    finish=None,
    run=tflite_logits,
):
    """Makes files from the most accurate to the cheapest, until one does not keep the wish.

    Args:
        files: `FloatFiles`.
        calibration: raw pixels to calibrate on.
        images: raw pixels to judge on, none of which the files are fitted to.
        reference: the Keras model's outputs on them, `(N, ...)`; of several outputs `{name: (N, ...)}`.
        labels: their class indices `(N,)`, or None.
        wish: a `Wish`, as `checked_wish` gives it.
        order: `"speed"` or `"size"`: what is cheap.
        metadata_bytes: what is added to a file afterwards, where there is no `finish`.
        answers: the `Answer`s of the outputs, all of which must keep the wish.
        finish: a function from a file's bytes to the bytes that are written, whose number is its size.
        run: a function `(content, images)` to the file's outputs, in the form of `reference`.

    Returns:
        The file as bytes, its `Candidate`, and all that were tried, in that order. Where none fits it is the best of
        those that are small enough, or of all.
    """
    finish = finish or (lambda content: content + bytes(metadata_bytes))
    reference = _by_name(reference, answers)
    tried = []

    def judge(name, mode, prefer, content):
        outputs = _by_name(run(content, images), answers)
        candidate = _judged((name, mode, prefer, len(finish(content))), reference, outputs, labels, wish, answers)
        tried.append((candidate, content))
        return candidate

    for name, mode, prefer, content in _candidates(files, calibration, order, answers):
        if any(content == other for _, other in tried):
            continue
        candidate = judge(name, mode, prefer, content)
        if wish.is_small(candidate.size_bytes) and not candidate.fits:
            break
    fitting = [pair for pair in tried if pair[0].fits]
    if not fitting or not wish.of_accuracy:
        judge("float32", "float32", "speed", files.lowered("float32"))
        fitting = [pair for pair in tried if pair[0].fits]
    if fitting and wish.of_accuracy:  # all of these passed, so any may be taken
        best, content = fitting[-1] if order == "speed" else min(fitting, key=lambda pair: pair[0].size_bytes)
    else:
        best, content = max(tried, key=lambda pair: (wish.is_small(pair[0].size_bytes), pair[0].snr_db))
    return content, best, tuple(candidate for candidate, _ in tried)


def explanation(chosen, candidates, wish, order, num_images):
    """Why this one and what is certain of it, in a few sentences."""
    measured = ", ".join(_measured(chosen, wish, num_images))
    if not chosen.fits:
        return f"None of {len(candidates)} files keeps {wish}. The best is {chosen.name}: {measured}."
    if not wish.of_accuracy:
        certain = "" if chosen.agreement is None else f" {_certain(chosen, wish)}"
        return f"{chosen.name}: of {len(candidates)} files the most accurate with {wish}: {measured}.{certain}"
    if chosen.mode == "float32":
        return f"float32: the model's own arithmetic, since no smaller file was shown to keep {wish}: {measured}."
    cheapest = {"speed": "fastest", "size": "smallest"}[order]
    why = f"of {len(candidates)} files, the most accurate tried first, the {cheapest} with {wish}"
    return f"{chosen.name}: {why}: {measured}. {_certain(chosen, wish)}{_not_promised(wish, num_images)}"


def _measured(chosen, wish, num_images):
    if chosen.agreement is not None:
        yield f"{chosen.agreement:.1%} of the answers"
    if chosen.top1_drop is not None:
        yield f"top-1 {0.0 - round(chosen.top1_drop, 1):+.1f} points"
    if chosen.agreement is None or wish.max_relative_error is not None:
        yield f"a relative error of {chosen.relative_error:.1%}"
    yield f"{chosen.size_bytes / 1e6:.2f} MB ({num_images} held-out images)"


def _certain(chosen, wish):
    """What holds of images like these with 90 % certainty, in a sentence."""
    kept = []
    if chosen.agreement is not None and (wish.min_agreement is not None or not wish.of_accuracy):
        kept.append(f"at least {math.floor(1000 * chosen.agreement_kept + 1e-6) / 1000:.1%} of the answers")
    if wish.max_top1_drop is not None:
        kept.append(f"top-1 but for {math.ceil(10 * chosen.top1_drop_kept - 1e-6) / 10:.1f} points")
    text = f"On images like these it keeps {' and '.join(kept)} with {1 - RISK:.0%} certainty." if kept else ""
    if wish.max_relative_error is not None:
        text += (
            f" A relative error of at most {wish.max_relative_error:.1%} is an estimate: right in about nine searches "
            "of ten unless a few rare images carry most of the error."
        )
    return text.strip()


def _not_promised(wish, num_images):
    """A sentence on each wish that so few images cannot prove."""
    needed = {}
    if wish.min_agreement is not None:
        needed["min_agreement"] = images_needed(1 - wish.min_agreement)
    if wish.max_top1_drop is not None:
        needed["max_top1_drop"] = images_needed_for_drop(wish.max_top1_drop / 100)
    if wish.max_relative_error is not None:
        needed["max_relative_error"] = FEW_FOR_NOISE
    text = ""
    for name, images in needed.items():
        if num_images < images:
            enough = f"{images} are needed, more allow a cheaper file" if images < math.inf else "no number is enough"
            text += f" `{name}` itself is not promised: {num_images} held-out images are too few ({enough})."
    return text


def _by_name(values, answers):
    return values if isinstance(values, dict) else {answers[0].name: values}


def _candidates(files, calibration, order, answers=(LOGITS,)):
    """`(name, mode, prefer, bytes)` of one file after the other, the most accurate first, without float32."""

    def int8(prefer):
        engine = MixedInt8(files.lowered("int8", prefer), calibration, prefer, answers, files.cpu)
        for snr_db in INT8_SNR_DB[prefer]:
            yield f"int8, budget {snr_db:g} dB", "int8", prefer, engine.within(snr_db)

    def int4():
        engine = Int4(files.lowered("int4"), calibration, answers=answers)
        for share in INT4_EXTRA_SIZE:
            yield f"int4, {share:.0%} in 8 bits", "int4", "speed", engine.within(math.inf, share)

    def whole(mode):
        content = files.lowered(mode)
        yield mode, mode, "speed", quantize(content, mode, calibration, integer_dense=files.target.integer_dense)

    yield from whole("float16")
    if not files.target.integer_dense:  # then int8 is the same file as dynamic
        yield from whole("dynamic")
        return
    accurate = int8("accuracy")
    if order == "speed":
        yield from accurate
        yield from int8("speed")
    else:
        yield from itertools.islice(accurate, len(INT8_SNR_DB["accuracy"]) - 1)
        yield from whole("dynamic")  # smaller than int8 and more accurate than its last step
        yield from accurate
        yield from int4()


def _judged(made, reference, outputs, labels, wish, answers):
    """A `Candidate` from `(name, mode, prefer, size_bytes)` and the outputs, by name, of the model and of the file."""
    count = len(next(iter(reference.values())))
    pairs = [(answer, reference[answer.name], outputs[answer.name]) for answer in answers]
    finite = all(np.isfinite(theirs).all() for _, _, theirs in pairs)
    noise = max(answer.noise(ours, theirs) for answer, ours, theirs in pairs) if finite else math.inf
    snr_db = float(np.clip(-10 * math.log10(max(noise, 1e-300)), -SNR_CEILING_DB, SNR_CEILING_DB))
    # The most accurate of all files is chosen on the same images: then each file's bound takes its part of the risk.
    risk = RISK if wish.of_accuracy else RISK / MOST_CANDIDATES
    agreement = agreement_kept = drop = drop_kept = error_kept = None
    keeps = finite
    if wish.max_relative_error is not None:
        error_kept = math.sqrt(max(largest_noise(*pair) for pair in pairs)) if finite else math.inf
        keeps = error_kept <= wish.max_relative_error
    if changes := [_changed(*pair) for pair in pairs if pair[0].has_decisions]:
        worst = max(int(changed.sum(0).max()) for changed in changes)
        agreement, agreement_kept = 1 - worst / count, 1 - largest_share(worst, count, risk)
        if wish.min_agreement is not None:
            allowed, promised = limit(count, 1 - wish.min_agreement)
            agreement_kept = min(agreement_kept, 1 - promised)
            keeps = keeps and worst <= allowed
    answer, ours, theirs = pairs[0]
    if labels is not None and len(pairs) == 1 and answer.task in (BINARY, CLASSES):
        right, still_right = (answer.decisions(each).reshape(count) == labels for each in (ours, theirs))
        lost, gained = int((right & ~still_right).sum()), int((still_right & ~right).sum())
        drop, drop_kept = 100 * (lost - gained) / count, 100 * largest_drop(lost, gained, count, risk)
        if wish.max_top1_drop is not None:
            promised = drop_promised(count, wish.max_top1_drop / 100)
            drop_kept = max(drop_kept, 100 * promised)
            keeps = keeps and drop <= wish.max_top1_drop and proves_drop(lost, gained, count, promised)
    name, mode, prefer, size_bytes = made
    if mode == "float32":  # differs from the model as the model differs from itself on another machine: not by chance
        keeps = snr_db >= TOLERANCES["float32"].min_snr_db
    return Candidate(
        *made,
        agreement,
        agreement_kept,
        drop,
        drop_kept,
        snr_db,
        wish.is_small(size_bytes) and (keeps or not wish.of_accuracy),
        math.sqrt(noise),
        error_kept,
    )


def _changed(answer, reference, outputs):
    """Whether a decision is another, `(N, 1)` or `(N, labels)`; of numbers that are not finite it always is."""
    changed = (answer.decisions(reference) != answer.decisions(outputs)).reshape(len(reference), -1)
    return changed | ~np.isfinite(outputs).all(1, keepdims=True)
