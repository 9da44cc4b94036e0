"""What the caller of an export asked for: names, types and ranges, checked before any long work. It knows no model."""

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from keras_vit_plugin.files import check_apart, check_writable
from keras_vit_plugin.plot_style import require_matplotlib

from .float_files import OUTPUTS
from .quantization.mode import Mode, check_choice
from .quantization.modes import MODES, mode_of
from .quantization.tolerance import Tolerance
from .targets import TARGETS
from .targets.target import Target

INPUT_DTYPES = ("uint8", "float32", "int8")
OUTPUT_DTYPES = ("float32", "int8", "int16")


class Options(TypedDict, total=False):
    """What `export_tflite` takes besides, by keyword; the meaning of each is in its docstring."""

    mean: Any
    std: Any
    pixels: str | None
    resize: str | None
    interpolation: str | None
    image_shape: tuple[int, int, int] | None
    input_dtype: str | None
    output_dtype: str
    batch_size: int
    keep_rejected: bool
    debug_passes: bool
    runtime_python: str | None
    narrow_range: bool


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `export_tflite`, checked as far as they can be without the model.

    Attributes:
        mode: the `Mode` of `quantize`.
        target: the `Target` of that name.
        outputs: a tuple.
        input_dtype: never None.

    The others are as for `export_tflite`.
    """

    path: Any
    mode: Mode
    target: Target
    calibration: Any = None
    labels: Any = None
    verification: Any = None
    tolerance: Tolerance | None = None
    report: Any = None
    outputs: tuple[str, ...] = ()
    task: Any = None
    mean: Any = None
    std: Any = None
    pixels: str | None = None
    resize: str | None = None
    interpolation: str | None = None
    image_shape: tuple[int, int, int] | None = None
    input_dtype: str = "uint8"
    output_dtype: str = "float32"
    batch_size: int = 1
    keep_rejected: bool = False
    debug_passes: bool = False
    runtime_python: str | None = None
    narrow_range: bool = False

    def __post_init__(self):
        mode, target = self.mode, self.target
        if reason := target.refusal(mode):
            runs = ", ".join(name for name, other in MODES.items() if not target.refusal(other))
            raise ValueError(
                f"target={target.name!r} does not run quantize={mode.name!r}: {reason}. Take one that it runs: {runs}."
            )
        self._check_dtypes()
        if self.outputs and not mode.more_outputs:
            with_outputs = ", ".join(name for name, other in MODES.items() if other.more_outputs)
            raise ValueError(f"`outputs` go with quantize {with_outputs}; got {self.outputs!r} with {mode.name!r}.")
        if self.outputs and target.needs_labels:
            raise ValueError(f"target={target.name!r} reads one output; got outputs={self.outputs!r}.")
        if self.tolerance is not None and not isinstance(self.tolerance, Tolerance):
            raise ValueError(f"`tolerance` must be a Tolerance(min_agreement, min_snr_db), got {self.tolerance!r}.")
        if mode.needs_calibration and self.calibration is None:
            raise ValueError(
                f"quantize={mode.name!r} needs `calibration`: an image folder (--calibration DIR) or raw pixels "
                "(N, H, W, C)."
            )
        self._check_paths()
        if self.runtime_python is not None and not target.takes_python:
            names = " or ".join(f"target={name!r}" for name, other in TARGETS.items() if other.takes_python)
            raise ValueError(f"`runtime_python` goes with {names}, got target={target.name!r}.")
        target.check_arguments(self.runtime_python)

    def _check_dtypes(self):
        mode, target = self.mode, self.target
        for name, value, known, fit in (
            ("input_dtype", self.input_dtype, INPUT_DTYPES, mode.input_dtypes),
            ("output_dtype", self.output_dtype, OUTPUT_DTYPES, mode.output_dtypes),
        ):
            check_choice(name, value, known)
            if value not in fit:
                raise ValueError(f"quantize={mode.name!r} goes with `{name}` {' or '.join(fit)}, got {name}={value!r}.")
        if self.input_dtype not in target.input_dtypes:
            raise ValueError(
                f"target={target.name!r} takes `input_dtype` {' or '.join(target.input_dtypes)}, got "
                f"input_dtype={self.input_dtype!r}."
            )
        if self.output_dtype != "float32" and target.needs_labels:
            raise ValueError(
                f"target={target.name!r} takes `output_dtype` float32, got output_dtype={self.output_dtype!r}."
            )
        if not hasattr(self.batch_size, "__index__") or self.batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive integer, got batch_size={self.batch_size!r}.")
        if target.largest_batch is not None and self.batch_size > target.largest_batch:
            raise ValueError(f"target={target.name!r} takes one image per call, got batch_size={self.batch_size!r}.")

    def _check_paths(self):
        check_writable(self.path, ".tflite")
        if self.report is not None:
            check_writable(self.report, ".html", "report")
            require_matplotlib()
        if self.keep_rejected:
            check_writable(rejected_path(self.path), ".tflite")
        check_apart({"path": self.path, "report": self.report}, {"labels": self.labels})

    @property
    def float_input(self):
        """The type of the float file's input."""
        return "float32" if self.input_dtype == "float32" else "uint8"


ARGUMENTS = tuple(field.name for field in fields(Request) if field.name not in ("path", "mode", "target", "outputs"))


def request_of(path, quantize="float32", target="litert", outputs=(), **arguments):
    """The `Request` of what `export_tflite` is given.

    Raises:
        ValueError: a value is wrong, or does not go with another.
        TypeError: there is no such argument.
    """
    if unknown := [name for name in arguments if name not in ARGUMENTS]:
        raise TypeError(_no_argument(unknown[0], arguments[unknown[0]]))
    mode = mode_of(quantize)
    if isinstance(target, Target):
        target = target.name
    check_choice("target", target, TARGETS)
    if arguments.get("input_dtype") is None:
        arguments["input_dtype"] = TARGETS[target].input_dtypes[0]
    return Request(path=path, mode=mode, target=TARGETS[target], outputs=checked_outputs(outputs), **arguments)


def checked_outputs(outputs):
    """The outputs besides the model's own, a tuple."""
    try:
        outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    except TypeError:
        raise ValueError(f"`outputs` must be a tuple of {', '.join(OUTPUTS)}; got outputs={outputs!r}.") from None
    if not set(outputs) <= set(OUTPUTS):
        raise ValueError(f"`outputs` must be of {', '.join(OUTPUTS)}; got outputs={outputs!r}.")
    return outputs


def rejected_path(path):
    """Where a file goes that is too far from its model and is to be kept: `m.tflite` becomes `m.rejected.tflite`."""
    return Path(path).with_suffix(".rejected.tflite")


def _no_argument(name, value):
    """What is wrong with an argument that there is not, in a sentence."""
    modes = [mode.__name__ for mode in MODES.values() if name in mode.__dataclass_fields__]
    if modes:
        configs = " or ".join(f"quantize={mode}({name}={value!r})" for mode in modes)
        return f"`{name}` is an option of the mode: {configs}, from keras_vit_plugin.export."
    close = difflib.get_close_matches(name, (*ARGUMENTS, "quantize", "target", "outputs"), n=1)
    return f"export_tflite has no argument `{name}`.{f' Did you mean `{close[0]}`?' if close else ''}"
