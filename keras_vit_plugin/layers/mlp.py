"""The position-wise feed-forward network of a Transformer block (arXiv:2010.11929, eq. 3)."""

import keras


@keras.saving.register_keras_serializable("keras_vit_plugin")
class MLP(keras.layers.Layer):
    """`Dense(hidden_dim) -> exact GELU -> Dense(D)`, each followed by dropout.

    Args:
        hidden_dim: width of the hidden layer.
        dropout: rate after each dense layer while training.

    Call: `(B, T, D)` -> `(B, T, D)`.
    """

    def __init__(self, hidden_dim, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.hidden = keras.layers.Dense(hidden_dim, dtype=self.dtype_policy, name="hidden")
        self.hidden_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="hidden_dropout")
        self.output_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="output_dropout")

    def build(self, input_shape):
        self.output_dense = keras.layers.Dense(input_shape[-1], dtype=self.dtype_policy, name="output")
        self.hidden.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.hidden_dim))

    def call(self, x, training=None):
        x = keras.activations.gelu(self.hidden(x), approximate=False)
        x = self.hidden_dropout(x, training=training)
        return self.output_dropout(self.output_dense(x), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "hidden_dim": self.hidden_dim, "dropout": self.dropout}
