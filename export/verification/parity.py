"""How far the outputs of a file are from those of its model."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from keras_vit_plugin.image_model.answers import CLASSES, LOGITS, MULTI_LABEL
from keras_vit_plugin.image_model.decibels import as_db

from ..tflite.webgpu import GpuReport
from .comparison import Comparison

LEAST_IMAGES_TO_DOUBT = 20  # of which a model that is right as often as by chance is doubted


@dataclass(frozen=True)
class ParityReport:
    """One output of a `.tflite` against its Keras model on the same images.

    Attributes:
        images: how many.
        agreement: share of images, 0..1, with the same decision: the class with the highest score, yes or no, or, of
            several labels, the yes or no of the label that agrees least; None where the output decides nothing.
        snr_db: `10 log10(signal / noise)`, within +-300. The noise is the mean square of the error. The signal is the
            mean square of what carries the answer: class scores less their mean over the classes, all else less its
            mean over the images. The error of logits leaves out their mean over the classes too, which softmax
            ignores. Of several numbers it is that of the worst.
        max_abs_error: the largest error, in the output's own units.
        top1_accuracy_model, top1_accuracy_tflite: share of images whose decision is the label; None without labels.
        top1_by_chance: what the model would have of it if its decisions, as often each, had nothing to do with the
            labels (Cohen 1960); None without labels.
        name, task: of the output, as in `Answer`.
        relative_error: root mean square error as a share of the spread of the answers, which `snr_db` says in decibels.
        mean_abs_error: of a regression, in its own units.
        all_labels_agreement: share of images on which every label's yes or no is the same.
        cosine: mean cosine similarity of the vectors, of an embedding or of features.
        same_nearest: share of images, 0..1, whose nearest other image by the embedding is the same.
        others: the further outputs, one `ParityReport` each.
        gpu: what the GPU of this machine makes of a file for GPUs; None of other files.
    """

    images: int
    agreement: float | None
    snr_db: float
    max_abs_error: float
    top1_accuracy_model: float | None = None
    top1_accuracy_tflite: float | None = None
    top1_by_chance: float | None = None
    name: str = LOGITS.name
    task: str = CLASSES
    relative_error: float | None = None
    mean_abs_error: float | None = None
    all_labels_agreement: float | None = None
    cosine: float | None = None
    same_nearest: float | None = None
    others: tuple["ParityReport", ...] = ()
    gpu: GpuReport | None = None

    @property
    def top1_agreement(self):
        """`agreement`, as it is called of classes."""
        return self.agreement

    @property
    def model_guesses(self):
        """Whether the Keras model is right no more often than by chance, as far as so many images can tell."""
        chance = self.top1_by_chance
        if chance is None or self.images < LEAST_IMAGES_TO_DOUBT:
            return False
        return self.top1_accuracy_model <= chance + 2 * (chance * (1 - chance) / self.images) ** 0.5 and chance < 1

    def to_dict(self):
        return asdict(self)

    def in_words(self):
        """`{what: figure}` for people, the further outputs by their names."""
        words = {}
        if self.agreement is not None:
            of = {CLASSES: "same class", MULTI_LABEL: "same yes or no, worst label"}.get(self.task, "same yes or no")
            words[of] = f"{self.agreement:.1%} of {self.images} images"
        if self.all_labels_agreement is not None:
            words["all labels the same"] = f"{self.all_labels_agreement:.1%}"
        words["SNR"] = f"{self.snr_db:.1f} dB"
        if self.agreement is None:
            words["SNR"] += f" on {self.images} images"
            words["error relative to the spread"] = f"{self.relative_error:.2%}"
        if self.mean_abs_error is not None:
            words["mean error"] = f"{self.mean_abs_error:.3g}"
        words["largest error"] = f"{self.max_abs_error:.3g}"
        if self.cosine is not None:
            words["cosine similarity"] = f"{self.cosine:.5f}"
        if self.same_nearest is not None:
            words["same nearest image"] = f"{self.same_nearest:.1%}"
        if self.top1_accuracy_model is not None:
            words["top-1, Keras model"] = f"{self.top1_accuracy_model:.1%}"
            if self.model_guesses:
                chance = f"no more than by chance ({self.top1_by_chance:.1%})"
                words["top-1, Keras model"] += f", {chance}: check `pixels` (--pixels) and the order of the classes"
            words["top-1, file"] = f"{self.top1_accuracy_tflite:.1%}"
        if self.others:
            words = {f"{self.name}: {what}": figure for what, figure in words.items()}
            for other in self.others:
                words |= {f"{other.name}: {what}": figure for what, figure in other.in_words().items()}
        return words if self.gpu is None else words | self.gpu.in_words()


class ParityError(RuntimeError):
    """A file is too far from its Keras model. `report` holds the measurements; no file was written."""

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report


def compare(reference, outputs, labels=None, answer=LOGITS):
    """A `ParityReport` of one output.

    Args:
        reference: the Keras model's, `(N, ...)`.
        outputs: the file's, of the same shape.
        labels: class indices `(N,)`, for an answer of classes; 0 and 1 for a binary one.
        answer: what the output means.

    Raises:
        ValueError: the shapes differ, or the reference holds NaN or infinity.
    """
    comparison = Comparison(answer)
    comparison.add(reference, outputs, labels)
    return report_of([comparison])


def compare_all(references, outputs, labels, answers):
    """The `ParityReport` of the first output with those of the others in it; sequences of equal length."""
    comparisons = [Comparison(answer) for answer in answers]
    add_all(comparisons, references, outputs, labels)
    return report_of(comparisons)


def add_all(comparisons, references, outputs, labels):
    for comparison, reference, output in zip(comparisons, references, outputs):
        comparison.add(reference, output, labels if len(comparisons) == 1 else None)


def report_of(comparisons):
    first, *others = [
        ParityReport(
            snr_db=as_db(comparison.noise),
            relative_error=float(min(np.sqrt(comparison.noise), np.finfo(np.float32).max)),
            **comparison.figures(),
        )
        for comparison in comparisons
    ]
    return replace(first, others=tuple(others))
