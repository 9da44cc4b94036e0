"""What an output of a model means, and what an error in it is worth.

An error counts as far as it can change the answer. What no answer depends on is left out: the constant that softmax
ignores, the mean that a regression has on every image.
"""

from dataclasses import asdict, dataclass

import numpy as np

CLASSES, BINARY, MULTI_LABEL = "classes", "binary", "multi-label"
REGRESSION, EMBEDDING, FEATURES = "regression", "embedding", "features"
TASKS = (CLASSES, BINARY, MULTI_LABEL, REGRESSION, EMBEDDING, FEATURES)
WITH_DECISIONS = (CLASSES, BINARY, MULTI_LABEL)
LINEAR, SOFTMAX, SIGMOID = "linear", "softmax", "sigmoid"
# Of the mean square of the outputs: the least power of a signal. Float32's own rounding is 80 dB below it.
LEAST_POWER = 1e-6


@dataclass(frozen=True)
class Answer:
    """One output of a model.

    Attributes:
        name: of the output in the file's signature.
        task: one of `TASKS`. `"classes"`: one of several classes, `(N, classes)`. `"binary"`: yes or no, `(N, 1)` or
            `(N,)`. `"multi-label"`: yes or no for every label, `(N, labels)`. `"regression"`: numbers, `(N, numbers)`.
            `"embedding"`: a vector per image, `(N, D)`. `"features"`: any other shape `(N, ...)`.
        activation: the last function: `"linear"`, `"softmax"` or `"sigmoid"`.
    """

    name: str
    task: str
    activation: str = LINEAR

    @property
    def has_decisions(self):
        """Whether there is something to agree on."""
        return self.task in WITH_DECISIONS

    @property
    def threshold(self):
        """From which value on a binary answer or a label is a yes."""
        return 0.5 if self.activation == SIGMOID else 0.0

    def decisions(self, outputs):
        """The class of every image, `(N,)` integers, or yes and no, `(N, labels)` booleans.

        Raises:
            ValueError: the task has no decisions.
        """
        if not self.has_decisions:
            raise ValueError(f"The output {self.name!r} is {self.task}: it decides nothing.")
        return outputs.argmax(1) if self.task == CLASSES else outputs.reshape(len(outputs), -1) >= self.threshold

    def probabilities(self, outputs):
        """Of every class, or of a yes on every label, `(N, classes)` float64 in 0..1.

        Raises:
            ValueError: the task has no decisions.
        """
        if not self.has_decisions:
            raise ValueError(f"The output {self.name!r} is {self.task}: it has no probabilities.")
        outputs = np.asarray(outputs, np.float64)
        if self.activation != LINEAR:
            return outputs
        if self.task == CLASSES:
            exponentials = np.exp(outputs - outputs.max(-1, keepdims=True))
            return exponentials / exponentials.sum(-1, keepdims=True)
        return 0.5 * (1 + np.tanh(outputs / 2))  # a sigmoid that does not overflow

    def agreement(self, reference, outputs):
        """The share of images, 0..1, with the same decision; of the worst label where there are several."""
        return float((self.decisions(reference) == self.decisions(outputs)).mean(0).min())

    def signal(self, reference):
        """What of the model's outputs `(N, ...)` carries the answer, float64 of the same shape.

        Of class scores, what differs between the classes; of all else, what differs between the images.
        """
        reference = np.asarray(reference, np.float64)
        mean = reference.mean(-1, keepdims=True) if self.task == CLASSES else reference.mean(0, keepdims=True)
        return reference - mean

    def error(self, reference, outputs):
        """What the outputs differ by, float64 of their shape; of logits under softmax less what it ignores."""
        error = np.asarray(outputs, np.float64) - np.asarray(reference, np.float64)
        if self.task == CLASSES and self.activation == LINEAR:
            error = error - error.mean(-1, keepdims=True)
        return error

    def power(self, reference):
        """The mean square of the signal; of a regression `(numbers,)`, one for each.

        It is at least `LEAST_POWER` of the mean square of the outputs, so that float32's rounding of outputs that are
        nearly the same on all images is no noise.
        """
        axes = 0 if self.task == REGRESSION else None
        signal = np.square(self.signal(reference)).mean(axes)
        return power_of(signal, np.square(np.asarray(reference, np.float64)).mean(axes))

    def noise(self, reference, outputs, power=None):
        """The mean square of the error over that of the signal; of a regression that of the worst number.

        Args:
            reference, outputs: `(N, ...)` of the model and of the file.
            power: of the signal, where it is not that of `reference`.
        """
        axes = 0 if self.task == REGRESSION else None
        power = self.power(reference) if power is None else power
        return float(np.max(np.square(self.error(reference, outputs)).mean(axes) / power))

    def to_dict(self):
        return asdict(self)


def power_of(signal, outputs):
    """The power of a signal, by the mean squares of it and of the outputs that it is in."""
    return np.maximum(np.maximum(signal, LEAST_POWER * outputs), 1e-300)


LOGITS = Answer("logits", CLASSES)
