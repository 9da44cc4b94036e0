"""What is exported to be compared by its bytes: tiny models of every topology, in every mode for every target."""

import itertools
from dataclasses import dataclass, field

import numpy as np

PRESETS = ("vit_test", "deit_distilled_test", "vit_registers_test", "vit_mean_pooling_test", "simple_vit_test")
FOREIGN = ("hybrid", "keras_hub_vit")
MODES = ("float32", "float16", "dynamic", "int8", "int8-full", "int16x8", "int4", "auto")
TARGETS = ("litert", "tflite-runtime", "gpu", "mediapipe")
IMAGES = 64


@dataclass(frozen=True)
class Case:
    """One export: a model of `PRESETS` or `FOREIGN`, and arguments of `export_tflite`."""

    model: str
    mode: str
    target: str
    options: dict = field(default_factory=dict)

    def __str__(self):
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.model}, {self.mode}, {self.target}{options}"


def cases():
    """Every case: what a target refuses is one too."""
    for model, mode, target in itertools.product((*PRESETS, *FOREIGN), MODES, TARGETS):
        yield Case(model, mode, target)
    for model in (*PRESETS, *FOREIGN):
        yield Case(model, "int8", "litert", {"prefer": "accuracy"})
        yield Case(model, "int8", "litert", {"batch_size": 2})
        yield Case(model, "int4", "litert", {"block_size": 32})
        yield Case(model, "int8-full", "litert", {"input_dtype": "int8", "output_dtype": "int8"})
        yield Case(model, "auto", "litert", {"prefer": "size"})
    for preset in PRESETS:
        yield Case(preset, "int8", "litert", {"outputs": ("embedding", "attention")})
        yield Case(preset, "float16", "gpu", {"outputs": ("embedding", "attention")})


def model_of(name):
    """The model of a name, with seeded weights."""
    import keras

    import keras_vit_plugin as kv

    keras.utils.set_random_seed(0)
    if name in PRESETS:
        model = kv.build(name)
    elif name == "hybrid":
        model = hybrid()
    else:
        import keras_hub

        backbone = keras_hub.models.ViTBackbone(
            image_shape=(32, 32, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
        )
        model = keras_hub.models.ViTImageClassifier(backbone, num_classes=5)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:  # biases and scales too
        weight.assign_add(generator.normal(0, 0.05, weight.shape))
    return model


def hybrid():
    """Convolutions, then attention of Keras's own layers, `(32, 32, 3)`."""
    import keras
    from keras import layers

    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, 2, "same", activation="relu")(images)
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, 2, "same")(x))
    x = layers.Reshape((64, 32))(x)
    normed = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 16)(normed, normed)])
    hidden = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(32)(hidden)])
    return keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def images_of(shape):
    """Raw pixels uint8 `(IMAGES, H, W, C)`: waves and noise, each image another."""
    generator = np.random.default_rng(1)
    rows, columns, channels = (np.arange(side) for side in shape)
    images = []
    for a, b, c, d in generator.normal(0, 0.5, (IMAGES, 4)):
        waves = np.sin(a * rows[:, None, None] + b * columns[None, :, None] + c + d * channels)
        images.append(128 + 100 * (waves + generator.normal(0, 0.3, shape)))
    return np.clip(images, 0, 255).astype(np.uint8)
