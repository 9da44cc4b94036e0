"""The building blocks of a Vision Transformer as registered Keras 3 layers (`keras.ops` only, any backend)."""

from keras_vit_plugin.layers.encoder_block import EncoderBlock
from keras_vit_plugin.layers.layer_normalization import LayerNormalization
from keras_vit_plugin.layers.layer_scale import LayerScale
from keras_vit_plugin.layers.mlp import MLP
from keras_vit_plugin.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_vit_plugin.layers.patch_embedding import PatchEmbedding
from keras_vit_plugin.layers.pooling import MeanPooling, TokenPooling
from keras_vit_plugin.layers.post_norm_encoder_block import PostNormEncoderBlock
from keras_vit_plugin.layers.prefix_tokens_and_positions import PrefixTokensAndPositions
from keras_vit_plugin.layers.stochastic_depth import StochasticDepth

__all__ = [
    "EncoderBlock",
    "LayerNormalization",
    "LayerScale",
    "MLP",
    "MeanPooling",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PostNormEncoderBlock",
    "PrefixTokensAndPositions",
    "StochasticDepth",
    "TokenPooling",
]
