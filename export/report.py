"""What an export did and how good the result is."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from keras_vit_plugin.image_model.answers import BINARY, CLASSES, LOGITS, Answer

from .quantization.modes.auto.search import Candidate
from .tflite.inspect import FileReport
from .verification.distribution_shift import ShiftReport
from .verification.parity import ParityReport
from .verification.range_use import RangeUse

FIRST_NAMES = 5
VERIFIED_ON = {
    "verification": "verification images",
    "held-out": "images held out of calibration",
    "synthetic": "synthetic images alone (photos: `verification`, --verification DIR)",
}


@dataclass(frozen=True)
class ChangedAnswer:
    """An image that the file decides otherwise than the model does, with the probability that each gives its answer.

    Of several labels it is the first whose yes or no differs, in both classes, with the probability of a yes.
    """

    image: int
    model_class: int
    model_probability: float
    file_class: int
    file_probability: float


@dataclass(frozen=True)
class ExportReport:
    """The result of `export_tflite`.

    Attributes:
        path: the file; None where none was written.
        mode, target: as asked for.
        road: `"spec"` (rewritten and lowered by this package) or `"generic"` (the graph as Keras emits it).
        road_reason: why the generic road was taken; empty on the spec road.
        rewrites: `{pass: whether it changed something}`.
        changes: `{pass: what it changed}`, in words, empty where nothing.
        reasons: `{pass: why it changed nothing}`, in words, empty where it changed something.
        size_bytes: size of the file.
        parity: the file against the Keras model.
        verified_on: `"verification"` images, `"held-out"` ones (of the calibration's, nothing was fitted on them), or
            `"synthetic"` ones.
        verified_by: the runtime that it was measured with.
        answers: what the file's outputs mean.
        guessed: names of those of which nothing but their shape told it.
        shifts: of a calibrated file: how it does on contrast-stretched and on synthetic images.
        ranges: what the verification images need of its ranges; None where it holds none.
        block_snr_db: signal-to-noise ratio of the tokens after each block, on the spec road.
        others_snr_db: `{what: signal-to-noise ratio}` of outputs besides the logits, and for GPUs of the logits if all
            is rounded to half precision.
        changed_answers: the images with another answer, those that the model was surest of first.
        input: what the file takes.
        photos: how a photo is resized to it.
        pixels: how raw pixels become the model's input, and who says so.
        keras_lines: two lines of Python with which the Keras model answers as the file does on `pixels`, uint8
            `(N, H, W, C)` of the file's size.
        file: what the file contains.
        seconds: how long the export took.
        choice: for `quantize="auto"`: what was chosen and why.
        tried: for `quantize="auto"`: the `Candidate`s, in the order in which they were made.
    """

    path: str | None
    mode: str
    config: dict
    target: str
    road: str
    road_reason: str
    rewrites: dict[str, bool]
    changes: dict[str, str]
    reasons: dict[str, str]
    size_bytes: int
    parity: ParityReport
    verified_on: str
    verified_by: str
    answers: tuple[Answer, ...]
    guessed: tuple[str, ...]
    shifts: tuple[ShiftReport, ...]
    ranges: RangeUse | None
    block_snr_db: tuple[float, ...]
    others_snr_db: dict[str, float]
    changed_answers: tuple[ChangedAnswer, ...]
    input: str
    photos: str
    pixels: str
    keras_lines: tuple[str, str]
    file: FileReport
    seconds: float
    choice: str = ""
    tried: tuple[Candidate, ...] = ()

    def to_dict(self):
        """For JSON."""
        values = asdict(replace(self, tried=()))
        return values | {"tried": [candidate.to_dict() for candidate in self.tried]}

    def in_words(self):
        """`{what: result}`, for people."""
        labels = self.file.metadata["labels"]
        return {
            "size": f"{self.size_bytes / 1e6:.2f} MB",
            "input": self.input,
            "photos": self.photos,
            "normalized inside": self.pixels,
            "gives": ", ".join(self._gives(answer) for answer in self.answers),
            "class names": first_names(labels) if labels else "none: `labels` (--labels FILE or FOLDER) gives them",
            **self.parity.in_words(),
            "verified": f"on {self.parity.images} {VERIFIED_ON[self.verified_on]}, by {self.verified_by}",
            **self.shifts_in_words(),
            **{f"SNR, {name}": f"{snr_db:.1f} dB" for name, snr_db in self.others_snr_db.items()},
            "ops": f"{sum(self.file.ops.values())} in {self.file.delegate_partitions} XNNPACK partition(s)",
            "graph": "rewritten" if self.road == "spec" else f"as Keras emits it, which is slower: {self.road_reason}",
            "rewrites": ", ".join(name for name, applied in self.rewrites.items() if applied) or "none",
            "seconds": f"{self.seconds:.1f}",
        }

    def shifts_in_words(self):
        """`{what: result}` on images unlike those that the file is verified on, for people."""
        words = {f"SNR, {each.kind} images": each.words for each in self.shifts}
        uses = {"these": self.ranges, **{each.kind: each.ranges for each in self.shifts}}
        outside = [
            f"{use.share:.2%} on {name} images, by up to {use.excess:.0%} of a range"
            for name, use in uses.items()
            if use is not None
        ]
        return words | ({"values outside their ranges": "; ".join(outside)} if outside else {})

    def _gives(self, answer):
        guess = ", a guess by its shape: `task` (--task)" if answer.name in self.guessed else ""
        return f"{answer.name} ({answer.task}, {answer.activation}{guess})"

    def __str__(self):
        title = f"{self.path or 'no file'}: {self.mode} for {self.target}"
        return "\n".join([title, *(f"  {name}: {value}" for name, value in self.in_words().items())])


def first_names(labels):
    """How many class names there are, and the first."""
    more = ", ..." if len(labels) > FIRST_NAMES else ""
    return f"{len(labels)}: {', '.join(labels[:FIRST_NAMES])}{more}"


def changed_answers(reference, outputs, answer=LOGITS):
    """The `ChangedAnswer`s between outputs `(N, classes)` of the model and of the file, as far as they decide."""
    if not answer.has_decisions:
        return ()
    model, file = (answer.probabilities(each).reshape(len(reference), -1) for each in (reference, outputs))
    theirs, ours = answer.decisions(reference), answer.decisions(outputs)
    rows = np.arange(len(reference))
    if answer.task == CLASSES:
        changed, columns = theirs != ours, (theirs, ours)
        shown = model[rows, theirs], file[rows, ours]
    else:
        changed, label = (theirs != ours).any(1), (theirs != ours).argmax(1)
        shown = model[rows, label], file[rows, label]
        columns = (theirs[:, 0].astype(int), ours[:, 0].astype(int)) if answer.task == BINARY else (label, label)
        if answer.task == BINARY:  # each of its own answer
            shown = tuple(np.where(column == 1, share, 1 - share) for column, share in zip(columns, shown))
    answers = [
        ChangedAnswer(int(i), int(columns[0][i]), float(shown[0][i]), int(columns[1][i]), float(shown[1][i]))
        for i in np.flatnonzero(changed)
    ]
    return tuple(sorted(answers, key=lambda changed: -changed.model_probability))
