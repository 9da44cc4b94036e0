"""Attention maps of this package's models, and attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928)."""

import numpy as np
from keras import ops

from keras_vit_plugin.geometry import patch_grid


def attention_maps(model, image):
    """The attention probabilities of every layer and head for one image.

    Args:
        model: a `ViTBackbone`, `ViTImageClassifier` or `SimpleViT`.
        image: one normalized input `(H, W, C)`.

    Returns:
        float32 `(layers, heads, tokens, tokens)`; each row, what one token reads from, sums to 1.

    Raises:
        ValueError: the model is of another class, or the image has another shape than the model's input.
    """
    trunk = _trunk(model)
    image = np.asarray(image)
    if image.shape != tuple(trunk.image_shape):
        raise ValueError(f"`image` must have the model's shape {tuple(trunk.image_shape)}, got {image.shape}.")
    x = trunk.tokens(trunk.patch_embedding(ops.convert_to_tensor(image[None], trunk.compute_dtype)))
    maps = []
    for block in trunk.blocks:
        x, scores = block(x, training=False, return_attention_scores=True)
        maps.append(np.asarray(ops.convert_to_numpy(scores)[0], np.float32))
    return np.stack(maps)


def attention_rollout(maps):
    """How much each token of the last layer draws on each input token, through all layers.

    Per layer the heads are averaged and mixed half and half with the identity, for the residual connection; the
    results are multiplied from the first layer to the last.

    Args:
        maps: `(layers, heads, tokens, tokens)` from `attention_maps`.

    Returns:
        `(tokens, tokens)`; each row sums to 1.

    Raises:
        ValueError: `maps` has another rank.
    """
    maps = np.asarray(maps)
    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise ValueError(f"`maps` must have shape (layers, heads, tokens, tokens), got {maps.shape}.")
    identity = np.eye(maps.shape[2])
    rollout = identity
    for layer in maps.mean(axis=1):
        rollout = (layer + identity) / 2 @ rollout
    return rollout


def token_attention(model, weights):
    """What the image's answer draws on per patch, as a grid over the image.

    Args:
        model: the model the weights come from.
        weights: `(tokens, tokens)`, such as a rollout or one head's map.

    Returns:
        `(rows, columns)` of the patches: the class token's row, or the mean over the patches where there is none.
    """
    trunk = _trunk(model)
    prefix = trunk.tokens.num_prefix_tokens
    row = weights[0] if trunk.tokens.use_class_token else weights[prefix:].mean(axis=0)
    return row[prefix:].reshape(patch_grid(trunk.image_shape, trunk.patch_size))


def _trunk(model):
    trunk = getattr(model, "backbone", model)
    if not (hasattr(trunk, "patch_embedding") and hasattr(trunk, "tokens") and hasattr(trunk, "blocks")):
        raise ValueError(
            "`model` must be a ViTBackbone, ViTImageClassifier or SimpleViT of this package, got "
            f"{type(model).__name__}."
        )
    return trunk
