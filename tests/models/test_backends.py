"""The same weights give the same logits on TensorFlow and JAX."""

import numpy as np
import pytest
from conftest import TINY_PRESETS, pixels, randomize, run_python

import keras_vit_plugin as kv

JAX_LOGITS = """
import sys, numpy as np, keras, keras_vit_plugin
assert keras.backend.backend() == "jax"
for path in sys.argv[1:]:
    x = np.load(path + ".npz")["x"]
    np.save(path + ".npy", np.asarray(keras.saving.load_model(path + ".keras")(x)))
"""


@pytest.mark.long
def test_tensorflow_and_jax_agree(tmp_path):
    logits = {}
    for name in TINY_PRESETS:
        model = kv.build(name)
        randomize(model)
        x = (pixels(model.image_shape) / 255).astype("float32")
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=x)
        logits[name] = np.asarray(model(x))
    run_python(JAX_LOGITS, *(tmp_path / name for name in TINY_PRESETS), KERAS_BACKEND="jax")
    for name, reference in logits.items():
        error = np.abs(np.load(tmp_path / f"{name}.npy") - reference).max()
        assert error <= 1e-5 * np.abs(reference).max(), name


@pytest.mark.long
def test_export_on_another_backend_says_what_to_do(tmp_path):
    code = """
import keras_vit_plugin as kv
try:
    kv.export.export_tflite(kv.build("vit_test"), "never.tflite")
except ValueError as error:
    print(error)
"""
    assert "KERAS_BACKEND=tensorflow" in run_python(code, KERAS_BACKEND="jax")
