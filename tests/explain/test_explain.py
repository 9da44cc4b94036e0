"""Attention maps and rollout against independent NumPy; pictures that are pictures."""

import numpy as np
import pytest
from conftest import pixels, randomize, run_python
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import explain


def image_of(model):
    return (pixels(model.image_shape, 1)[0] / 255).astype("float32")


def test_maps_are_probabilities_of_every_layer_and_head(tiny_model):
    maps = explain.attention_maps(tiny_model, image_of(tiny_model))
    trunk = getattr(tiny_model, "backbone", tiny_model)
    tokens = trunk.tokens.num_prefix_tokens + trunk.tokens.num_patches
    assert maps.shape == (trunk.num_layers, trunk.num_heads, tokens, tokens)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert maps.min() >= 0


def test_maps_of_the_second_layer_are_those_of_the_formula():
    model = kv.build("vit_test")
    randomize(model)
    image = image_of(model)
    trunk = model.backbone
    x = trunk.tokens(trunk.patch_embedding(image[None]))
    x = np.asarray(trunk.blocks[1].attention_norm(trunk.blocks[0](x)))[0]
    attention = trunk.blocks[1].attention
    query, key = (x @ np.asarray(d.kernel) + np.asarray(d.bias) for d in (attention.query, attention.key))
    scores = query[:, 16:] @ key[:, 16:].T / 4  # the second head of two, 16 wide
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(explain.attention_maps(model, image)[1, 1], expected, rtol=1e-3, atol=1e-5)


def test_rollout_against_its_definition():
    generator = np.random.default_rng(0)
    maps = generator.dirichlet(np.ones(5), size=(3, 2, 5))
    # Abnar & Zuidema, eq. 1: A~(l) = A(l) A~(l-1), with A = 0.5 mean over heads + 0.5 I, summed path by path.
    layers = [0.5 * (maps[layer, 0] + maps[layer, 1]) / 2 + 0.5 * np.eye(5) for layer in range(3)]
    expected = np.zeros((5, 5))
    for target in range(5):
        for source in range(5):
            for middle in range(5):
                for other in range(5):
                    expected[target, source] += (
                        layers[2][target, middle] * layers[1][middle, other] * layers[0][other, source]
                    )
    rollout = explain.attention_rollout(maps)
    np.testing.assert_allclose(rollout, expected, rtol=1e-12)
    np.testing.assert_allclose(rollout.sum(-1), 1)


def test_token_attention_leaves_out_the_prefix():
    model = kv.build("vit_registers_test")
    weights = np.zeros((20, 20))  # class token, 3 registers, 16 patches
    weights[0, 4:] = np.arange(16)
    np.testing.assert_array_equal(explain.token_attention(model, weights), np.arange(16).reshape(4, 4))
    mean = explain.token_attention(kv.build("simple_vit_test"), np.arange(16.0).reshape(4, 4))
    np.testing.assert_array_equal(mean, [[6, 7], [8, 9]])


def test_errors():
    import keras

    model = kv.build("vit_test")
    with pytest.raises(ValueError, match=r"model's shape \(16, 16, 3\), got \(8, 8, 3\)"):
        explain.attention_maps(model, np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="got a Sequential"):
        explain.attention_maps(keras.Sequential(), np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="layers, heads, tokens, tokens"):
        explain.attention_rollout(np.zeros((5, 5)))
    with pytest.raises(ValueError, match="must hold 'loss'"):
        explain.draw_training_curves({"accuracy": [1]}, "never.png")


@pytest.fixture(scope="module")
def model():
    return kv.build("vit_test")  # 16 patches and a class token


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: explain.attention_rollout(None), r"`maps` must hold numbers \(layers, heads, .*, got maps=None"),
        (lambda m: explain.attention_rollout("abc"), "`maps` must hold numbers .*, got maps='abc'"),
        (
            lambda m: explain.attention_rollout([np.zeros((2, 3, 3)), np.zeros((2, 4, 4))]),
            r"`maps` must have shape .*, got layers of \(2, 3, 3\), \(2, 4, 4\)",
        ),
        (lambda m: explain.attention_rollout([]), "`maps` must have shape .*, got no layer"),
        (lambda m: explain.attention_rollout(np.zeros((2, 0, 3, 3))), r"`maps` .*, got layers of \(0, 3, 3\)"),
        (lambda m: explain.attention_rollout(np.zeros((1, 2, 1, 3))), r"`maps` .*, got layers of \(2, 1, 3\)"),
        (lambda m: explain.attention_rollout(np.zeros((2, 1, 3, 1))), r"`maps` .*, got layers of \(1, 3, 1\)"),
        (lambda m: explain.attention_rollout(np.zeros((2, 1, 2, 3, 3))), r"`maps` .*, got layers of \(1, 2, 3, 3\)"),
        (
            lambda m: explain.token_attention(m, np.zeros((3, 3))),
            r"`weights` .* this model \(17, 17\), got .* \(3, 3\)",
        ),
        (lambda m: explain.token_attention(m, np.zeros(17)), r"`weights` .* got an array of shape \(17,\)"),
        (lambda m: explain.token_attention(m, None), r"`weights` .* got None"),
        (lambda m: explain.token_attention(None, np.zeros((17, 17))), "`model` must have .* got a NoneType"),
        (lambda m: explain.explain_photo(m, None), "`path` must be the path of an image file, got path=None"),
        (lambda m: explain.explain_photo(m, b"p.png"), "`path` must be .* got path=b'p.png'"),
        (lambda m: explain.explain_photo(m, np.dtype(("i1", (2,)))), r"got path=dtype\(\('i1', \(2,\)\)\)"),
        (
            lambda m: explain.explain_photo(m, np.zeros((16, 16, 3))),
            r"`path` must be .* got path=an array of shape \(16, 16, 3\) and dtype float64\.$",
        ),
        (
            lambda m: explain.explanation_of(m, np.zeros((8, 8, 3), np.uint8), 1, 0),
            r"`photo` must be uint8 .* \(16, 16, 3\), got an array of shape \(8, 8, 3\)",
        ),
        (lambda m: explain.explanation_of(m, np.zeros((16, 16, 3)), 1, 0), "`photo` must be uint8 .* dtype float64"),
        (lambda m: explain.explanation_of(m, None, 1, 0), "`photo` must be uint8 .*, got None"),
        (lambda m: explain.patch_filters(m, -1), "`most` must be a positive integer, got most=-1"),
        (lambda m: explain.patch_filters(m, 0), "`most` must be a positive integer, got most=0"),
        (lambda m: explain.patch_filters(m, 2.5), "`most` must be a positive integer, got most=2.5"),
        (lambda m: explain.draw_training_curves({"loss": []}, "never.png"), r"`history` must hold a loss .*loss=\[\]"),
        (lambda m: explain.draw_training_curves({"loss": 1.5}, "never.png"), "`history` must hold .* got loss=1.5"),
        (lambda m: explain.draw_training_curves(None, "never.png"), "`history` must be .* got history=None"),
        (
            lambda m: explain.draw_predictions(pixels((8, 8, 3), 3), ["a"], "never.png"),
            "`names` .*: got 1 for 3 pictures",
        ),
        (
            lambda m: explain.draw_predictions(pixels((8, 8, 3), 2), ["a", "b"], "never.png", correct=[True]),
            "`correct` must hold one of each picture: got 1 for 2 pictures",
        ),
        (lambda m: explain.draw_predictions(pixels((8, 8, 3), 2), None, "never.png"), "`names` .* got names=None"),
        (
            lambda m: explain.draw_predictions(pixels((8, 8, 3), 0), [], "never.png"),
            r"`pictures` must .* \(0, 8, 8, 3\)",
        ),
        (
            lambda m: explain.draw_predictions(None, [], "never.png"),
            "`pictures` must hold a picture or more, .* got None",
        ),
        (
            lambda m: explain.draw_predictions(pixels((8, 8, 3), 1), ["a"], "never.png", columns=0),
            "`columns` must be a positive integer, got columns=0",
        ),
        (
            lambda m: explain.draw_attention(m, np.zeros((16, 16, 3)), None, "never.png"),
            "`picture` must be .* got None",
        ),
        (lambda m: explain.draw_attention(m, None, pixels((8, 8, 3))[0], "never.png"), r"`image` must have .* \(\)"),
    ],
)
def test_unfit_arguments_are_named_with_their_value(call, message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        call(model)
    assert len(str(caught.value)) < 300 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: explain.draw_attention(None, None, None, path),
        lambda path: explain.draw_predictions(None, None, path),
        lambda path: explain.draw_training_curves(None, path),
        lambda path: explain.draw_explanation(None, "title", path),
        lambda path: explain.write_explanation(None, "title", path),
    ],
)
def test_a_suffix_that_no_picture_has_is_refused(draw, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in .*\.png.* got path='.*a\.txt'"):
        draw(tmp_path / "a.txt")


def is_a_picture_with_content(path):
    return np.asarray(Image.open(path).convert("L")).std() > 5


def test_pictures(tmp_path):
    model = kv.build("vit_test")
    pictures = pixels(model.image_shape, 3)
    explain.draw_attention(model, pictures[0] / 255, pictures[0], tmp_path / "a.png")
    explain.draw_predictions(pictures, ["a", "b", "c"], tmp_path / "p.png", correct=[True, False, True])
    explain.draw_training_curves({"loss": [2, 1], "val_loss": [2, 1.5], "accuracy": [0.1, 0.2]}, tmp_path / "c.png")
    for name in "apc":
        assert is_a_picture_with_content(tmp_path / f"{name}.png")


def test_a_picture_is_what_its_suffix_says(tmp_path):
    explain.draw_training_curves({"loss": [2, 1]}, tmp_path / "c.pdf")
    explain.draw_training_curves({"loss": [2, 1]}, tmp_path / "c")
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")
    assert is_a_picture_with_content(tmp_path / "c")


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: explain.draw_attention(None, None, None, path),
        lambda path: explain.draw_predictions(None, None, path),
        lambda path: explain.draw_training_curves(None, path),
    ],
)
def test_where_no_picture_can_be_written_is_said_first(draw, tmp_path):
    path = tmp_path / "no" / "a.png"
    with pytest.raises(ValueError, match=f"`path` cannot be written: path={str(path)!r}: there is no folder"):
        draw(path)


FULL_DISK = """
import resource, sys
from keras_vit_plugin import explain
explain.draw_training_curves({"loss": [2, 1]}, sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    explain.draw_training_curves({"loss": [2, 1]}, sys.argv[1])
except OSError as error:
    print(error)
"""


def test_a_picture_on_a_full_disk_leaves_the_old_one(tmp_path):
    said = run_python(FULL_DISK, tmp_path / "c.png")
    assert f"path={str(tmp_path / 'c.png')!r}: File too large" in said
    assert is_a_picture_with_content(tmp_path / "c.png")
