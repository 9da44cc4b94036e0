"""Pictures by the data that they are drawn from: the lines and images of the figures, before a pixel is painted."""

import base64
import io
import re
import warnings
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest
from conftest import pixels
from matplotlib import colormaps
from matplotlib.text import Text
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import explain
from keras_vit_plugin.explain import panels
from keras_vit_plugin.explain.render import photo_with
from keras_vit_plugin.export.verification import debug_picture
from keras_vit_plugin.export.verification.debug import DebugReport
from keras_vit_plugin.export.verification.op_error import OpError
from keras_vit_plugin.plot_style import LIGHT


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *arguments, **keywords):
        saved.append(figure)
        return save(figure, *arguments, **keywords)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return saved


HISTORY = {
    "accuracy": [0.1, 0.3, 0.6],
    "loss": [2.0, 1.5, 1.1],
    "val_accuracy": [0.2, 0.25, 0.4],
    "val_loss": [2.1, 1.9, 1.8],
}


def test_each_curve_has_its_own_values(figures, tmp_path):
    explain.draw_training_curves(HISTORY, tmp_path / "c.png")
    (figure,) = figures
    drawn = {}
    for axis in figure.axes:
        assert len(axis.get_legend().get_texts()) == 2
        for line in axis.get_lines():
            kind = "val_" if "valid" in line.get_label().lower() else ""
            assert kind or "train" in line.get_label().lower()
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            drawn[kind + axis.get_ylabel().lower()] = list(line.get_ydata())
    assert drawn == HISTORY


def test_curves_without_validation_have_one_line(figures, tmp_path):
    history = {"sparse_categorical_accuracy": [0.1, 0.2], "loss": [2.0, 1.0]}
    explain.draw_training_curves(history, tmp_path / "c.png")
    lines = [list(line.get_ydata()) for axis in figures[0].axes for line in axis.get_lines()]
    assert sorted(lines) == sorted(history.values())


@pytest.mark.parametrize("name", ["vit_registers_test", "vit_test", "simple_vit_test"])
def test_panels_of_attention_show_what_they_are_called(name, figures, tmp_path):
    model = kv.build(name)
    for weight in model.weights:  # attention that differs much between layers and tokens
        weight.assign(np.random.default_rng(3).normal(0, 0.5, weight.shape))
    picture = pixels(model.image_shape, 1)[0]
    image = (picture / 255).astype("float32")
    maps = explain.attention_maps(model, image)
    wanted = {f"layer {i + 1}": layer.mean(axis=0) for i, layer in enumerate(maps)}
    wanted["rollout"] = explain.attention_rollout(maps)
    wanted = {title: explain.token_attention(model, weights) for title, weights in wanted.items()}

    explain.draw_attention(model, image, picture, tmp_path / "a.png")
    drawn = {axis.get_title(): axis.get_images()[0].get_array() for axis in figures[0].axes if axis.get_images()}
    assert drawn.keys() == {"image", *wanted}
    np.testing.assert_array_equal(drawn["image"], photo_with(picture, None))
    for title, grid in wanted.items():
        np.testing.assert_array_equal(drawn[title], photo_with(picture, grid))
    assert len(maps) == 1 or len({each.tobytes() for each in drawn.values()}) == len(drawn)


def test_predictions_stand_over_their_pictures(figures, tmp_path):
    pictures = pixels((8, 8, 3), 5)
    names = ["cat", "dog", "frog", "ship", "truck"]
    right = [True, False, True, True, False]
    explain.draw_predictions(pictures, names, tmp_path / "p.png", correct=right, columns=3)
    axes = [axis for axis in figures[0].axes if axis.get_images()]
    assert [axis.get_title() for axis in axes] == ["cat", "✗ dog", "frog", "ship", "✗ truck"]
    assert [axis.title.get_color() for axis in axes] == [LIGHT.right if each else LIGHT.wrong for each in right]
    for axis, picture in zip(axes, pictures, strict=True):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), picture)
    assert len({round(axis.get_position().x0, 3) for axis in figures[0].axes}) == 3


def test_predictions_that_nobody_judged_have_the_colour_of_text(figures, tmp_path):
    explain.draw_predictions(pixels((8, 8, 1), 2), ["a", "b"], tmp_path / "p.png")
    assert {axis.title.get_color() for axis in figures[0].axes} == {LIGHT.text}


def made_up(rows, columns, positions=None, **changes):
    """An explanation of 6 layers and 3 heads, of random arrays."""
    generator = np.random.default_rng(0)
    values = {
        "photo": pixels((8 * rows, 8 * columns, 3), 1)[0],
        "answer": (("cat", 0.75), ("dog", 0.25)),
        "reader": "class token",
        "heads": generator.random((6, 3, rows, columns)),
        "rollout": generator.random((rows, columns)),
        "positions": positions,
        "filters": generator.random((4, 3, 2, 3)),
        "notes": (),
    }
    return explain.Explanation(**{**values, **changes})


def test_the_parts_of_an_explanation_are_as_high_as_its_photo_makes_them(figures, tmp_path):
    heights = []
    for rows, columns in ((2, 4), (4, 2)):  # a wide photo and a high one, with as many patches
        explain.write_explanation(made_up(rows, columns), "made up", tmp_path / "e.png", "light")
        parts = figures[-1].subfigs
        heights.append([part.bbox.height / figures[-1].dpi for part in parts])
    (wide, high) = np.array(heights)[:, :3]  # overview, heads, layers
    assert (high > 1.5 * wide).all() and (high < 5 * wide).all()
    for figure in figures:
        for axis in figure.axes:
            if axis.get_images():  # a map takes most of its place
                axis.apply_aspect()
                drawn, place = axis.get_position(), axis.get_position(original=True)
                assert drawn.width * drawn.height > 0.3 * place.width * place.height


def test_colours_run_from_the_least_to_the_largest_that_their_bar_says(figures, tmp_path):
    """The small maps of the heads each up to their largest value, the position embeddings up to a cosine of 1."""
    positions = np.random.default_rng(0).uniform(-0.5, 0.9, (2, 4, 2, 4))
    explain.write_explanation(made_up(2, 4, positions), "made up", tmp_path / "e.png")
    bars = [image.colorbar for axis in figures[0].axes for image in axis.get_images() if image.colorbar]
    words = [("0", "largest\nof the map"), (f"{positions.min():.2f}", "1")]
    for bar, least, labels in zip(bars, (0, positions.min()), words, strict=True):
        assert list(bar.get_ticks()) == list(bar.ax.get_ylim()) == list(bar.mappable.get_clim()) == [least, 1]
        assert tuple(label.get_text() for label in bar.ax.get_yticklabels()) == labels


def texts_of(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def draw_with_names(name, path):
    """A picture of each kind with a name of the user's in it: an explanation, predictions, curves, errors."""
    explain.write_explanation(made_up(2, 4, answer=((name, 0.75),), notes=(f"{name}.",)), name, path)
    explain.draw_predictions(pixels((8, 8, 3), 1), [name], path)
    explain.draw_training_curves({"loss": [2.0], f"{name}_accuracy": [0.1]}, path)
    op = OpError("op", name, name, "int8", 3.0, 1.0, -1.0, 1.0, 0.0, "rounding")
    debug_picture.draw(DebugReport("int8", 1, 3.0, (op,)), path)


@pytest.mark.parametrize("name", ["a$b_{$x^", r"$x_1$ & $\frac{1}{2}$"])
def test_dollars_in_names_are_no_formulas(name, figures, tmp_path):
    draw_with_names(name, tmp_path / "e.png")
    assert len(figures) == 4
    for figure in figures:
        assert any(name in text.get_text() for text in texts_of(figure))
        assert not any(text.get_parse_math() for text in texts_of(figure))


def test_names_that_the_font_lacks_are_drawn_without_a_warning(figures, tmp_path):
    with warnings.catch_warnings(action="error"):
        draw_with_names("\u6570\u5b57", tmp_path / "e.png")
    assert any("\u6570\u5b57" in text.get_text() for text in texts_of(figures[0]))


def test_bytes_of_a_name_that_are_no_text_are_written_out(figures, tmp_path):
    """Linux gives a file's name `caf\\xe9` as `caf\\udce9`, which no font can draw and no page can hold."""
    for name in ("e.png", "e.html"):
        explain.write_explanation(made_up(2, 4), "caf\udce9", tmp_path / name)
    assert any(r"caf\udce9" in text.get_text() for text in texts_of(figures[0]))
    assert r"caf\udce9" in (tmp_path / "e.html").read_text(encoding="utf-8")


# ---- What the page and the picture of an explanation show, and what they call it ----

TILE = re.compile(r'title="([^"]*)" src="data:image/png;base64,([^"]+)"')


def distinct(rows=3, columns=4):
    """An explanation of which no two parts, and no part and its mirror image, are alike."""
    generator = np.random.default_rng(5)
    positions = generator.uniform(-0.5, 1, (rows, columns, rows, columns))
    return made_up(rows, columns, positions, filters=generator.uniform(-1, 1, (4, 3, 2, 3)))


def tiles_of(page):
    """`{title: uint8 RGB}` of the page's small pictures that have a title."""
    decoded = {name: Image.open(io.BytesIO(base64.b64decode(content))) for name, content in TILE.findall(page)}
    return {name: np.asarray(image.convert("RGB")) for name, image in decoded.items()}


def coloured(values, name):  # of which the page has 64
    return np.asarray(colormaps[name](values))[..., :3] * 255


def test_tiles_of_the_page_are_the_maps_that_they_are_called():
    shown = distinct()
    tiles = tiles_of(explain.explanation_page(shown, "made up"))
    found = {name: tile for name, tile in tiles.items() if name.startswith("head")}
    assert len(found) == 6 * 3
    for layer in range(6):
        for head in range(3):
            grid = shown.heads[layer, head]
            name = f"head {head + 1}, layer {layer + 1}: at most {panels.share(grid.max())} to a patch"
            np.testing.assert_allclose(found[name], coloured(grid / grid.max(), "inferno"), atol=12)


def test_of_more_heads_than_layers_the_tiles_are_called_by_their_layers_first():
    shown = made_up(3, 4, heads=np.random.default_rng(5).random((2, 5, 3, 4)))
    tiles = tiles_of(explain.explanation_page(shown, "made up"))
    grid = shown.heads[1, 3]
    name = f"layer 2, head 4: at most {panels.share(grid.max())} to a patch"
    np.testing.assert_allclose(tiles[name], coloured(grid / grid.max(), "inferno"), atol=12)


def test_positions_of_the_page_are_those_of_the_place_that_they_are_called_by():
    shown = distinct()
    tiles = tiles_of(explain.explanation_page(shown, "made up"))
    values = (shown.positions - shown.positions.min()) / np.ptp(shown.positions)
    for row in range(3):
        for column in range(4):
            tile = tiles[f"position {row + 1} down, {column + 1} across"]
            np.testing.assert_allclose(tile, coloured(values[row, column], "viridis"), atol=12)


def test_filters_of_the_page_are_in_their_order():
    shown = distinct()
    tiles = tiles_of(explain.explanation_page(shown, "made up"))
    for number, weights in enumerate(shown.filters, 1):
        np.testing.assert_allclose(tiles[f"filter {number}"], 127.5 + 127.5 * weights, atol=1)


def test_the_page_gives_each_answer_its_own_share():
    page = explain.explanation_page(made_up(2, 2, answer=(("cat", 0.7), ("dog", 0.2))), "made up")
    rows = re.findall(r'<tr><td>(\w+)<td><div class="bar" style="width:(\d+)px"></div><td>(\d+)', page)
    assert rows == [("cat", "112", "70"), ("dog", "32", "20")]


def test_layers_are_numbered_from_the_first():
    shown = distinct()
    numbered = panels.layer_panels(shown)
    assert [words.split(":")[0] for _, words in numbered] == [f"layer {number}" for number in range(1, 7)]
    for (grid, words), layer in zip(numbered, shown.heads, strict=True):
        np.testing.assert_array_equal(grid, layer.mean(0))
        assert panels.range_words(layer.mean(0)) in words


@pytest.mark.parametrize("count", [1, 2])
def test_the_page_shows_layers_one_by_one_where_there_are_several(count):
    """One layer is the last of the overview."""
    shown = distinct()
    page = explain.explanation_page(replace(shown, heads=shown.heads[:count]), "made up")
    captions = re.findall(r"<figcaption>layer (\d+): ", page)
    assert captions == (["1", "2"] if count == 2 else []) and ("<h2>Layer by layer</h2>" in page) == (count == 2)
    sections = re.findall("<h2>([^<]+)</h2>", page)
    assert [name for name in sections if name != "Layer by layer"] == [
        "What the model says",
        "What the answer draws on",
        "Every layer and head",
        "Position embeddings",
        "Patch filters",
    ]


def drawn_by_title(figure):
    """`{first line of the title: what is drawn}` of a figure's images."""
    return {axis.get_title().split("\n")[0]: axis.get_images()[0] for axis in figure.axes if axis.get_images()}


def unmosaicked(values, down, across):
    """Tiles of a mosaic `(down, across, rows, columns)`, without the gaps."""
    height, width = (values.shape[0] + 1) // down, (values.shape[1] + 1) // across
    starts = [[(row * height, column * width) for column in range(across)] for row in range(down)]
    return np.array([[values[y : y + height - 1, x : x + width - 1] for y, x in row] for row in starts])


def test_the_picture_shows_what_it_says(figures, tmp_path):
    shown = distinct()
    explain.draw_explanation(shown, "made up", tmp_path / "e.png")
    (figure,) = figures
    assert figure.get_suptitle() == "made up: cat, 75\u00a0%"
    images = drawn_by_title(figure)

    heads = images[""]
    axis = heads.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("layer", "head")
    tiles = unmosaicked(np.asarray(heads.get_array()), 3, 6)
    repeats = tiles.shape[2] // 3
    for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True):
        head = int(label.get_text()) - 1
        assert head == int(place) // (3 * repeats + 1)
        for layer in range(6):
            grid = shown.heads[layer, head]
            np.testing.assert_allclose(tiles[head, layer, ::repeats, ::repeats], grid / grid.max())
    assert [label.get_text() for label in axis.get_xticklabels()] == list("123456")
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top

    assert [title for title in images if title.startswith("layer")] == [f"layer {number}" for number in range(1, 7)]
    for number, layer in enumerate(shown.layers, 1):
        np.testing.assert_array_equal(images[f"layer {number}"].get_array(), photo_with(shown.photo, layer))

    places = unmosaicked(np.asarray(images["Position embeddings"].get_array()), 3, 4)
    repeats = places.shape[2] // 3
    np.testing.assert_allclose(places[:, :, ::repeats, ::repeats], shown.positions)

    filters = np.asarray(images["Patch filters"].get_array())[..., :3]
    across = [filters[:, x : x + filters.shape[1] // 4] for x in range(0, filters.shape[1], filters.shape[1] // 4 + 1)]
    for tile, weights in zip(across, shown.filters, strict=True):
        np.testing.assert_allclose(tile[0, 0], 0.5 + 0.5 * weights[0, 0], atol=0.01)
        np.testing.assert_allclose(tile[-1, -1], 0.5 + 0.5 * weights[-1, -1], atol=0.01)


def test_tall_pictures_have_tall_axes(figures, tmp_path):
    for shape in ((40, 10, 3), (10, 40, 3)):
        explain.draw_predictions(pixels(shape, 2), ["a", "b"], tmp_path / "p.png")
    tall, wide = (figure.get_size_inches()[1] for figure in figures)
    assert tall > 4 * wide


def test_one_layer_is_shown_once(figures, tmp_path):
    shown = distinct()
    explain.draw_explanation(replace(shown, heads=shown.heads[:1]), "made up", tmp_path / "e.png")
    titles = [title for title in drawn_by_title(figures[0]) if title.startswith("layer")]
    assert titles == []  # the overview has it


def test_the_overview_shows_the_photo_the_last_layer_and_the_rollout(figures, tmp_path):
    shown = distinct()
    explain.draw_explanation(shown, "made up", tmp_path / "e.png")
    drawn = [axis for axis in figures[0].axes if axis.get_images()][:3]
    for axis, grid, begins in zip(
        drawn, (None, shown.layers[-1], shown.rollout), ("What the model", "Attention in the last layer", "Rollout")
    ):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), photo_with(shown.photo, grid))
        assert axis.get_title().startswith(begins)
