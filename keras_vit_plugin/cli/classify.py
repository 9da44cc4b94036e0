"""What a `.tflite` alone says of photos: the answers of `keras-vit run`."""

import itertools

import numpy as np

from keras_vit_plugin.export.tflite.errors import InvalidModelFile
from keras_vit_plugin.export.tflite.flatbuffer import naming_the_file, read
from keras_vit_plugin.export.tflite.foreign_runner import guarded_runner
from keras_vit_plugin.export.tflite.metadata import guessed_answer, read_metadata
from keras_vit_plugin.export.verification.outputs import outputs_of
from keras_vit_plugin.files import read_file
from keras_vit_plugin.image_model.answers import BINARY, EMBEDDING, FEATURES, REGRESSION
from keras_vit_plugin.image_model.labels import class_names
from keras_vit_plugin.images.normalization import RANGES
from keras_vit_plugin.images.preprocessing import UNSAID, Preprocessing


def classify_files(file, images, labels=None, top=5, num_threads=None, pixels=None):
    """What a file says of image files.

    The file's own metadata say how to resize, what the outputs mean and what the classes are called. Without them an
    image is stretched to the input as Keras does, the last operator tells whether there are probabilities, and
    classes are called by their number.

    Args:
        file: path of the `.tflite`.
        images: paths of images, an iterable.
        labels: class names in index order, instead of the file's.
        top: how many classes to return.
        num_threads: threads of the interpreter; None is one per core.
        pixels: for a file without this package's metadata, the range that it takes: `"0..1"`, `"-1..1"` or `"0..255"`.

    Yields:
        Per image, while no more than a batch of them is in memory, `{"file": path, "top": [{"index", "label",
        "probability"}, ...]}`, most likely first, with a no and a yes where the file decides one thing and each label's
        own probability where it decides several; `{"file": path, "values": [{"label", "value"}, ...]}` of a regression;
        `{"file": path, "error": sentence}` for an image that cannot be read, or whose answer is NaN or infinity.

    Raises:
        ValueError: the file cannot be read, gives an embedding or features, or there are not as many labels as
            classes; or it has no metadata and `pixels` does not say what it takes.
    """
    content = read_file(file)
    with naming_the_file(file):
        runner = guarded_runner(content, num_threads)
        tree = read(content)
        metadata = read_metadata(tree)
        detail = next(iter(runner.details.values()))
        answer = guessed_answer(tree, int(detail["index"])) if metadata is None else metadata.answers[0]
        detail = runner.details.get(answer.name, detail)
        gives = tuple(int(side) for side in detail["shape"])
        if runner.image_shape[2] not in (1, 3) or answer.task in (EMBEDDING, FEATURES) or len(gives) > 2:
            raise InvalidModelFile(f"no classifier of photos: {runner.image_shape} in, {answer.task} {gives} out")
    given = _given(file, metadata, pixels)
    if metadata:
        preprocessing = metadata.preprocessing
    else:
        height, width, channels = runner.image_shape
        preprocessing = Preprocessing((height, width), channels, **UNSAID)
    columns = gives[1] if len(gives) == 2 else 1
    names = class_names(answer, labels or (metadata.labels if metadata else None), columns)
    if len(names) != (2 if answer.task == BINARY else columns):
        raise ValueError(f"`labels` must hold one name per class: the file has {columns} classes, got {len(names)}.")
    images = iter(images)
    while batch := list(itertools.islice(images, runner.batch_size)):
        results, read_pixels = [], []
        for path in batch:
            try:
                read_pixels.append(preprocessing.load(path))
                results.append({"file": str(path)})
            except ValueError as error:
                results.append({"file": str(path), "error": str(error)})
        with naming_the_file(file):
            rows = iter(outputs_of(runner, np.stack(read_pixels), (answer,), given)[0] if read_pixels else ())
        for result in results:
            if "error" not in result:
                result |= _in_words(answer, next(rows).ravel(), names, top, result["file"], file)
            yield result


def _given(file, metadata, pixels):
    """`(scale, offset)` for a file that does not take raw pixels, or None."""
    if metadata is not None:
        if pixels is not None:
            raise ValueError(f"`pixels` is for a file without this package's metadata; {file} takes raw pixels.")
        return None
    if pixels is None:
        raise ValueError(
            f"{file} was not made by keras-vit: it does not say what pixels it takes. Pass `pixels` (--pixels on the "
            f"command line), one of {', '.join(RANGES)}."
        )
    if pixels not in RANGES:
        raise ValueError(f"`pixels` must be one of {', '.join(RANGES)}; got pixels={pixels!r}.")
    return RANGES[pixels]


def _in_words(answer, row, names, count, path, file):
    if not np.isfinite(row).all():
        return {"error": f"{path}: {file} answers with NaN or infinity ({answer.name})"}
    if answer.task == REGRESSION:
        return {"values": [{"label": name, "value": float(value)} for name, value in zip(names, row)]}
    probabilities = answer.probabilities(row[None])[0]
    if answer.task == BINARY:
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    best = probabilities.argsort()[::-1][:count]
    return {
        "top": [
            {"index": int(index), "label": names[index], "probability": float(probabilities[index])} for index in best
        ]
    }
