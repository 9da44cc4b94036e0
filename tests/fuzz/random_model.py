"""A random Keras model, what its maker knows of it, and random photos."""

from dataclasses import dataclass, field

import keras
import numpy as np


@dataclass(frozen=True)
class Head:
    """What one output means: its name in Keras, `Answer.task`, `Answer.activation`, and how its task is known."""

    name: str
    task: str
    activation: str = "linear"
    needs_task: bool = False


@dataclass
class RandomModel:
    """A model, and what its maker knows of it.

    Attributes:
        model: the Keras model, not compiled.
        scale, offset: what turns pixels of 0..255 into its input.
        normalization: the arguments by which an export is told that; empty where the model says it.
        heads: what its outputs mean, as `keras.tree.flatten` orders them.
        give: from a batch of its input to the structure that it takes.
        parts: names of what it is made of.
        shape: of its images, `(H, W, C)`.
    """

    model: keras.Model
    scale: np.ndarray
    offset: np.ndarray
    normalization: dict
    heads: list
    give: callable = lambda x: x
    parts: list = field(default_factory=list)
    shape: tuple = ()

    def __post_init__(self):
        self.shape = self.shape or tuple(self.model.inputs[0].shape[1:])

    def input_of(self, images):
        """The model's input for raw pixels `(N, H, W, C)`."""
        if not self.input_dtype.startswith("float"):
            return images
        return images.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def outputs(self, images):
        """What Keras computes for raw pixels `(N, H, W, C)`: a list of float32 arrays."""
        found = keras.tree.flatten(self.model(self.give(self.input_of(images)), training=False))
        return [np.asarray(keras.ops.convert_to_numpy(values), np.float32) for values in found]

    @property
    def input_dtype(self):
        inputs = getattr(self.model, "inputs", None)
        return str(inputs[0].dtype) if inputs else "float32"


def pictures(generator, count, image_shape):
    """Random photos, uint8 `(count, H, W, C)`: a gradient, some shapes and noise, no two alike."""
    height, width, channels = image_shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    images = np.empty((count, *image_shape))
    for image in images:
        slope = generator.normal(0, 120, (2, channels))
        image[:] = (
            generator.uniform(30, 225, channels) + (y[..., None] - 0.5) * slope[0] + (x[..., None] - 0.5) * slope[1]
        )
        for _ in range(3):
            centre, radius = generator.uniform(0, 1, 2), generator.uniform(0.1, 0.4)
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            image[inside] = generator.uniform(0, 255, channels)
        image += generator.normal(0, generator.uniform(0, 20), image.shape)
    return np.clip(images, 0, 255).round().astype(np.uint8)


def choice(generator, options):
    return options[int(generator.integers(len(options)))]


def make_ordinary(made, generator):
    """Moves all weights off their initial values, and lets the heads tell images apart as trained ones do."""
    model = made.model
    for weight in model.weights:
        if weight.dtype.startswith("float") and "moving" not in weight.path:
            weight.assign_add(generator.normal(0, 0.1 if len(weight.shape) == 1 else 0.02, weight.shape))
    images = pictures(generator, 32, made.shape)
    layers = list(model._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.3
    for _ in range(8 if norms else 0):
        model(made.give(made.input_of(images)), training=True)
    for head in [layer for layer in layers if isinstance(layer, keras.layers.Dense)]:
        if any(part in head.name for part in ("head", "predictions", "logits")):
            _spread_out(made, head, images)


def _spread_out(made, head, images):
    """Scales a dense head so that its values before the activation have mean 0 and deviation 2 over the images."""
    entering = []

    def call(x, *args, **kwargs):
        entering.append(np.asarray(keras.ops.convert_to_numpy(x), np.float32))
        return type(head).call(head, x, *args, **kwargs)

    object.__setattr__(head, "call", call)
    made.outputs(images)
    object.__delattr__(head, "call")
    axes = tuple(range(entering[0].ndim - 1))
    kernel = np.asarray(head.kernel)
    kernel = kernel * 2 / np.maximum((entering[0] @ kernel).std(axes), 1e-3)
    head.kernel.assign(kernel)
    if head.use_bias:
        head.bias.assign(-(entering[0] @ kernel).mean(axes))
