"""Pictures with matplotlib, which is an extra: pip install 'keras-vit-plugin[plots]'."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from keras_vit_plugin.explain.attention import attention_maps, attention_rollout, token_attention
from keras_vit_plugin.export.files import check_writable, write_atomically


def draw_attention(model, image, picture, path):
    """Draws a picture, its attention rollout over it, and the class token's attention per layer.

    Args:
        model: a model `attention_maps` takes.
        image: one normalized input `(H, W, C)`.
        picture: the same as uint8 pixels `(H, W, C)`, to draw on.
        path: where to write the picture: a PNG, or what its suffix says.
    """
    check_writable(path)
    maps = attention_maps(model, image)
    panels = [("image", None), ("rollout", token_attention(model, attention_rollout(maps)))]
    panels += [(f"layer {i + 1}", token_attention(model, layer.mean(axis=0))) for i, layer in enumerate(maps)]
    columns = min(len(panels), 7)
    rows = -(-len(panels) // columns)
    figure, axes = _figure(rows, columns, 2.0, 2.3)
    for axis, (title, grid) in zip(axes, panels):
        axis.imshow(np.squeeze(picture), cmap="gray")
        axis.set_title(title, fontsize=9)
        if grid is not None:
            height, width = picture.shape[:2]
            overlay = Image.fromarray(np.asarray(grid, np.float32)).resize((width, height), Image.Resampling.BICUBIC)
            axis.imshow(np.asarray(overlay), cmap="inferno", alpha=0.6)
    _save(figure, path)


def draw_predictions(pictures, names, path, correct=None, columns=10):
    """Draws pictures in a grid, each under the name of its prediction.

    Args:
        pictures: uint8 `(N, H, W, C)`.
        names: N titles.
        path: where to write the picture: a PNG, or what its suffix says.
        correct: N booleans that colour the titles green or red; None leaves them black.
        columns: pictures in a row.
    """
    check_writable(path)
    columns = min(columns, len(pictures))
    figure, axes = _figure(-(-len(pictures) // columns), columns, 1.0, 1.25)
    colours = ["black"] * len(pictures) if correct is None else ["green" if right else "red" for right in correct]
    for axis, picture, name, colour in zip(axes, pictures, names, colours):
        axis.imshow(np.squeeze(picture), cmap="gray")
        axis.set_title(name, fontsize=9, color=colour)
    _save(figure, path)


def draw_training_curves(history, path):
    """Draws loss and accuracy over the epochs, training and validation.

    Args:
        history: the `History` that `fit` returns, or its dictionary.
        path: where to write the picture: a PNG, or what its suffix says.

    Raises:
        ValueError: the history holds no loss.
    """
    check_writable(path)
    values = getattr(history, "history", history)
    if "loss" not in values:
        raise ValueError(f"`history` must hold 'loss', got {sorted(values)}.")
    accuracy = next((name for name in values if "accuracy" in name and not name.startswith("val_")), None)
    metrics = ["loss"] + ([accuracy] if accuracy else [])
    figure, axes = _figure(1, len(metrics), 4.5, 3.2, frame=True)
    epochs = np.arange(1, len(values["loss"]) + 1)
    for axis, metric in zip(axes, metrics):
        for name, label in ((metric, "training"), (f"val_{metric}", "validation")):
            if name in values:
                axis.plot(epochs, values[name], marker="o", label=label)
        axis.set_xlabel("epoch")
        axis.set_ylabel(metric.replace("sparse_categorical_", ""))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def _figure(rows, columns, width, height, frame=False):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need: pip install 'keras-vit-plugin[plots]'") from error
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    if not frame:
        for axis in axes:
            axis.axis("off")
    return figure, axes


def _save(figure, path):
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:] or "png", dpi=120)
    write_atomically(path, picture.getvalue())
