"""The final bytes of a file: what its target adds, and what it says of itself."""

import json
from dataclasses import dataclass, replace

from keras_vit_plugin.image_model.answers import CLASSES, LINEAR, SIGMOID, SOFTMAX
from keras_vit_plugin.version import VERSION

from .targets.mediapipe_metadata import with_activation, with_tflite_metadata
from .tflite.metadata import Metadata
from .tflite.stored_metadata import set_metadata
from .tflite.surgery import dequantize_pixels

PARITY_LENGTH = 640  # characters of what is measured of one output, at most
LONGEST = "a" * 16  # name of a mode or a preference


@dataclass(frozen=True)
class Finish:
    """Turns a quantized file into the one that is written.

    The size depends neither on what is measured nor on which mode `"auto"` chooses, so that a file is as large when it
    is judged as when it is written.

    Attributes:
        metadata: all that is known before the file is verified.
        gives_probabilities: whether the target wants probabilities out, and names of classes in TFLite metadata.
        description: of the model, for people.
    """

    metadata: Metadata
    gives_probabilities: bool
    description: str

    @property
    def answers(self):
        """What the outputs of the finished file mean."""
        answers = self.metadata.answers
        if not self.gives_probabilities:
            return answers
        activation = SOFTMAX if answers[0].task == CLASSES else SIGMOID
        return (replace(answers[0], name="probabilities", activation=activation),)

    def __call__(self, content, parity=None, verified_by="", rejected=""):
        """The finished file.

        Args:
            content: bytes of the quantized file.
            parity: the `ParityReport`, once there is one.
            verified_by: the runtime that it was measured with.
            rejected: why the file is too far from its model; empty where it is not.
        """
        content = dequantize_pixels(content)
        if self.gives_probabilities and self.metadata.answers[0].activation == LINEAR:
            content = with_activation(content, "SOFTMAX" if self.answers[0].task == CLASSES else "LOGISTIC")
        outputs = tuple(answer.name for answer in self.answers) + self.metadata.outputs
        values = replace(self.metadata, answers=self.answers, outputs=outputs, parity={}).to_dict()
        length = len(json.dumps({**values, "mode": LONGEST, "prefer": LONGEST})) + sum(
            PARITY_LENGTH + 2 * len(answer.name) for answer in self.answers
        )
        values["parity"] = {} if parity is None else _rounded(replace(parity, gpu=None).to_dict())
        values |= {"verified_by": verified_by, "rejected": rejected}
        content = set_metadata(content, values, length)
        if self.gives_probabilities:
            content = with_tflite_metadata(content, self.metadata.labels, self.description, VERSION)
        return content


def _rounded(values):
    """Measurements with 6 significant digits, and without what was not measured."""
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items() if value is not None}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values
