"""Float files of models, and quantized files of float files, without an export around them."""

from keras_vit_plugin.export import mode_of
from keras_vit_plugin.export.float_files import FloatFiles
from keras_vit_plugin.export.quantization.mode import Setting
from keras_vit_plugin.export.targets import TARGETS


def quantized(content, mode, images=None, **setting):
    """A quantized file as bytes.

    Args:
        content: bytes of the float file.
        mode: a `Mode`, or the name of one.
        images: raw pixels to calibrate on, or None.
        setting: other attributes of the `Setting`.
    """
    mode = mode_of(mode)
    return mode.prepare(content, Setting(images=images, **setting)).file(mode)


def float_file(model, mode, calibration, target="litert"):
    """The float file, as bytes, that a mode quantizes.

    Args:
        model: an `ImageModel`.
        mode: a `Mode`, or the name of one.
        calibration: raw pixels, or None.
        target: the name of a target.
    """
    return FloatFiles(model, calibration, TARGETS[target]).lowered(mode_of(mode))
