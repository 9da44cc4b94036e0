"""Images to a sequence of patch embeddings (Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 1)."""

import keras
from keras import ops


def as_pair(value):
    """`(height, width)` from one integer or a pair of them."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f"Expected a positive integer or a pair of them (height, width), got {value!r}.")
    return pair


def patch_grid(image_shape, patch_size):
    """Patches per column and row: `(H // patch_height, W // patch_width)`.

    Raises:
        ValueError: the image is not `(height, width, channels)`, or a side is not divisible by the patch.
    """
    if len(image_shape) != 3 or None in tuple(image_shape):
        raise ValueError(f"`image_shape` must be a full (height, width, channels), got {tuple(image_shape)}.")
    patch_size = as_pair(patch_size)
    for side, size, patch in zip(("height", "width"), image_shape, patch_size):
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            raise ValueError(
                f"The image {side} must be divisible by the patch {side}, got {size} and {patch}; "
                f"{f'{below} or ' if below else ''}{above} would fit."
            )
    return image_shape[0] // patch_size[0], image_shape[1] // patch_size[1]


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
            raise ValueError(f"{type(self).__name__} was built for {self.channels} channels, got {shape[-1]}: {tuple(shape)}.")
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
