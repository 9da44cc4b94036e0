"""Stochastic depth (Huang et al. 2016, arXiv:1603.09382), known as drop path in timm."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class StochasticDepth(keras.layers.Layer):
    """Drops a residual branch for whole samples while training; the identity otherwise.

    Args:
        rate: probability in [0, 1) that a sample loses the branch. Kept branches grow by `1 / (1 - rate)`.
        seed: integer seed, or None.

    Call: `(B, ...)` -> `(B, ...)`.
    """

    def __init__(self, rate=0.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"`rate` must be in [0, 1), got rate={rate}.")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if rate > 0 else None
        self.built = True

    def call(self, x, training=None):
        if not training or self.rate == 0.0:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)  # one draw a sample
        keep = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) >= self.rate
        return x * ops.cast(keep, x.dtype) / (1.0 - self.rate)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
