"""The names of a model's classes."""

import os
from collections.abc import Mapping
from pathlib import Path

from keras_vit_plugin.files import not_a_file
from keras_vit_plugin.image_model.answers import BINARY, REGRESSION
from keras_vit_plugin.images.folders import image_files

NO, YES = "no", "yes"


def checked_labels(labels, model):
    """The class names as text, or None.

    Args:
        labels: what the caller passed: names in index order, `{index: name}`, `{name: index}`, or a path as for
            `read_labels`.
        model: an `ImageModel`; the names are those of its first output.

    Raises:
        ValueError: there is not one name for each class.
        FileNotFoundError: `labels` is a path of nothing.
    """
    if labels is None:
        return None
    names = _in_order(labels)
    shape = model.shapes[0]
    wanted = (1, 2) if model.answer.task == BINARY else shape if len(shape) == 1 else ()  # of a yes, or a no and a yes
    if len(names) not in wanted:
        has = " or ".join(map(str, wanted)) or "no"
        raise ValueError(f"`labels` must hold one name per class: the model has {has} classes, got {len(names)} names.")
    return names


def _in_order(labels):
    if isinstance(labels, (str, os.PathLike)):
        return read_labels(labels)
    if isinstance(labels, Mapping):
        keys, values = list(labels), list(labels.values())
        if _are_indices(keys) == _are_indices(values):  # neither, or no telling which
            raise ValueError(
                f"`labels` must give a name to each index from 0 on, or an index to each name, got {labels!r}."
            )
        indices, names = (keys, values) if _are_indices(keys) else (values, keys)
        return [str(name) for _, name in sorted(zip(map(int, indices), names))]
    if isinstance(labels, (set, frozenset)):
        raise ValueError("`labels` must be in index order, a set has none: pass a list.")
    try:
        return [str(label) for label in labels]
    except TypeError:
        raise ValueError(f"`labels` must be class names or the path of a file of them, got {labels!r}.") from None


def _are_indices(values):
    return sorted(map(str, values)) == sorted(map(str, range(len(values))))


def class_names(answer, labels=None, columns=0):
    """What the classes, labels or numbers of an output are called, in index order.

    Args:
        answer: the `Answer`.
        labels: names that somebody gave, or None.
        columns: how many the output has, for those without a name.
    """
    if answer.task == BINARY:
        if not labels:
            return [NO, YES]
        return list(labels) if len(labels) == 2 else [f"not {labels[0]}", labels[0]]
    kind = "number" if answer.task == REGRESSION else "class"
    return list(labels) if labels else [f"{kind} {index}" for index in range(columns)]


def check_label_per_output(labels, model, target):
    """Raises `ValueError` where a target that stores names needs another number of them, or another output."""
    shape = model.shapes[0]
    if labels is not None and (len(shape) != 1 or len(labels) != shape[0]):
        raise ValueError(
            f"target={target!r} takes outputs (N, classes) and a name for each, the model gives (N, "
            f"{', '.join(map(str, shape))}) and `labels` holds {len(labels)}."
        )


def read_labels(path):
    """The class names in a text file in UTF-8, one a line; or those of a folder with a sub-folder per class.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is no text, is empty, or has an empty line before its end; or the folder has no sub-folders of
            images.
    """
    if os.path.isdir(path):
        *_, names = image_files(path)
        if names is None:
            raise ValueError(f"The folder {str(path)!r} must have a sub-folder per class, whose names are taken.")
        return names
    if not os.path.isfile(path):  # reading a pipe would wait
        what = "." if not os.path.exists(path) else f": {not_a_file(path)}."
        raise FileNotFoundError(f"No label file: {str(path)!r}{what}")
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The label file {str(path)!r} is no text in UTF-8: {error}.") from error
    # Form feeds and the separators of Unicode are part of a name: only line ends end it.
    names = [line.strip() for line in text.rstrip().replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if names == [""]:
        raise ValueError(f"The label file {str(path)!r} is empty.")
    if "" in names:
        raise ValueError(
            f"The label file {str(path)!r} must have a class name in every line, line {names.index('') + 1} is empty."
        )
    return names
