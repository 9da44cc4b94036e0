"""`float16`: weights in float16, dequantized when the file is loaded."""

from dataclasses import dataclass

from ...tflite.capabilities import Capability
from ..mode import Mode, Whole
from ..quantizer import Quantizer, Rule, float16_weights
from ..tolerance import Tolerance


@dataclass(frozen=True)
class Float16(Mode):
    """Weights in float16, arithmetic in float."""

    name = "float16"
    aliases = ("16", "fp16", "f16", "half", "w16a32")
    summary = "weights in float16"
    advice = '"float32"'
    needs = frozenset({Capability.FLOAT16_WEIGHTS})
    tolerance = Tolerance(0.99, 40.0)
    quantizes = False
    needs_calibration = False
    more_outputs = True

    def prepare(self, content, setting):
        return Whole(Quantizer(content).quantized([Rule("*", float16_weights())]))
