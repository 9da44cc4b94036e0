"""What an output of a file differs by from the Keras model's, summed up batch by batch."""

from collections import Counter

import numpy as np

from keras_vit_plugin.image_model.answers import CLASSES, EMBEDDING, FEATURES, LOGITS, MULTI_LABEL, REGRESSION, power_of

NEIGHBOURS = 512  # images at most among which the nearest is looked for


class Comparison:
    """The figures of a `ParityReport` over any number of images, in memory for one batch of them.

    Args:
        answer: what the output means.
    """

    def __init__(self, answer=LOGITS):
        self.answer = answer
        self.images = self._numbers = 0  # and how many numbers an image has
        self._finite = True
        self._largest_error = 0.0
        # Sums over all images; of a regression one for each number.
        self._error_squares = self._squares = self._signal_squares = self._errors = 0.0
        self._mean = 0.0  # of the reference over the images so far, where the signal is what differs from it
        self._same, self._all_same, self._right = 0, 0, None  # images; `_right` of the model and of the file
        self._decided, self._labelled = Counter(), Counter()  # images by the model's decision, and by the label
        self._cosines, self._nearest = 0.0, []

    def add(self, reference, outputs, labels=None):
        """Takes in one batch.

        Args:
            reference: the Keras model's, `(B, ...)`.
            outputs: the file's, of the same shape.
            labels: class indices `(B,)`, for an answer of classes; 0 and 1 for a binary one.

        Raises:
            ValueError: the shapes differ, or the reference holds NaN or infinity.
        """
        name = self.answer.name
        if reference.shape != outputs.shape:
            raise ValueError(f"The model gives {name} of shape {reference.shape}, the file {tuple(outputs.shape)}.")
        if not np.isfinite(reference).all():
            raise ValueError("The Keras model gives NaN or infinity on these images.")
        reference, outputs = reference.astype(np.float64), outputs.astype(np.float64)
        finite = np.isfinite(outputs).reshape(len(outputs), -1).all(1)
        outputs = np.where(np.isfinite(outputs), outputs, 0.0)
        self._finite &= bool(finite.all())
        self._add_errors(reference, outputs)
        self.images += len(reference)
        if self.answer.has_decisions:
            self._add_decisions(reference, outputs, finite, labels)
        elif self.answer.task in (EMBEDDING, FEATURES):
            self._add_vectors(reference, outputs)

    def _add_errors(self, reference, outputs):
        axes = 0 if self.answer.task == REGRESSION else None
        error = np.abs(outputs - reference)
        self._numbers = error[0].size
        self._largest_error = max(self._largest_error, float(error.max()))
        self._errors += error.sum()
        self._error_squares += np.square(self.answer.error(reference, outputs)).sum(axes)
        self._squares += np.square(reference).sum(axes)
        self._signal_squares += np.square(self.answer.signal(reference)).sum(axes)
        if self.answer.task != CLASSES:  # the signal was taken around the mean of this batch, not of all images
            before, count = self.images, len(reference)
            apart = reference.mean(0) - self._mean
            more = np.square(apart) * before * count / (before + count)
            self._signal_squares += more if self.answer.task == REGRESSION else more.sum()
            self._mean = self._mean + apart * count / (before + count)

    def _add_decisions(self, reference, outputs, finite, labels):
        ours, theirs = self.answer.decisions(outputs), self.answer.decisions(reference)
        same = (ours == theirs) & finite.reshape(-1, *[1] * (ours.ndim - 1))
        self._same = self._same + same.sum(0)
        if self.answer.task == MULTI_LABEL:
            self._all_same += int(same.all(1).sum())
        elif labels is not None:
            ours, theirs = (decided.reshape(len(reference)).astype(int) for decided in (ours, theirs))
            right = np.array([(theirs == labels).sum(), ((ours == labels) & finite).sum()])
            self._right = right if self._right is None else self._right + right
            self._decided.update(theirs.tolist())
            self._labelled.update(np.asarray(labels).astype(int).tolist())

    def _add_vectors(self, reference, outputs):
        ours, theirs = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        self._cosines += ((ours * theirs).sum(1) / np.maximum(lengths, 1e-300)).sum()
        kept = sum(len(vectors) for vectors, _ in self._nearest)
        if self.answer.task == EMBEDDING and kept < NEIGHBOURS:
            self._nearest.append((theirs[: NEIGHBOURS - kept], ours[: NEIGHBOURS - kept]))

    @property
    def noise(self):
        """The mean square of the error over that of the signal, as `Answer.noise`; infinite where an output is not
        finite."""
        if not self._finite:
            return np.inf
        count = self.images if self.answer.task == REGRESSION else self.images * self._numbers
        power = power_of(self._signal_squares / count, self._squares / count)
        return float(np.max(self._error_squares / count / power))

    def figures(self):
        """The fields of a `ParityReport`, but those that `noise` gives."""
        largest = float(np.finfo(np.float32).max)  # JSON has no infinity
        found = {
            "images": self.images,
            "name": self.answer.name,
            "task": self.answer.task,
            "agreement": None,
            "max_abs_error": self._largest_error if self._finite else largest,
        }
        if self.answer.has_decisions:
            found["agreement"] = float(np.min(self._same) / self.images)
            if self.answer.task == MULTI_LABEL:
                found["all_labels_agreement"] = self._all_same / self.images
            if self._right is not None:
                shares = (self._right / self.images).tolist()
                found["top1_accuracy_model"], found["top1_accuracy_tflite"] = shares
                both = sum(count * self._labelled[label] for label, count in self._decided.items())
                found["top1_by_chance"] = both / self.images**2
        elif self.answer.task == REGRESSION:
            found["mean_abs_error"] = float(self._errors / (self.images * self._numbers))
        else:
            found["cosine"] = float(self._cosines / self.images)
            if self.answer.task == EMBEDDING and self.images > 2:
                theirs, ours = (np.concatenate(vectors) for vectors in zip(*self._nearest))
                found["same_nearest"] = float((_nearest(ours) == _nearest(theirs)).mean())
        return found


def _nearest(vectors):
    """For each vector the index of the nearest other one by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(1)
