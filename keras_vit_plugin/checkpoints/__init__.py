"""Weights from files: Keras's own, preset folders, and timm-named tensors. No pickles."""

from keras_vit_plugin.checkpoints.load import load_weights

__all__ = ["load_weights"]
