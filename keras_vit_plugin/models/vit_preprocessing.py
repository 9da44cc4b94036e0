"""From photos to the input of a ViT: resize the shorter side, centre crop, scale, offset."""

import keras
import keras_hub

from keras_vit_plugin.models.vit_backbone import ViTBackbone

FIXED = {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": False, "antialias": True, "bounding_box_format": "yxyx"}


@keras.saving.register_keras_serializable("keras_vit_plugin")
class ViTImageConverter(keras_hub.layers.ImageConverter):
    """KerasHub's image converter with the centre crop that ViT checkpoints are evaluated with.

    Args:
        image_size: `(height, width)` of the output in pixels, or None for no resize.
        crop_fraction: side of the crop over side of the resized image: 0.875 resizes to 256 and crops 224.
        scale: factor per channel, on pixels of 0..255.
        offset: added per channel after `scale`.
        interpolation: resize method, antialiased.

    Call: images of 0..255, `(H, W, C)` or `(B, H, W, C)` -> float of `image_size`.

    Raises:
        ValueError: `crop_fraction` is not in (0, 1], or an argument of the parent is other than in `FIXED`.
    """

    backbone_cls = ViTBackbone

    def __init__(self, image_size=None, crop_fraction=1.0, scale=None, offset=None, interpolation="bicubic", **kwargs):
        if not 0 < crop_fraction <= 1:
            raise ValueError(f"`crop_fraction` must be in (0, 1], got crop_fraction={crop_fraction}.")
        for name, value in FIXED.items():  # in the parent's config; this class has one answer to each
            if (given := kwargs.pop(name, value)) != value:
                raise ValueError(
                    f"`{name}` must be {value!r}, got {name}={given!r}. keras_hub.layers.ImageConverter has the other."
                )
        super().__init__(scale=scale, offset=offset, interpolation=interpolation, antialias=True, **kwargs)
        self.resizing.built = True  # no weights; `quantize` refuses layers that are not built
        self.crop_fraction = crop_fraction
        self.image_size = image_size

    @property
    def image_size(self):
        """`(height, width)` of the output in pixels, or None; can be set."""
        return self._image_size

    @image_size.setter
    def image_size(self, size):
        self._image_size = None if size is None else tuple(size)
        resized = (None, None) if size is None else (round(side / self.crop_fraction) for side in size)
        self.resizing.height, self.resizing.width = resized

    def call(self, inputs):
        images = super().call(inputs)
        if self.image_size is None:
            return images
        return keras.tree.map_structure(self._centre_crop, images)

    def _centre_crop(self, image):
        height, width = self.image_size
        top, left = (self.resizing.height - height) // 2, (self.resizing.width - width) // 2
        return image[..., top : top + height, left : left + width, :]

    def get_config(self):
        return {**super().get_config(), "crop_fraction": self.crop_fraction}


@keras.saving.register_keras_serializable("keras_vit_plugin")
class ViTImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """KerasHub's image classification preprocessor around `ViTImageConverter`."""

    backbone_cls = ViTBackbone
    image_converter_cls = ViTImageConverter
