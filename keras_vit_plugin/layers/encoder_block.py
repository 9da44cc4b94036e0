"""The pre-norm Transformer encoder block of ViT (arXiv:2010.11929, eqs. 2 and 3)."""

import keras

from keras_vit_plugin.layers.layer_normalization import LayerNormalization
from keras_vit_plugin.layers.layer_scale import LayerScale
from keras_vit_plugin.layers.mlp import MLP
from keras_vit_plugin.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_vit_plugin.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable("keras_vit_plugin")
class EncoderBlock(keras.layers.Layer):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`, with optional LayerScale and stochastic depth.

    Args:
        num_heads: attention heads.
        mlp_dim: hidden width of the MLP.
        use_qkv_bias: whether query, key and value have a bias.
        dropout: rate after the attention output and in the MLP.
        attention_dropout: rate on the attention probabilities.
        stochastic_depth: rate at which a sample skips a branch while training.
        layer_scale: initial value of LayerScale, or None for none.
        layer_norm_epsilon: epsilon of both norms.

    Call: `(B, T, D)` -> `(B, T, D)`; with `return_attention_scores=True` also `(B, heads, T, T)`.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        use_qkv_bias=True,
        dropout=0.0,
        attention_dropout=0.0,
        stochastic_depth=0.0,
        layer_scale=None,
        layer_norm_epsilon=1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.use_qkv_bias = use_qkv_bias
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.layer_scale = layer_scale
        self.layer_norm_epsilon = layer_norm_epsilon

        dtype = self.dtype_policy
        self.attention_norm = LayerNormalization(layer_norm_epsilon, dtype=dtype, name="attention_norm")
        self.attention = MultiHeadSelfAttention(
            num_heads, use_bias=use_qkv_bias, dropout=attention_dropout, dtype=dtype, name="attention"
        )
        self.output_dropout = keras.layers.Dropout(dropout, dtype=dtype, name="output_dropout")
        self.mlp_norm = LayerNormalization(layer_norm_epsilon, dtype=dtype, name="mlp_norm")
        self.mlp = MLP(mlp_dim, dropout=dropout, dtype=dtype, name="mlp")
        self.attention_scale = self.mlp_scale = None
        if layer_scale is not None:
            self.attention_scale = LayerScale(layer_scale, dtype=dtype, name="attention_scale")
            self.mlp_scale = LayerScale(layer_scale, dtype=dtype, name="mlp_scale")
        self.attention_drop_path = StochasticDepth(stochastic_depth, dtype=dtype, name="attention_drop_path")
        self.mlp_drop_path = StochasticDepth(stochastic_depth, dtype=dtype, name="mlp_drop_path")

    def build(self, input_shape):
        for layer in (
            self.attention_norm,
            self.attention,
            self.mlp_norm,
            self.mlp,
            self.attention_scale,
            self.mlp_scale,
        ):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x, training=None, return_attention_scores=False):
        y, scores = self.attention(self.attention_norm(x), training=training, return_attention_scores=True)
        y = self.output_dropout(y, training=training)
        if self.attention_scale is not None:
            y = self.attention_scale(y)
        x = x + self.attention_drop_path(y, training=training)

        y = self.mlp(self.mlp_norm(x), training=training)
        if self.mlp_scale is not None:
            y = self.mlp_scale(y)
        x = x + self.mlp_drop_path(y, training=training)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, x, training=None, return_attention_scores=False):
        return self.attention.compute_output_spec(x, return_attention_scores=return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "use_qkv_bias": self.use_qkv_bias,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "layer_scale": self.layer_scale,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
