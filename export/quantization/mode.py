"""What a quantization mode is: the door between an export and its modes."""

import difflib
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from keras_vit_plugin.image_model.answers import LOGITS, Answer
from keras_vit_plugin.images.gather import CALIBRATION_IMAGES

from ..tflite.capabilities import Capability
from ..tflite.graph_form import GraphForm
from ..tflite.xnnpack import COSTS, DEFAULT_CPU
from .tolerance import Tolerance


@dataclass(frozen=True)
class Setting:
    """What a mode is told of the export that it is part of.

    Attributes:
        images: raw pixels to calibrate on, 0..255, `(N, H, W, C)`, or None.
        answers: what the outputs of the file are, an `Answer` for each in the order of the graph's outputs: noise is
            measured by them. Outputs behind the last of them do not count.
        has: the `Capability`s of the target.
        cpu: a key of `xnnpack.COSTS`: the CPUs that operators' costs are those of, where the mode names none.
        input_dtype, output_dtype: of the file, as for `export_tflite`.
    """

    images: np.ndarray | None = None
    answers: tuple[Answer, ...] = (LOGITS,)
    has: frozenset[Capability] = frozenset(Capability)
    cpu: str = DEFAULT_CPU
    input_dtype: str = "uint8"
    output_dtype: str = "float32"


class Mode:
    """A quantization mode with its options: what `export_tflite` takes as `quantize`.

    A mode is a frozen dataclass in a file of `modes/`, and has a place in the table `MODES` there.

    Attributes:
        name: what it is called in `quantize` and in a file's metadata.
        aliases: what it is called elsewhere.
        summary: what it quantizes, for people.
        advice: what to try where it loses too much.
        needs: the `Capability`s that a target must have to run its files.
        tolerance: the least that its files must keep. The agreement is below what it keeps on a model that it suits by
            about two standard errors of a share of 128 images.
        quantizes: whether its files compute with integers, so that what they lose depends on the images.
        needs_calibration: whether it cannot do without calibration images.
        calibration_images: how many of them it uses at most.
        input_dtypes, output_dtypes: those that its files can take and give, besides what the target takes.
        more_outputs: whether its files can give more than the model's own outputs.
        chooses: whether it chooses between files by held-out calibration images, as `Auto` does.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]
    advice: ClassVar[str]
    needs: ClassVar[frozenset[Capability]]
    tolerance: ClassVar[Tolerance]
    quantizes: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True
    calibration_images: ClassVar[int] = CALIBRATION_IMAGES
    input_dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float32")
    output_dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    more_outputs: ClassVar[bool] = False
    chooses: ClassVar[bool] = False

    def form(self, extremes, has):
        """The `GraphForm` of the float file that it quantizes.

        Args:
            extremes: a function that gives the model's `Extremes`, which takes seconds.
            has: the `Capability`s of the target.
        """
        return GraphForm()

    def prepare(self, content, setting):
        """All that is measured once of a float file, to quantize it by this mode with any budget.

        Args:
            content: bytes of the float file.
            setting: a `Setting`.

        Returns:
            An object whose `file(mode)` gives the quantized file as bytes. It may be called often, for modes of this
            class that differ in what `budget` holds.
        """
        raise NotImplementedError

    @property
    def budget(self):
        """The options that need no new measurement when they change, `{name: value}`."""
        return {}

    def __str__(self):
        return self.name

    def to_dict(self):
        """For JSON: `{"mode": its name, option: value}`."""
        return {"mode": self.name, **asdict(self)}


@dataclass(frozen=True)
class Whole:
    """A quantized file that no budget changes.

    Attributes:
        content: its bytes.
    """

    content: bytes

    def file(self, mode):
        return self.content


def check_choice(name, value, allowed, mode=""):
    """Raises `ValueError` unless a value is one of those allowed; `mode` is the one that it is an option of."""
    if value not in allowed:
        words = [str(each) for each in allowed]
        close = difflib.get_close_matches(str(value), words, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        of = f" of {mode}" if mode else ""
        raise ValueError(f"`{name}`{of} must be one of {', '.join(words)}; got {name}={value!r}.{hint}")


def check_number(name, value, mode, least=0.0):
    """Raises `ValueError` unless an option of a mode is None or a number above `least`."""
    if value is not None and not (isinstance(value, (int, float)) and value > least):
        raise ValueError(f"`{name}` of {mode} must be a number above {least:g}; got {name}={value!r}.")


def check_cpu(cpu, mode):
    """Raises `ValueError` unless `cpu` is None or a key of `xnnpack.COSTS`."""
    if cpu is not None:
        check_choice("cpu", cpu, COSTS, mode)
