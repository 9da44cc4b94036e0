"""From a sequence of tokens to one vector per image."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class TokenPooling(keras.layers.Layer):
    """Picks one token: 0 is the class token, 1 the distillation token.

    Args:
        index: which token, counted from 0.

    Call: `(B, T, D)` -> `(B, D)`.
    """

    def __init__(self, index=0, **kwargs):
        super().__init__(**kwargs)
        self.index = index
        self.built = True

    def call(self, x):
        # A slice and a reshape: an index would drop the axis with a mask that delegates refuse.
        return ops.reshape(x[:, self.index : self.index + 1], (-1, x.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable("keras_vit_plugin")
class MeanPooling(keras.layers.Layer):
    """Averages the patch tokens.

    Args:
        num_prefix_tokens: how many tokens in front are no patches and are left out.

    Call: `(B, T, D)` -> `(B, D)`.
    """

    def __init__(self, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.built = True

    def call(self, x):
        return ops.mean(x[:, self.num_prefix_tokens :] if self.num_prefix_tokens else x, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}
