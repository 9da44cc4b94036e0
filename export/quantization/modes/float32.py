"""`float32`: nothing is quantized."""

from dataclasses import dataclass

from ...tflite.capabilities import Capability
from ..mode import Mode, Whole
from ..tolerance import Tolerance


@dataclass(frozen=True)
class Float32(Mode):
    """The model's own arithmetic."""

    name = "float32"
    aliases = ("32", "fp32", "f32", "float", "w32a32")
    summary = "the model's own arithmetic"
    advice = ""
    needs = frozenset({Capability.FLOAT32})
    tolerance = Tolerance(1.0, 80.0)
    quantizes = False
    needs_calibration = False
    more_outputs = True

    def prepare(self, content, setting):
        return Whole(content)
