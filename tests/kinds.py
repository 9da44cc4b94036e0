"""Tiny models of every kind of output, not of this package's layers, and what their outputs mean by NumPy."""

import numpy as np

from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

SIDE = 16
NAMES = ["ant", "bee", "cat", "dog"]
# kind: (units of the last layer or None, its activation, options for `export_tflite`)
KINDS = {
    "logits": (4, None, {"labels": NAMES, "task": "classes"}),
    "softmax": (4, "softmax", {"labels": NAMES}),
    "binary logit": (1, None, {"task": "binary"}),
    "binary sigmoid": (1, "sigmoid", {"labels": ["cat", "dog"]}),
    "binary of one name": (1, "sigmoid", {"labels": ["ripe"]}),
    "multi-label logits": (4, None, {"labels": NAMES, "task": "multi-label"}),
    "multi-label sigmoid": (4, "sigmoid", {"labels": NAMES}),
    "regression": (2, None, {"task": "regression", "labels": ["width", "height"]}),
    "embedding": (None, None, {"task": "embedding"}),
    "features": (None, None, {"task": "features"}),
}
TWO_NAMES = {
    "binary logit": ["no", "yes"],
    "binary sigmoid": ["cat", "dog"],
    "binary of one name": ["not ripe", "ripe"],
}


def model_of(kind, seed=0):
    """A model of `KINDS` for pixels scaled to 0..1, `(16, 16, 3)`; its answers differ from image to image."""
    import keras

    keras.utils.set_random_seed(seed)
    units, activation, _ = KINDS[kind]
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(8, 5, strides=3, activation="relu")(images)
    if kind != "features":
        x = keras.layers.Conv2D(16, 4, kernel_initializer=keras.initializers.RandomNormal(0, 0.5))(x)
        x = keras.layers.Flatten()(x)
    if not units:
        return keras.Model(images, x)
    head = keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.RandomNormal(0, 1.0))
    model = keras.Model(images, head(x))
    seen = np.asarray(keras.Model(images, x)(photos(64).astype(np.float32) / 255))
    head.bias.assign(-(seen @ np.asarray(head.kernel)).mean(0))  # as often yes as no
    return model


def photos(count=8):
    """Raw pixels, uint8 `(count, 16, 16, 3)`: waves and noise, each image another."""
    generator = np.random.default_rng(0)
    place = np.arange(SIDE) / SIDE
    waves = [np.sin(np.add.outer(place * a, place * b) * 6 + c) for a, b, c in generator.normal(0, 1.5, (count, 3))]
    noise = generator.normal(0, 0.3, (count, SIDE, SIDE, 3))
    return np.clip(128 + 100 * (np.stack(waves)[..., None] + noise), 0, 255).astype(np.uint8)


def scores_of(model, images):
    """What the Keras model gives, float64."""
    return np.asarray(model(images.astype(np.float32) / 255), np.float64)


def probabilities_of(kind, scores):
    """`(N, names)`, the two names of a binary answer included."""
    _, activation, _ = KINDS[kind]
    if kind == "logits":
        return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    if activation is None:
        scores = 1 / (1 + np.exp(-scores))
    return np.concatenate([1 - scores, scores], 1) if kind in TWO_NAMES else scores


def names_of(kind):
    return TWO_NAMES.get(kind, NAMES)


def without_metadata(path, folder):
    """The same graph in a file as another program would write it."""
    model = read(path.read_bytes())
    for entry in model.metadata:
        model.buffers[entry.buffer].data = None
    model.metadata = []
    (folder / "foreign.tflite").write_bytes(write(model))
    return folder / "foreign.tflite"


def of_older_version(path, folder):
    """The same file with metadata of schema 1, which had the names of outputs and nothing of what they mean."""
    stored = get_metadata(read(path.read_bytes()))
    new = ("schema", "answers", "content_sha256", "verified_by", "rejected", "parity")
    old = {key: value for key, value in stored.items() if key not in new}
    old |= {"outputs": ["logits"], "labels": None}
    old |= {"parity": {"images": 8, "top1_agreement": 0.97, "snr_db": 30.0, "max_abs_error": 0.1}}
    content = _with_output_called(path.read_bytes(), b"logits")
    (folder / "old.tflite").write_bytes(set_metadata(content, old))
    return folder / "old.tflite"


def _with_output_called(content, name):
    model = read(content)
    (output,) = model.signatureDefs[0].outputs
    output.name = name
    return write(model)
