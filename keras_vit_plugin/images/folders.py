"""Folders of images, and which class each image is of."""

import csv
import os
import re
from pathlib import Path

from keras_vit_plugin.files import not_a_file
from keras_vit_plugin.warn import warn

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
NO_CLASSES = ("__MACOSX",)  # what archives of macOS leave beside the folders
NAMED = 3
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def image_files(folder):
    """The image files of a folder and, where known, their labels.

    A folder has a `labels.csv` with the columns file and label; or one sub-folder per class, whose own sub-folders are
    followed; or just images. Hidden files and folders are left out.

    Returns:
        `(paths, labels, folders)`: `labels` are the strings found, or None; `folders` the names of all sub-folders,
        also of empty ones, in the order of Keras's `image_dataset_from_directory`, or None where these are no labels.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds no images, or `labels.csv` is not UTF-8, lacks a column or a value or names a missing file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No image folder: {str(folder)!r}.")
    table = folder / "labels.csv"
    if os.path.lexists(table):
        return (*_listed_files(table), None)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    names = [name for name in names if not name.startswith(".") and name not in NO_CLASSES]
    found = [(path, name) for name in names for path in images_below(folder / name)]
    beside = sorted(path for path in folder.iterdir() if _is_image(path))
    if not found and not beside:
        raise ValueError(f"The folder {str(folder)!r} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    if not found:
        return beside, None, None
    if beside:
        warn(f"{str(folder)!r} has a sub-folder per class: the {len(beside)} image(s) beside them are left out.")
    return [path for path, _ in found], [name for _, name in found], names


def images_below(folder):
    """Yields the images of a folder and of those in it, in the order of Keras: by folder, then by name."""
    for parent, _, names in sorted(os.walk(folder)):
        if not any(part.startswith(".") or part in NO_CLASSES for part in Path(parent).relative_to(folder).parts):
            yield from (path for name in sorted(names) if _is_image(path := Path(parent, name)))


def _is_image(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def _listed_files(table):
    """The files of a table, wherever they are, and their labels."""
    if not os.path.isfile(table):  # opening a pipe would wait
        raise ValueError(f"{table} must be a table of files and labels: {not_a_file(table)}.")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [((row.get("file") or "").strip(), (row.get("label") or "").strip()) for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8: save it as UTF-8 (in Excel as 'CSV UTF-8').") from error
    except csv.Error as error:
        raise ValueError(f"{table} is no table of files and labels: line {reader.line_num + 1}: {error}.") from error
    if not rows or not {"file", "label"} <= set(reader.fieldnames):
        raise ValueError(f"{table} must have rows and the columns file and label.")
    for number, row in enumerate(rows, 1):
        if not all(row):
            raise ValueError(f"{table} must have a file and a label in every row; row {number} has not.")
    paths = [table.parent / file for file, _ in rows]
    missing = [path.name for path in paths if not os.path.isfile(path)]
    if missing:
        raise ValueError(f"{table} names {len(missing)} missing files, the first is {missing[0]!r}.")
    return paths, [label for _, label in rows]


def class_indices(labels, folders, class_names, num_classes):
    """The class index of each label, or None where that is not sure; says in a warning why, or which of two readings.

    Names of sub-folders are class names where these are known, else their place counts, as in Keras's
    `image_dataset_from_directory`; numbers in `labels.csv` are indices, also as `3.0`.

    Args:
        labels, folders: of `image_files`.
        class_names: in index order; may be empty; of a model that says yes or no, those of both or that of yes.
        num_classes: of the model; 1 for one that says yes or no, where the indices are 0 for no and 1 for yes.
    """
    names, count = list(class_names), num_classes
    if num_classes == 1:
        count = 2
        if len(names) == 1:  # the name of yes
            listed = [label for label in labels if _as_index(label) is None]
            others = sorted(set(listed if folders is None else folders) - set(names))
            names = [*(others or [""]), *names] if len(others) < 2 else []
    twice = sorted(name for name in set(labels) if names.count(name) > 1)
    if twice:
        places = [str(index) for index, name in enumerate(names) if name == twice[0]]
        return _unsure(
            f"{twice[0]!r} is the name of the classes {' and '.join(places)}; write indices into a labels.csv"
        )
    indices = {name: index for index, name in enumerate(names)}
    if folders is None:
        chosen = _listed_classes(set(labels), indices, count)
    else:
        chosen = _folder_classes(sorted(set(labels)), folders, indices, count)
    if chosen is None:
        return None
    if wrong := [label for label in chosen if chosen[label] >= count]:
        return _unsure(f"the label {wrong[0]!r} is beyond the classes, which are 0..{count - 1}")
    return [chosen[label] for label in labels]


def _folder_classes(used, folders, indices, count):
    """`{label: index}` of sub-folders."""
    places = {name: place for place, name in enumerate(folders)} if len(folders) == count else None
    strangers = [name for name in used if name not in indices]
    if indices and not strangers:
        for name in used:
            if places and places[name] != indices[name]:
                warn(
                    f"Sub-folders are taken as class names: {name!r} is class {indices[name]}. By their sorted order, "
                    f"as in Keras's image_dataset_from_directory, it would be {places[name]}."
                )
                break
        return {name: indices[name] for name in used}
    if indices and len(strangers) < len(used):
        return _unsure(f"the sub-folder {strangers[0]!r} is none of the {len(indices)} class names, and others are")
    if places is None:
        rule = "sub-folders count by their sorted order, numbers as indices only in a labels.csv"
        return _unsure(f"there are {len(folders)} sub-folders and {count} classes ({rule})")
    order = "by their sorted order, as in Keras's image_dataset_from_directory"
    if all(name.isdecimal() for name in folders) and sorted(folders, key=int) != folders:
        name = next(name for name, other in zip(folders, sorted(folders, key=int)) if name != other)
        warn(f"Sub-folders are counted {order}: {name!r} is class {places[name]}. For numbers write a labels.csv.")
    elif indices:
        warn(
            f"No sub-folder is called as a class, so they are counted {order}: {used[0]!r} is class {places[used[0]]}."
        )
    return places


def _listed_classes(used, indices, count):
    """`{label: index}` of a labels.csv."""
    numbers = {label: index for label in used if (index := _as_index(label)) is not None}
    others = sorted(used - indices.keys() - numbers.keys())
    if wrong := [label for label in others if NUMBER.fullmatch(label)]:
        return _unsure(f"the label {wrong[0]!r} is no class index: these are the whole numbers 0..{count - 1}")
    if len(numbers) == len(used) and not used <= indices.keys():
        return numbers
    for label in sorted(used & indices.keys() & numbers.keys()):
        if indices[label] != numbers[label]:
            warn(f"labels.csv: {label!r} is taken as the name of class {indices[label]}, not as an index.")
            break
    if indices:
        if others:
            return _unsure(f"the label {others[0]!r} is none of the {len(indices)} class names")
        return numbers | {label: indices[label] for label in used & indices.keys()}
    if numbers:
        return _unsure("labels.csv has numbers beside names, and no class names are known")
    if len(used) != count:
        return _unsure(f"labels.csv has {len(used)} names, not all of the {count} classes, whose names are unknown")
    warn(
        f"labels.csv: no class names are known, so its names are counted by their sorted order: {others[0]!r} is class "
        "0. For another order write indices."
    )
    return {label: index for index, label in enumerate(others)}


def _as_index(label):
    """The index that a label of a labels.csv is, also as pandas writes integers where some are missing, or None."""
    text = label.removesuffix(".0")
    return int(text) if text.isdecimal() else None


def _unsure(reason):
    warn(f"No accuracy is computed: {reason}.")


def check_channels(preprocessing, argument):
    """Raises `ValueError` where image files cannot be what the model takes."""
    if preprocessing.channels not in (1, 3):
        shape = ", ".join(map(str, preprocessing.image_shape))
        raise ValueError(
            f"`{argument}` has image files, which hold 1 or 3 channels; the model takes {preprocessing.channels}. Pass "
            f"an array (N, {shape}) in Python; the command takes files alone."
        )


def load_images(paths, preprocessing, labels=None):
    """`(images, labels)`: uint8 `(N, H, W, C)` of the files that can be read; the others are named in a warning.

    Raises:
        ValueError: none can be read.
    """
    import numpy as np

    images, kept = np.empty((len(paths), *preprocessing.image_shape), np.uint8), []
    for place, image in readable_images(paths, preprocessing, "Reading images"):
        images[len(kept)] = image
        kept.append(place)
    return images[: len(kept)], None if labels is None else [labels[place] for place in kept]


def readable_images(paths, preprocessing, description):
    """Yields the place and the pixels, uint8 `(H, W, C)`, of each file that can be read; at the end a warning names the
    others.

    Args:
        paths: of image files.
        preprocessing: a `Preprocessing`.
        description: of the work that this is a part of, to show its progress.

    Raises:
        ValueError: none can be read.
    """
    from keras_vit_plugin.progress import track

    unread, reasons = 0, []
    for place, path in enumerate(track(paths, description)):
        try:
            image = preprocessing.load(path)
        except ValueError as error:
            unread += 1
            reasons += [str(error)] if unread <= NAMED else []
            continue
        yield place, image
    if unread == len(paths):
        raise ValueError(f"None of {len(paths)} image(s) can be read. {reasons[0]}")
    if unread:
        more = f"; and {unread - NAMED} more" if unread > NAMED else ""
        warn(f"{unread} of {len(paths)} images are left out: {'; '.join(reasons)}{more}.")
