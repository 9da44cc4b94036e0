"""Whether a Keras model can be exported, and which one it is."""

import hashlib

import numpy as np


def weights_hash(model):
    """A hash of all weights of a Keras model."""
    import keras

    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def check_model(model):
    """Raises `ValueError` unless the model can be exported: TensorFlow backend, built, float, finite weights."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Export needs the TensorFlow backend, this is {keras.backend.backend()}: save the model, set "
            "KERAS_BACKEND=tensorflow, load it and export it there."
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError("`model` is not built: call it once on images, or give it an input shape.")
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                f"The layer {layer.path!r} is quantized by Keras ({layer.quantization_mode}). Export the float model: "
                "the exporter quantizes."
            )
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"The weight {weight.path!r} holds NaN or infinity; no file can be right.")
