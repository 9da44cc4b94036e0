"""This package's classifiers as a `ViTSpec`."""

import numpy as np

from ..attention import Attention
from ..errors import UnsupportedTopology
from ..layers import Dense, Norm
from ..mlp import Mlp
from ..model import Head, ViTSpec
from ..residual import Block, Residual


def from_keras(model, pixel_scale, pixel_offset, embedding=False):
    """Reads a `ViTImageClassifier` or `SimpleViT` into a `ViTSpec`.

    Args:
        model: the Keras model, float.
        pixel_scale, pixel_offset: what turns pixels of 0..255 into its input, per channel or one number.
        embedding: whether the spec gives the features before the heads too; of two heads' tokens the first.

    Raises:
        UnsupportedTopology: the model is of another class, or its head has an activation.
    """
    from keras_vit_plugin.models import SimpleViT, ViTImageClassifier

    if type(model) is ViTImageClassifier:
        import keras

        trunk, norm = model.backbone, _norm(model.backbone.norm)
        if keras.activations.get(model.activation) is not keras.activations.linear:
            raise UnsupportedTopology(f"the head has the activation {model.activation!r}")
        share = 1 / len(model.heads)
        tokens = (None,) if model.pooling == "mean" else range(len(model.heads))
        heads = [Head(token, _dense(layer).scaled(share)) for token, layer in zip(tokens, model.heads)]
    elif type(model) is SimpleViT:
        trunk, norm = model, None
        heads = [Head(None, _dense(model.head))]
    else:
        raise UnsupportedTopology(f"{type(model).__name__} is not one of this package's classifiers")

    projection = trunk.patch_embedding.projection
    kernel = _array(projection.kernel)  # (height, width, C, D)
    channels, width = kernel.shape[2:]
    bias = np.zeros(width) if projection.bias is None else _array(projection.bias)
    if embedding:
        heads.append(Head(heads[0].token, Dense(np.eye(width), np.zeros(width)), "embedding"))
    tokens = trunk.tokens
    prefix = tokens.prefix()
    return ViTSpec(
        image_shape=tuple(model.image_shape),
        patch_size=tuple(trunk.patch_embedding.patch_size),
        pixel_scale=np.broadcast_to(np.asarray(pixel_scale, np.float64), (channels,)),
        pixel_offset=np.broadcast_to(np.asarray(pixel_offset, np.float64), (channels,)),
        patch=Dense(kernel.reshape(-1, width), bias),
        prefix=np.zeros((0, width)) if prefix is None else _array(prefix)[0],
        positions=_array(tokens.position_embedding)[0, tokens.num_positioned_prefix_tokens :],
        blocks=tuple(_block(block) for block in trunk.blocks),
        norm=norm,
        heads=tuple(heads),
    )


def _array(variable):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _dense(layer):
    kernel = _array(layer.kernel)
    return Dense(kernel, np.zeros(kernel.shape[1]) if layer.bias is None else _array(layer.bias))


def _norm(layer):
    return Norm(_array(layer.gamma), _array(layer.beta), layer.epsilon)


def _attention(layer):
    return Attention(
        num_heads=layer.num_heads,
        query=_dense(layer.query),
        key=_dense(layer.key),
        value=_dense(layer.value),
        output=_dense(layer.output_dense),
        score_scale=layer.head_width**-0.5,
    )


def _block(layer):
    from keras_vit_plugin.layers import PostNormEncoderBlock

    pre_norm = not isinstance(layer, PostNormEncoderBlock)
    scaled = pre_norm and layer.attention_scale is not None
    attention = Residual(
        norm=_norm(layer.attention_norm) if pre_norm else None,
        body=_attention(layer.attention),
        scale=_array(layer.attention_scale.gamma) if scaled else None,
        post_norm=None if pre_norm else _norm(layer.norm),
    )
    mlp = Residual(
        norm=_norm(layer.mlp_norm) if pre_norm else None,
        body=Mlp(_dense(layer.mlp.hidden), _dense(layer.mlp.output_dense)),
        scale=_array(layer.mlp_scale.gamma) if scaled else None,
    )
    return Block((attention, mlp))
