"""Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762) in dense and batch matmul only."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class MultiHeadSelfAttention(keras.layers.Layer):
    """`softmax(q k^T / sqrt(key_dim)) v` over `num_heads` heads, then an output projection to the input width.

    The projections are four plain `Dense` layers named `query`, `key`, `value` and `output`, so that Keras's
    `quantize` and KerasHub's `enable_lora` reach them. No einsum, no tensor above rank 4.

    Args:
        num_heads: number of heads.
        key_dim: width of a head; None divides the input width by `num_heads`.
        use_bias: whether `query`, `key` and `value` have a bias (`output` always has one).
        dropout: rate on the attention probabilities while training.

    Call: `(B, T, D)` -> `(B, T, D)`; with `return_attention_scores=True` also the probabilities `(B, heads, T, T)`.

    Raises:
        ValueError: the input is not of rank 3, or `key_dim` is None and D is not divisible by `num_heads`.
    """

    def __init__(self, num_heads, key_dim=None, use_bias=True, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.use_bias = use_bias
        self.dropout = dropout
        self.attention_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="attention_dropout")

    def build(self, input_shape):
        if len(input_shape) != 3:
            raise ValueError(
                f"{type(self).__name__} takes tokens of shape (batch, tokens, width), got rank {len(input_shape)}: "
                f"shape={tuple(input_shape)}."
            )
        width = input_shape[-1]
        if self.key_dim is None and width % self.num_heads:
            raise ValueError(
                f"The width must be divisible by `num_heads`, got width={width} and num_heads={self.num_heads}. "
                "Pass `key_dim` to set the width of a head."
            )
        self.head_width = self.key_dim or width // self.num_heads
        inner = self.num_heads * self.head_width
        for name in ("query", "key", "value"):
            layer = keras.layers.Dense(inner, use_bias=self.use_bias, dtype=self.dtype_policy, name=name)
            layer.build(input_shape)
            setattr(self, name, layer)
        self.output_dense = keras.layers.Dense(width, dtype=self.dtype_policy, name="output")
        self.output_dense.build((*input_shape[:-1], inner))

    def call(self, x, training=None, return_attention_scores=False):
        length = ops.shape(x)[1]

        def split_heads(y):
            y = ops.reshape(y, (-1, length, self.num_heads, self.head_width))
            return ops.transpose(y, (0, 2, 1, 3))  # (B, heads, T, d)

        query = split_heads(self.query(x) * self.head_width**-0.5)
        key = split_heads(self.key(x))
        value = split_heads(self.value(x))

        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (B, heads, T, T)
        probabilities = ops.softmax(scores, axis=-1)
        y = ops.matmul(self.attention_dropout(probabilities, training=training), value)  # (B, heads, T, d)
        y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, length, self.num_heads * self.head_width))
        y = self.output_dense(y)
        return (y, probabilities) if return_attention_scores else y

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, x, training=None, return_attention_scores=False):
        y = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return y
        batch, length, _ = x.shape
        return y, keras.KerasTensor((batch, self.num_heads, length, length), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
        }
