"""Layers and a subclassed model as users write them, for the random models."""

import keras
import numpy as np

register = keras.saving.register_keras_serializable("fuzz")


@register
class Constant(keras.layers.Layer):
    """A constant of the graph plus or times the activations, per channel."""

    def __init__(self, values, times=True, **kwargs):
        super().__init__(**kwargs)
        self.values, self.times = list(values), times

    def call(self, x):
        constant = keras.ops.convert_to_tensor(np.array(self.values, "float32"), x.dtype)
        return x * constant if self.times else x + constant

    def get_config(self):
        return {**super().get_config(), "values": self.values, "times": self.times}


@register
class ConstantMatrix(keras.layers.Layer):
    """The activations `(B, T, C)` times a constant `(C, C)`, or that of `(T, T)` times them: a BATCH_MATMUL."""

    def __init__(self, seed, left=False, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.left = seed, left

    def call(self, x):
        side = x.shape[1] if self.left else x.shape[2]
        matrix = np.random.default_rng(self.seed).normal(0, side**-0.5, (side, side)).astype("float32")
        matrix = keras.ops.convert_to_tensor(matrix, x.dtype)
        return keras.ops.matmul(matrix, x) if self.left else keras.ops.matmul(x, matrix)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed, "left": self.left}


@register
class LearnedPositions(keras.layers.Layer):
    """Tokens `(B, T, C)` plus a learned table."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(0, 0.3))

    def call(self, x):
        return x + keras.ops.cast(self.table, x.dtype)


@register
class AttentionPooling(keras.layers.Layer):
    """A learned query looks at the tokens `(B, T, C)`, as in SigLIP: `(B, C)`."""

    def __init__(self, heads=2, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape):
        width = shape[-1]
        self.query = self.add_weight(shape=(1, 1, width), initializer=keras.initializers.RandomNormal(0, 1.0))
        self.attention = keras.layers.MultiHeadAttention(self.heads, max(width // self.heads, 1), name="attention")
        self.attention.build((None, 1, width), (None, *shape[1:]))

    def call(self, x):
        query = keras.ops.repeat(keras.ops.cast(self.query, x.dtype), keras.ops.shape(x)[0], axis=0)
        return self.attention(query, x)[:, 0]

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@register
class RootMeanSquareNorm(keras.layers.Layer):
    """RMSNorm, written with operations."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.RandomNormal(1, 0.2))

    def call(self, x):
        return x * keras.ops.rsqrt(keras.ops.mean(x * x, -1, keepdims=True) + 1e-6) * keras.ops.cast(self.gain, x.dtype)


@register
class SubclassedNet(keras.Model):
    """A model written as a class: it has neither `inputs` nor `outputs`."""

    def __init__(self, width, activation, head, rescaled=False, **kwargs):
        super().__init__(**kwargs)
        self.config = {"width": width, "activation": activation, "head": head, "rescaled": rescaled}
        self.rescaling = keras.layers.Rescaling(1 / 255) if rescaled else None
        self.first = keras.layers.Conv2D(width, 3, 2, "same", activation=activation)
        self.second = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")
        self.pooling = keras.layers.GlobalAveragePooling2D()
        units, last = head
        self.head = keras.layers.Dense(units, last, name="head")

    def call(self, x):
        x = x if self.rescaling is None else self.rescaling(x)
        x = self.first(x)
        return self.head(self.pooling(x + self.second(x)))

    def get_config(self):
        return {**super().get_config(), **self.config}
