"""What a model does with one photo, as the arrays that its pictures are drawn from."""

import os
from dataclasses import dataclass

import numpy as np
from keras import ops

from keras_vit_plugin.explain.attention import (
    in_a_sentence,
    parts_of,
    roll_out,
    run_attention,
    token_in_words,
    with_residual,
)
from keras_vit_plugin.explain.given import in_short, positive
from keras_vit_plugin.explain.places import places_note
from keras_vit_plugin.image_model.answers import BINARY
from keras_vit_plugin.image_model.image_model import ImageModel, computing_in_float32, image_shape_of
from keras_vit_plugin.image_model.labels import checked_labels, class_names
from keras_vit_plugin.images.normalization import pixel_normalization
from keras_vit_plugin.images.preprocessing import preprocessing_of

MOST_POSITIONS = 7  # rows and columns of positions that are shown
MOST_FILTERS = 28
TOP = 5
NO_POSITIONS = "The model has no position embeddings of this package."
ZERO_POSITIONS = "All position embeddings are zero, as before training: they have no direction to compare."


@dataclass(frozen=True)
class Explanation:
    """Arrays that tell what a model does with one photo.

    Attributes:
        photo: what the model sees, uint8 `(H, W, C)`.
        answer: `((label, probability), ...)`, most likely first; empty for a model that tells no classes apart.
        reader: what the answer is read from, such as `"class token"`.
        heads: per layer and head what the reader attends to, float32 `(layers, heads, rows, columns)`.
        rollout: what it draws on through all layers, `(rows, columns)`; `attention_rollout` says how.
        positions: cosine similarity of the position embeddings of some patches with those of all, `(some rows, some
            columns, rows, columns)`, or None.
        filters: principal components of the patch embedding's filters, `(N, height, width, 1 or 3)` in -1..1.
        notes: sentences on what the model does not have, or what is not shown.
    """

    photo: np.ndarray
    answer: tuple[tuple[str, float], ...]
    reader: str
    heads: np.ndarray
    rollout: np.ndarray
    positions: np.ndarray | None
    filters: np.ndarray
    notes: tuple[str, ...]

    @property
    def layers(self):
        """The mean over the heads of each layer, `(layers, rows, columns)`."""
        return self.heads.mean(1)

    def to_dict(self):
        """For machines: the answer, the notes, and the maps over the patches as lists."""
        return {
            "answer": [{"label": label, "probability": probability} for label, probability in self.answer],
            "read_from": self.reader,
            "heads": self.heads.shape[1],
            "layers": self.layers.tolist(),
            "rollout": self.rollout.tolist(),
            "notes": list(self.notes),
        }


def explanation_of(model, photo, scale, offset, labels=None):
    """Runs a model on a photo.

    Args:
        model: as for `attention_maps`.
        photo: uint8 `(H, W, C)` of the model's input shape.
        scale, offset: what turns pixels of 0..255 into its input, per channel or one number.
        labels: class names in index order, as for `export_tflite`, or None.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: the model is not made of this package's layers, the photo is not uint8 or has another shape, or
            attention is NaN.
    """
    parts = parts_of(model)
    photo, shape = np.asarray(photo), tuple(image_shape_of(model))
    if photo.shape != shape or photo.dtype != np.uint8:
        raise ValueError(f"`photo` must be uint8 pixels of the model's shape {shape}, got {in_short(photo)}.")
    image = (photo * np.asarray(scale) + np.asarray(offset)).astype(np.float32)

    def keep(maps):  # all maps of a large model would be a gigabyte
        return maps[:, parts.read].mean(1), with_residual(maps)

    with computing_in_float32(model):
        grid, kept = run_attention(model, image, keep)
    read, mixed = zip(*kept)
    if not all(np.isfinite(maps).all() for maps in read):
        raise ValueError(
            "The attention of the model is NaN or infinite, so nothing can be shown of it: look at its weights."
        )
    answer, answer_notes = _answer(model, photo, scale, offset, labels)
    positions, position_notes = _positions(parts, grid)
    filters = patch_filters(model)
    patch_height, patch_width = parts.patch_embedding.patch_size
    cut = (grid.rows * patch_height, grid.columns * patch_width)
    notes = [
        *_prefix_notes(parts),
        places_note(model, parts.patch_embedding, shape[:2], cut),
        *answer_notes,
        *position_notes,
        *_filter_notes(filters),
    ]
    return Explanation(
        photo=photo,
        answer=answer,
        reader=parts.reader,
        heads=grid.over_patches(np.stack(read)),
        rollout=grid.of_answer(roll_out(mixed)),
        positions=positions,
        filters=filters if filters.shape[-1] in (1, 3) else filters.mean(-1, keepdims=True),
        notes=tuple(filter(None, notes)),
    )


def explain_photo(model, path, labels=None, mean=None, std=None, pixels=None, resize=None, interpolation=None):
    """Runs a model on a photo, which is resized and normalized as the model says, or as the arguments do.

    Args:
        model: as for `attention_maps`.
        path: of an image file.
        labels: class names in index order, as for `export_tflite`, or None.
        mean, std, pixels, resize, interpolation: as for `export_tflite`, for a model that does not say it.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: the model is not made of this package's layers, it does not say what pixels it takes, it takes
            other than 1 or 3 channels, or the file is no image that can be read.
    """
    parts_of(model)
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`path` must be the path of an image file, got path={in_short(path)}.")
    preprocessing = preprocessing_of(model, resize, interpolation)
    if preprocessing.channels not in (1, 3):
        raise ValueError(
            f"The model takes {preprocessing.channels} channels, and an image file holds 1 or 3: the command cannot "
            f"show such a model a photo. In Python, `explanation_of` takes pixels {preprocessing.image_shape}."
        )
    scale, offset = pixel_normalization(model, preprocessing.channels, mean, std, pixels)
    return explanation_of(model, preprocessing.load(path), scale, offset, labels)


def position_similarity(model):
    """The cosine similarity of every patch's position embedding with every other's.

    Args:
        model: as for `attention_maps`.

    Returns:
        float32 `(rows, columns, rows, columns)`: the first two axes choose a patch, the last two lie over the image.

    Raises:
        ValueError: the model has no position embeddings of this package, or they are all zero.
    """
    parts = parts_of(model)
    grid, _ = run_attention(model, np.zeros(image_shape_of(model), np.float32), keep=lambda maps: None)
    similarity, notes = _similarity(parts, grid, range(grid.rows), range(grid.columns))
    if similarity is None:
        raise ValueError(f"`model` has nothing to compare. {notes[0]}")
    return similarity


def patch_filters(model, most=MOST_FILTERS):
    """The first principal components of the patch embedding's filters, as in figure 7 of arXiv:2010.11929.

    Args:
        model: as for `attention_maps`.
        most: how many.

    Returns:
        float32 `(N, height, width, C)` in -1..1, each divided by its largest weight; the sign has no meaning.

    Raises:
        ValueError: as for `attention_maps`, or `most` is not positive.
    """
    most = positive(most, "most")
    kernel = np.asarray(ops.convert_to_numpy(parts_of(model).patch_embedding.projection.kernel), np.float32)
    height, width, channels, count = kernel.shape
    filters = kernel.reshape(-1, count).T  # (filters, weights)
    components = np.linalg.svd(filters - filters.mean(0), full_matrices=False)[2][:most]
    components /= np.maximum(np.abs(components).max(1, keepdims=True), 1e-12)
    return components.reshape(-1, height, width, channels)


def _answer(model, photo, scale, offset, labels):
    """`(((label, probability), ...), sentences)`."""
    image_model = ImageModel(model, scale, offset)
    labels = checked_labels(labels, image_model)
    answer, outputs = image_model.answer, image_model(photo[None])[0]
    if not answer.has_decisions:
        return (), (f"The model's output is {answer.task}: it names no classes.",)
    probabilities = answer.probabilities(outputs).ravel()
    if not np.isfinite(probabilities).all():
        return (), ("The model answers with NaN or infinity.",)
    if answer.task == BINARY:
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    names = class_names(answer, labels, len(probabilities))
    best = probabilities.argsort()[::-1][:TOP]
    return tuple((str(names[index]), float(probabilities[index])) for index in best), ()


def _prefix_notes(parts):
    notes, count = [parts.note or _reader_note(parts)], parts.num_prefix_tokens
    if count:
        what = f"the {count} tokens in front of the patches"
        if count == 1:
            what = in_a_sentence(token_in_words(parts.tokens, 0))
        notes.append(f"Attention to {what} is left out of the maps.")
    return notes


def _reader_note(parts):
    """Why the maps are not those of a class token; empty where they are."""
    has_class_token = parts.tokens is not None and parts.tokens.use_class_token
    if isinstance(parts.read, slice):
        who = "patches" if parts.read.start >= parts.num_prefix_tokens else "these tokens"
        if not has_class_token:
            return f"The model has no class token: the maps are the mean over what all {who} attend to."
        if parts.read.start > 0:
            return f"The answer is not read from the class token: the maps are the mean over what all {who} do."
        return f"The answer is read from the {parts.reader}: the maps are the mean over what all of them attend to."
    if has_class_token and 0 in parts.read:
        return ""
    has_none = "The model has no class token" if not has_class_token else "The answer is not read from the class token"
    return f"{has_none}: the maps are those of {in_a_sentence(parts.reader)}."


def _positions(parts, grid):
    """The similarities of at most `MOST_POSITIONS` rows and columns, evenly spread; or None; and sentences."""

    def spread(count):
        return np.unique(np.linspace(0, count - 1, min(count, MOST_POSITIONS)).round().astype(int))

    return _similarity(parts, grid, spread(grid.rows), spread(grid.columns))


def _filter_notes(filters):
    channels = filters.shape[-1]
    return () if channels in (1, 3) else (f"A patch filter is shown as the mean over its {channels} channels.",)


def _similarity(parts, grid, rows, columns):
    if parts.tokens is None:
        return None, (NO_POSITIONS,)
    embedding = np.asarray(ops.convert_to_numpy(parts.tokens.position_embedding), np.float64)[0]
    embedding = embedding[parts.tokens.num_positioned_prefix_tokens :]
    norms = np.linalg.norm(embedding, axis=-1, keepdims=True)
    if not norms.any():
        return None, (ZERO_POSITIONS,)
    unit = (embedding / np.maximum(norms, 1e-12)).reshape(grid.rows, grid.columns, -1)
    return np.einsum("abd,ijd->abij", unit[np.ix_(rows, columns)], unit).astype(np.float32), ()
