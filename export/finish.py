"""The final bytes of a file: what its target adds, and what it says of itself."""

import json
from dataclasses import dataclass, replace

from .targets.target import Target
from .tflite.metadata import Metadata
from .tflite.stored_metadata import set_metadata
from .tflite.surgery import dequantize_pixels

PARITY_LENGTH = 640  # characters of what is measured of one output, at most
# Characters of a mode and its options as JSON, at most: which of them `auto` chooses is not known before.
CONFIG_LENGTH = 240


@dataclass(frozen=True)
class Finish:
    """Turns a quantized file into the one that is written.

    The size depends neither on what is measured nor on which mode is chosen, so that a file is as large when it is
    compared with others as when it is written.

    Attributes:
        metadata: all that is known before the file is verified.
        target: the `Target` that it is for.
        description: of the model, for people.
    """

    metadata: Metadata
    target: Target
    description: str

    @property
    def answers(self):
        """What the outputs of the finished file mean."""
        return self.target.answers(self.metadata.answers)

    def of_mode(self, mode):
        """The `Finish` of the files of another `Mode`."""
        return replace(self, metadata=replace(self.metadata, config=mode.to_dict()))

    def __call__(self, content, parity=None, verified_by="", rejected=""):
        """The finished file.

        Args:
            content: bytes of the quantized file.
            parity: the `ParityReport`, once there is one.
            verified_by: the runtime that it was measured with.
            rejected: why the file is too far from its model; empty where it is not.
        """
        content = self.target.adapted(dequantize_pixels(content), self.metadata)
        outputs = tuple(answer.name for answer in self.answers) + self.metadata.outputs
        values = replace(self.metadata, answers=self.answers, outputs=outputs, parity={}).to_dict()
        length = len(json.dumps({**values, "mode": "", "config": "a" * CONFIG_LENGTH})) + sum(
            PARITY_LENGTH + 2 * len(answer.name) for answer in self.answers
        )
        values["parity"] = {} if parity is None else _rounded(replace(parity, gpu=None).to_dict())
        values |= {"verified_by": verified_by, "rejected": rejected}
        content = set_metadata(content, values, length)
        return self.target.finished(content, self.metadata, self.description)


def _rounded(values):
    """Measurements with 6 significant digits, and without what was not measured."""
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items() if value is not None}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values
