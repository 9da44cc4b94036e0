"""A model from whatever names it: a preset, a Keras file or a preset folder."""

import contextlib
import importlib
import json
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path

import keras

from keras_vit_plugin.presets import build, get_preset

MODEL_FILES = (".keras", ".h5", ".hdf5")
# What people take for a model, and what to do instead.
OTHER_FILES = {
    ".tflite": "is a TFLite file already; MODEL is the Keras model that it is made from",
    ".npz": "holds weights: name its preset, and pass the file with --weights",
    ".safetensors": "holds weights: name its preset, and pass the file with --weights",
    ".pt": "is a PyTorch file: save its state_dict as .safetensors, name its preset, and pass the file with --weights",
    ".pth": "is a PyTorch file: save its state_dict as .safetensors, name its preset, and pass the file with --weights",
    ".onnx": "is an ONNX file; only Keras models are read",
    ".pb": "is a TensorFlow graph; only Keras models are read",
}


def import_modules(names):
    """Imports modules of the current folder or of installed packages, which register layers of a model.

    Raises:
        ImportError: one cannot be imported; says which and why.
    """
    for name in names:
        name = name.removesuffix(".py")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module's own code raises
            raise ImportError(f"The module {name!r} cannot be imported from {os.getcwd()!r}: {error}") from error


def open_model(source, weights=None):
    """Opens the model that `source` names.

    Args:
        source: a preset name; a `.keras` or `.h5` file of a whole model; or the folder of a preset, of this package or
            of KerasHub.
        weights: for a preset name: a path or `"pretrained"` as for `build`, or `"random"`. None takes the weights
            that this package ships, if it does for this preset.

    Returns:
        A Keras model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name is unknown, the file is damaged or is no Keras model, a preset without shipped weights came
            without `weights`, or `weights` came with a file that has its own.
    """
    path = Path(source)
    if path.suffix in MODEL_FILES or path.is_dir():
        if weights is not None:
            raise ValueError(f"`weights` is for preset names; {str(source)!r} has its own.")
        if not path.exists():
            raise FileNotFoundError(f"No file: {str(source)!r}.")
        return _open_folder(path) if path.is_dir() else _open_file(path)
    if path.suffix in OTHER_FILES:
        raise ValueError(f"{str(source)!r} {OTHER_FILES[path.suffix]}.")
    preset = get_preset(str(source))
    if weights is None:
        if not preset.ships_weights:
            raise ValueError(
                f"The preset {str(source)!r} ships no weights. Pass `weights`: a file, 'pretrained' for the hub's, or "
                "'random' to try sizes and speed."
            )
        weights = "pretrained"
    return build(str(source), weights=None if weights == "random" else weights)


def _open_file(path):
    if path.name.endswith(".weights.h5"):
        raise ValueError(f"{str(path)!r} holds weights alone: name its preset, and pass the file with --weights.")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is damaged or no .keras file: it is no complete zip archive.")
    try:
        with warnings.catch_warnings():  # tasks of KerasHub compile themselves, for an optimizer that is not wanted
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.saving.load_model(path, compile=False)
        _keep_loss(model, path)
        return model
    except Exception as error:  # Keras raises many kinds for one damaged file
        raise ValueError(f"{str(path)!r} cannot be loaded as a Keras model: {_reason(error)}") from error


def _keep_loss(model, path):
    """Gives a model the loss that it was saved with, which tells what its outputs mean, and no optimizer state."""
    with contextlib.suppress(Exception):  # a loss of somebody's own, which is not registered here, tells nothing
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                saved = json.loads(archive.read("config.json")).get("compile_config") or {}
        else:
            import h5py

            with h5py.File(path) as archive:
                saved = json.loads(archive.attrs["training_config"])
        if saved.get("loss") is not None:
            model.compile(loss=_read_loss(saved["loss"]))


def _read_loss(saved):
    """A loss, or a list or dict of losses, of what Keras wrote of it."""
    if isinstance(saved, list):
        return [_read_loss(each) for each in saved]
    if isinstance(saved, dict) and "class_name" not in saved:
        return {name: _read_loss(each) for name, each in saved.items()}
    return keras.losses.deserialize(saved) if isinstance(saved, dict) else saved


def _open_folder(path):
    if (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{str(path)!r} is a SavedModel, which has no Keras layers. In Python: model = keras.Sequential(["
            "keras.Input((HEIGHT, WIDTH, CHANNELS)), keras.layers.TFSMLayer(PATH, call_endpoint='serving_default')]); "
            "export_tflite(model, ...)."
        )
    if not (path / "config.json").is_file():
        raise ValueError(f"{str(path)!r} is no preset folder: it has no config.json.")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if str(config.get("registered_name", "")).startswith("keras_vit_plugin>"):
            from keras_vit_plugin.models import ViTImageClassifier

            return ViTImageClassifier.from_preset(str(path))
        import keras_hub

        if not (path / "task.json").is_file():
            return keras_hub.models.Backbone.from_preset(str(path))
        name = json.loads((path / "task.json").read_text(encoding="utf-8"))["class_name"]
        return getattr(keras_hub.models, name).from_preset(str(path))
    except Exception as error:  # KerasHub raises many kinds for one damaged folder
        raise ValueError(f"{str(path)!r} cannot be loaded as a preset: {_reason(error)}") from error


def _reason(error):
    """What Keras says, in a sentence, with the way out where there is one."""
    text = str(error)
    if "Lambda" in text and "safe_mode" in text:
        return (
            "it holds a Lambda layer, whose code is not run for safety. Write it as a layer of your own, registered "
            "with keras.saving.register_keras_serializable, save the model again, and name its module with --import."
        )
    missing = re.search(r"Could not locate (?:class|function) '([^']+)'|Unknown layer: '?([\w>]+)'?", text)
    if missing:
        name = missing.group(1) or missing.group(2)
        return (
            f"{name!r} is not known here. Name the module that registers it (keras.saving.register_keras_serializable) "
            "with --import."
        )
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
