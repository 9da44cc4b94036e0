"""What `keras-vit explain` shows: the arrays before drawing, the page, the picture, and what is refused."""

import json
import re

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import functional_model, pixels, randomize
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import explain
from keras_vit_plugin.cli import main
from keras_vit_plugin.explain import panels, render
from keras_vit_plugin.explain.attention import run_attention
from keras_vit_plugin.explain.pictures import attention_panels, check_explanation
from keras_vit_plugin.images.folders import check_channels
from keras_vit_plugin.images.preprocessing import preprocessing_of


def photo_of(model):
    return pixels(model.input_shape[1:], 1)[0]


def of(model, **options):
    return explain.explanation_of(model, photo_of(model), 1 / 255, 0.0, **options)


def made_up(layers=2, heads=3, rows=2, columns=3, shape=(16, 24, 3), **changes):
    """An explanation of random arrays."""
    generator = np.random.default_rng(0)
    values = {
        "photo": pixels(shape, 1)[0],
        "answer": (("<b>cat</b> & dog", 0.75), ("dog", 0.25)),
        "reader": "class token",
        "heads": generator.random((layers, heads, rows, columns)),
        "rollout": generator.random((rows, columns)),
        "positions": generator.uniform(-1, 1, (rows, columns, rows, columns)),
        "filters": generator.uniform(-1, 1, (4, 3, 2, 3)),
        "notes": ("A note <i>.",),
    }
    return explain.Explanation(**{**values, **changes})


@pytest.fixture(scope="module")
def distilled():
    keras.utils.set_random_seed(0)
    model = kv.build("deit_distilled_test")
    randomize(model)
    return model


def test_maps_are_those_of_the_tokens_that_the_answer_is_read_from(tiny_model):
    shown = of(tiny_model)
    maps = explain.attention_maps(tiny_model, (photo_of(tiny_model) / 255).astype("float32"))
    trunk = getattr(tiny_model, "backbone", tiny_model)
    prefix = trunk.tokens.num_prefix_tokens
    if getattr(tiny_model, "pooling", None) != "token":
        expected, reader = maps[:, :, prefix:].mean(2), "mean over the patches"
    elif trunk.use_distillation_token:
        expected, reader = maps[:, :, :2].mean(2), "class token and distillation token"
    else:
        expected, reader = maps[:, :, 0], "class token"
    np.testing.assert_allclose(shown.heads.reshape(*maps.shape[:2], -1), expected[..., prefix:], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(shown.layers, shown.heads.mean(1))
    assert shown.reader == reader


@pytest.mark.parametrize(
    "name, notes",
    [
        ("vit_test", ["Attention to the class token is left out of the maps."]),
        ("deit_distilled_test", ["Attention to the 2 tokens in front of the patches is left out of the maps."]),
        ("simple_vit_test", ["The model has no class token: the maps are the mean over what all patches attend to."]),
    ],
)
def test_what_is_left_out_of_the_maps_is_said(name, notes):
    assert [note for note in of(kv.build(name)).notes if "maps" in note] == notes


def headed(head, tokens=(True,), front=lambda images: images, shape=(16, 16, 3)):
    """A model of one's own: `front` on the images, patches of 4, one block, and a head on the tokens."""
    images = keras.Input(shape)
    x = kv.layers.PatchEmbedding(4, 8)(front(images))
    x = x if tokens is None else kv.layers.PrefixTokensAndPositions(*tokens)(x)
    model = keras.Model(images, keras.layers.Dense(3)(head(kv.layers.EncoderBlock(2, 16)(x))))
    randomize(model)
    return model


AVERAGE, CONCATENATE = keras.layers.GlobalAveragePooling1D, keras.layers.Concatenate
TOKEN, MEAN = kv.layers.TokenPooling, kv.layers.MeanPooling
UNKNOWN = (
    "What reads the tokens is not known: no TokenPooling, MeanPooling or GlobalAveragePooling1D does. The maps are "
)
NO_CLASS = "The model has no class token: the maps are "
ALL = "The answer is read from the mean over all tokens: the maps are the mean over what all of them attend to."
LEFT_OUT = "Attention to {} is left out of the maps."
ONE_LEFT_OUT = LEFT_OUT.format("the class token")


@pytest.mark.parametrize(
    "head, tokens, rows, reader, notes",
    [
        (AVERAGE(), (True,), slice(None), "mean over all tokens", [ALL, ONE_LEFT_OUT]),
        (MEAN(), (True,), slice(None), "mean over all tokens", [ALL, ONE_LEFT_OUT]),
        (
            AVERAGE(),
            None,
            slice(None),
            "mean over the patches",
            [NO_CLASS + "the mean over what all patches attend to."],
        ),
        (
            lambda x: AVERAGE()(keras.layers.Cropping1D((1, 0))(x)),
            (True,),
            slice(1, None),
            "mean over the patches",
            [
                "The answer is not read from the class token: the maps are the mean over what all patches do.",
                ONE_LEFT_OUT,
            ],
        ),
        (
            lambda x: CONCATENATE()([TOKEN(0)(x), MEAN(1)(x)]),
            (True,),
            [0],
            "class token",
            [
                "The answer is read from the class token and from the mean over the patches: the maps are those of the "
                "class token.",
                ONE_LEFT_OUT,
            ],
        ),
        (
            lambda x: CONCATENATE()([MEAN(1)(x), MEAN(2)(x)]),
            (True,),
            slice(1, None),
            "mean over the patches",
            [
                "The answer is not read from the class token: the maps are the mean over what all patches do.",
                ONE_LEFT_OUT,
            ],
        ),
        (lambda x: x[:, 0], (True,), [0], "class token", [f"{UNKNOWN}those of the class token, which", ONE_LEFT_OUT]),
        (
            keras.layers.Flatten(),
            None,
            slice(None),
            "mean over the patches",
            [f"{UNKNOWN}the mean over what all patches"],
        ),
        (TOKEN(0), (False,), [0], "patch 1", [NO_CLASS + "those of patch 1."]),
        (
            TOKEN(0),
            (False, False, 1),
            [0],
            "register 1",
            [NO_CLASS + "those of register 1.", LEFT_OUT.format("register 1")],
        ),
        (
            TOKEN(2),
            (True,),
            [2],
            "patch 2",
            ["The answer is not read from the class token: the maps are those of patch 2.", ONE_LEFT_OUT],
        ),
    ],
)
def test_the_maps_follow_what_reads_the_tokens(head, tokens, rows, reader, notes):
    model = headed(head, tokens)
    shown = of(model)
    maps = explain.attention_maps(model, (photo_of(model) / 255).astype("float32"))
    expected = maps[:, :, rows].mean(2)[..., -16:].reshape(1, 2, 4, 4)
    np.testing.assert_allclose(shown.heads, expected, rtol=1e-5, atol=1e-7)
    assert shown.reader == reader
    said = [note for note in shown.notes if "maps" in note]
    assert len(said) == len(notes) and all(map(str.startswith, said, notes)), said


class Own(keras.Model):
    """A subclassed model, whose layers Keras does not join to a graph."""

    def __init__(self, *front):
        super().__init__()
        self.parts = [
            *front,
            kv.layers.PatchEmbedding(4, 8),
            kv.layers.PrefixTokensAndPositions(),
            kv.layers.EncoderBlock(2, 16),
            AVERAGE(),
            keras.layers.Dense(3),
        ]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_a_subclassed_model_is_followed_too():
    model = Own()
    model(np.zeros((1, 16, 16, 3), np.float32))
    shown = explain.explanation_of(model, pixels((16, 16, 3), 1)[0], 1 / 255, 0.0)
    assert shown.reader == "mean over all tokens" and shown.notes[:2] == (ALL, ONE_LEFT_OUT)


LAYERS = keras.layers
WRONG_PLACE = "may lie over the wrong part of it: in front of its patches the model has "


def inside_a_model(layer, shape):
    return keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1 / 255), layer])


@pytest.mark.parametrize(
    "front, names",
    [
        (LAYERS.CenterCrop(16, 16), "CenterCrop"),
        (LAYERS.Cropping2D(4), "Cropping2D"),
        (LAYERS.ZeroPadding2D(4), "ZeroPadding2D"),
        (LAYERS.Resizing(16, 32, crop_to_aspect_ratio=True), "Resizing"),
        (LAYERS.Resizing(16, 32, pad_to_aspect_ratio=True), "Resizing"),
        (LAYERS.Conv2D(3, 9), "Conv2D"),
        (LAYERS.Permute((2, 1, 3)), "Permute"),
        (lambda x: LAYERS.ZeroPadding2D(8)(LAYERS.CenterCrop(16, 16)(x)), "CenterCrop, ZeroPadding2D"),
        (lambda x: x[:, 4:20, 4:20], "GetItem"),
        (inside_a_model(LAYERS.CenterCrop(16, 16), (32, 32, 3)), "CenterCrop"),
    ],
)
def test_maps_that_may_lie_over_the_wrong_part_of_the_photo_are_told(front, names):
    said = [note for note in of(headed(TOKEN(), front=front, shape=(32, 32, 3))).notes if WRONG_PLACE in note]
    assert len(said) == 1 and f"the model has {names}, which may crop, pad or move the photo." in said[0]


@pytest.mark.parametrize(
    "front",
    [
        LAYERS.Resizing(16, 24),
        LAYERS.Rescaling(1 / 255),
        LAYERS.Normalization(mean=1.0, variance=2.0),
        LAYERS.Conv2D(3, 3, padding="same"),
        LAYERS.AveragePooling2D(2),
        LAYERS.RandomFlip(),
        lambda x: LAYERS.Activation("relu")(LAYERS.BatchNormalization()(x)),
        lambda x: x[..., ::-1] / 255 - 0.5,
        inside_a_model(LAYERS.Resizing(16, 16), (32, 32, 3)),
    ],
)
def test_layers_that_leave_pixels_in_their_places_are_no_reason_for_a_note(front):
    assert not [note for note in of(headed(TOKEN(), front=front, shape=(32, 32, 3))).notes if WRONG_PLACE in note]


def test_a_crop_in_front_of_a_model_in_a_model_and_in_a_subclassed_one_is_told_too(distilled):
    outer = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.CenterCrop(16, 16), distilled])
    own = Own(keras.layers.CenterCrop(16, 16))
    own(np.zeros((1, 32, 32, 3), np.float32))
    for model in (outer, own):
        notes = explain.explanation_of(model, pixels((32, 32, 3), 1)[0], 1 / 255, 0.0).notes
        assert any(f"{WRONG_PLACE}CenterCrop" in note for note in notes)


class Cutting(Own):
    """A subclassed model that makes another image of a photo in its own code, which no layer tells of."""

    def __init__(self, cut):
        super().__init__()
        self.cut = cut

    def call(self, x):
        return super().call(self.cut(x))


@pytest.mark.parametrize(
    "cut, told",
    [
        (lambda x: x[:, 4:20, 4:20], True),
        (lambda x: keras.ops.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0))), True),
        (lambda x: x / 255, False),
    ],
)
def test_what_a_subclassed_model_does_itself_is_seen_by_the_size_of_what_it_cuts(cut, told):
    model = Cutting(cut)
    model(np.zeros((1, 32, 32, 3), np.float32))
    notes = explain.explanation_of(model, pixels((32, 32, 3), 1)[0], 1 / 255, 0.0).notes
    said = [note for note in notes if WRONG_PLACE in note]
    assert len(said) == told and all(f"{WRONG_PLACE}what it does itself, which may crop" in note for note in said)


def test_presets_are_shown_in_their_places(tiny_model):
    assert not [note for note in of(tiny_model).notes if WRONG_PLACE in note]


def test_of_a_backbone_it_is_said_that_what_reads_it_is_not_known():
    notes = of(kv.ViTBackbone((8, 8, 3), 4, 1, 2, 8, 16)).notes
    assert notes[0].startswith(UNKNOWN) and "names no classes" in notes[2]


def test_rollout_is_that_of_all_layers(distilled):
    shown = of(distilled)
    maps = explain.attention_maps(distilled, (photo_of(distilled) / 255).astype("float32"))
    expected = explain.attention_rollout(maps)[:2, 2:].mean(0).reshape(4, 4)
    np.testing.assert_allclose(shown.rollout, expected, rtol=1e-4)
    assert np.abs(shown.rollout - explain.attention_rollout(maps[-1:])[:2, 2:].mean(0).reshape(4, 4)).max() > 1e-3
    grids = [grid for grid, _ in panels.overview_panels(shown)]
    assert grids[0] is None and grids[2] is shown.rollout
    np.testing.assert_array_equal(grids[1], shown.layers[-1])


def test_drawn_panels_of_attention_are_rollout_and_layers(distilled):
    grid, maps = run_attention(distilled, np.zeros(distilled.image_shape, np.float32))
    drawn = dict(attention_panels(grid, maps))
    assert list(drawn) == ["image", "rollout", "layer 1", "layer 2"] and drawn["image"] is None
    np.testing.assert_allclose(drawn["rollout"], explain.token_attention(distilled, explain.attention_rollout(maps)))
    np.testing.assert_allclose(drawn["layer 1"], explain.token_attention(distilled, maps[0].mean(0)))
    assert np.abs(drawn["rollout"] - drawn["layer 2"]).max() > 1e-3


def test_a_model_of_ones_own_is_explained_and_left_as_it_was():
    model = functional_model()
    image = pixels((16, 16, 3), 1)[0]
    before = model(image[None].astype("float32"))
    shown = explain.explanation_of(model, image, 1.0, 0.0)
    assert shown.heads.shape == (1, 2, 4, 4) and shown.reader == "class token"
    np.testing.assert_array_equal(before, model(image[None].astype("float32")))
    assert not [layer.name for layer in model._flatten_layers() if "call" in vars(layer)]


def test_answer_names_the_most_likely_classes(distilled):
    count = distilled.num_classes
    shown = of(distilled, labels=[f"name {index}" for index in range(count)])
    logits = np.asarray(distilled(photo_of(distilled)[None] / 255))[0]
    assert shown.answer[0][0] == f"name {logits.argmax()}"
    assert [share for _, share in shown.answer] == sorted((share for _, share in shown.answer), reverse=True)
    np.testing.assert_allclose(shown.answer[0][1], np.exp(logits).max() / np.exp(logits).sum(), rtol=1e-4)
    with pytest.raises(ValueError, match="`labels` must hold one name per class"):
        of(distilled, labels=["one"])


def test_a_yes_has_the_probability_that_the_model_gives():
    images = keras.Input((16, 16, 3))
    x = TOKEN()(kv.layers.EncoderBlock(2, 16)(kv.layers.PatchEmbedding(4, 8)(images)))
    logit = keras.layers.Dense(1, "sigmoid", bias_initializer=keras.initializers.Constant(2.0))
    shown = of(keras.Model(images, logit(keras.layers.Rescaling(0.0)(x))))
    assert [label for label, _ in shown.answer] == ["yes", "no"]
    np.testing.assert_allclose([share for _, share in shown.answer], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])


def test_a_model_of_a_fixed_batch_is_given_as_many_photos():
    parts = [kv.layers.PatchEmbedding(4, 8), kv.layers.EncoderBlock(2, 16), MEAN(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input(batch_shape=(3, 16, 16, 3)), *parts])
    free = keras.Sequential([keras.Input((16, 16, 3)), *parts])
    seen = []
    call = parts[1].call
    parts[1].call = lambda x, **options: seen.append(x.shape[0]) or call(x, **options)
    fixed = of(model)
    assert set(seen) == {3}
    np.testing.assert_allclose(fixed.heads, of(free).heads, rtol=1e-5)


def test_position_similarity_is_the_cosine_of_the_patches_positions(distilled):
    similarity = explain.position_similarity(distilled)
    rows = np.asarray(distilled.backbone.tokens.position_embedding)[0, 2:].reshape(4, 4, -1)
    one, other = rows[1, 2], rows[3, 0]
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(similarity[1, 2, 3, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(similarity[1, 2, 1, 2], 1, rtol=1e-5)


def test_positions_that_are_zero_are_said_and_not_compared():
    model = kv.build("simple_vit_test")
    shown = of(model)
    assert shown.positions is None and any("are zero" in note for note in shown.notes)
    assert any("no class token" in note for note in shown.notes)
    with pytest.raises(ValueError, match="nothing to compare. All position embeddings are zero"):
        explain.position_similarity(model)
    assert "Position embeddings" not in explain.explanation_page(shown, "x")


def test_patch_filters_are_principal_components():
    model = kv.build("vit_test")
    kernel = np.asarray(model.backbone.patch_embedding.projection.kernel)
    direction = np.random.default_rng(0).normal(size=kernel.shape[:3])
    strength = np.random.default_rng(1).normal(size=kernel.shape[3])
    model.backbone.patch_embedding.projection.kernel.assign(direction[..., None] * strength + kernel / 1000)
    kernel = model.backbone.patch_embedding.projection.kernel
    kernel.assign(np.asarray(kernel) + 5 * np.random.default_rng(2).normal(size=kernel.shape[:3])[..., None])
    first = explain.patch_filters(model, most=3)  # what all filters share is no component
    assert first.shape == (3, *kernel.shape[:3]) and np.abs(first).max() == 1
    assert abs(np.corrcoef(first[0].ravel(), direction.ravel())[0, 1]) > 0.999


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_filters_that_are_neither_grey_nor_rgb_are_shown_as_their_mean_and_that_is_said(channels):
    model = kv.ViTImageClassifier(kv.ViTBackbone((8, 8, channels), 4, 1, 2, 8, 16), 3)
    shown, filters = of(model), explain.patch_filters(model)
    said = [note for note in shown.notes if "filter" in note]
    if channels == 4:
        np.testing.assert_array_equal(shown.filters, filters.mean(-1, keepdims=True))
        assert said == ["A patch filter is shown as the mean over its 4 channels."]
    else:
        np.testing.assert_array_equal(shown.filters, filters)
        assert said == []


def test_validation_curves_are_validation_values():
    history = {"loss": [3, 2], "val_loss": [4, 5], "sparse_categorical_accuracy": [0.1, 0.2], "val_loss2": [9]}
    assert explain.training_curves(history) == {
        "loss": {"training": [3, 2], "validation": [4, 5]},
        "accuracy": {"training": [0.1, 0.2]},
    }


def test_the_photo_is_grey_where_the_map_is_least_and_bright_where_it_is_largest():
    photo = np.full((32, 64, 3), 100, np.uint8)
    shown = render.photo_with(photo, np.array([[0.1, 0.9]])).astype(int)
    left, right = shown[:, : shown.shape[1] // 2], shown[:, shown.shape[1] // 2 :]
    assert right.sum() > 1.5 * left.sum() and max(shown.shape) >= render.LEAST_SIDE
    np.testing.assert_array_equal(render.photo_with(photo, None), render.as_rgb(photo))
    assert render.as_rgb(np.zeros((7, 56, 3), np.uint8)).shape == (28, 224, 3)  # its longer side is 224
    np.testing.assert_array_equal(render.stretched(np.full((2, 2), 7.0)), np.full((2, 2), 0.5))


def test_each_map_is_shown_by_its_own_largest_value():
    """Attention to one of hundreds of patches is small; a map without any stays dark."""
    maps = np.array([[[0.001, 0.004]], [[0.5, 0.25]], [[0.0, 0.0]]])
    np.testing.assert_allclose(render.of_largest(maps), [[[0.25, 1]], [[1, 0.5]], [[0, 0]]])


def test_mosaic_places_every_tile():
    tiles = np.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    values, repeats = render.mosaic(tiles)
    assert values.shape == (33, 50) and repeats == 1 and np.isnan(values[16]).all() and np.isnan(values[:, 16]).all()
    np.testing.assert_array_equal(values[17:, 34:], tiles[1, 2])


def test_the_longer_of_layers_and_heads_goes_across():
    many_layers, many_heads = made_up(layers=5, heads=2), made_up(layers=1, heads=4)
    tiles, down, across = panels.head_tiles(many_layers)
    assert tiles.shape[:2] == (2, 5) and (down, across) == ("head", "layer")
    np.testing.assert_array_equal(tiles[1, 3], many_layers.heads[3, 1])
    assert panels.head_tiles(many_heads)[0].shape[:2] == (1, 4) and panels.head_tiles(many_heads)[1:] == (
        "layer",
        "head",
    )


def test_maps_that_show_nothing_say_so():
    assert "nearly even, 25\u00a0% to each" in panels.range_words(np.array([[0.25, 0.26], [0.25, 0.24]]))
    assert panels.range_words(np.array([[0.01, 0.5]])) == "1\u00a0% (grey) to 50\u00a0% (bright) to a patch"


def test_the_page_needs_nothing_beside_it_and_escapes_names():
    page = explain.explanation_page(made_up(), "<script>alert(1)</script>")
    assert set(re.findall(r'src="(\w+:\w+/\w+)', page)) == {"data:image/png", "data:image/jpeg"}
    assert "http" not in page and "<script" not in page and "<b>cat" not in page and "<i>" not in page
    assert "&lt;b&gt;cat&lt;/b&gt; &amp; dog" in page and "prefers-color-scheme: dark" in page
    assert page.count("<figure>") == 3 + 2 and page.count('title="layer') == 6
    many = explain.explanation_page(made_up(filters=np.zeros((20, 3, 2, 3))), "x")
    assert "repeat(4,minmax(0,60px))" in page and "repeat(14,minmax(0,60px))" in many  # filters in a row
    assert "width=device-width" in page


def test_a_page_of_many_layers_stays_small():
    photo = np.indices((384, 384)).sum(0)[..., None].repeat(3, 2).astype(np.uint8)
    page = explain.explanation_page(made_up(24, 16, 24, 24, photo=photo), "large")
    assert page.count('title="head') == 24 * 16 and page.count("<figure>") == 3 + 24
    assert len(page) < 2e6


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 2, "columns": 12, "shape": (16, 96, 3)},
        {"layers": 1, "heads": 1, "positions": None, "shape": (16, 24, 1)},
        {"layers": 14, "heads": 1, "shape": (96, 16, 5), "answer": (), "notes": ()},
    ],
)
def test_pictures_of_odd_shapes(changes, tmp_path):
    shown = made_up(**changes)
    explain.write_explanation(shown, "odd", tmp_path / "o.png", "dark")
    picture = np.asarray(Image.open(tmp_path / "o.png").convert("RGB"))
    assert picture.std() > 5 and tuple(picture[0, 0]) == (13, 17, 23)  # the dark page's colour
    assert "<figure>" in explain.explanation_page(shown, "odd")


@pytest.mark.parametrize("name, begins", [("E.HTML", b"<!doctype html"), ("E.Png", b"\x89PNG"), ("e", b"\x89PNG")])
def test_a_suffix_may_be_in_capitals(name, begins, tmp_path):
    explain.write_explanation(made_up(), "x", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    check_explanation(tmp_path / "E.HTML", None, (".html", ".png"), "out")
    with pytest.raises(ValueError, match="`theme` is for a picture"):
        check_explanation(tmp_path / "E.HTML", "dark")
    with pytest.raises(ValueError, match="`theme` is for a picture"):
        explain.write_explanation(made_up(), "x", tmp_path / "e.html", "dark")
    assert not (tmp_path / "e.html").exists()


def test_a_model_of_other_channels_than_files_have_is_refused_for_what_it_is(tmp_path):
    model = kv.ViTImageClassifier(kv.ViTBackbone((8, 8, 4), 4, 1, 2, 8, 16), 3)
    with pytest.raises(ValueError, match=r"takes 4 channels.*: the command cannot show .* takes pixels \(8, 8, 4\)"):
        explain.explain_photo(model, "x.png")
    with pytest.raises(ValueError, match="in Python; the command takes files alone"):
        check_channels(preprocessing_of(model), "calibration")


def test_models_that_cannot_be_explained_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="must have one PatchEmbedding and .* got a Sequential with 0 and 0 of them"):
        explain.explain_photo(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), "x.png")
    images = keras.Input((16, 16, 3))
    x = kv.layers.PatchEmbedding(4, 16)(images)
    x = keras.layers.AveragePooling1D(2)(kv.layers.EncoderBlock(2, 32)(x))
    model = keras.Model(images, kv.layers.MeanPooling()(kv.layers.EncoderBlock(2, 32)(x)))
    with pytest.raises(ValueError, match="cannot be laid over the image: its layers see 2 heads of 16 tokens, 2 heads"):
        explain.attention_maps(model, np.zeros((16, 16, 3)))


@pytest.mark.parametrize("block", [0, -1])
def test_attention_that_is_no_number_is_refused_in_a_sentence(block):
    model = kv.build("vit_test")
    query = model.backbone.blocks[block].attention.query.kernel
    query.assign(np.full(query.shape, np.inf))
    with pytest.raises(ValueError, match="The attention of the model is NaN or infinite.*: look at its weights"):
        of(model)


def test_huge_positions_are_compared_by_direction():
    model = kv.build("vit_test")
    embedding = model.backbone.tokens.position_embedding
    randomize(model)
    before = explain.position_similarity(model)
    embedding.assign(np.asarray(embedding) * np.float32(1e25))
    np.testing.assert_allclose(explain.position_similarity(model), before, atol=1e-5)


def command(*arguments, code=0):
    result = CliRunner().invoke(main, ["explain", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_writes_a_page_and_a_picture(tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(pixels((40, 90, 3), 1)[0]).save(photo)  # a wide one
    told = json.loads(command("vit_digits", photo, "--out", tmp_path / "p.html", "--json"))
    assert told["answer"][0]["label"] in "0123456789" and told["heads"] == 4 and len(told["layers"]) == 4
    page = (tmp_path / "p.html").read_text()
    assert "vit_digits on photo.png" in page
    assert "Written" in command("vit_digits", photo, "--out", tmp_path / "p.png", "--theme", "dark")
    assert Image.open(tmp_path / "p.png").size[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("photo.png", "--out", "x.gif"), "`out` must end in .html or .png, got out='x.gif'"),
        (("photo.png", "--out", "no/x.png"), "`out` cannot be written"),
        (("none.png", "--out", "x.png"), "No photo: 'none.png'"),
        (("text.png", "--out", "x.png"), "text.png is no image that can be read"),
        (("photo.png", "--out", "x.png", "--theme", "blue"), "`theme` must be one of light, dark, got theme='blue'"),
        (("photo.png", "--out", "x.html", "--theme", "dark"), "`theme` is for a picture"),
    ],
)
def test_the_command_refuses_in_a_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(pixels((8, 8, 3), 1)[0]).save("photo.png")
    said = command("vit_digits", *arguments, code=1)
    assert sentence in said and "Traceback" not in said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("x.")]
