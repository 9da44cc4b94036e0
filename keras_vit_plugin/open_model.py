"""A model from whatever names it: a preset, a Keras file or a preset folder."""

import contextlib
import importlib
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_vit_plugin.checkpoints.limits import RefusedFile, first_line, read_json_file
from keras_vit_plugin.checkpoints.whole_models import checked_folder, load_archive, load_hdf5
from keras_vit_plugin.presets import build, get_preset

CLASS = re.compile(r"<class '[\w.]*?(\w+)'>")  # as Python writes one
GRAPH_NAME = re.compile(r"[A-Za-z0-9.][\w.\\/>-]*", re.ASCII)
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
        ValueError: the name is unknown; the file is damaged, is no Keras model, would become more than ten times its
            size or takes values from other files; a preset without shipped weights came without `weights`; or
            `weights` came with a file that has its own.
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
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no regular file.")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is damaged or no .keras file: it is no complete zip archive.")
    try:
        with warnings.catch_warnings():  # tasks of KerasHub compile themselves, for an optimizer that is not wanted
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            if path.suffix == ".keras":
                model, config = load_archive(path)
                training = config.get("compile_config") or {}
            else:
                model, training = load_hdf5(path)
        _check_usable(model)
        _keep_loss(model, training)
        return model
    except Exception as error:  # Keras raises many kinds for one damaged file
        raise ValueError(f"{str(path)!r} cannot be loaded as a Keras model: {_reason(error)}") from error


def _check_usable(model):
    """Raises `RefusedFile` for a config that builds a model which cannot be called, or whose pixels are no numbers."""
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    for name in ("scale", "offset"):
        value = getattr(converter, name, None)
        try:
            np.asarray(0.0 if value is None else value, np.float32)
        except (TypeError, ValueError) as error:
            raise RefusedFile(f"its image converter has {name}={value!r:.80}, which is no number") from error
    if not GRAPH_NAME.fullmatch(model.name):
        raise RefusedFile(f"its name {model.name!r:.80} is none that TensorFlow takes: letters, digits and ._/>- alone")
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or None in inputs[0].shape[1:] or "string" in str(inputs[0].dtype):
        return
    try:
        model(keras.ops.zeros((inputs[0].shape[0] or 1, *inputs[0].shape[1:]), inputs[0].dtype))
    except Exception as error:  # of any layer
        raise RefusedFile(f"it cannot be called on an image: {first_line(error)}") from error


def _keep_loss(model, training):
    """Gives a model the loss that it was saved with, which tells what its outputs mean, and no optimizer state."""
    with contextlib.suppress(Exception):  # a loss of somebody's own, which is not registered here, tells nothing
        if training.get("loss") is not None:
            model.compile(loss=_read_loss(training["loss"]))


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
        with checked_folder(path) as check_types:
            model = _load_preset(path)
            check_types(model)
        _check_usable(model)
        return model
    except Exception as error:  # KerasHub raises many kinds for one damaged folder
        raise ValueError(f"{str(path)!r} cannot be loaded as a preset: {_reason(error)}") from error


def _load_preset(path):
    if str(read_json_file(path / "config.json").get("registered_name", "")).startswith("keras_vit_plugin>"):
        from keras_vit_plugin.models import ViTImageClassifier

        return ViTImageClassifier.from_preset(str(path))
    import keras_hub

    if not (path / "task.json").is_file():
        return keras_hub.models.Backbone.from_preset(str(path))
    name = str(read_json_file(path / "task.json").get("class_name"))
    if not hasattr(getattr(keras_hub.models, name, None), "from_preset"):
        raise RefusedFile(f"its task.json has class_name={name!r}, which KerasHub does not have")
    return getattr(keras_hub.models, name).from_preset(str(path))


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
    return CLASS.sub(r"\1", first_line(error))
