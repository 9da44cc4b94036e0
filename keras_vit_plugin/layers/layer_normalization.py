"""Layer normalization over the last axis (Ba et al. 2016, arXiv:1607.06450)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class LayerNormalization(keras.layers.Layer):
    """`(x - mean) * rsqrt(variance + epsilon) * gamma + beta`, computed in float32 or wider.

    Keras's own layer emits a NEG, which has no integer TFLite kernel; this one emits subtractions only.

    Args:
        epsilon: added to the variance.

    Call: `(..., D)` float -> `(..., D)` in the compute dtype.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        width = (input_shape[-1],)
        self.gamma = self.add_weight(shape=width, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=width, initializer="zeros", name="beta")

    def call(self, x):
        # Squares overflow float16 beyond 255.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x = ops.cast(x, dtype)
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        normalized = centred * ops.rsqrt(variance + self.epsilon)
        y = normalized * ops.cast(self.gamma, dtype) + ops.cast(self.beta, dtype)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
