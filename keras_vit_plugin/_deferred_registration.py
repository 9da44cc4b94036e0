"""Makes everything loadable after `import keras_vit_plugin` alone, without importing Keras or KerasHub for it.

The layers are registered as soon as Keras is imported, by anyone. The models need KerasHub, which imports
tensorflow-text where that is installed, so the registry first holds a stand-in for each; loading one, or importing
KerasHub, brings in the real class, which replaces the stand-in.
"""

import importlib

import wrapt

MODEL_CLASSES = (
    "SimpleViT",
    "ViTBackbone",
    "ViTImageClassifier",
    "ViTImageClassifierPreprocessor",
    "ViTImageConverter",
)


def defer_registration():
    """Hooks the registration to the imports of `keras` and `keras_hub`; runs it at once where they are imported."""
    wrapt.register_post_import_hook(_register_layers_and_stand_ins, "keras")
    wrapt.register_post_import_hook(_register_models, "keras_hub")


def _register_layers_and_stand_ins(keras):
    importlib.import_module("keras_vit_plugin.layers")
    for class_name in MODEL_CLASSES:
        keras.saving.register_keras_serializable("keras_vit_plugin")(_stand_in(class_name))


def _register_models(_):
    importlib.import_module("keras_vit_plugin.models")


def _stand_in(class_name):
    def from_config(cls, config, **kwargs):
        models = importlib.import_module("keras_vit_plugin.models")
        return getattr(models, class_name).from_config(config, **kwargs)

    # Keras registers classes that have a `get_config` only.
    return type(class_name, (), {"from_config": classmethod(from_config), "get_config": lambda self: {}})
