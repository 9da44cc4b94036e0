"""Makes the models loadable after `import keras_vit_plugin` alone, without importing keras_hub before it is needed.

KerasHub imports tensorflow-text where that is installed, which takes seconds and hundreds of megabytes. So the
registry first holds a stand-in for each model; loading one imports the real class, which replaces the stand-in.
"""

import importlib

import keras
import wrapt

DEFERRED_CLASSES = (
    "SimpleViT",
    "ViTBackbone",
    "ViTImageClassifier",
    "ViTImageClassifierPreprocessor",
    "ViTImageConverter",
)


def _stand_in(class_name):
    def from_config(cls, config, **kwargs):
        models = importlib.import_module("keras_vit_plugin.models")
        return getattr(models, class_name).from_config(config, **kwargs)

    return type(class_name, (), {"from_config": classmethod(from_config), "get_config": lambda self: {}})


def defer_registration():
    """Registers the stand-ins, and the real classes as soon as anyone imports keras_hub."""
    for class_name in DEFERRED_CLASSES:
        keras.saving.register_keras_serializable("keras_vit_plugin", class_name)(_stand_in(class_name))

    @wrapt.when_imported("keras_hub")
    def _register_models(_):
        importlib.import_module("keras_vit_plugin.models")
