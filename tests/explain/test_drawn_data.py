"""Pictures by the data that they are drawn from: the lines and images of the figures, before a pixel is painted."""

import matplotlib.figure
import numpy as np
import pytest
from conftest import pixels, randomize
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import explain


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


def on_the_patches(drawn, grid):
    """A drawn map, averaged over each patch."""
    rows, columns = grid
    return np.asarray(Image.fromarray(np.asarray(drawn, np.float32)).resize((columns, rows), Image.Resampling.BOX))


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
    (figure,) = figures
    found = {}
    for axis in figure.axes:
        title = next((title for title in wanted if title in axis.get_title().lower()), None)
        if title and axis.get_images():
            overlay = on_the_patches(axis.get_images()[-1].get_array(), wanted[title].shape)
            alike = {other: np.corrcoef(overlay.ravel(), grid.ravel())[0, 1] for other, grid in wanted.items()}
            found[title] = max(alike, key=alike.get), round(alike[title], 2)
    assert found.keys() == wanted.keys()
    if len(maps) > 1:
        assert {title: best for title, (best, _) in found.items()} == {title: title for title in found}
    assert min(alike for _, alike in found.values()) > 0.9
    shown = [axis.get_images()[0].get_array() for axis in figure.axes if axis.get_images()]
    assert any(np.array_equal(np.squeeze(each), np.squeeze(picture)) for each in shown)


def test_predictions_stand_over_their_pictures(figures, tmp_path):
    pictures = pixels((8, 8, 3), 5)
    names = ["cat", "dog", "frog", "ship", "truck"]
    right = [True, False, True, True, False]
    explain.draw_predictions(pictures, names, tmp_path / "p.png", correct=right, columns=3)
    axes = [axis for axis in figures[0].axes if axis.get_images()]
    assert [axis.get_title() for axis in axes] == names
    assert [axis.title.get_color() for axis in axes] == ["green" if each else "red" for each in right]
    for axis, picture in zip(axes, pictures, strict=True):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), picture)
    assert len({round(axis.get_position().x0, 3) for axis in figures[0].axes}) == 3


def test_predictions_that_nobody_judged_are_black(figures, tmp_path):
    explain.draw_predictions(pixels((8, 8, 1), 2), ["a", "b"], tmp_path / "p.png")
    assert {axis.title.get_color() for axis in figures[0].axes} == {"black"}


def test_attention_of_a_distilled_model_leaves_out_both_tokens():
    model = kv.build("deit_distilled_test")
    randomize(model)
    weights = np.zeros((18, 18))  # class token, distillation token, 16 patches
    weights[0, 2:] = np.arange(16)
    np.testing.assert_array_equal(explain.token_attention(model, weights), np.arange(16).reshape(4, 4))
