"""Classifying photos with a `.tflite` alone."""

import numpy as np

from .files import read_file
from .flatbuffer import InvalidModelFile, get_metadata, naming, read
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

    Yields:
        Per image, while no more than a batch of them is in memory, `{"file": path, "top": [{"index", "label",
        "probability"}, ...]}`, most likely first; `{"file": path, "error": sentence}` for one that cannot be read.

    Raises:
        ValueError: the file cannot be read, or there are not as many labels as classes.
    """
    content = read_file(file)
    with naming(file):
        runner = Runner(content, num_threads)
        metadata = get_metadata(read(content))
        answer = runner.output["shape"]
        if runner.image_shape[2] not in (1, 3) or len(answer) != 2:
            raise InvalidModelFile(f"no classifier of photos: {runner.image_shape} in, {tuple(map(int, answer))} out")
    if metadata:
        preprocessing = Preprocessing.from_dict(metadata["preprocessing"])
    else:
        height, width, channels = runner.image_shape
        preprocessing = Preprocessing((height, width), channels)
    classes = int(answer[1])
    labels = labels or metadata.get("labels") or [f"class {index}" for index in range(classes)]
    if len(labels) != classes:
        raise ValueError(f"`labels` must hold one name per class: the file has {classes} classes, got {len(labels)}.")
    for start in range(0, len(images), runner.batch_size):
        results, pixels = [], []
        for path in images[start : start + runner.batch_size]:
            try:
                pixels.append(preprocessing.load(path))
                results.append({"file": str(path)})
            except ValueError as error:
                results.append({"file": str(path), "error": str(error)})
        answers = iter(_softmax(runner(np.stack(pixels))) if pixels else ())
        for result in results:
            if "error" not in result:
                result["top"] = _best(next(answers), labels, top)
            yield result


def _best(probabilities, labels, count):
    best = probabilities.argsort()[::-1][:count]
    return [{"index": int(index), "label": labels[index], "probability": float(probabilities[index])} for index in best]


def _softmax(scores):
    if scores.min() >= 0 and np.allclose(scores.sum(-1), 1, atol=1e-2):
        return scores  # the model ends in a softmax
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
