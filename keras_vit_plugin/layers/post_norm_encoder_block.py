"""The encoder block of the teaching notebook: its one norm comes after the attention residual."""

import keras

from keras_vit_plugin.layers.layer_normalization import LayerNormalization
from keras_vit_plugin.layers.mlp import MLP
from keras_vit_plugin.layers.multi_head_self_attention import MultiHeadSelfAttention


@keras.saving.register_keras_serializable("keras_vit_plugin")
class PostNormEncoderBlock(keras.layers.Layer):
    """`x = norm(x + attention(x))`, then `x + mlp(x)`.

    Args:
        num_heads: attention heads.
        key_dim: width of a head.
        mlp_dim: hidden width of the MLP.
        layer_norm_epsilon: epsilon of the norm.

    Call: `(B, T, D)` -> `(B, T, D)`; with `return_attention_scores=True` also `(B, heads, T, T)`.
    """

    def __init__(self, num_heads, key_dim, mlp_dim, layer_norm_epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.mlp_dim = mlp_dim
        self.layer_norm_epsilon = layer_norm_epsilon
        dtype = self.dtype_policy
        self.attention = MultiHeadSelfAttention(num_heads, key_dim=key_dim, dtype=dtype, name="attention")
        self.norm = LayerNormalization(layer_norm_epsilon, dtype=dtype, name="norm")
        self.mlp = MLP(mlp_dim, dtype=dtype, name="mlp")

    def build(self, input_shape):
        for layer in (self.attention, self.norm, self.mlp):
            layer.build(input_shape)

    def call(self, x, training=None, return_attention_scores=False):
        y, scores = self.attention(x, training=training, return_attention_scores=True)
        x = self.norm(x + y)
        x = x + self.mlp(x, training=training)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, x, training=None, return_attention_scores=False):
        return self.attention.compute_output_spec(x, return_attention_scores=return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
