"""Attention maps of models with this package's layers, and attention rollout (Abnar & Zuidema 2020,
arXiv:2005.00928)."""

import contextlib
from dataclasses import dataclass

import numpy as np
from keras import layers as keras_layers
from keras import ops

from keras_vit_plugin.explain.given import in_short
from keras_vit_plugin.geometry import patch_grid
from keras_vit_plugin.image_model.image_model import batch_of, image_shape_of
from keras_vit_plugin.layers import (
    MeanPooling,
    MultiHeadSelfAttention,
    PatchEmbedding,
    PrefixTokensAndPositions,
    TokenPooling,
)

POOLING = "TokenPooling, MeanPooling or GlobalAveragePooling1D"  # layers by which the tokens that are read are known


@dataclass(frozen=True)
class ModelParts:
    """The layers of a model that its pictures are made from.

    Attributes:
        patch_embedding: its `PatchEmbedding`.
        tokens: its `PrefixTokensAndPositions`, or None.
        attentions: its `MultiHeadSelfAttention` layers.
        num_prefix_tokens: tokens in front of the patches.
        read: the tokens whose attention is shown: their indices, or a slice.
        reader: the same in words.
        note: a sentence on what else the answer is read from, or that it is not known; empty where there is nothing.
    """

    patch_embedding: PatchEmbedding
    tokens: PrefixTokensAndPositions | None
    attentions: tuple[MultiHeadSelfAttention, ...]
    num_prefix_tokens: int
    read: list[int] | slice
    reader: str
    note: str


@dataclass(frozen=True)
class TokenGrid:
    """Where a model's tokens lie on the image: `rows` x `columns` patches after `parts.num_prefix_tokens` others."""

    parts: ModelParts
    rows: int
    columns: int

    def of_answer(self, weights):
        """What the answer draws on: of weights `(..., tokens, tokens)` the rows it is read from, per patch.

        Returns:
            `(..., rows, columns)`; what goes to tokens in front of the patches is left out.
        """
        return self.over_patches(weights[..., self.parts.read, :].mean(-2))

    def over_patches(self, row):
        """Values of tokens `(..., tokens)` as `(..., rows, columns)` of the patches."""
        patches = row[..., self.parts.num_prefix_tokens :]
        return patches.reshape(*patches.shape[:-1], self.rows, self.columns)


def attention_maps(model, image):
    """The attention probabilities of every layer and head for one image.

    Args:
        model: a model with a `PatchEmbedding` and `MultiHeadSelfAttention` layers of this package, as a
            `ViTBackbone`, a `ViTImageClassifier`, a `SimpleViT` or one of your own that is made of blocks.
        image: one normalized input `(H, W, C)`.

    Returns:
        float32 `(layers, heads, tokens, tokens)`; each row, what one token reads from, sums to 1.

    Raises:
        ValueError: the model has no such layers, or the image has another shape than the model's input.
    """
    return np.stack(run_attention(model, image)[1])


def attention_rollout(maps):
    """How much each token of the last layer draws on each input token, through all layers.

    Per layer the heads are averaged and mixed half and half with the identity, for the residual connection; the
    results are multiplied from the first layer to the last.

    Args:
        maps: `(layers, heads, tokens, tokens)` from `attention_maps`, or an iterable of `(heads, tokens, tokens)`.

    Returns:
        float64 `(tokens, tokens)`; each row sums to 1.

    Raises:
        ValueError: `maps` has another rank, layers of different numbers of tokens, or no layer.
    """
    try:
        layers = [np.asarray(layer, np.float64) for layer in maps]
    except (TypeError, ValueError):
        raise ValueError(
            f"`maps` must hold numbers (layers, heads, tokens, tokens), got maps={in_short(maps)}."
        ) from None
    shapes = list(dict.fromkeys(layer.shape for layer in layers))
    if len({shape[1:] for shape in shapes}) != 1 or any(
        len(shape) != 3 or shape[1] != shape[2] or not all(shape) for shape in shapes
    ):
        got = f"layers of {', '.join(map(str, shapes))}" if shapes else "no layer"
        raise ValueError(f"`maps` must have shape (layers, heads, tokens, tokens), got {got}.")
    return roll_out([with_residual(layer) for layer in layers])


def with_residual(maps):
    """One layer's maps `(heads, tokens, tokens)` averaged and mixed half and half with the identity."""
    return (maps.mean(0) + np.eye(maps.shape[1], dtype=maps.dtype)) / 2


def roll_out(mixed):
    """The product of what `with_residual` made of each layer, the first layer rightmost."""
    rollout = mixed[0]
    for layer in mixed[1:]:
        rollout = layer @ rollout
    return rollout


def token_attention(model, weights):
    """What the image's answer draws on per patch, as a grid over the image.

    Args:
        model: the model the weights come from.
        weights: `(tokens, tokens)`, such as a rollout or one head's map.

    Returns:
        `(rows, columns)` of the patches: the row of the token that the answer is read from, as the class token, or the
        mean of the rows of several, as all patches where the model averages them.

    Raises:
        ValueError: the model has no `PatchEmbedding` and `MultiHeadSelfAttention` of this package, or `weights` are not
            those of its tokens.
    """
    parts_of(model)
    grid, _ = run_attention(model, np.zeros(image_shape_of(model), np.float32), keep=lambda maps: None)
    weights, tokens = np.asarray(weights), grid.parts.num_prefix_tokens + grid.rows * grid.columns
    if weights.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"`weights` must have shape (tokens, tokens), for this model ({tokens}, {tokens}), got {in_short(weights)}."
        )
    return grid.of_answer(weights)


def parts_of(model):
    """The `ModelParts` of a model.

    Raises:
        ValueError: it has no attention of this package, or not one `PatchEmbedding`.
    """
    layers = list(model._flatten_layers()) if hasattr(model, "_flatten_layers") else []

    def of_type(kind):
        return [layer for layer in layers if isinstance(layer, kind)]

    attentions, embeddings = of_type(MultiHeadSelfAttention), of_type(PatchEmbedding)
    if not attentions or len(embeddings) != 1:
        raise ValueError(
            "`model` must have one PatchEmbedding and MultiHeadSelfAttention layers of keras_vit_plugin, as its "
            f"ViTImageClassifier, ViTBackbone and SimpleViT have; got a {type(model).__name__} with {len(embeddings)} "
            f"and {len(attentions)} of them."
        )
    tokens = next(iter(of_type(PrefixTokensAndPositions)), None)
    prefix = 0 if tokens is None else tokens.num_prefix_tokens
    return ModelParts(embeddings[0], tokens, tuple(attentions), prefix, *_read(tokens, prefix, of_type))


def _read(tokens, prefix, of_type):
    """`(tokens that the answer is read from, the same in words, a note or "")`, by the layers that pool tokens."""
    picked = sorted({layer.index for layer in of_type(TokenPooling)})
    firsts = [layer.num_prefix_tokens for layer in of_type(MeanPooling)]
    firsts += [_first_averaged(layer, tokens, prefix) for layer in of_type(keras_layers.GlobalAveragePooling1D)]
    firsts = [first for first in firsts if first is not None]
    mean = "" if not firsts else _mean_in_words(firsts[0], prefix)
    if picked:
        reader = " and ".join(token_in_words(tokens, index) for index in picked)
        shown = in_a_sentence(reader)
        also = f"The answer is read from {shown} and from the {mean}: the maps are those of {shown}."
        return picked, reader, also if mean else ""
    if mean:
        return slice(firsts[0], None), mean, ""
    unknown = f"What reads the tokens is not known: no {POOLING} does. The maps are"
    if tokens is not None and tokens.num_positioned_prefix_tokens:  # a backbone, or a head of somebody's own
        reader = token_in_words(tokens, 0)
        return [0], reader, f"{unknown} those of the {reader}, which most models read."
    return slice(prefix, None), "mean over the patches", f"{unknown} the mean over what all patches attend to."


def _first_averaged(layer, tokens, prefix):
    """The first of the tokens that a `GlobalAveragePooling1D` averages; None where it averages something else."""
    if layer.data_format != "channels_last":
        return None
    averaged = getattr(layer, "input", None)  # which a subclassed model does not record
    if averaged is None or tokens is None:
        return 0
    shape = tuple(averaged.shape)
    return {prefix + tokens.num_patches: 0, tokens.num_patches: prefix}.get(shape[1])


def _mean_in_words(first, prefix):
    return {0: "mean over all tokens", prefix: "mean over the patches"}.get(first, f"mean from token {first + 1} on")


def token_in_words(tokens, index):
    """What a token is; `tokens` is the model's `PrefixTokensAndPositions`, or None."""
    names = []
    if tokens is not None:
        names += ["class token"] * tokens.use_class_token + ["distillation token"] * tokens.use_distillation_token
        names += [f"register {number}" for number in range(1, tokens.num_register_tokens + 1)]
    return names[index] if index < len(names) else f"patch {index - len(names) + 1}"


def in_a_sentence(reader):
    """What `token_in_words` gave, for one token or more, with articles."""
    return " and ".join(f"the {each}" if each.endswith("token") else each for each in reader.split(" and "))


def run_attention(model, image, keep=np.asarray):
    """Runs a model on one image and keeps what its attention layers do.

    Args:
        model: as for `attention_maps`.
        image: one normalized input `(H, W, C)`.
        keep: what to keep of a layer's float32 maps `(heads, tokens, tokens)`; many layers of many tokens are large.

    Returns:
        `(the TokenGrid, a list of what was kept of each layer, in the order in which they ran)`.

    Raises:
        ValueError: as for `attention_maps`, or the tokens are not the patches and those in front of them.
    """
    parts = parts_of(model)
    expected, image = image_shape_of(model), np.asarray(image)
    if image.shape != tuple(expected):
        raise ValueError(f"`image` must have the model's shape {tuple(expected)}, got {image.shape}.")
    kept, sizes = [], []

    def see_maps(layer, call, x, *args, **kwargs):
        kwargs["return_attention_scores"], wanted = True, kwargs.get("return_attention_scores", False)
        y, probabilities = call(x, *args, **kwargs)
        maps = np.asarray(ops.convert_to_numpy(ops.cast(probabilities[0], "float32")))
        sizes.append(maps.shape)
        kept.append(keep(maps))
        return (y, probabilities) if wanted else y

    grids = []

    def see_grid(layer, call, x, *args, **kwargs):
        grids.append(patch_grid(tuple(x.shape[1:]), layer.patch_size))
        return call(x, *args, **kwargs)

    with contextlib.ExitStack() as watched:
        watched.enter_context(_watching(parts.patch_embedding, see_grid))
        for layer in parts.attentions:
            watched.enter_context(_watching(layer, see_maps))
        inputs = getattr(model, "inputs", None)
        batch = np.repeat(image[None], batch_of(model) or 1, 0)
        model(ops.convert_to_tensor(batch, inputs[0].dtype if inputs else "float32"), training=False)
    rows, columns = grids[0]
    wanted = parts.num_prefix_tokens + rows * columns
    if len(set(sizes)) > 1 or sizes[0][2] != wanted:
        raise ValueError(
            f"The attention of this {type(model).__name__} cannot be laid over the image: its layers see "
            f"{', '.join(sorted({f'{heads} heads of {count} tokens' for heads, count, _ in sizes}))}; one layer's "
            f"{rows} x {columns} patches and {parts.num_prefix_tokens} tokens in front of them are {wanted}."
        )
    return TokenGrid(parts, rows, columns), kept


@contextlib.contextmanager
def _watching(layer, see):
    """Within the context, `see(layer, call, *args, **kwargs)` is called for the layer's own `call`."""
    call = layer.call
    layer.call = lambda *args, **kwargs: see(layer, call, *args, **kwargs)
    try:
        yield
    finally:
        del layer.call
