"""Each layer against plain NumPy, its config, and its errors."""

import keras
import numpy as np
import pytest
from conftest import randomize

from keras_vit_plugin import layers

CASES = [
    (layers.PatchEmbedding(4, 8, use_bias=False), (2, 8, 12, 3)),
    (layers.PrefixTokensAndPositions(True, True, 2), (2, 6, 8)),
    (layers.PrefixTokensAndPositions(False, position_initializer="zeros"), (2, 6, 8)),
    (layers.MultiHeadSelfAttention(2, key_dim=3, use_bias=False, dropout=0.1), (2, 6, 8)),
    (layers.MLP(16, dropout=0.1), (2, 6, 8)),
    (layers.LayerNormalization(1e-5), (2, 6, 8)),
    (layers.LayerScale(0.3), (2, 6, 8)),
    (layers.StochasticDepth(0.2, seed=1), (2, 6, 8)),
    (layers.EncoderBlock(2, 16, use_qkv_bias=False, stochastic_depth=0.1, layer_scale=0.5), (2, 6, 8)),
    (layers.PostNormEncoderBlock(2, 4, 16), (2, 6, 8)),
    (layers.TokenPooling(1), (2, 6, 8)),
    (layers.MeanPooling(2), (2, 6, 8)),
]


@pytest.mark.parametrize("layer, shape", CASES, ids=lambda value: type(value).__name__)
def test_config_round_trip_gives_the_same_layer(layer, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = layer(x)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(twin) is type(layer)
    assert twin.get_config() == layer.get_config()
    twin(x)  # builds it where the config did not
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(x), expected)
    assert tuple(layer.compute_output_shape(shape)) == tuple(expected.shape)


def test_every_public_layer_has_a_case():
    assert {type(layer).__name__ for layer, _ in CASES} == set(layers.__all__)


def test_layer_normalization_is_the_formula():
    layer = layers.LayerNormalization(1e-3)
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 8)).astype("float32")
    layer.build(x.shape)
    randomize(layer)
    gamma, beta = map(np.asarray, (layer.gamma, layer.beta))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_layer_normalization_in_half_precision_survives_large_values():
    x = np.full((1, 1, 8), 600, "float16")  # its square is beyond float16
    x[..., 0] = -600
    y = np.asarray(layers.LayerNormalization(dtype="float16")(x))
    assert np.isfinite(y).all() and y[0, 0, 0] < -2


def test_attention_is_the_formula():
    layer = layers.MultiHeadSelfAttention(2, key_dim=3)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    layer.build(x.shape)
    randomize(layer)
    y, scores = layer(x, return_attention_scores=True)

    def dense(values, sublayer):
        return values @ np.asarray(sublayer.kernel) + np.asarray(sublayer.bias)

    expected = np.zeros((2, 5, 6), "float32")
    for batch in range(2):
        for head in range(2):
            columns = slice(3 * head, 3 * head + 3)
            query, key, value = (dense(x[batch], sub)[:, columns] for sub in (layer.query, layer.key, layer.value))
            weights = np.exp(query @ key.T / np.sqrt(3))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(scores[batch, head], weights, rtol=1e-4, atol=1e-6)
            expected[batch, :, columns] = weights @ value
    np.testing.assert_allclose(y, dense(expected, layer.output_dense), rtol=1e-4, atol=1e-5)


def test_patches_are_row_major():
    layer = layers.PatchEmbedding(2, 1)
    image = np.zeros((1, 4, 6, 1), "float32")
    image[0, 2:4, 0:2] = 1  # second row, first column: patch 3
    layer.build(image.shape)
    layer.set_weights([np.ones((2, 2, 1, 1)), np.zeros(1)])
    assert np.asarray(layer(image))[0, :, 0].tolist() == [0, 0, 0, 4, 0, 0]


def test_prefix_tokens_come_first_and_registers_have_no_position():
    layer = layers.PrefixTokensAndPositions(True, True, 2)
    patches = np.random.default_rng(0).normal(size=(3, 4, 8)).astype("float32")
    layer.build(patches.shape)
    randomize(layer)
    y = np.asarray(layer(patches))
    positions = np.asarray(layer.position_embedding)[0]
    np.testing.assert_allclose(y[2, 0], np.asarray(layer.class_token)[0, 0] + positions[0], rtol=1e-6)
    np.testing.assert_allclose(y[2, 1], np.asarray(layer.distillation_token)[0, 0] + positions[1], rtol=1e-6)
    np.testing.assert_allclose(y[2, 2:4], np.asarray(layer.register_tokens)[0], rtol=1e-6)
    np.testing.assert_allclose(y[2, 4:], patches[2] + positions[2:], rtol=1e-5, atol=1e-6)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    layer = layers.StochasticDepth(0.25, seed=0)
    y = np.asarray(layer(np.ones((4000, 2, 3), "float32"), training=True))
    assert np.unique(y).tolist() == [0.0, np.float32(4 / 3)]
    assert (y.min(axis=(1, 2)) == y.max(axis=(1, 2))).all()
    assert abs(y.mean() - 1) < 0.05
    np.testing.assert_array_equal(layer(np.ones((4, 2, 3), "float32"), training=False), 1)


@pytest.mark.parametrize("layer", [layers.TokenPooling, layers.MeanPooling, layers.StochasticDepth])
def test_a_layer_without_weights_need_not_be_built(layer):
    made = layer()
    assert made.built and made.count_params() == 0  # which Keras refuses to count of a layer to be built


def test_pooling_leaves_out_what_it_should():
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    np.testing.assert_array_equal(layers.TokenPooling(1)(x), x[:, 1])
    np.testing.assert_allclose(layers.MeanPooling(2)(x), x[:, 2:].mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: layers.PatchEmbedding(4, 8)(np.zeros((8, 8, 3))), "got rank 3"),
        (lambda: layers.PatchEmbedding(4, 8)(np.zeros((1, 9, 8, 3))), "height must be divisible .* 9 and 4; 8 or 12"),
        (lambda: layers.PatchEmbedding(0, 8), "positive integer or a pair"),
        (lambda: layers.MultiHeadSelfAttention(3)(np.zeros((1, 4, 8))), "width=8 and num_heads=3"),
        (lambda: layers.MultiHeadSelfAttention(2)(np.zeros((4, 8))), "got rank 2"),
        (lambda: layers.StochasticDepth(1.0), "rate=1.0"),
        (lambda: layers.PrefixTokensAndPositions()(np.zeros((4, 8))), r"\(batch, patches, width\)"),
        (lambda: layers.TokenPooling(-1), "`index` must be the place of a token, counted from 0 .*, got index=-1"),
        (lambda: layers.TokenPooling(0.0), "got index=0.0"),
        (
            lambda: layers.TokenPooling(4)(np.zeros((1, 4, 8))),
            r"more tokens than `index`, got index=4 and .*4, 8",
        ),
        (lambda: layers.TokenPooling()(np.zeros((4, 8))), "TokenPooling takes tokens .* got rank 2"),
        (lambda: layers.MeanPooling(-1), "`num_prefix_tokens` must be .* 0 or more, got num_prefix_tokens=-1"),
        (
            lambda: layers.MeanPooling(4)(np.zeros((1, 4, 8))),
            "than `num_prefix_tokens`, got num_prefix_tokens=4",
        ),
    ],
)
def test_errors_name_what_was_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_channels_than_it_was_built_for():
    layer = layers.PatchEmbedding(4, 8)
    layer(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(ValueError, match="built for 3 channels, got 1"):
        layer(np.zeros((1, 8, 8, 1), "float32"))
