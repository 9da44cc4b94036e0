"""Classifying photos with a `.tflite` alone."""

import numpy as np

from .files import read_file
from .flatbuffer import get_metadata, read
from .interpreter import Runner
from .preprocessing import Preprocessing


def classify_files(file, images, labels=None, top=5, num_threads=None):
    """The most likely classes of image files.

    The file's own metadata say how to resize and what the classes are called; without them an image is resized to
    cover the input and cropped, and classes are called by their number.

    Args:
        file: path of the `.tflite`.
        images: paths of images.
        labels: class names in index order, instead of the file's.
        top: how many classes to return.
        num_threads: threads of the interpreter; None is one per core.

    Returns:
        Per image `{"file": path, "top": [{"index", "label", "probability"}, ...]}`, most likely first.

    Raises:
        ValueError: the file or an image cannot be read, or there are not as many labels as classes.
    """
    content = read_file(file)
    metadata = get_metadata(read(content))
    runner = Runner(content, num_threads)
    if metadata:
        preprocessing = Preprocessing.from_dict(metadata["preprocessing"])
    else:
        height, width, channels = runner.image_shape
        preprocessing = Preprocessing((height, width), channels)
    classes = int(runner.output["shape"][-1])
    labels = labels or metadata.get("labels") or [f"class {index}" for index in range(classes)]
    if len(labels) != classes:
        raise ValueError(f"`labels` must hold one name per class: the file has {classes} classes, got {len(labels)}.")
    pixels = np.stack([preprocessing.load(path) for path in images])
    results = []
    for path, probabilities in zip(images, _softmax(runner(pixels))):
        best = probabilities.argsort()[::-1][:top]
        answers = [
            {"index": int(index), "label": labels[index], "probability": float(probabilities[index])} for index in best
        ]
        results.append({"file": str(path), "top": answers})
    return results


def _softmax(scores):
    if scores.min() >= 0 and np.allclose(scores.sum(-1), 1, atol=1e-2):
        return scores  # the model ends in a softmax
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
