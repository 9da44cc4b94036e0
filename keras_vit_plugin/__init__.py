"""From a Keras 3 Vision Transformer to a small, fast, verified `.tflite`."""

import importlib

from keras_vit_plugin._deferred_registration import defer_registration
from keras_vit_plugin.version import VERSION

__version__ = VERSION

defer_registration()

# Loaded on first use: Keras, KerasHub, the TFLite tools and matplotlib take seconds to import.
_CLASSES_AND_FUNCTIONS = {
    "SimpleViT": "models",
    "ViTBackbone": "models",
    "ViTImageClassifier": "models",
    "ViTImageClassifierPreprocessor": "models",
    "ViTImageConverter": "models",
    "build": "presets",
    "list_presets": "presets",
}
_SUBPACKAGES = ("checkpoints", "explain", "export", "layers", "models", "presets")

__all__ = [*_CLASSES_AND_FUNCTIONS, *_SUBPACKAGES]


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _CLASSES_AND_FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES_AND_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
