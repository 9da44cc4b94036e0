"""The error of one operator of a file, and what to try against it."""

from dataclasses import dataclass

from ..quantization.modes import MODES

CLIPPING, ROUNDING, INSIDE = "clipping", "rounding", "inside"


@dataclass(frozen=True)
class OpError:
    """One operator of the file against the same operator of the float file that it was quantized from.

    Attributes:
        name: of its output in the file.
        kind: such as `"FULLY_CONNECTED"`.
        place: `"embedding"`, `"block 3"` (from 1, as in the report and in `explain`) or `"head"`.
        dtype: of its output in the file.
        snr_db: signal-to-noise ratio of its output against Keras, all errors before it included; of the model's answer
            as `Answer.noise` takes it.
        noise: noise in the model's answer (`Answer.noise`) that its own error causes, to first order: that of rounding
            its weights and its output, given the inputs that it has in the file.
        low, high: the range that its output can hold, or held where it is float.
        clipped: share of its output's values that lie outside its integer range, by more than half a step.
        cause: what most of `noise` comes from: `"clipping"` or `"rounding"` of its output, or `"inside"`: its weights,
            inputs rounded on the fly, or its kernel's arithmetic.
    """

    name: str
    kind: str
    place: str
    dtype: str
    snr_db: float
    noise: float
    low: float
    high: float
    clipped: float
    cause: str


def advice(op, mode):
    """What to try against an operator's error, in a sentence."""
    known = MODES.get(mode)
    milder = known.advice if known and known.advice else "another mode"
    if op.cause == CLIPPING:
        return (
            f"{op.clipped:.2%} of its values are outside {op.low:.3g}..{op.high:.3g}: calibrate on more images, "
            f"and more like these; else {milder}."
        )
    if op.cause == ROUNDING:
        step = (op.high - op.low) / (65535 if op.dtype == "int16" else 255)
        return f"One scale for all its values makes steps of {step:.3g} in {op.low:.3g}..{op.high:.3g}: {milder}."
    if op.kind == "FULLY_CONNECTED":
        return f"Its weights, or its inputs as it rounds them itself, lose too much: {milder}."
    return f"Its integer kernel loses too much: {milder}."
