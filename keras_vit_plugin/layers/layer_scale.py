"""LayerScale (Touvron et al. 2021, "Going deeper with image transformers", arXiv:2103.17239)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class LayerScale(keras.layers.Layer):
    """One learned factor per channel of a residual branch.

    Args:
        initial_value: every factor at the start, small (1e-5 to 0.1) in deep models.

    Call: `(..., D)` -> `(..., D)`.
    """

    def __init__(self, initial_value=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.initial_value), name="gamma"
        )

    def call(self, x):
        return x * ops.cast(self.gamma, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial_value": self.initial_value}
