"""Images to a sequence of patch embeddings (Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 1)."""

import keras
from keras import ops

from keras_vit_plugin.geometry import as_pair, patch_grid


@keras.saving.register_keras_serializable("keras_vit_plugin")
class PatchEmbedding(keras.layers.Layer):
    """Cuts an image into patches that do not overlap and projects each to `hidden_dim` channels.

    Args:
        patch_size: side of a patch in pixels, or `(height, width)`.
        hidden_dim: width of an embedding.
        use_bias: whether the projection has a bias.

    Call: `(B, H, W, C)` -> `(B, H/patch * W/patch, hidden_dim)`, patches in row-major order.

    Raises:
        ValueError: the input has no rank 4 or an unknown height, width or channel count, a side is not
            divisible by the patch, or a later input has other channels than the first.
    """

    def __init__(self, patch_size, hidden_dim, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = as_pair(patch_size)
        self.hidden_dim = hidden_dim
        self.use_bias = use_bias
        self.projection = keras.layers.Conv2D(
            hidden_dim,
            self.patch_size,
            strides=self.patch_size,
            use_bias=use_bias,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape):
        self._check(input_shape)
        self.channels = input_shape[-1]
        self.projection.build(input_shape)

    def _check(self, shape):
        if len(shape) != 4:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (batch, height, width, channels), got rank {len(shape)}: "
                f"shape={tuple(shape)}."
            )
        if self.built and shape[-1] != self.channels:
            raise ValueError(
                f"{type(self).__name__} was built for {self.channels} channels, got {shape[-1]}: {tuple(shape)}."
            )
        return patch_grid(shape[1:], self.patch_size)

    def call(self, images):
        rows, columns = self._check(images.shape)
        return ops.reshape(self.projection(images), (-1, rows * columns, self.hidden_dim))

    def compute_output_shape(self, input_shape):
        rows, columns = self._check(input_shape)
        return (input_shape[0], rows * columns, self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "hidden_dim": self.hidden_dim,
            "use_bias": self.use_bias,
        }
