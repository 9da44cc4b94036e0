"""Pictures with matplotlib, which is an extra: pip install 'keras-vit-plugin[plots]'."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_vit_plugin.explain.attention import TokenGrid, attention_rollout, run_attention
from keras_vit_plugin.explain.given import in_short, positive
from keras_vit_plugin.explain.page import explanation_page
from keras_vit_plugin.explain.panels import (
    FILTERS,
    POSITIONS,
    head_tiles,
    heads_words,
    layer_panels,
    overview_panels,
    share,
)
from keras_vit_plugin.explain.render import (
    ATTENTION,
    SIMILARITY,
    filters_as_rgb,
    mosaic,
    of_largest,
    photo_with,
)
from keras_vit_plugin.files import check_writable, write_atomically
from keras_vit_plugin.plot_style import (
    as_picture,
    check_picture_suffix,
    legend,
    new_figure,
    paint,
    require_matplotlib,
    theme_of,
)

WIDTH = 8.3  # inches of 100 pixels: about the width of a README
SMALL, USUAL = 8, 9  # points of text


def draw_attention(model, image, picture, path, theme="light"):
    """Draws a picture, its attention rollout over it, and what the answer draws on in each layer.

    Args:
        model: a model `attention_maps` takes.
        image: one normalized input `(H, W, C)`.
        picture: the same as uint8 pixels `(H, W, C)`, to draw on.
        path: where to write the picture: a PNG, or what its suffix says.
        theme: `"light"` or `"dark"`: the page that it is for.

    Raises:
        ValueError: as for `attention_maps`, or `picture` is no picture.
    """
    theme = theme_of(theme)
    _check_picture(path)
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"`picture` must be uint8 pixels (H, W, C), got {in_short(picture)}.")
    panels = attention_panels(*run_attention(model, image))
    figure, axes = _grid_of_axes(theme, len(panels), 7, picture.shape[0] / picture.shape[1])
    for axis, (title, grid) in zip(axes, panels):
        axis.imshow(photo_with(picture, grid))
        axis.set_title(title, fontsize=USUAL)
    _save(figure, path)


def attention_panels(grid: TokenGrid, maps):
    """`[(title, map over the patches or None), ...]` that `draw_attention` draws.

    Args:
        grid: where the tokens lie.
        maps: `(layers, heads, tokens, tokens)`.
    """
    layers = [(f"layer {number}", grid.of_answer(layer.mean(0))) for number, layer in enumerate(maps, start=1)]
    return [("image", None), ("rollout", grid.of_answer(attention_rollout(maps))), *layers]


def draw_predictions(pictures, names, path, correct=None, columns=10, theme="light"):
    """Draws pictures in a grid, each under the name of its prediction.

    Args:
        pictures: uint8 `(N, H, W, C)`.
        names: N titles.
        path: where to write the picture: a PNG, or what its suffix says.
        correct: N booleans: titles of the right ones are green, those of the wrong ones red and with a cross; None
            leaves them without a colour.
        columns: pictures in a row.
        theme: `"light"` or `"dark"`: the page that it is for.

    Raises:
        ValueError: there is no picture, `names` or `correct` has another length, or `columns` is not positive.
    """
    theme = theme_of(theme)
    _check_picture(path)
    pictures = np.asarray(pictures)
    if pictures.ndim != 4 or not pictures.size:
        raise ValueError(f"`pictures` must hold a picture or more, uint8 (N, H, W, C), got {in_short(pictures)}.")
    names = _one_each(names, "names", len(pictures))
    correct = [None] * len(pictures) if correct is None else map(bool, _one_each(correct, "correct", len(pictures)))
    columns = positive(columns, "columns")
    figure, axes = _grid_of_axes(theme, len(pictures), columns, pictures.shape[1] / pictures.shape[2])
    colours = {None: theme.text, True: theme.right, False: theme.wrong}
    for axis, picture, name, right in zip(axes, pictures, names, correct):
        axis.imshow(np.squeeze(picture), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"✗ {name}" if right is False else name, fontsize=10, color=colours[right])
    _save(figure, path)


def _one_each(values, name, count):
    """A list of as many values as there are pictures; `name` is that of the argument."""
    try:
        values = list(values)
    except TypeError:
        raise ValueError(f"`{name}` must hold one of each picture, got {name}={in_short(values)}.") from None
    if len(values) != count:
        raise ValueError(f"`{name}` must hold one of each picture: got {len(values)} for {count} pictures.")
    return values


def draw_training_curves(history, path, theme="light"):
    """Draws loss and accuracy over the epochs, training and validation.

    Args:
        history: the `History` that `fit` returns, or its dictionary.
        path: where to write the picture: a PNG, or what its suffix says.
        theme: `"light"` or `"dark"`: the page that it is for.

    Raises:
        ValueError: the history holds no loss, or that of no epoch.
    """
    theme = theme_of(theme)
    _check_picture(path)
    curves = training_curves(history)
    figure = new_figure(theme, WIDTH / 2 * len(curves), 3)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (metric, lines) in zip(axes, curves.items()):
        paint(axis, theme)
        for (label, values), marker in zip(lines.items(), "os"):
            axis.plot(np.arange(1, len(values) + 1), values, marker=marker, label=label)
        axis.set_xlabel("epoch")
        axis.set_ylabel(metric)
        axis.xaxis.get_major_locator().set_params(integer=True)
        legend(axis, theme)
    _save(figure, path)


def training_curves(history):
    """`{"loss": {"training": values, "validation": values}, "accuracy": ...}`, without what the history does not hold.

    Args:
        history: the `History` that `fit` returns, or its dictionary.

    Raises:
        ValueError: the history holds no loss, or that of no epoch.
    """
    values = getattr(history, "history", history)
    if not isinstance(values, Mapping):
        raise ValueError(f"`history` must be what `fit` returns, or its dictionary, got history={in_short(history)}.")
    if "loss" not in values:
        raise ValueError(f"`history` must hold 'loss', got {sorted(values)}.")
    if np.ndim(values["loss"]) != 1 or not len(values["loss"]):
        raise ValueError(f"`history` must hold a loss of one epoch or more, got loss={in_short(values['loss'])}.")
    accuracy = next((name for name in values if "accuracy" in name and not name.startswith("val_")), None)
    return {
        metric.replace("sparse_categorical_", ""): {
            label: list(values[name])
            for label, name in (("training", metric), ("validation", f"val_{metric}"))
            if name in values
        }
        for metric in ("loss", accuracy)
        if metric
    }


def draw_explanation(explanation, title, path, theme="light"):
    """Draws an `Explanation` as one tall picture.

    Args:
        explanation: an `Explanation`.
        title: what is explained, such as the model and the photo.
        path: where to write the picture: a PNG, or what its suffix says.
        theme: `"light"` or `"dark"`: the page that it is for.
    """
    theme = theme_of(theme)
    _check_picture(path)
    aspect = min(explanation.photo.shape[0] / explanation.photo.shape[1], 2)
    down, across = head_tiles(explanation)[0].shape[:2]
    layer_rows, layer_columns = _layer_places(explanation)
    parts = [
        (_draw_overview, 0.7 + WIDTH / 3 * aspect),
        (_draw_heads, 0.9 + down * min(1.0, (WIDTH - 1.5) / across) * aspect),
        (_draw_layers, 0.3 + layer_rows * (0.25 + WIDTH / layer_columns * aspect)),
        (_draw_embeddings, 3.9),
    ]
    if len(explanation.heads) == 1:  # the last layer, which is shown already
        parts = [each for each in parts if each[0] is not _draw_layers]
    notes = textwrap.fill(" ".join(explanation.notes), 130)
    foot = 0.2 + 0.16 * len(notes.splitlines())
    heights = [height for _, height in parts] + [foot]
    figure = new_figure(theme, WIDTH, sum(heights) + 0.4)
    heading = (
        title if not explanation.answer else f"{title}: {explanation.answer[0][0]}, {share(explanation.answer[0][1])}"
    )
    figure.suptitle(textwrap.fill(heading, 90), fontsize=12, color=theme.text)
    rows = figure.subfigures(len(heights), 1, height_ratios=heights)
    for row, (draw, _) in zip(rows, parts):
        row.set_facecolor(theme.background)
        draw(row, explanation, theme)
    rows[-1].set_facecolor(theme.background)
    rows[-1].text(0.01, 0.5, notes, fontsize=SMALL, color=theme.muted, va="center")
    _save(figure, path)


def write_explanation(explanation, title, path, theme=None):
    """Writes an `Explanation` as a page, where `path` ends in `.html`, or as a picture, a PNG or what its suffix says.

    Args:
        explanation, title: as for `draw_explanation`.
        path: where to.
        theme: of a picture, `"light"` (None too) or `"dark"`; a page follows the reader's system.

    Raises:
        ValueError: `path` cannot be written or has another suffix, `theme` is unknown, or a page has one.
    """
    check_explanation(path, theme)
    if _is_page(path):
        write_atomically(path, explanation_page(explanation, title).encode(errors="backslashreplace"))
    else:
        draw_explanation(explanation, title, path, theme or "light")


def check_explanation(path, theme=None, suffixes=None, name="path"):
    """Raises what `write_explanation` would, and `ValueError` for a path that ends in none of `suffixes`.

    Args:
        path, theme: as for `write_explanation`.
        suffixes: such as `(".html", ".png")`; None takes all.
        name: of the argument that `path` is.
    """
    require_matplotlib()
    if suffixes and isinstance(path, (str, Path)) and Path(path).suffix.lower() not in suffixes:
        raise ValueError(f"`{name}` must end in {' or '.join(suffixes)}, got {name}={str(path)!r}.")
    check_writable(path, name=name)
    check_picture_suffix(path, name, (".html",))
    if theme is not None and _is_page(path):
        raise ValueError(f"`theme` is for a picture; a page follows the reader's system, got theme={theme!r}.")
    theme_of(theme or "light")


def _is_page(path):
    return Path(path).suffix.lower() == ".html"


def _check_picture(path):
    check_writable(path)
    check_picture_suffix(path)


def _layer_places(explanation):
    """Rows and columns of the layers' panels."""
    layers = len(explanation.layers)
    columns = 8 if layers > 12 else 6 if layers > 4 else 4
    return -(-layers // columns), columns


def _draw_overview(figure, explanation, theme):
    panels = overview_panels(explanation)
    for axis, (grid, words) in zip(figure.subplots(1, len(panels)), panels):
        paint(axis, theme, frame=False)
        axis.imshow(photo_with(explanation.photo, grid))
        axis.set_title(textwrap.fill(words, 40), fontsize=USUAL)


def _draw_layers(figure, explanation, theme):
    panels = layer_panels(explanation)
    figure.suptitle("Layer by layer, the mean over the heads", fontsize=USUAL, color=theme.text)
    axes = figure.subplots(*_layer_places(explanation)).ravel()
    for axis in axes:
        paint(axis, theme, frame=False)
    for axis, (grid, words) in zip(axes, panels):
        axis.imshow(photo_with(explanation.photo, grid))
        axis.set_title(words.split(":")[0], fontsize=SMALL)


def _draw_heads(figure, explanation, theme):
    tiles, down_name, across_name = head_tiles(explanation)
    down, across, rows, columns = tiles.shape
    figure.suptitle(textwrap.fill(heads_words(explanation), 110), fontsize=USUAL, color=theme.text)
    axis = figure.subplots()
    paint(axis, theme)
    axis.grid(False)
    values, repeats = mosaic(of_largest(tiles))
    height, width = explanation.photo.shape[0] / rows, explanation.photo.shape[1] / columns
    shown = axis.imshow(values, cmap=ATTENTION, vmin=0, vmax=1, aspect=height / width, interpolation="nearest")
    _number(axis.xaxis, across, columns * repeats + 1, across_name)
    _number(axis.yaxis, down, rows * repeats + 1, down_name)
    _colour_bar(figure, shown, theme, [0, 1], ["0", "largest\nof the map"])


def _number(axis, count, size, name):
    """Ticks with the numbers of the tiles, at most 24 of them."""
    step = -(-count // 24)
    numbers = np.arange(0, count, step)
    axis.set_ticks(numbers * size + (size - 2) / 2, labels=numbers + 1, fontsize=SMALL)
    axis.set_tick_params(length=0)
    axis.set_label_text(name, fontsize=USUAL)


def _colour_bar(figure, shown, theme, ticks, labels):
    bar = figure.colorbar(shown, cax=shown.axes.inset_axes((1.02, 0.1, 0.025, 0.8)), ticks=ticks)
    bar.ax.set_yticklabels(labels, fontsize=SMALL)
    bar.ax.tick_params(colors=theme.muted, labelcolor=theme.text)
    bar.outline.set_visible(False)


def _draw_embeddings(figure, explanation, theme):
    *left, right = figure.subplots(1, 1 if explanation.positions is None else 2, squeeze=False)[0]
    for axis in (*left, right):
        paint(axis, theme, frame=False)
    for axis in left:
        positions = explanation.positions
        least = float(positions.min())
        axis.set_title("Position embeddings\n" + textwrap.fill(POSITIONS, 60), fontsize=SMALL)
        shown = axis.imshow(mosaic(positions)[0], cmap=SIMILARITY, vmin=least, vmax=1, interpolation="nearest")
        _colour_bar(figure, shown, theme, [least, 1], [f"{least:.2f}", "1"])
    right.set_title("Patch filters\n" + textwrap.fill(FILTERS, 60), fontsize=SMALL)
    right.imshow(_filter_tiles(explanation.filters), interpolation="nearest")


def _filter_tiles(filters):
    """Filters in rows of 7 as RGBA; gaps and what is missing in the last row are transparent."""
    across = min(len(filters), 7)
    down = -(-len(filters) // across)
    rgb = filters_as_rgb(filters) / 255
    missing = np.full((down * across - len(filters), *rgb.shape[1:]), np.nan)
    tiles, _ = mosaic(np.concatenate([rgb, missing]).reshape(down, across, *rgb.shape[1:]))
    seen = ~np.isnan(tiles[..., :1])
    return np.concatenate([np.nan_to_num(tiles), seen], -1)


def _grid_of_axes(theme, count, columns, aspect):
    """A figure and `count` axes without frames, in rows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    side = min(WIDTH / columns, 2.4)
    figure = new_figure(theme, columns * side, rows * (side * aspect + 0.25))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        paint(axis, theme, frame=False)
    return figure, axes


def _save(figure, path):
    write_atomically(path, as_picture(figure, path))
