"""From a sequence of tokens to one vector per image."""

import operator

import keras
from keras import ops


def _as_count(value, name, what):
    """A whole number from 0 on.

    Raises:
        ValueError: it is none; `name` is that of the argument, `what` says what it counts.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise ValueError(f"`{name}` must be {what}, got {name}={value!r}.")
    return count


def _check_tokens(layer, shape, name, count):
    """Raises `ValueError` unless the input is `(batch, tokens, width)` with more than `count` tokens."""
    if len(shape) != 3:
        raise ValueError(
            f"{type(layer).__name__} takes tokens of shape (batch, tokens, width), got rank {len(shape)}: "
            f"shape={tuple(shape)}."
        )
    if shape[1] is not None and shape[1] <= count:
        raise ValueError(
            f"{type(layer).__name__} needs more tokens than `{name}`, got {name}={count} and shape={tuple(shape)}."
        )


@keras.saving.register_keras_serializable("keras_vit_plugin")
class TokenPooling(keras.layers.Layer):
    """Picks one token: 0 is the class token, 1 the distillation token.

    Args:
        index: which token, counted from 0.

    Call: `(B, T, D)` -> `(B, D)`.

    Raises:
        ValueError: `index` is no integer or negative, or the input has no such token.
    """

    def __init__(self, index=0, **kwargs):
        super().__init__(**kwargs)
        self.index = _as_count(index, "index", "the place of a token, counted from 0 (the class token is the first)")
        self.built = True

    def call(self, x):
        _check_tokens(self, x.shape, "index", self.index)
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

    Raises:
        ValueError: `num_prefix_tokens` is no integer or negative, or the input has no other tokens.
    """

    def __init__(self, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = _as_count(num_prefix_tokens, "num_prefix_tokens", "a number of tokens, 0 or more")
        self.built = True

    def call(self, x):
        _check_tokens(self, x.shape, "num_prefix_tokens", self.num_prefix_tokens)
        return ops.mean(x[:, self.num_prefix_tokens :] if self.num_prefix_tokens else x, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}
