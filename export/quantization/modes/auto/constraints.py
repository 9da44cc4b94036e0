"""What a file of `quantize="auto"` must keep."""

import math
from dataclasses import dataclass, replace

from keras_vit_plugin.image_model.answers import BINARY, CLASSES

MIN_AGREEMENT = 0.99  # where nothing is asked for and the model decides something
MAX_RELATIVE_ERROR = 0.05  # where it decides nothing
FEWEST_JUDGED, MOST_JUDGED = 256, 1024
ALLOWED_CHANGES = 10  # held out are so many images that so many changes are what is asked for; about half of them pass


@dataclass(frozen=True)
class Constraints:
    """What a file must keep.

    Args:
        min_agreement: share of images, 0..1, with the Keras model's decision; of the worst label or output.
        max_top1_drop: top-1 accuracy lost, in points of percent; needs labelled images.
        max_size: bytes.
        max_relative_error: root mean square error of the worst output, as a share of the spread of the model's answers.
    """

    min_agreement: float | None = None
    max_top1_drop: float | None = None
    max_size: int | None = None
    max_relative_error: float | None = None

    def __post_init__(self):
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ValueError(f"`min_agreement` must be in 0..1, got {self.min_agreement}.")
        if self.max_top1_drop is not None and not 0 <= self.max_top1_drop <= 100:
            raise ValueError(f"`max_top1_drop` must be in points of percent, 0..100, got {self.max_top1_drop}.")
        if self.max_size is not None and not self.max_size > 0:
            raise ValueError(f"`max_size` must be a positive number of bytes, got {self.max_size}.")
        if self.max_relative_error is not None and not 0 < self.max_relative_error < math.inf:
            raise ValueError(
                f"`max_relative_error` must be a positive share of the spread of the answers, such as 0.05, got "
                f"{self.max_relative_error}."
            )

    @property
    def of_accuracy(self):
        """Whether it says how good the file must be; if not, the best file of the size is wanted."""
        return any(each is not None for each in (self.min_agreement, self.max_top1_drop, self.max_relative_error))

    @property
    def images_wanted(self):
        """How many held-out images are enough for a promise that does not cost much in size or speed."""
        shares = [1.0]  # of the images, that may be changed
        if self.min_agreement is not None:
            shares.append(1 - self.min_agreement)
        if self.max_top1_drop is not None:
            shares.append(self.max_top1_drop / 100)
        changes = ALLOWED_CHANGES / max(min(shares), 1e-9)
        return min(max(math.ceil(changes - 1e-9), FEWEST_JUDGED), MOST_JUDGED)

    def is_small(self, size_bytes):
        return self.max_size is None or size_bytes <= self.max_size

    def __str__(self):
        parts = {
            "min_agreement": f"at least {self.min_agreement or 0:.1%} of the answers",
            "max_top1_drop": f"a top-1 drop of at most {self.max_top1_drop} points",
            "max_relative_error": f"a relative error of at most {self.max_relative_error or 0:.1%}",
            "max_size": f"at most {_megabytes(self.max_size or 0)} MB",
        }
        return " and ".join(text for name, text in parts.items() if getattr(self, name) is not None)


def checked_constraints(constraints, answers):
    """The constraints, with the default for the model's outputs where there are none.

    Args:
        constraints: `Constraints`.
        answers: the `Answer`s of the model's outputs.

    Raises:
        ValueError: it asks for something that these outputs do not have.
    """
    deciding = [answer for answer in answers if answer.has_decisions]
    tasks = ", ".join(f"{answer.name!r} ({answer.task})" for answer in answers)
    if constraints.min_agreement is not None and not deciding:
        raise ValueError(
            f"`min_agreement` is for outputs that decide something, the model gives {tasks}, got "
            f"min_agreement={constraints.min_agreement}: ask for `max_relative_error`."
        )
    if constraints.max_top1_drop is not None and [answer.task in (CLASSES, BINARY) for answer in answers] != [True]:
        raise ValueError(
            "`max_top1_drop` is for a model with one output, of classes or yes and no, on labelled images; this one "
            f"gives {tasks}, got max_top1_drop={constraints.max_top1_drop}: ask for "
            f"`{'min_agreement' if deciding else 'max_relative_error'}`."
        )
    if constraints != Constraints():
        return constraints
    return replace(
        constraints,
        min_agreement=MIN_AGREEMENT if deciding else None,
        max_relative_error=MAX_RELATIVE_ERROR if len(deciding) < len(answers) else None,
    )


def _megabytes(size):
    return f"{size / 1e6:.2f}" if size >= 1e4 else f"{size / 1e6:.2g}"
