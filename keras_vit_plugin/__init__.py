"""From a Keras 3 Vision Transformer to a small, fast, verified `.tflite`."""

import importlib

from keras_vit_plugin import layers
from keras_vit_plugin._deferred_registration import defer_registration
from keras_vit_plugin.version import VERSION as __version__

defer_registration()

# Loaded on first use: keras_hub, the TFLite tools and matplotlib take seconds to import.
_ON_FIRST_USE = {
    "SimpleViT": ("keras_vit_plugin.models", "SimpleViT"),
    "ViTBackbone": ("keras_vit_plugin.models", "ViTBackbone"),
    "ViTImageClassifier": ("keras_vit_plugin.models", "ViTImageClassifier"),
    "ViTImageClassifierPreprocessor": ("keras_vit_plugin.models", "ViTImageClassifierPreprocessor"),
    "ViTImageConverter": ("keras_vit_plugin.models", "ViTImageConverter"),
    "build": ("keras_vit_plugin.presets", "build"),
    "list_presets": ("keras_vit_plugin.presets", "list_presets"),
    "checkpoints": ("keras_vit_plugin.checkpoints", None),
    "explain": ("keras_vit_plugin.explain", None),
    "export": ("keras_vit_plugin.export", None),
    "models": ("keras_vit_plugin.models", None),
    "presets": ("keras_vit_plugin.presets", None),
}

__all__ = ["layers", *_ON_FIRST_USE]


def __getattr__(name):
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = _ON_FIRST_USE[name]
    module = importlib.import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__():
    return sorted({*globals(), *_ON_FIRST_USE})
