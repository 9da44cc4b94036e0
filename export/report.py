"""What an export did and how good the result is."""

from dataclasses import asdict, dataclass

import numpy as np

from .inspect import FileReport
from .search import Candidate
from .verify import ParityReport


@dataclass(frozen=True)
class ChangedAnswer:
    """An image that the file calls something else than the model does, with the softmax probability of each answer."""

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
        verified_on: `"verification"`, `"calibration"` or `"synthetic"` images.
        block_snr_db: signal-to-noise ratio of the tokens after each block, on the spec road.
        others_snr_db: `{what: signal-to-noise ratio}` of outputs besides the logits, and for GPUs of the logits if all
            is rounded to half precision.
        changed_answers: the images with another answer, those that the model was surest of first.
        input: what the file takes, and how a photo is resized to it.
        file: what the file contains.
        seconds: how long the export took.
        choice: for `quantize="auto"`: what was chosen and why.
        tried: for `quantize="auto"`: the `Candidate`s, in the order in which they were made.
    """

    path: str | None
    mode: str
    target: str
    road: str
    road_reason: str
    rewrites: dict[str, bool]
    changes: dict[str, str]
    reasons: dict[str, str]
    size_bytes: int
    parity: ParityReport
    verified_on: str
    block_snr_db: tuple[float, ...]
    others_snr_db: dict[str, float]
    changed_answers: tuple[ChangedAnswer, ...]
    input: str
    file: FileReport
    seconds: float
    choice: str = ""
    tried: tuple[Candidate, ...] = ()

    def to_dict(self):
        return asdict(self)


def changed_answers(reference, outputs):
    """The `ChangedAnswer`s between logits `(N, classes)` of the model and of the file."""

    def probabilities(logits):
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    model, file = probabilities(reference.astype(np.float64)), probabilities(outputs.astype(np.float64))
    images = np.flatnonzero(model.argmax(1) != file.argmax(1))
    answers = [
        ChangedAnswer(
            int(i), int(model[i].argmax()), model[i].max().item(), int(file[i].argmax()), file[i].max().item()
        )
        for i in images
    ]
    return tuple(sorted(answers, key=lambda answer: -answer.model_probability))
