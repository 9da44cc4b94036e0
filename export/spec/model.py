"""The model as plain float64 arrays: what every rewrite reads and returns, and an oracle that computes it.

A reader of `readers/` makes a `ViTSpec` of a Keras model; `ViTSpec.forward` runs it in float64 NumPy. The Keras model
and the exported file are each compared with the oracle, so a disagreement names the guilty stage.
"""

from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from keras_vit_plugin.geometry import patch_grid

from .attention import Attention
from .functions import softmax
from .layers import Dense, Norm
from .residual import Block


@dataclass(frozen=True, eq=False)
class Head:
    """A dense head on one token, or on the mean of the patch tokens where `token` is None.

    Heads with the output `"logits"` add up; one with `"embedding"` gives the model's features, before its own heads.
    """

    token: int | None
    dense: Dense
    output: str = "logits"


@dataclass(frozen=True, eq=False)
class ViTSpec:
    """A Vision Transformer from raw pixels to logits.

    `x = patch(pixels * pixel_scale + pixel_offset)` per patch, pixels flattened in (row, column, channel) order;
    then `prefix` rows (tokens with their positions) in front, `positions` added to the patches, blocks, norm, and
    the sum of the heads.
    """

    image_shape: tuple[int, int, int]
    patch_size: tuple[int, int]
    pixel_scale: np.ndarray  # (C,)
    pixel_offset: np.ndarray  # (C,)
    patch: Dense  # (patch_height * patch_width * C, D)
    prefix: np.ndarray  # (P, D)
    positions: np.ndarray  # (N, D)
    blocks: tuple[Block, ...]
    norm: Norm | None
    heads: tuple[Head, ...]

    @property
    def width(self):
        return self.patch.kernel.shape[1]

    @property
    def num_tokens(self):
        return len(self.prefix) + len(self.positions)

    def residuals(self):
        """Every `Residual`, in the order of computation."""
        return [residual for block in self.blocks for residual in block.residuals]

    def attentions(self):
        """Every `Attention`."""
        return [residual.body for residual in self.residuals() if isinstance(residual.body, Attention)]

    def with_residuals(self, function):
        """The same with what a function makes of every `Residual`."""
        return replace(
            self, blocks=tuple(replace(block, residuals=tuple(map(function, block.residuals))) for block in self.blocks)
        )

    def dense_layers(self):
        """Every `Dense`, in the order of computation."""
        inside = [layer for residual in self.residuals() for layer in residual.body.layers()]
        return [self.patch, *inside, *(head.dense for head in self.heads)]

    def norms(self):
        """Every `Norm`."""
        found = [norm for residual in self.residuals() for norm in (residual.norm, residual.post_norm)]
        return [norm for norm in (*found, self.norm) if norm is not None]

    def forward(self, images):
        """Logits in float64.

        Args:
            images: raw pixels 0..255, any dtype, `(B, H, W, C)`.

        Returns:
            `(B, classes)` float64.
        """
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)

    def embed(self, images):
        """Tokens before the first block, `(B, P + N, D)` float64."""
        images = np.asarray(images, self.patch.kernel.dtype)
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"`images` must have shape (B, {', '.join(map(str, self.image_shape))}), got {images.shape}."
            )
        pixels = images * self.pixel_scale + self.pixel_offset
        rows, columns = patch_grid(self.image_shape, self.patch_size)
        height, width = self.patch_size
        patches = pixels.reshape(-1, rows, height, columns, width, self.image_shape[2])
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows * columns, -1)
        x = self.patch(patches) + self.positions
        prefix = np.broadcast_to(self.prefix, (len(images), *self.prefix.shape))
        return np.concatenate([prefix, x], axis=1)

    def streams(self, images):
        """The tokens that leave each block, a list of `(B, T, D)` float64."""
        x, streams = self.embed(images), []
        for block in self.blocks:
            x = block(x)
            streams.append(x)
        return streams

    def astype(self, dtype):
        """The same with arrays of another dtype, such as float32 to measure with: twice as fast."""
        return _with_arrays(self, lambda array: array.astype(dtype))

    def extremes(self, images):
        """The largest magnitude of an attention score, and the least mean square that a norm adds its epsilon to."""
        x, scores, squares = self.embed(images), [], []
        for residual in self.residuals():
            tokens, body, y = residual.entering(x), residual.body, None
            if isinstance(body, Attention):
                read = body.scores(tokens, residual.kept_tokens)
                scores.append(np.abs(read).max())
                y = body.joined(softmax(read) @ body.heads(body.value, tokens))
            norms = [(residual.norm, x), (residual.post_norm, residual.added(x, y))]
            squares += [norm.smallest_mean_square(values) for norm, values in norms if norm is not None]
            x = residual(x, y)
        squares += [] if self.norm is None else [self.norm.smallest_mean_square(x)]
        return float(max(scores, default=0.0)), float(min(squares, default=np.inf))

    def classify(self, x, output="logits"):
        """Logits, or the embedding, from the tokens after the last block."""
        x = x if self.norm is None else self.norm(x)
        patches = x[:, len(self.prefix) :]
        heads = [head for head in self.heads if head.output == output]
        return sum(head.dense(patches.mean(1) if head.token is None else x[:, head.token]) for head in heads)

    def embedding(self, images):
        """The features before the heads, `(B, D)` float64, of a spec that was read with them."""
        return self.classify([self.embed(images), *self.streams(images)][-1], "embedding")

    def attention_map(self, images):
        """What the answer draws on in the last block, `(B, rows, columns)` float64: the mean over heads and over the
        tokens that the heads read, or over all tokens where they read the mean.

        Raises:
            ValueError: there are no blocks.
        """
        if not self.attentions():
            raise ValueError("A model without blocks has no attention to map.")
        x, last = self.embed(images), self.attentions()[-1]
        for residual in self.residuals():
            if residual.body is last:
                break
            x = residual(x)
        weights = softmax(last.scores(residual.entering(x), self.pooled_tokens))
        rows, columns = patch_grid(self.image_shape, self.patch_size)
        return weights[..., len(self.prefix) :].mean((1, 2)).reshape(-1, rows, columns)

    @property
    def pooled_tokens(self):
        """How many leading tokens hold all that the heads read; None is all."""
        return None if any(head.token is None for head in self.heads) else 1 + max(head.token for head in self.heads)


def _with_arrays(value, function):
    """A component, or a tuple of them, with what a function makes of every array in it."""
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_with_arrays(item, function) for item in value)
    if is_dataclass(value):
        found = {field.name: _with_arrays(getattr(value, field.name), function) for field in fields(value)}
        return replace(value, **found)
    return value
