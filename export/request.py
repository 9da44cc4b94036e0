"""What `export_tflite` is given, checked before any long work."""

import difflib

from keras_vit_plugin.files import check_writable
from keras_vit_plugin.image_model.answers import CLASSES
from keras_vit_plugin.image_model.image_model import batch_of
from keras_vit_plugin.plot_style import require_matplotlib

from .float_files import OUTPUTS
from .quantization.auto.constraints import Wish, checked_wish
from .quantization.auto.search import ORDERS
from .quantization.quantize import BLOCK_SIZES, INTEGER_ONLY, MODES, NEEDS_CALIBRATION, PREFERENCES
from .targets.target import TARGETS
from .targets.xnnpack import COSTS
from .tflite.foreign_runner import check_runtime_python
from .verification.verify import USUAL, Tolerance

OUTPUT_MODES = ("float32", "float16", "dynamic", "int8")  # those that may give more than logits
INPUT_DTYPES = ("uint8", "float32", "int8")
OUTPUT_DTYPES = ("float32", "int8", "int16")


def check_arguments(mode, target, prefer, input_dtype, output_dtype, block_size, batch_size, tolerance, cpu=None):
    """Raises `ValueError` for values that no export takes, and for those that do not go together.

    Args:
        mode: `quantize` of `export_tflite`, as the others are its arguments.
    """
    if input_dtype is None and target in TARGETS:
        input_dtype = TARGETS[target].input_dtypes[0]
    for name, value, allowed in (
        ("quantize", mode, (*MODES, "auto")),
        ("target", target, TARGETS),
        ("prefer", prefer, ORDERS if mode == "auto" else PREFERENCES),
        ("input_dtype", input_dtype, INPUT_DTYPES),
        ("output_dtype", output_dtype, OUTPUT_DTYPES),
        ("cpu", TARGETS[target].cpu if cpu is None and target in TARGETS else cpu, COSTS),
    ):
        if value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {name}={value!r}.{hint}")
    if reason := TARGETS[target].refused.get(mode):
        runs = ", ".join(each for each in (*MODES, "auto") if each not in TARGETS[target].refused)
        raise ValueError(f"target={target!r} does not run quantize={mode!r}: {reason}. It runs {runs}.")
    inputs = ("uint8", "int8") if mode in INTEGER_ONLY else ("uint8", "float32")
    outputs = ("float32", f"int{INTEGER_ONLY[mode]}") if mode in INTEGER_ONLY else ("float32",)
    for name, value, fit in (("input_dtype", input_dtype, inputs), ("output_dtype", output_dtype, outputs)):
        if value not in fit:
            raise ValueError(f"quantize={mode!r} goes with `{name}` {' or '.join(fit)}, got {name}={value!r}.")
    if input_dtype not in TARGETS[target].input_dtypes:
        raise ValueError(
            f"target={target!r} takes `input_dtype` {' or '.join(TARGETS[target].input_dtypes)}, got "
            f"input_dtype={input_dtype!r}."
        )
    if block_size is not None and (mode != "int4" or block_size not in BLOCK_SIZES):
        sizes = ", ".join(map(str, BLOCK_SIZES))
        raise ValueError(f"`block_size` is for quantize='int4', one of {sizes}; got {block_size!r} with {mode!r}.")
    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer, got batch_size={batch_size!r}.")
    if batch_size != 1 and (TARGETS[target].gpu or TARGETS[target].labels_inside):
        raise ValueError(f"target={target!r} takes one image per call, got batch_size={batch_size!r}.")
    if output_dtype != "float32" and TARGETS[target].labels_inside:
        raise ValueError(f"target={target!r} takes `output_dtype` float32, got output_dtype={output_dtype!r}.")
    if tolerance is not None and not isinstance(tolerance, Tolerance):
        raise ValueError(f"`tolerance` must be a Tolerance(min_agreement, min_snr_db), got {tolerance!r}.")


def check_paths(path, report, mode, calibration, target, runtime_python):
    """Raises where a file cannot be written, nothing is there to calibrate on, or a runtime cannot be used.

    Args:
        path, report, calibration, target, runtime_python: as for `export_tflite`.
        mode: its `quantize`.
    """
    if mode in (*NEEDS_CALIBRATION, "auto") and calibration is None:
        raise ValueError(
            f"quantize={mode!r} needs `calibration`: an image folder (--calibration DIR) or raw pixels (N, H, W, C)."
        )
    check_writable(path, ".tflite")
    if report is not None:
        check_writable(report, ".html", "report")
        require_matplotlib()
    if runtime_python is not None:
        if target != "tflite-runtime":
            raise ValueError(f"`runtime_python` goes with target='tflite-runtime', got target={target!r}.")
        check_runtime_python(runtime_python)


def checked_outputs(outputs, mode, target):
    """The outputs besides logits, a tuple."""
    try:
        outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    except TypeError:
        raise ValueError(f"`outputs` must be a tuple of {', '.join(OUTPUTS)}; got outputs={outputs!r}.") from None
    if not set(outputs) <= set(OUTPUTS):
        raise ValueError(f"`outputs` must be of {', '.join(OUTPUTS)}; got outputs={outputs!r}.")
    if outputs and mode not in OUTPUT_MODES:
        raise ValueError(f"`outputs` go with quantize {', '.join(OUTPUT_MODES)}; got {outputs!r} with {mode!r}.")
    if outputs and TARGETS[target].labels_inside:
        raise ValueError(f"target={target!r} reads one output; got outputs={outputs!r}.")
    return outputs


def wish_of(mode, min_agreement, max_top1_drop, max_size, max_relative_error=None, answers=None):
    """The `Wish` of `"auto"`, or None for another mode.

    Args:
        mode, min_agreement, max_top1_drop, max_size, max_relative_error: as for `export_tflite`.
        answers: the `Answer`s of the model's outputs, once they are known: the wish is checked against them.

    Raises:
        ValueError: a wish beside another mode, out of range, or for what the outputs do not have.
    """
    made = Wish(min_agreement, max_top1_drop, max_size, max_relative_error)
    if mode == "auto":
        return made if answers is None else checked_wish(made, answers)
    for name, value in vars(made).items():
        if value is not None:
            instead = ": pass tolerance=Tolerance(min_agreement=...)" if name == "min_agreement" else ""
            raise ValueError(f"`{name}` goes with quantize='auto', got quantize={mode!r}{instead}.")
    return None


def check_answers(model, target, outputs, batch_size, tolerance):
    """Raises `ValueError` where what the model gives does not go with the other arguments.

    Args:
        model: an `ImageModel`.
        target, outputs, batch_size, tolerance: as for `export_tflite`.
    """
    fixed = batch_of(model.model)
    if fixed not in (None, batch_size):
        raise ValueError(
            f"`batch_size` must be {fixed}, to which the model's input is fixed, got batch_size={batch_size}."
        )
    answers = model.answers
    tasks = ", ".join(f"{answer.name} ({answer.task})" for answer in answers)
    decides = any(answer.has_decisions for answer in answers)
    if tolerance is not None and tolerance.min_agreement not in (None, USUAL) and not decides:
        raise ValueError(
            f"`tolerance` has min_agreement={tolerance.min_agreement}, but the model decides nothing: it gives {tasks}"
            ". Pass Tolerance(None, min_snr_db), or say with `task` what its outputs mean."
        )
    if TARGETS[target].labels_inside and (len(answers) != 1 or not decides):
        raise ValueError(f"target={target!r} takes a classifier with one output; the model gives {tasks}.")
    clashing = set(outputs) & {answer.name for answer in answers}
    if clashing:
        raise ValueError(f"`outputs` has {sorted(clashing)}, which the model gives already.")


def check_verification(images, answers):
    """Raises `ValueError` where one image cannot tell how much the answers differ between images."""
    others = [answer for answer in answers if answer.task != CLASSES]
    if len(images) < 2 and others:
        raise ValueError(
            f"`verification` must hold two images or more, got {len(images)}: an error of {others[0].name!r} "
            f"({others[0].task}) is measured by how much it differs between images."
        )
