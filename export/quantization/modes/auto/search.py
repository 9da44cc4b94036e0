"""`quantize="auto"`: the cheapest file that held-out images show to be good enough.

The files are tried from the most accurate to the cheapest, each with the same exact test, and the cheapest before the
first failure is taken. A file that is not good enough can only be taken if the first such file in this order passes its
test: the risk of the whole search is that of one test, however many files are tried (fixed-sequence testing: Maurer,
Hothorn and Lehmacher 1995). From the cheapest up every file would be another chance to pass by luck.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from keras_vit_plugin.image_model.answers import BINARY, CLASSES
from keras_vit_plugin.image_model.decibels import as_db

from ....tflite.capabilities import Capability
from ...mode import Mode
from ..float32 import Float32
from .auto import MOST_CANDIDATES
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


@dataclass(frozen=True)
class Candidate:
    """A file that was made and measured on held-out images.

    What is "certain" holds with a probability of at least 90 % over the draw of the images, for all files of a search
    at once. It is therefore not better than what was asked for, of which alone it was tested.

    Attributes:
        config: the `Mode`, which `export_tflite` takes as `quantize`.
        size_bytes: its size.
        agreement: share of the held-out images with the Keras model's decision, of the worst label or output; None
            where nothing is decided.
        agreement_kept: what it certainly is at least on images like these.
        top1_drop: accuracy lost on the held-out images, in points; None without labels.
        top1_drop_kept: what it certainly is at most.
        snr_db: of the answers, of the worst output.
        fits: whether it keeps what was asked for.
        relative_error: root mean square error over the spread of the model's answers, of the worst output.
        relative_error_kept: what it is at most, in about nine cases of ten; None where it is not asked for.
    """

    config: Mode
    size_bytes: int
    agreement: float | None
    agreement_kept: float | None
    top1_drop: float | None
    top1_drop_kept: float | None
    snr_db: float
    fits: bool
    relative_error: float = 0.0
    relative_error_kept: float | None = None

    @property
    def name(self):
        """The mode, and with which exceptions."""
        return str(self.config)

    def to_dict(self):
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"name": self.name, **values, "config": self.config.to_dict()}


def search(auto, constraints, make, reference, labels, answers, run, size_of, has=frozenset(Capability)):
    """Makes files from the most accurate to the cheapest, until one does not keep the constraints.

    Args:
        auto: an `Auto`.
        constraints: its `Constraints`, as `checked_constraints` gives them.
        make: a function from a `Mode` to the bytes of its file.
        reference: the Keras model's outputs on the held-out images, which no file is fitted to, `{name: (N, ...)}`.
        labels: the class indices of these images, `(N,)`, or None.
        answers: the `Answer`s of the outputs, all of which must keep the constraints.
        run: a function from a file's bytes to its outputs on the held-out images, in the form of `reference`.
        size_of: a function from a file's bytes and its `Mode` to the bytes that are written.
        has: the `Capability`s of the target.

    Returns:
        The file as bytes, its `Candidate`, and all that were tried, in that order. Where none fits it is the best of
        those that are small enough, or of all.
    """
    tried = []

    def judge(mode, content):
        candidate = _judged(mode, size_of(content, mode), reference, run(content), labels, constraints, answers)
        tried.append((candidate, content))
        return candidate

    for mode in auto.candidates(has):
        content = make(mode)
        if any(content == other for _, other in tried):
            continue
        candidate = judge(mode, content)
        if constraints.is_small(candidate.size_bytes) and not candidate.fits:
            break
    fitting = [pair for pair in tried if pair[0].fits]
    if not fitting or not constraints.of_accuracy:
        judge(auto.baseline, make(auto.baseline))
        fitting = [pair for pair in tried if pair[0].fits]
    if fitting and constraints.of_accuracy:  # all of these passed, so any may be taken
        best, content = fitting[-1] if auto.prefer == "speed" else min(fitting, key=lambda pair: pair[0].size_bytes)
    else:
        best, content = max(tried, key=lambda pair: (constraints.is_small(pair[0].size_bytes), pair[0].snr_db))
    return content, best, tuple(candidate for candidate, _ in tried)


def explanation(chosen, candidates, constraints, order, num_images):
    """Why this one and what is certain of it, in a few sentences."""
    measured = ", ".join(_measured(chosen, constraints, num_images))
    if not chosen.fits:
        return f"None of {len(candidates)} files keeps {constraints}. The best is {chosen.name}: {measured}."
    if not constraints.of_accuracy:
        certain = "" if chosen.agreement is None else f" {_certain(chosen, constraints)}"
        return f"{chosen.name}: of {len(candidates)} files the most accurate with {constraints}: {measured}.{certain}"
    if chosen.config == Float32():
        return (
            f"float32: the model's own arithmetic, since no smaller file was shown to keep {constraints}: {measured}."
        )
    cheapest = {"speed": "fastest", "size": "smallest"}[order]
    why = f"of {len(candidates)} files, the most accurate tried first, the {cheapest} with {constraints}"
    return f"{chosen.name}: {why}: {measured}. {_certain(chosen, constraints)}{_not_promised(constraints, num_images)}"


def _measured(chosen, constraints, num_images):
    if chosen.agreement is not None:
        yield f"{chosen.agreement:.1%} of the answers"
    if chosen.top1_drop is not None:
        yield f"top-1 {0.0 - round(chosen.top1_drop, 1):+.1f} points"
    if chosen.agreement is None or constraints.max_relative_error is not None:
        yield f"a relative error of {chosen.relative_error:.1%}"
    yield f"{chosen.size_bytes / 1e6:.2f} MB ({num_images} held-out images)"


def _certain(chosen, constraints):
    """What holds of images like these with 90 % certainty, in a sentence."""
    kept = []
    if chosen.agreement is not None and (constraints.min_agreement is not None or not constraints.of_accuracy):
        kept.append(f"at least {math.floor(1000 * chosen.agreement_kept + 1e-6) / 1000:.1%} of the answers")
    if constraints.max_top1_drop is not None:
        kept.append(f"top-1 but for {math.ceil(10 * chosen.top1_drop_kept - 1e-6) / 10:.1f} points")
    text = f"On images like these it keeps {' and '.join(kept)} with {1 - RISK:.0%} certainty." if kept else ""
    if constraints.max_relative_error is not None:
        text += (
            f" A relative error of at most {constraints.max_relative_error:.1%} is an estimate: right in about nine "
            "searches of ten unless a few rare images carry most of the error."
        )
    return text.strip()


def _not_promised(constraints, num_images):
    """A sentence on each constraints that so few images cannot prove."""
    needed = {}
    if constraints.min_agreement is not None:
        needed["min_agreement"] = images_needed(1 - constraints.min_agreement)
    if constraints.max_top1_drop is not None:
        needed["max_top1_drop"] = images_needed_for_drop(constraints.max_top1_drop / 100)
    if constraints.max_relative_error is not None:
        needed["max_relative_error"] = FEW_FOR_NOISE
    text = ""
    for name, images in needed.items():
        if num_images < images:
            enough = f"{images} are needed, more allow a cheaper file" if images < math.inf else "no number is enough"
            text += f" `{name}` itself is not promised: {num_images} held-out images are too few ({enough})."
    return text


def _judged(mode, size_bytes, reference, outputs, labels, constraints, answers):
    """A `Candidate` from the outputs, by name, of the model and of the file."""
    count = len(next(iter(reference.values())))
    pairs = [(answer, reference[answer.name], outputs[answer.name]) for answer in answers]
    finite = all(np.isfinite(theirs).all() for _, _, theirs in pairs)
    noise = max(answer.noise(ours, theirs) for answer, ours, theirs in pairs) if finite else math.inf
    snr_db = as_db(noise)
    # The most accurate of all files is chosen on the same images: then each file's bound takes its part of the risk.
    risk = RISK if constraints.of_accuracy else RISK / MOST_CANDIDATES
    agreement = agreement_kept = drop = drop_kept = error_kept = None
    keeps = finite
    if constraints.max_relative_error is not None:
        error_kept = math.sqrt(max(largest_noise(*pair) for pair in pairs)) if finite else math.inf
        keeps = error_kept <= constraints.max_relative_error
    if changes := [_changed(*pair) for pair in pairs if pair[0].has_decisions]:
        worst = max(int(changed.sum(0).max()) for changed in changes)
        agreement, agreement_kept = 1 - worst / count, 1 - largest_share(worst, count, risk)
        if constraints.min_agreement is not None:
            allowed, promised = limit(count, 1 - constraints.min_agreement)
            agreement_kept = min(agreement_kept, 1 - promised)
            keeps = keeps and worst <= allowed
    answer, ours, theirs = pairs[0]
    if labels is not None and len(pairs) == 1 and answer.task in (BINARY, CLASSES):
        right, still_right = (answer.decisions(each).reshape(count) == labels for each in (ours, theirs))
        lost, gained = int((right & ~still_right).sum()), int((still_right & ~right).sum())
        drop, drop_kept = 100 * (lost - gained) / count, 100 * largest_drop(lost, gained, count, risk)
        if constraints.max_top1_drop is not None:
            promised = drop_promised(count, constraints.max_top1_drop / 100)
            drop_kept = max(drop_kept, 100 * promised)
            keeps = keeps and drop <= constraints.max_top1_drop and proves_drop(lost, gained, count, promised)
    if mode == Float32():  # differs from the model as the model differs from itself on another machine: not by chance
        keeps = snr_db >= mode.tolerance.min_snr_db
    return Candidate(
        mode,
        size_bytes,
        agreement,
        agreement_kept,
        drop,
        drop_kept,
        snr_db,
        constraints.is_small(size_bytes) and (keeps or not constraints.of_accuracy),
        math.sqrt(noise),
        error_kept,
    )


def _changed(answer, reference, outputs):
    """Whether a decision is another, `(N, 1)` or `(N, labels)`; of numbers that are not finite it always is."""
    changed = (answer.decisions(reference) != answer.decisions(outputs)).reshape(len(reference), -1)
    return changed | ~np.isfinite(outputs).all(1, keepdims=True)
