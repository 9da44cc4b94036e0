"""SimpleViT against NumPy in float64, step by step: its block differs from that of all other models."""

import math

import numpy as np
import pytest
from conftest import pixels, randomize

import keras_vit_plugin as kv


def dense(x, layer):
    return x @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias, np.float64)


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon)
    return normal * np.asarray(layer.gamma) + np.asarray(layer.beta)


def attention(x, layer, heads):
    """One image: `(T, D)` -> `(T, D)` and the probabilities `(heads, T, T)`."""
    query, key, value = (np.split(dense(x, part), heads, axis=1) for part in (layer.query, layer.key, layer.value))
    mixed, shown = [], []
    for q, k, v in zip(query, key, value, strict=True):
        scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
        shown.append(scores / scores.sum(-1, keepdims=True))
        mixed.append(shown[-1] @ v)
    return dense(np.concatenate(mixed, axis=1), layer.output_dense), np.stack(shown)


def mlp(x, layer):
    hidden = dense(x, layer.hidden)
    gelu = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
    return dense(gelu, layer.output_dense)


def block(x, layer):
    mixed, shown = attention(x, layer.attention, layer.num_heads)
    x = norm(x + mixed, layer.norm)
    return x + mlp(x, layer.mlp), shown


@pytest.mark.parametrize("num_layers", [1, 2])
def test_simple_vit_is_the_formula(num_layers):
    model = kv.SimpleViT((8, 12, 3), 4, 16, num_layers, num_heads=2, key_dim=4, mlp_dim=32, num_classes=5)
    randomize(model)
    images = (pixels((8, 12, 3), 2) / 255).astype("float32")
    kernel = np.asarray(model.patch_embedding.projection.kernel, np.float64)
    for image, logits in zip(images, np.asarray(model(images)), strict=True):
        patches = [image[top : top + 4, left : left + 4] for top in (0, 4) for left in (0, 4, 8)]
        x = np.stack([np.tensordot(patch, kernel, 3) for patch in patches])
        x = x + np.asarray(model.patch_embedding.projection.bias) + np.asarray(model.tokens.position_embedding)[0]
        for layer in model.blocks:
            y, scores = layer(x[None].astype("float32"), return_attention_scores=True)
            x, shown = block(x, layer)
            np.testing.assert_allclose(y[0], x, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(scores[0], shown, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits, dense(x.mean(axis=0), model.head), rtol=1e-4, atol=1e-4)
