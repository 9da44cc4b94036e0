"""How a photo becomes the pixels a model takes, and pixels become its input."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos3": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize so that the image covers `resize` without distortion, crop the centre to `size`, keep the raw pixels.

    Attributes:
        size: `(height, width)` of the model's input.
        channels: 3 for RGB, 1 for grey.
        resize: `(height, width)` before the crop.
        interpolation: a key of `INTERPOLATIONS`.
    """

    size: tuple[int, int]
    channels: int = 3
    resize: tuple[int, int] | None = None
    interpolation: str = "bicubic"

    @property
    def image_shape(self):
        return (*self.size, self.channels)

    def load(self, path):
        """One image file as uint8 pixels `(height, width, channels)`.

        Raises:
            ValueError: the file is no readable image; names it.
        """
        try:
            with Image.open(path) as image:
                image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is no image that can be read: {error}") from error
        height, width = self.resize or self.size
        scale = max(height / image.height, width / image.width)
        resized = (round(image.width * scale), round(image.height * scale))
        if image.size != resized:
            image = image.resize(resized, INTERPOLATIONS[self.interpolation])
        left, top = (image.width - self.size[1]) // 2, (image.height - self.size[0]) // 2
        image = image.crop((left, top, left + self.size[1], top + self.size[0]))
        return np.asarray(image, np.uint8).reshape(self.image_shape)

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def preprocessing_of(model):
    """The `Preprocessing` of a Keras model: its image converter's, or its input shape alone.

    Raises:
        ValueError: the model has no single input of a known height, width and channel count.
    """
    converter = image_converter(model)
    if converter is not None and converter.image_size is not None:
        resize = (converter.resizing.height, converter.resizing.width)
        return Preprocessing(converter.image_size, model.image_shape[2], resize, converter.interpolation)
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ValueError(
            "`model` must have one input of images (batch, height, width, channels) with known sides; "
            f"its inputs are {shapes or 'unknown: build it first'}."
        )
    return Preprocessing(shapes[0][1:3], shapes[0][3])


def image_converter(model):
    """The KerasHub image converter of a model, or None."""
    return getattr(getattr(model, "preprocessor", None), "image_converter", None)


def pixel_normalization(model, mean=None, std=None):
    """`(scale, offset)` that turn pixels of 0..255 into the model's input: `pixels * scale + offset`.

    Args:
        model: a Keras model.
        mean, std: for pixels scaled to 0..1, per channel or one number; None asks the model.

    Raises:
        ValueError: neither the arguments nor the model say it.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"Pass `mean` and `std` together, got mean={mean}, std={std}.")
    if std is not None:
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"`mean` must be finite and `std` positive, got mean={mean}, std={std}.")
        return 1 / (255 * std), -mean / std
    converter = image_converter(model)
    if converter is not None:
        scale = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
        return np.asarray(scale, np.float64), np.asarray(offset, np.float64)
    if hasattr(model, "pixel_scale"):
        return np.asarray(model.pixel_scale, np.float64), np.asarray(model.pixel_offset, np.float64)
    raise ValueError(
        f"{type(model).__name__} does not say how pixels become its input. Pass `mean` and `std` for pixels scaled to "
        "0..1: mean=0, std=1 if it was trained on 0..1; mean=0, std=1/255 if it takes 0..255."
    )


def image_files(folder):
    """The image files of a folder and, where known, their labels.

    A folder has a `labels.csv` with the columns file and label, or one sub-folder per class, or just images.

    Returns:
        `(paths, labels)`; labels are the strings found, or None.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds no images, or `labels.csv` lacks a column or names a missing file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No image folder: {str(folder)!r}.")
    table = folder / "labels.csv"
    if table.exists():
        return _listed_files(table)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [(path, child.name) for child in classes for path in sorted(child.iterdir()) if _is_image(path)]
    if found:
        return [path for path, _ in found], [label for _, label in found]
    paths = sorted(path for path in folder.iterdir() if _is_image(path))
    if not paths:
        raise ValueError(f"The folder {str(folder)!r} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return paths, None


def _is_image(path):
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def _listed_files(table):
    import csv

    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise ValueError(f"{table} must have rows and the columns file and label.")
    paths = [table.parent / row["file"] for row in rows]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{table} names {len(missing)} missing files, the first is {missing[0]!r}.")
    return paths, [row["label"] for row in rows]
