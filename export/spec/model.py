"""The model as plain float64 arrays: what every rewrite reads and returns, and an oracle that computes it.

`from_keras` reads a Keras model into a `ViTSpec`; `ViTSpec.forward` runs it in float64 NumPy. The Keras model and the
exported file are each compared with the oracle, so a disagreement names the guilty stage.
"""

import itertools
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from keras_vit_plugin.geometry import patch_grid

from .functions import gelu, softmax


@dataclass(frozen=True, eq=False)
class Dense:
    """`y = x @ kernel + bias` with kernel (inputs, outputs) and bias (outputs,)."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x):
        return x @ self.kernel + self.bias

    def scaled(self, factor):
        """`y * factor`, for one factor or one per output."""
        return Dense(self.kernel * factor, self.bias * factor)


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm over the last axis, `(x - mean) / sqrt(mean square + epsilon) * gamma + beta`.

    gamma and beta have shape (D,); None where a rewrite has folded them away. Without `subtract_mean` it is RMSNorm.
    """

    gamma: np.ndarray | None
    beta: np.ndarray | None
    epsilon: float
    subtract_mean: bool = True

    def __call__(self, x):
        x = self._centred(x)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + self.epsilon)
        x = x if self.gamma is None else x * self.gamma
        return x if self.beta is None else x + self.beta

    def smallest_mean_square(self, x):
        """The least that epsilon is added to."""
        return np.square(self._centred(x)).mean(-1).min()

    def _centred(self, x):
        return x - x.mean(-1, keepdims=True) if self.subtract_mean else x


@dataclass(frozen=True, eq=False)
class Attention:
    """Multi-head self-attention; `score_scale` multiplies the scores before softmax.

    Where a rewrite has absorbed key and value into query and output, they are None: every head reads the tokens
    themselves.
    """

    num_heads: int
    query: Dense
    key: Dense | None
    value: Dense | None
    output: Dense
    score_scale: float

    def __call__(self, x, queries=None):
        """Attention over the tokens of x, `(B, T, D)`, for its first `queries` tokens; None is all."""
        return self.joined(softmax(self.scores(x, queries)) @ self.heads(self.value, x))

    def joined(self, mixed):
        """What leaves the attention, `(B, T, D)`, of the values as each head mixes them, `(B, heads, T, d)`."""
        mixed = mixed.transpose(0, 2, 1, 3)  # (B, T, heads, d)
        return self.output(mixed.reshape(*mixed.shape[:2], -1))

    def scores(self, x, queries=None):
        """What softmax takes, `(B, heads, T, T)`."""
        query, key = self.heads(self.query, x[:, :queries]), self.heads(self.key, x)
        return query @ key.transpose(0, 1, 3, 2) * self.score_scale

    def heads(self, dense, x):
        """`dense(x)` by head, `(B, heads, T, d)`; x itself, `(B, 1, T, D)`, where there is no dense."""
        if dense is None:
            return x[:, None]
        y = dense(x)
        return y.reshape(*y.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)


@dataclass(frozen=True, eq=False)
class Block:
    """`x += scale * attention(norm(x))`, optionally a norm, then `x += scale * mlp(norm(x))`.

    None leaves a norm or a scale out. With `kept_tokens`, only so many leading tokens leave the block.
    """

    attention_norm: Norm | None
    attention: Attention
    attention_scale: np.ndarray | None
    post_attention_norm: Norm | None
    mlp_norm: Norm | None
    mlp_hidden: Dense
    mlp_output: Dense
    mlp_scale: np.ndarray | None
    kept_tokens: int | None = None

    def attention_input(self, x):
        """What attention reads of the stream x."""
        return x if self.attention_norm is None else self.attention_norm(x)

    def after_attention(self, x, y=None):
        """The stream between the two halves, before the norm that may follow.

        Args:
            x: the stream, `(B, T, D)`.
            y: what the attention gives of it, where that is known.
        """
        y = self.attention(self.attention_input(x), self.kept_tokens) if y is None else y
        return x[:, : self.kept_tokens] + (y if self.attention_scale is None else y * self.attention_scale)

    def __call__(self, x, y=None):
        """The stream behind the block; `y` as for `after_attention`."""
        x = self.after_attention(x, y)
        if self.post_attention_norm is not None:
            x = self.post_attention_norm(x)
        y = self.mlp_output(gelu(self.mlp_hidden(x if self.mlp_norm is None else self.mlp_norm(x))))
        return x + (y if self.mlp_scale is None else y * self.mlp_scale)


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

    def dense_layers(self):
        """Every `Dense`, in the order of computation."""
        layers = [self.patch]
        for block in self.blocks:
            attention = block.attention
            layers += [attention.query, attention.key, attention.value, attention.output]
            layers += [block.mlp_hidden, block.mlp_output]
        return [layer for layer in layers if layer is not None] + [head.dense for head in self.heads]

    def norms(self):
        """Every `Norm`."""
        blocks = [(block.attention_norm, block.post_attention_norm, block.mlp_norm) for block in self.blocks]
        return [norm for norm in [*itertools.chain(*blocks), self.norm] if norm is not None]

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
        for block in self.blocks:
            tokens, attention = block.attention_input(x), block.attention
            read = attention.scores(tokens, block.kept_tokens)
            scores.append(np.abs(read).max())
            norms = [(block.attention_norm, x)]
            y = attention.joined(softmax(read) @ attention.heads(attention.value, tokens))
            between = block.after_attention(x, y)
            norms += [(block.post_attention_norm, between), (block.mlp_norm, between)]
            squares += [norm.smallest_mean_square(values) for norm, values in norms if norm is not None]
            x = block(x, y)
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
        if not self.blocks:
            raise ValueError("A model without blocks has no attention to map.")
        x = self.embed(images)
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        weights = softmax(last.attention.scores(last.attention_input(x), self.pooled_tokens))
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
