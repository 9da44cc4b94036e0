"""Whole models. Importing this package imports keras_hub, which is why `keras_vit_plugin` does it on first use."""

from keras_vit_plugin.models.simple_vit import SimpleViT
from keras_vit_plugin.models.vit_backbone import ViTBackbone
from keras_vit_plugin.models.vit_image_classifier import ViTImageClassifier
from keras_vit_plugin.models.vit_preprocessing import ViTImageClassifierPreprocessor, ViTImageConverter

__all__ = [
    "SimpleViT",
    "ViTBackbone",
    "ViTImageClassifier",
    "ViTImageClassifierPreprocessor",
    "ViTImageConverter",
]
