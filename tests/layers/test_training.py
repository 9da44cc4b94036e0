"""What training does that inference does not: rates and scales, as expectations over many draws."""

import keras
import numpy as np
import pytest
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin import layers

RATE = 0.3
DRAWS = 4000
WIDTH = 8
SIZES = {"image_shape": (8, 8, 3), "patch_size": 4, "num_heads": 2, "hidden_dim": WIDTH, "mlp_dim": 16}


def share(truths, rate, draws=None):
    """Whether a share of truths is a rate, within five standard errors of so many independent draws."""
    error = np.sqrt(rate * (1 - rate) / (draws or np.size(truths)))
    return abs(np.mean(truths) - rate) <= 5 * error


def gives_only_its_bias(dense, value):
    """Makes a dense layer answer `value` everywhere, whatever enters it."""
    dense.kernel.assign(np.zeros(dense.kernel.shape))
    dense.bias.assign(np.full(dense.bias.shape, value))


def tokens(count=DRAWS, length=2):
    return np.random.default_rng(0).normal(size=(count, length, WIDTH)).astype("float32")


@pytest.mark.parametrize("branch", ["attention", "mlp"])
def test_each_branch_of_a_block_drops_its_output_and_keeps_its_mean(branch):
    block = layers.EncoderBlock(2, 16, dropout=RATE)
    x = tokens()
    block.build(x.shape)
    gives_only_its_bias(block.attention.output_dense, float(branch == "attention"))
    gives_only_its_bias(block.mlp.output_dense, float(branch == "mlp"))
    change = np.asarray(block(x, training=True)) - x
    kept = change > 0.5
    np.testing.assert_allclose(change[kept], 1 / (1 - RATE), rtol=1e-4)
    assert share(~kept, RATE)
    np.testing.assert_allclose(np.asarray(block(x, training=False)) - x, 1, rtol=1e-4)


def test_the_hidden_layer_of_an_mlp_drops_too():
    layer = layers.MLP(1, dropout=RATE)
    layer.build((DRAWS, 1, WIDTH))
    gives_only_its_bias(layer.hidden, 5.0)  # GELU leaves 5 as it is
    layer.output_dense.kernel.assign(np.ones((1, WIDTH)))
    y = np.asarray(layer(tokens(length=1), training=True))[:, 0]
    # A row is all zeros where its one hidden value was dropped, or each of its outputs.
    assert share((y == 0).all(axis=1), RATE + (1 - RATE) * RATE**WIDTH)
    np.testing.assert_allclose(y[y != 0], 5 / (1 - RATE) ** 2, rtol=1e-4)


def test_attention_drops_probabilities_before_it_mixes_values():
    length = 16
    layer = layers.MultiHeadSelfAttention(2, dropout=RATE)
    x = tokens(200, length)
    layer.build(x.shape)
    for part, bias in ((layer.query, 0), (layer.key, 0), (layer.value, 1)):  # all probabilities are 1/16
        gives_only_its_bias(part, bias)
    layer.output_dense.kernel.assign(np.eye(WIDTH))
    y, scores = layer(x, training=True, return_attention_scores=True)
    np.testing.assert_allclose(scores, 1 / length, rtol=1e-5)  # what is shown is what the softmax gives
    kept = np.asarray(y)[..., ::4] * length * (1 - RATE)  # one value a head: how many of 16 were kept
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    assert share(kept / length, 1 - RATE, kept.size * length)
    assert abs(kept.var() / (length * RATE * (1 - RATE)) - 1) < 0.1
    np.testing.assert_allclose(layer(x, training=False), 1, rtol=1e-5)


@pytest.mark.parametrize("argument", ["attention_dropout", "dropout_rate"])
def test_rates_of_a_backbone_reach_every_block(argument):
    backbone = kv.ViTBackbone(**SIZES, num_layers=3, **{argument: RATE})
    rates = [
        (block.attention.attention_dropout.rate, block.output_dropout.rate, block.mlp.output_dropout.rate)
        for block in backbone.blocks
    ]
    assert rates == [(RATE, 0, 0) if argument == "attention_dropout" else (0, RATE, RATE)] * 3


def test_embeddings_drop_before_the_first_block():
    backbone = kv.ViTBackbone(**SIZES, num_layers=1, dropout_rate=RATE)
    embeddings = keras.Model(backbone.input, backbone.get_layer("embedding_dropout").output)
    x = (pixels((8, 8, 3), 200) / 255).astype("float32")
    y, kept = np.asarray(embeddings(x, training=True)), np.asarray(embeddings(x))
    assert share(y == 0, RATE)
    np.testing.assert_allclose(y[y != 0], kept[y != 0] / (1 - RATE), rtol=1e-4)


def test_positions_and_tokens_start_small():
    layer = layers.PrefixTokensAndPositions(num_register_tokens=400)
    layer.build((None, 400, 64))
    for values in (layer.position_embedding, layer.register_tokens):
        assert np.std(values) == pytest.approx(0.02, rel=0.05) and abs(np.mean(values)) < 0.001


def test_stochastic_depth_rises_from_nothing_to_its_rate():
    backbone = kv.ViTBackbone(**SIZES, num_layers=4, stochastic_depth=0.6)
    ones = np.ones((DRAWS, 1, 1), "float32")
    for block, rate in zip(backbone.blocks, (0.0, 0.2, 0.4, 0.6)):
        for drop_path in (block.attention_drop_path, block.mlp_drop_path):
            y = np.asarray(drop_path(ones, training=True))
            assert share(y == 0, rate)
            np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-5)
    assert kv.ViTBackbone(**SIZES, num_layers=1, stochastic_depth=0.6).blocks[0].mlp_drop_path.rate == 0


def test_a_block_skips_each_branch_for_whole_samples_and_keeps_the_mean():
    block = layers.EncoderBlock(2, 16, stochastic_depth=RATE)
    x = tokens()
    block.build(x.shape)
    gives_only_its_bias(block.attention.output_dense, 1.0)
    gives_only_its_bias(block.mlp.output_dense, 10.0)
    change = np.asarray(block(x, training=True)) - x
    assert np.ptp(change, axis=(1, 2)).max() < 1e-4
    outcomes = np.round(change[:, 0, 0] * (1 - RATE)).astype(int)  # 1 of attention, 10 of the MLP
    chances = {0: RATE**2, 1: RATE * (1 - RATE), 10: RATE * (1 - RATE), 11: (1 - RATE) ** 2}
    assert set(outcomes) == chances.keys()
    assert all(share(outcomes == outcome, chance) for outcome, chance in chances.items())
    np.testing.assert_allclose(np.asarray(block(x)) - x, 11, rtol=1e-4)


@pytest.mark.parametrize("distilled", [False, True])
def test_the_head_drops_pooled_features(distilled):
    backbone = kv.ViTBackbone(**SIZES, num_layers=1, use_distillation_token=distilled)
    model = kv.ViTImageClassifier(backbone, WIDTH, dropout=RATE)
    for head in model.heads:
        head.kernel.assign(np.eye(WIDTH))
    x = (pixels((8, 8, 3), 500) / 255).astype("float32")
    y, kept = np.asarray(model(x, training=True)), np.asarray(model(x))
    assert share(y == 0, RATE ** len(model.heads))
    assert np.abs(y.mean(0) - kept.mean(0)).max() < 0.1 * np.abs(kept).max() + 0.1


def test_nothing_is_drawn_in_inference():
    rates = {"dropout_rate": 0.5, "attention_dropout": 0.5, "stochastic_depth": 0.5}
    models = []
    for given in (rates, {}):
        backbone = kv.ViTBackbone(**SIZES, num_layers=2, **given)
        models.append(kv.ViTImageClassifier(backbone, 3, dropout=0.5 if given else 0.0))
    drawing, plain = models
    randomize(plain)
    for own, other in zip(drawing.trainable_weights, plain.trainable_weights, strict=True):
        own.assign(other)
    x = (pixels((8, 8, 3)) / 255).astype("float32")
    expected = np.asarray(plain(x))
    for answer in (drawing(x), drawing(x, training=False), drawing.predict(x, verbose=0)):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(drawing(x, training=True)) - expected).max() > 1e-2


def test_layer_scale_starts_at_its_value_and_scales_both_branches():
    backbone = kv.ViTBackbone(**SIZES, num_layers=2, layer_scale=0.25)
    for block in backbone.blocks:
        for scale in (block.attention_scale, block.mlp_scale):
            np.testing.assert_array_equal(scale.gamma, np.full(WIDTH, 0.25, "float32"))
    block = backbone.blocks[1]
    gives_only_its_bias(block.attention.output_dense, 1.0)
    gives_only_its_bias(block.mlp.output_dense, 10.0)
    x = tokens(2)
    np.testing.assert_allclose(np.asarray(block(x)) - x, 11 * 0.25, rtol=1e-4)
    assert kv.ViTBackbone(**SIZES, num_layers=1).blocks[0].attention_scale is None
    assert np.allclose(kv.build("vit_registers_test").backbone.blocks[0].mlp_scale.gamma, 0.1)


@pytest.mark.parametrize(
    "build, count",
    [
        (lambda epsilon: kv.ViTBackbone(**SIZES, num_layers=2, layer_norm_epsilon=epsilon), 5),
        (lambda epsilon: kv.SimpleViT((8, 8, 3), num_layers=2, layer_norm_epsilon=epsilon), 2),
    ],
    ids=["ViTBackbone", "SimpleViT"],
)
def test_epsilon_reaches_every_norm(build, count):
    model = build(0.5)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.LayerNormalization)]
    assert [norm.epsilon for norm in norms] == [0.5] * count
    x = (pixels((8, 8, 3)) / 255).astype("float32")
    other = build(1e-6)
    other.set_weights(model.get_weights())
    assert np.abs(np.asarray(model(x)) - np.asarray(other(x))).max() > 1e-2


@pytest.mark.parametrize("biased", [True, False])
def test_query_key_and_value_have_a_bias_where_it_is_asked_for(biased):
    backbone = kv.ViTBackbone(**SIZES, num_layers=2, use_qkv_bias=biased)
    for block in backbone.blocks:
        parts = (block.attention.query, block.attention.key, block.attention.value)
        assert [part.use_bias for part in parts] == [biased] * 3
        assert block.attention.output_dense.use_bias
