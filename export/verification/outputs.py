"""The outputs of a file and of its model, in one form."""

import numpy as np

from keras_vit_plugin.image_model.answers import LINEAR
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.progress import track

from ..tflite.runner import Runner


def keras_logits(model, images, scale, offset):
    """The Keras model's first output in float32 for raw pixels `(N, H, W, C)`."""
    return ImageModel(model, scale, offset)(images)[0]


def tflite_logits(content, images, num_threads=None):
    """The file's first output in float32 for raw pixels `(N, H, W, C)`."""
    return _run_by_batch(Runner(content, num_threads), images)


def _run_by_batch(runner, images):
    starts = range(0, len(images), runner.batch_size)
    return np.concatenate(
        [runner(images[start : start + runner.batch_size]) for start in track(starts, "Running the file")]
    )


def as_file_gives(references, answers, file_answers):
    """The Keras model's outputs in the form in which a file gives them: probabilities of logits where it has a softmax
    of its own."""
    return tuple(
        answer.probabilities(reference) if answer.activation == LINEAR != given.activation else reference
        for reference, answer, given in zip(references, answers, file_answers)
    )


def outputs_of(runner, images, answers, given=None):
    """A file's outputs `(N, ...)` float32, one for each answer, by name or, where it has other names, by order.

    Args:
        runner: a `Runner`, or another with its methods.
        images: raw pixels 0..255 `(N, H, W, C)`.
        answers: the `Answer`s wanted.
        given: `(scale, offset)` of what the file is given instead of raw pixels; None for one that takes those.

    Raises:
        ValueError: the file has fewer outputs.
    """
    parts = []
    for start in track(range(0, len(images), runner.batch_size), "Running the file"):
        batch = images[start : start + runner.batch_size]
        if given is not None:
            batch = (batch.astype(np.float32) * np.float32(given[0]) + np.float32(given[1])).astype(np.float32)
        parts.append(runner.outputs(batch))
    wanted = names_in_file(list(parts[0]), answers)
    return tuple(np.concatenate([part[name] for part in parts]).astype(np.float32) for name in wanted)


def names_in_file(names, answers):
    """The names that a file's outputs have, of all of its `names`, one for each answer.

    Raises:
        ValueError: the file has fewer outputs.
    """
    wanted = [answer.name for answer in answers]
    if set(wanted) <= set(names):
        return wanted
    if len(names) < len(wanted):
        raise ValueError(f"The model has {len(wanted)} outputs ({', '.join(wanted)}), the file {', '.join(names)}.")
    return names[: len(wanted)]
