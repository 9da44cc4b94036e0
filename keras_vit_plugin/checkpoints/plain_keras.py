"""Weights of the teaching notebook's model as people write it, in layers of Keras, put under `SimpleViT`'s paths.

Layers of one's own may have any name and be nested in any way, so they are told by the shapes of what they hold; the
parts of `keras.layers.MultiHeadAttention`, which have one shape, by the names that Keras gives them. A layer that Keras
itself names after its class is only taken for what that class can be.
"""

import math
import re

import numpy as np

from keras_vit_plugin.checkpoints.stored_tensor import StoredTensor, is_float

# Parts of `keras.layers.MultiHeadAttention` and of this package's attention.
ATTENTION = {"query_dense": "query", "key_dense": "key", "value_dense": "value", "output_dense": "output_dense"}
UNSAID = (
    "in layers of Keras's own, without what they compute: SimpleViT cuts patches row by row, adds positions to them, "
    "runs its block once, normalizes once in it, after the attention's residual and with an epsilon of 1e-6, and has "
    "an exact GELU and a mean over the patches"
)
# Of Keras's own classes those that each place may hold, as Keras names them in a file.
CLASSES = {
    "patch_embedding/projection": {"dense", "conv2d", "einsum_dense"},
    "tokens_and_positions": {"embedding"},
    "norm": {"layer_normalization"},
    **dict.fromkeys(("mlp/hidden", "mlp/output_dense", "layers/dense"), {"dense", "einsum_dense", "conv1d"}),
}
TOLERANCE = 1e-3  # of the answers' spread


def is_of_plain_keras(paths):
    """Whether paths in a file are those of a model with one or more `keras.layers.MultiHeadAttention`."""
    return any("/query_dense/vars/" in f"/{path}" for path in paths)


def with_own_paths(tensors, model, expected, source):
    """The tensors under the paths of a `SimpleViT` of one block.

    Args:
        tensors: `{path in the file: StoredTensor}`.
        model: to be filled.
        expected: paths that the model itself saves.
        source: what to call the file in an error.

    Returns:
        `{path of the model: StoredTensor}`. Sides that the user may have chosen, those of the images and the number
        of classes, are as in the file.

    Raises:
        ValueError: the model is another, or a layer is missing, there twice, or one that `SimpleViT` does not have.
    """
    if len(getattr(model, "blocks", ())) != 1 or hasattr(model, "backbone"):
        raise ValueError(
            f"{source} holds a model in layers of Keras's own, which is read into a SimpleViT of one block alone, not "
            f"into {type(model).__name__}."
        )
    layers = {}
    for path, tensor in tensors.items():
        if is_float(tensor.dtype):  # others are the states of random generators
            layer, _, number = path.rpartition("/vars/")
            layers.setdefault(layer, {})[number] = tensor
    layers = {layer: [held[number] for number in sorted(held)] for layer, held in layers.items()}
    found, problems = {}, []
    for place, fits in _places(model).items():
        matching = [
            layer
            for layer, held in layers.items()
            if fits(layer, [tensor.shape for tensor in held]) and _class_fits(layer, place)
        ]
        if len(matching) == 1:
            own = sorted(path for path in expected if f"{place}/vars/" in path)
            found |= dict(zip(own, map(_reshaped, layers[matching[0]], _shapes(model, place, layers[matching[0]]))))
            layers.pop(matching[0])
        else:
            problems.append(f"{len(matching) or 'no'} layer{'s' * (len(matching) != 1)} that can be {place}")
    problems += [f"{layer!r:.80} {[tensor.shape for tensor in held]} besides" for layer, held in layers.items()]
    if problems:
        raise ValueError(
            f"{source} holds no SimpleViT of {model.hidden_dim} channels in layers of Keras's own: it has "
            f"{'; '.join(problems)[:600]}."
        )
    return found


def same_answers(model, own):
    """Whether two classifiers give the same answers on two random images; None where that cannot be seen.

    Args:
        model: a `SimpleViT` with the weights of the other.
        own: the model whose weights these are, as Keras loads it. Its answers may be probabilities.
    """
    from keras import ops

    images = np.random.default_rng(0).random((2, *model.image_shape), np.float32)
    try:
        theirs = np.asarray(own(images, training=False), np.float32)
    except Exception:  # whatever a model of somebody's own makes of images of this size
        return None
    ours = np.asarray(model(images, training=False), np.float32)
    if theirs.shape != ours.shape:
        return None
    return any(
        np.abs(theirs - each).max() <= TOLERANCE * np.ptp(each) for each in (ours, np.asarray(ops.softmax(ours)))
    )


def _class_fits(layer, place):
    """Whether a layer that Keras named after its class, one of Keras's own, is of a class for this place."""
    named = re.search(r"(?:^|/)layers/([a-z0-9_]+?)(?:_\d+)?$", layer)
    return place not in CLASSES or not named or named[1] not in _keras_classes() or named[1] in CLASSES[place]


def _keras_classes():
    """Keras's layers as it names them in a file: `LayerNormalization` is `layer_normalization`."""
    import keras

    return {re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower() for name in dir(keras.layers)}


def _places(model):
    """`{part of a path of SimpleViT: function of a layer's path and shapes that tells whether it belongs there}`."""
    width, hidden, heads, key_dim = model.hidden_dim, model.mlp_dim, model.num_heads, model.key_dim
    side, channels = model.patch_size, model.image_shape[2]

    def attention(part):
        head = [(heads, key_dim, width), (width,)] if part == "output_dense" else [(width, heads, key_dim)]
        head = head if part == "output_dense" else [*head, (heads, key_dim)]
        return lambda layer, shapes: f"/{layer}".endswith(f"/{part}") and shapes == head

    def dense(*kernels):
        return lambda layer, shapes: any(shapes == [kernel, kernel[-1:]] for kernel in kernels)

    def head(layer, shapes):
        others = (hidden,) if hidden != model.num_classes else ()
        return len(shapes) == 2 and shapes[0][:-1] == (width,) and shapes[1] == shapes[0][1:] and shapes[1] != others

    return {
        "patch_embedding/projection": dense((side, side, channels, width), (side * side * channels, width)),
        "tokens_and_positions": lambda layer, shapes: (
            len(shapes) == 1
            and shapes[0][-1:] == (width,)
            and len(shapes[0]) in (2, 3)
            and math.prod(shapes[0][:-2]) == 1 < shapes[0][-2]  # one token is a class token
        ),
        **{f"attention/{own}": attention(theirs) for theirs, own in ATTENTION.items()},
        "norm": lambda layer, shapes: shapes == [(width,), (width,)],
        "mlp/hidden": dense((width, hidden)),
        "mlp/output_dense": dense((hidden, width)),
        "layers/dense": head,
    }


def _shapes(model, place, held):
    """The shapes that `SimpleViT` has for what a layer holds."""
    width, inner = model.hidden_dim, model.num_heads * model.key_dim
    if place == "patch_embedding/projection":
        return [(model.patch_size, model.patch_size, model.image_shape[2], width), (width,)]
    if place == "tokens_and_positions":
        return [(1, held[0].shape[-2], width)]
    if place == "attention/output_dense":
        return [(inner, width), (width,)]
    if place.startswith("attention/"):
        return [(width, inner), (inner,)]
    return [tensor.shape for tensor in held]


def _reshaped(tensor, shape):
    return StoredTensor(tuple(shape), tensor.dtype, lambda: tensor.read().reshape(shape))
