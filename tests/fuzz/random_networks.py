"""Random Keras models of other architectures, which are lowered as Keras emits them."""

import keras
import numpy as np
from random_layers import (
    AttentionPooling,
    Constant,
    ConstantMatrix,
    LearnedPositions,
    RootMeanSquareNorm,
    SubclassedNet,
)
from random_model import Head, RandomModel, choice
from random_vits import class_head, mean_and_std

import keras_vit_plugin as kv

L = keras.layers
ACTIVATIONS = ("relu", "relu", "relu6", "silu", "gelu", "elu", "tanh", "leaky_relu", "hard_silu", "sigmoid", "linear")
RANGES = {"0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0), "0..255": (1.0, 0.0)}
SIDES = (8, 12, 16, 18, 24, 32)
LARGEST_MAP, MOST_TOKENS = 16, 64
FRONTS = ("mean and std", "mean and std", "range", "rescaling", "rescaling to -1..1", "normalization", "uint8 input")


class Way:
    """How pixels come into a random model: a front, and what the export is told."""

    def __init__(self, generator, channels, fronts=FRONTS):
        self.kind = choice(generator, fronts)
        self.scale, self.offset, self.normalization, self.dtype = np.float64(1), np.float64(0), {}, "float32"
        self.layers = []
        if self.kind == "mean and std":
            mean, std = mean_and_std(generator, channels)
            self.scale, self.offset = 1 / (255 * std), -mean / std
            self.normalization = {"mean": mean.tolist(), "std": std.tolist()}
        elif self.kind == "range":
            pixels = choice(generator, tuple(RANGES)[:2])
            self.scale, self.offset = map(np.float64, RANGES[pixels])
            self.normalization = {"pixels": pixels}
        elif self.kind == "rescaling to -1..1":
            self.layers = [L.Rescaling(1 / 127.5, offset=-1.0)]
        elif self.kind == "normalization":
            mean = generator.uniform(90, 140, channels)
            self.layers = [L.Normalization(mean=mean.tolist(), variance=generator.uniform(40, 80, channels) ** 2)]
        else:
            self.layers = [L.Rescaling(1 / 255)]
            self.dtype = "uint8" if self.kind == "uint8 input" else "float32"
        if self.layers and generator.random() < 0.5:  # else the model says it
            self.normalization = {"pixels": "0..255"}

    def made(self, model, heads, give, parts, shape=()):
        return RandomModel(model, self.scale, self.offset, self.normalization, heads, give, [self.kind, *parts], shape)


def functional(generator, policy):
    """A trunk of random blocks on maps, then perhaps on tokens; one or several heads; inputs and outputs in some
    structure."""
    channels = choice(generator, (1, 3, 3))
    way, parts = Way(generator, channels), []
    shape = (choice(generator, SIDES), choice(generator, SIDES), channels)
    images = keras.Input(shape, dtype=way.dtype, name="photo")
    x = images
    for layer in way.layers:
        x = layer(x)
    x = _maps(generator, x, parts)
    maps = x
    if generator.random() < 0.45:
        x, maps = _tokens(generator, x, parts)
    x = _vector(generator, x, parts)
    outputs, heads = _heads(generator, x, maps, parts)
    kind = int(generator.integers(8))
    given, give = images, lambda x: x
    if kind == 0:
        given, give = [images], lambda x: [x]
    elif kind == 1:
        given, give = {"photo": images}, lambda x: {"photo": x}
    model = keras.Model(given, outputs)
    parts += {0: ["input in a list"], 1: ["input in a dict"]}.get(kind, [])
    if kind == 2 and len(heads) == 1:
        outer = keras.Input(shape, dtype=way.dtype, name="outer")
        model = keras.Model(outer, L.Activation("linear", name="end")(model(outer)))
        parts.append("model in a model")
    return way.made(model, heads, give, parts)


def sequential(generator, policy):
    channels = choice(generator, (1, 3))
    way = Way(generator, channels)
    shape = (choice(generator, SIDES), choice(generator, SIDES), channels)
    head, units = class_head(generator, "head")
    layers = [keras.Input(shape, dtype=way.dtype), *way.layers]
    for _ in range(int(generator.integers(1, 4))):
        layers.append(L.Conv2D(choice(generator, (4, 8, 12)), 3, 2, "same", activation=choice(generator, ACTIVATIONS)))
        layers += [L.BatchNormalization()] * (generator.random() < 0.3) + [L.Dropout(0.1)] * (generator.random() < 0.3)
    layers.append(choice(generator, (L.GlobalAveragePooling2D, L.Flatten))())
    if generator.random() < 0.5:
        layers.append(L.Dense(16, activation=choice(generator, ACTIVATIONS)))
    layers.append(L.Dense(units, activation=head.activation, name="head"))
    return way.made(keras.Sequential(layers), [head], lambda x: x, ["Sequential"])


def subclassed(generator, policy):
    channels = choice(generator, (1, 3))
    way = Way(generator, channels, ("mean and std", "range", "rescaling"))
    shape = (choice(generator, SIDES), choice(generator, SIDES), channels)
    head, units = class_head(generator, "head")
    rescaled = way.kind == "rescaling"
    if rescaled:  # it is inside `call`, where no one can see it
        way.normalization = {"pixels": "0..255"}
    width = choice(generator, (8, 12))
    model = SubclassedNet(width, choice(generator, ACTIVATIONS), (units, head.activation), rescaled)
    model(np.zeros((1, *shape), np.float32))
    return way.made(model, [head], lambda x: x, ["subclassed"], shape)


# === Blocks on maps (B, H, W, C) ===


def _maps(generator, x, parts):
    stem = choice(generator, (4, 8, 12, 16))
    stride = 2 if max(x.shape[1:3]) > LARGEST_MAP else choice(generator, (1, 2))
    x = L.Conv2D(stem, choice(generator, (1, 3, 4)), stride, "same", activation=choice(generator, ACTIVATIONS))(x)
    for _ in range(int(generator.integers(0, 5))):
        block = choice(generator, tuple(MAP_BLOCKS))
        x = MAP_BLOCKS[block](generator, x)
        parts.append(block)
    return x


def _activation(generator, x):
    name = choice(generator, (*ACTIVATIONS, "prelu", "relu of at most 3", "softplus", "mish"))
    if name == "prelu":
        return L.PReLU(
            alpha_initializer=keras.initializers.Constant(0.2), shared_axes=list(range(1, len(x.shape) - 1))
        )(x)
    return L.ReLU(max_value=3.0)(x) if name == "relu of at most 3" else L.Activation(name)(x)


def _convolution(generator, x):
    strides = 2 if min(x.shape[1:3]) >= 4 and generator.random() < 0.3 else 1
    padding = "valid" if min(x.shape[1:3]) >= 4 and generator.random() < 0.3 else "same"
    options = {"dilation_rate": 2} if strides == 1 and generator.random() < 0.15 and padding == "same" else {}
    options |= {"use_bias": generator.random() < 0.7, "activation": choice(generator, ACTIVATIONS)}
    return L.Conv2D(choice(generator, (4, 8, 12)), 3, strides, padding, **options)(x)


def _normalized_convolution(generator, x):
    x = L.Conv2D(choice(generator, (4, 8)), 3, padding="same", use_bias=False)(x)
    return _activation(generator, L.BatchNormalization()(x))


def _depthwise(generator, x):
    layer = choice(generator, (L.DepthwiseConv2D, L.SeparableConv2D))
    arguments = (x.shape[-1], 3) if layer is L.SeparableConv2D else (3,)
    return layer(*arguments, padding="same", activation=choice(generator, ACTIVATIONS))(x)


def _pool(generator, x):
    if min(x.shape[1:3]) < 2:
        return x
    return choice(generator, (L.MaxPooling2D, L.AveragePooling2D))(2, padding=choice(generator, ("same", "valid")))(x)


def _residual(generator, x):
    y = L.Conv2D(x.shape[-1], 3, padding="same", activation=choice(generator, ACTIVATIONS))(x)
    y = L.Conv2D(x.shape[-1], 1)(y)
    x = L.Add()([x, y])
    return _activation(generator, x) if generator.random() < 0.5 else x


def _inverted_residual(generator, x):
    y = L.Conv2D(2 * x.shape[-1], 1, activation="relu6")(x)
    y = L.DepthwiseConv2D(3, padding="same")(y)
    y = L.ReLU(6)(L.BatchNormalization()(y))
    return L.Add()([x, L.Conv2D(x.shape[-1], 1)(y)])


def _squeeze_and_excite(generator, x):
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    gate = L.Conv2D(4, 1, activation="relu")(gate)
    return L.Multiply()([x, L.Conv2D(x.shape[-1], 1, activation=choice(generator, ("sigmoid", "hard_sigmoid")))(gate)])


def _branches(generator, x):
    branches = [L.Conv2D(4, size, padding="same", activation=choice(generator, ACTIVATIONS))(x) for size in (1, 3)]
    return L.Concatenate()([*branches, x] if generator.random() < 0.5 else branches)


def _norm_on_maps(generator, x):
    layers = [L.LayerNormalization(epsilon=1e-6), RootMeanSquareNorm(), L.BatchNormalization(), L.UnitNormalization()]
    return choice(generator, (*layers, L.GroupNormalization(2 if x.shape[-1] % 2 == 0 else 1)))(x)


def _tied(generator, x):
    shared = L.Conv2D(x.shape[-1], 3, padding="same", activation=choice(generator, ACTIVATIONS))
    return shared(shared(x))


def _constant(generator, x):
    values, times = generator.uniform(0.5, 2, x.shape[-1]).tolist(), bool(generator.random() < 0.5)
    x = Constant(values, times)(x)
    return x * 0.5 + 0.25 if generator.random() < 0.5 else x


def _up_and_down(generator, x):
    if max(x.shape[1:3]) > 8:
        return x
    up = choice(generator, (L.UpSampling2D(2), L.Conv2DTranspose(x.shape[-1], 2, 2)))
    return L.AveragePooling2D(2)(_activation(generator, up(x)))


def _pad_and_crop(generator, x):
    x = L.ZeroPadding2D(((1, 2), (2, 1)))(x)
    return L.Conv2D(x.shape[-1], 3, activation="relu")(x)


MAP_BLOCKS = {
    "convolution": _convolution, "batch norm": _normalized_convolution, "depthwise": _depthwise, "pool": _pool,
    "residual": _residual, "inverted residual": _inverted_residual, "squeeze and excite": _squeeze_and_excite,
    "branches": _branches, "norm on maps": _norm_on_maps, "tied": _tied, "constant": _constant,
    "up and down": _up_and_down, "padding": _pad_and_crop, "activation": _activation,
}  # fmt: skip


# === Blocks on tokens (B, T, C) ===


def _tokens(generator, x, parts):
    """Tokens of maps, and the last of them before pooling."""
    while x.shape[1] * x.shape[2] > MOST_TOKENS:
        x = L.AveragePooling2D(2, padding="same")(x)
    width = choice(generator, (8, 12, 16))
    x = L.Dense(width)(L.Reshape((-1, x.shape[-1]))(x))
    if generator.random() < 0.6:
        x = LearnedPositions()(x)
    for _ in range(int(generator.integers(1, 4))):
        block = choice(generator, tuple(TOKEN_BLOCKS))
        x = TOKEN_BLOCKS[block](generator, x)
        parts.append(block)
    return x, x


def _attention(generator, x):
    norm = choice(generator, (L.LayerNormalization, RootMeanSquareNorm))
    heads = int(generator.integers(1, 4))
    attention = choice(
        generator,
        (
            L.MultiHeadAttention(heads, 4, use_bias=bool(generator.random() < 0.5)),
            L.MultiHeadAttention(heads, 4, dropout=0.1),
            L.GroupQueryAttention(4, 2 * heads, heads),
        ),
    )
    y = norm()(x)
    x = L.Add()([x, attention(y, y)])
    y = L.Dense(2 * x.shape[-1], activation=choice(generator, ("gelu", "relu", "silu", "tanh")))(norm()(x))
    return L.Add()([x, L.Dense(x.shape[-1])(y)])


def _mixer(generator, x):
    y = L.Permute((2, 1))(L.LayerNormalization()(x))
    y = L.Dense(x.shape[1], activation=choice(generator, ACTIVATIONS))(y)
    return L.Add()([x, L.Permute((2, 1))(y)])


def _gated(generator, x):
    return L.Dense(x.shape[-1])(L.Multiply()([L.Dense(16, activation="silu")(x), L.Dense(16)(x)]))


def _twins(generator, x):
    """Two dense layers whose biases, or all weights, are equal."""
    bias = keras.initializers.Constant(0.3)
    shared = L.Dense(x.shape[-1], bias_initializer=bias, activation=choice(generator, ACTIVATIONS))
    return shared(shared(x)) if generator.random() < 0.5 else L.Dense(x.shape[-1], bias_initializer=bias)(shared(x))


TOKEN_BLOCKS = {
    "attention": _attention,
    "mixer": _mixer,
    "gated": _gated,
    "twins": _twins,
    "constant matrix": lambda generator, x: ConstantMatrix(int(generator.integers(99)), bool(generator.random() < 0.5))(
        x
    ),
    "own block": lambda generator, x: kv.layers.EncoderBlock(2, 16, layer_scale=choice(generator, (None, 0.5)))(x),
    "1-D convolution": lambda generator, x: L.Conv1D(x.shape[-1], 3, padding="same", activation="relu")(x),
}


# === Pooling and heads ===


def _vector(generator, x, parts):
    if len(x.shape) == 4:
        pooling = choice(
            generator, (L.GlobalAveragePooling2D, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D, L.Flatten)
        )
    else:
        pooling = choice(generator, (L.GlobalAveragePooling1D, AttentionPooling, L.Flatten))
    parts.append(pooling.__name__)
    x = pooling()(x)
    if generator.random() < 0.3:
        x = L.Dropout(0.2)(L.Dense(16, activation=choice(generator, ACTIVATIONS))(x))
    return x


def _heads(generator, x, maps, parts):
    """`(outputs, heads)`."""
    if generator.random() < 0.7:
        output, head = _head(generator, x, maps, "head")
        parts.append(f"{head.task}, {head.activation}")
        return output, [head]
    made = [_head(generator, x, maps, f"head_{letter}") for letter in "abc"[: int(generator.integers(2, 4))]]
    parts += [f"{head.task}, {head.activation}" for _, head in made]
    kind = int(generator.integers(3))
    if kind == 0:
        parts.append("outputs in a list")
        return [output for output, _ in made], [head for _, head in made]
    names = ["zebra", "apple", "mango"][: len(made)]
    order = sorted(range(len(names)), key=names.__getitem__)
    if kind == 1:
        parts.append("outputs in a dict")
        structure = {name: output for name, (output, _) in zip(names, made)}
        return structure, [_renamed(made[i][1], names[i]) for i in order]
    parts.append("outputs in two levels")
    structure = {"z": {name: output for name, (output, _) in zip(names[:-1], made)}, "a": made[-1][0]}
    inner = sorted(range(len(names) - 1), key=names.__getitem__)
    return structure, [_renamed(made[-1][1], "a")] + [_renamed(made[i][1], f"z_{names[i]}") for i in inner]


def _renamed(head, name):
    return Head(name, head.task, head.activation, head.needs_task)


def _head(generator, x, maps, name):
    kind = int(generator.integers(15))
    several = int(generator.integers(2, 7))
    if kind < 7:
        head, units = class_head(generator, name)
        if head.activation != "linear" and generator.random() < 0.3:
            return L.Activation(head.activation, name=name)(L.Dense(units, name=f"{name}_dense")(x)), head
        return L.Dense(units, head.activation, name=name)(x), head
    if kind == 7:
        return L.Dense(several, name=name)(x), Head(name, "multi-label", needs_task=True)
    if kind == 8:
        return L.Dense(1, name=name)(x), Head(name, "regression")
    if kind == 9:
        return L.Dense(several, name=name)(x), Head(name, "regression", needs_task=True)
    if kind == 10:
        x = L.Dense(1, name=f"{name}_dense")(x)
        return L.Rescaling(10.0, offset=40.0, name=name)(x), Head(name, "regression")
    if kind == 11:
        return L.UnitNormalization(name=name)(L.Dense(8, name=f"{name}_dense")(x)), Head(name, "embedding")
    if kind == 12:
        return L.Activation("linear", name=name)(x), Head(name, "embedding", needs_task=True)
    if kind == 13:
        return L.Activation("linear", name=name)(maps), Head(name, "features")
    return L.Dense(3, name=f"{name}")(maps), Head(name, "features")
