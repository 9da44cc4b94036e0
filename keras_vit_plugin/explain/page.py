"""An `Explanation` as one HTML page that needs nothing beside it."""

import base64
import html
import io

import numpy as np
from PIL import Image

from keras_vit_plugin.explain.panels import (
    FILTERS,
    LAYERS,
    POSITIONS,
    ROLLOUT,
    head_tiles,
    heads_words,
    layer_panels,
    overview_panels,
    share,
)
from keras_vit_plugin.explain.render import (
    ATTENTION,
    SIMILARITY,
    SMALL_SIDE,
    filters_as_rgb,
    in_colour,
    of_largest,
    photo_with,
    stretched,
)
from keras_vit_plugin.plot_style import PAGE_STYLE

COLOURS = 64  # of a map's colour scale
STYLE = (
    PAGE_STYLE
    + """
.photos { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.photos.large { grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: .3rem; }
.pixels { image-rendering: pixelated; }
.maps { display: grid; gap: 2px; align-items: center; width: max-content; }
.maps img { width: 100%; display: block; }
.maps span { font-size: .75rem; color: var(--muted); text-align: center; padding: 0 .25rem; white-space: nowrap; }
.scale { display: flex; white-space: nowrap; align-items: center; gap: .5rem; font-size: .85rem; margin: .5rem 0; }
.scale img { width: 8rem; height: .8rem; }
.tiles-of-pixels { display: grid; gap: 3px; width: max-content; max-width: 100%; }
.tiles-of-pixels img { width: 100%; display: block; }
.answer td:last-child { text-align: right; }
"""
)


def explanation_page(explanation, title):
    """The page.

    Args:
        explanation: an `Explanation`.
        title: what is explained, such as the model and the photo.

    Returns:
        HTML with all pictures inside.
    """
    photo = explanation.photo
    overview = [_figure(photo_with(photo, grid), words) for grid, words in overview_panels(explanation)]
    layers = "".join(_figure(photo_with(photo, grid, SMALL_SIDE), words) for grid, words in layer_panels(explanation))
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _answer(explanation),
        f'<h2>What the answer draws on</h2><div class="photos large">{"".join(overview)}</div>',
        f'<p class="note">{ROLLOUT}</p>',
        _heads(explanation),
        f'<h2>Layer by layer</h2><p>{LAYERS}</p><div class="photos">{layers}</div>'
        if len(explanation.heads) > 1
        else "",
        _positions(explanation),
        _filters(explanation),
        _notes(explanation),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>{''.join(sections)}</html>"
    )


def _answer(explanation):
    rows = "".join(
        f'<tr><td>{html.escape(label)}<td><div class="bar" style="width:{max(160 * probability, 1):.0f}px"></div>'
        f"<td>{share(probability)}"
        for label, probability in explanation.answer
    )
    return f'<h2>What the model says</h2><table class="answer">{rows}</table>' if rows else ""


def _heads(explanation):
    tiles, down_name, across_name = head_tiles(explanation)
    down, across = tiles.shape[:2]
    side = min(72, max(28, 800 // across))
    cells = ["<span></span>", *(f"<span>{_named(across_name, place, across)}</span>" for place in range(across))]
    for row in range(down):
        cells.append(f"<span>{down_name} {row + 1}</span>")
        for place in range(across):
            grid = tiles[row, place]
            name = f"{down_name} {row + 1}, {across_name} {place + 1}: at most {share(grid.max())} to a patch"
            cells.append(_image(_map_png(of_largest(grid)), name, "pixels"))
    return (
        f"<h2>Every layer and head</h2><p>{html.escape(heads_words(explanation))}</p>"
        + _scale("nothing", "the largest of each map")
        + f'<div class="scroll"><div class="maps" style="grid-template-columns:auto repeat({across},{side}px)">'
        + "".join(cells)
        + "</div></div>"
    )


def _named(name, place, count):
    """The number of a column, with its name where there is room."""
    return f"{name} {place + 1}" if count <= 12 else f"{place + 1}"


def _positions(explanation):
    if explanation.positions is None:
        return ""
    similarity = explanation.positions
    down, across = similarity.shape[:2]
    values = stretched(similarity)
    cells = "".join(
        _image(_map_png(values[row, column], SIMILARITY), f"position {row + 1} down, {column + 1} across", "pixels")
        for row in range(down)
        for column in range(across)
    )
    return (
        f"<h2>Position embeddings</h2><p>{POSITIONS}</p>"
        + _scale(f"{similarity.min():.2f}", f"{similarity.max():.2f}", SIMILARITY)
        + f'<div class="tiles-of-pixels" style="grid-template-columns:repeat({across},minmax(0,72px))">{cells}</div>'
    )


def _filters(explanation):
    images = filters_as_rgb(explanation.filters)
    across = min(len(images), 14)
    cells = "".join(_image(_png(each), f"filter {number + 1}", "pixels") for number, each in enumerate(images))
    return (
        f"<h2>Patch filters</h2><p>{FILTERS}</p>"
        f'<div class="tiles-of-pixels" style="grid-template-columns:repeat({across},minmax(0,60px))">{cells}</div>'
    )


def _notes(explanation):
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in explanation.notes)


def _scale(low, high, colour_map=None):
    colours = in_colour(np.linspace(0, 1, 64)[None], *([colour_map] if colour_map else []))
    return f'<div class="scale">{low}{_image(_png(colours), f"from {low} to {high}")}{high}</div>'


def _figure(pixels, caption):
    caption = html.escape(caption)
    return f'<figure><img alt="{caption}" src="{_jpeg(pixels)}"><figcaption>{caption}</figcaption></figure>'


def _image(source, name, css=""):
    name = html.escape(name)
    return f'<img class="{css}" alt="{name}" title="{name}" src="{source}">'


def _map_png(values, colour_map=ATTENTION):
    """Values 0..1 `(rows, columns)` as a picture of `COLOURS` colours: a page of a large model has hundreds of them."""
    image = Image.fromarray((np.asarray(values) * (COLOURS - 1)).round().astype(np.uint8))
    image.putpalette(in_colour(np.linspace(0, 1, COLOURS), colour_map).tobytes())
    return _encoded(image, "png", optimize=True)


def _png(pixels):
    return _encoded(Image.fromarray(np.ascontiguousarray(pixels)), "png", optimize=True)


def _jpeg(pixels):
    return _encoded(Image.fromarray(np.ascontiguousarray(pixels)), "jpeg", quality=85)


def _encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode()
