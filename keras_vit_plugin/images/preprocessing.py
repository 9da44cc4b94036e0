"""How a photo becomes the pixels that a model takes."""

import os
import warnings
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from keras_vit_plugin.files import not_a_file
from keras_vit_plugin.image_model.image_model import image_shape_of
from keras_vit_plugin.images.normalization import RANGES, image_converter, pixel_normalization, pixel_words, two_lines
from keras_vit_plugin.warn import warn

__all__ = [
    "RANGES",
    "Preprocessing",
    "image_converter",
    "pixel_normalization",
    "pixel_words",
    "preprocessing_of",
    "two_lines",
]

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos3": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
RULES = ("cover", "pad", "stretch")
UNSAID = {"interpolation": "bilinear", "rule": "stretch"}  # where nothing says it: as Keras reads a folder
LARGEST_SIDE = 8192  # pixels of what a file's metadata ask for
# Those of `IMAGE_SUFFIXES`, and two that are taken by their name. Pillow would read others by programs of their own.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
LARGE = 16_000_000  # pixels; a larger photo is shrunk while it is read,
SPARE = 4  # to at least so many times the sides wanted
THINNEST = 50  # times as long as wide
STRIP = 64  # rows of a shrunk photo that are made at a time
HUNGRY_FORMATS = ("AVIF", "JPEG2000", "WEBP")  # their decoders hold an image several times,
HUNGRY_PIXELS = 40_000_000  # so that larger ones are refused


@dataclass(frozen=True)
class Preprocessing:
    """Resize a photo by `rule` to `resize`, crop the centre to `size`, keep the raw pixels.

    Attributes:
        size: `(height, width)` of the model's input.
        channels: 3 for RGB, 1 for grey.
        resize: `(height, width)` before the crop; None is `size`.
        interpolation: a key of `INTERPOLATIONS`.
        rule: `"cover"` keeps the proportions and fills `resize`, what sticks out is cut off; `"pad"` keeps them and
            fits inside, with black around; `"stretch"` does not keep them.
    """

    size: tuple[int, int]
    channels: int = 3
    resize: tuple[int, int] | None = None
    interpolation: str = "bicubic"
    rule: str = "cover"

    @property
    def colour(self):
        """The order of the channels, in words."""
        return {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels}-channel")

    @property
    def image_shape(self):
        return (*self.size, self.channels)

    @property
    def words(self):
        """What happens to a photo, in words."""
        height, width = self.resize or self.size
        text = f"{self.rule} {height}x{width} ({self.interpolation})"
        if (height, width) != tuple(self.size):
            text += f", then the centre {self.size[0]}x{self.size[1]}"
        return f"{text}, {self.colour}"

    def load(self, path):
        """One image file as uint8 pixels `(height, width, channels)`.

        It is the first frame of an animation, turned upright as EXIF says. Transparency is dropped as training
        pipelines drop it: the colours count that are stored under it. A photo of more than 16 megapixels is shrunk by
        a whole number first, to four times the sides wanted or more, so that little memory is needed.

        Raises:
            ValueError: the file is no readable image, more than 50 times as long as wide, or too large: more than
                twice `PIL.Image.MAX_IMAGE_PIXELS`, or 40 megapixels of WebP; names it.
        """
        try:
            resized = self.resized(self._upright(path))
        except Exception as error:  # whatever a damaged image makes its decoder do
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path} is no image that can be read: {reason}") from error
        left, top = (resized.width - self.size[1]) // 2, (resized.height - self.size[0]) // 2
        cropped = resized.crop((left, top, left + self.size[1], top + self.size[0]))
        return np.asarray(cropped, np.uint8).reshape(self.image_shape)

    def _upright(self, path):
        mode = "L" if self.channels == 1 else "RGB"
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            _opened(path) as image,
        ):
            _check_size(image)
            sides = self.resize or self.size
            factor = _excess(image, sides)
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))  # a JPEG decodes to fewer pixels
            image.load()
            image.info.pop("transparency", None)  # what `convert` would warn about
            upright = _shrunk(image, mode, _excess(image, sides))
            upright.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
            ImageOps.exif_transpose(upright, in_place=True)
        return upright

    def resized(self, image):
        """An image of Pillow's, upright, in the size that it has before the crop."""
        height, width = self.resize or self.size
        method = INTERPOLATIONS[self.interpolation]
        if self.rule == "pad":
            return ImageOps.pad(image, (width, height), method)
        if self.rule == "cover":
            scale = max(height / image.height, width / image.width)
            height, width = round(image.height * scale), round(image.width * scale)
        return image if image.size == (width, height) else image.resize((width, height), method)

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """As `to_dict` gave it, through JSON, which makes lists of tuples.

        Raises:
            ValueError: a value is missing, unknown, of another type, or a side is not in 1..8192.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or "size" not in values or not values.keys() <= known:
            raise ValueError(f"`preprocessing` must hold a size and no other than {', '.join(sorted(known))}")
        made = cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
        sides = (made.size, made.size if made.resize is None else made.resize)
        if not all(map(_is_size, sides)) or type(made.channels) is not int or made.channels < 1:
            raise ValueError(
                f"`preprocessing` must have sides of 1 to {LARGEST_SIDE} pixels and a channel or more, got "
                f"{shortened(values)}"
            )
        for name, allowed in (("interpolation", tuple(INTERPOLATIONS)), ("rule", RULES)):
            if getattr(made, name) not in allowed:
                got = shortened(getattr(made, name))
                raise ValueError(f"`{name}` of `preprocessing` must be one of {', '.join(allowed)}, got {got}")
        return made


def _is_size(sides):
    return (
        isinstance(sides, tuple)
        and len(sides) == 2
        and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides)
    )


def shortened(value):
    """A value as it is printed in a sentence."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _opened(path):
    if not os.path.isfile(path):  # opening a pipe would wait
        raise FileNotFoundError(not_a_file(path))
    Image.init()  # or only some formats are known
    try:
        return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ValueError(f"it is damaged or none of {', '.join(FORMATS)}") from None


def _check_size(image):
    width, height = image.size
    if max(image.size) > THINNEST * min(image.size):
        raise ValueError(f"{width} x {height} pixels are more than {THINNEST} times as long as wide")
    if image.format in HUNGRY_FORMATS and width * height > HUNGRY_PIXELS:
        raise ValueError(f"{width} x {height} pixels of {image.format} take too much memory; JPEG does not")


def _excess(image, sides):
    """The whole number by which an image may be shrunk before it is resized; 1 where it is not large."""
    return max(1, min(image.size) // (SPARE * max(sides))) if image.width * image.height > LARGE else 1


def _shrunk(image, mode, factor):
    """The image in a mode, each side divided by `factor`; strip by strip, or memory would hold it twice."""
    if factor == 1:
        return _converted(image, mode)
    small = Image.new(mode, tuple(-(-side // factor) for side in image.size))
    for top in range(0, image.height, STRIP * factor):
        strip = image.crop((0, top, image.width, min(top + STRIP * factor, image.height)))
        small.paste(_converted(strip, mode).reduce(factor), (0, top // factor))
    return small


def _converted(image, mode):
    """An image in the mode "L" or "RGB"; 16-bit greys are scaled to 8 bits, which `convert` would clip to white."""
    if image.mode == "F":
        raise ValueError("its pixels are floats of an unknown range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def preprocessing_of(model, resize=None, interpolation=None, image_shape=None):
    """How photos become what a Keras model takes: its input shape, and its image converter's rule where it has one.

    A model that says nothing gets the rule of Keras's `image_dataset_from_directory`: photos are stretched, bilinear.

    Args:
        model: a `keras.Model` of images.
        resize: instead of the model's rule one of `RULES`.
        interpolation: instead of the model's a key of `INTERPOLATIONS`.
        image_shape: `(height, width, channels)`, where the model does not say it.

    Raises:
        ValueError: the model has no single input of a known height, width and channel count, its image converter
            resizes to another size, or an argument is unknown.
    """
    for name, value, known in (("resize", resize, RULES), ("interpolation", interpolation, INTERPOLATIONS)):
        if value is not None and value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {name}={value!r}.")
    *size, channels = image_shape_of(model, image_shape)
    size = tuple(size)
    if not says_how_to_resize(model):
        said = {"interpolation": interpolation, "rule": resize}
        return Preprocessing(size, channels, **{name: said[name] or usual for name, usual in UNSAID.items()})
    converter = image_converter(model)
    if tuple(converter.image_size) != size:
        raise ValueError(
            f"The model takes images of {size}, its image converter resizes to {tuple(converter.image_size)}: set "
            "model.preprocessor.image_converter.image_size."
        )
    rule = "cover" if converter.crop_to_aspect_ratio else "pad" if converter.pad_to_aspect_ratio else "stretch"
    resized = (converter.resizing.height, converter.resizing.width)
    own = Preprocessing(size, channels, resized, converter.interpolation, rule)
    made = replace(own, rule=resize or rule, interpolation=interpolation or own.interpolation)
    if made != own:
        warn(f"Photos: {made.words}, though the model says otherwise: {own.words}.")
    return made


def says_how_to_resize(model):
    """Whether a Keras model has an image converter that resizes."""
    converter = image_converter(model)
    return converter is not None and converter.image_size is not None
