"""From a job to its quantized file: by the mode that was asked for, or by the one that a search chooses."""

from dataclasses import dataclass

from .quantization.mode import Mode
from .quantization.modes.auto.auto import without_budget
from .quantization.modes.auto.search import Candidate, explanation, search
from .tflite.runner import Runner
from .verification.outputs import outputs_of


@dataclass(frozen=True)
class Made:
    """A quantized file, not finished yet.

    Attributes:
        content: its bytes.
        mode: the `Mode` that it was made by; where one was chosen, the chosen one.
        float_content: bytes of the float file that it was quantized from.
        tried: the `Candidate`s of a search, in the order in which they were made.
        choice: what was chosen and why, in words; empty where nothing was to be chosen.
        chosen: the chosen `Candidate`, or None.
    """

    content: bytes
    mode: Mode
    float_content: bytes
    tried: tuple[Candidate, ...] = ()
    choice: str = ""
    chosen: Candidate | None = None

    @property
    def fits(self):
        """Whether it keeps what a search was to keep."""
        return self.chosen is None or self.chosen.fits


def made(job, files, finish):
    """The `Made` of a `Job`.

    Args:
        files: its `FloatFiles`.
        finish: its `Finish`.
    """
    mode = job.request.mode
    if mode.chooses:
        return _chosen(job, files, finish)
    float_content = files.lowered(mode)
    files.forget()
    return Made(mode.prepare(float_content, job.setting).file(mode), mode, float_content)


def _chosen(job, files, finish):
    auto, names, images = job.request.mode, [answer.name for answer in job.answers], job.images
    prepared = {}

    def make(mode):
        measured = without_budget(mode)
        if measured not in prepared:
            if mode.budget:
                prepared.clear()  # one that is measured once for many files is as large as the model
            prepared[measured] = mode.prepare(files.lowered(mode), job.setting)
        return prepared[measured].file(mode)

    def run(content):
        return dict(zip(names, outputs_of(Runner(content), images.held_out, job.answers)))

    content, chosen, tried = search(
        auto,
        job.constraints,
        make,
        reference=dict(zip(names, job.keras_model(images.held_out))),
        labels=images.held_out_labels,
        answers=job.answers,
        run=run,
        size_of=lambda content, mode: len(finish.of_mode(mode)(content)),
        has=job.request.target.has,
    )
    choice = explanation(chosen, tried, job.constraints, auto.prefer, len(images.held_out))
    return Made(content, chosen.config, files.lowered(chosen.config), tried, choice, chosen)
