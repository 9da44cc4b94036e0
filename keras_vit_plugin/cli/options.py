"""Options that several commands have, and what their texts stand for."""

import click

import keras_vit_plugin as kv
from keras_vit_plugin.image_model.labels import read_labels

CLASS_NAMES = "Class names: a file with one a line, or a folder with a sub-folder per class"

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")
weights_option = click.option(
    "--weights",
    metavar="PATH|pretrained|random",
    help="For a preset name: .weights.h5, .keras, preset folder, timm-named .npz or .safetensors; the hub's "
    "weights; or random ones.",
)
import_option = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="A module of your own, of this folder or installed, that registers the layers of MODEL; may be repeated.",
)
labels_option = click.option("--labels", metavar="PATH", help=f"{CLASS_NAMES}; default: the preset's.")
mean_option = click.option("--mean", metavar="M[,M,M]", help="For pixels scaled to 0..1, if the model does not say it.")
std_option = click.option("--std", metavar="S[,S,S]", help="For pixels scaled to 0..1, if the model does not say it.")
pixels_option = click.option("--pixels", metavar="0..1|-1..1|0..255", help="Instead: the range of the model's input.")
resize_option = click.option(
    "--resize", metavar="cover|pad|stretch", help="How photos get the model's size, if it does not say it."
)
interpolation_option = click.option(
    "--interpolation", metavar="NAME", help="And by what: bilinear, bicubic, lanczos3, nearest."
)
image_shape_option = click.option(
    "--image-shape", metavar="HxWxC", help="Height, width and channels of an image, if the model does not say them."
)
task_option = click.option(
    "--task",
    help="What the outputs mean, if the model does not say it: classes, binary, multi-label, regression, embedding, "
    "features; or NAME=TASK,NAME=TASK for several.",
)
threads_option = click.option("--threads", type=int, help="Threads of the interpreter; default: one per usable core.")


def open_named(model, weights, modules=()):
    """The Keras model of MODEL, `--weights` and `--import`."""
    from keras_vit_plugin.open_model import import_modules, open_model

    import_modules(modules)
    return open_model(model, weights)


def labels_of(path, name, model):
    """Class names from a file, else the preset's where the class count is still the preset's."""
    if path is not None:
        return read_labels(path)
    names = getattr(kv.presets.ARCHITECTURES.get(name), "labels", ())
    return names if names and tuple(model.output_shape) == (None, len(names)) else None


def numbers(text, name):
    """Numbers and fractions with commas between, such as 1/255."""
    if text is None:
        return None
    try:
        return [float(over) / float(under or 1) for over, _, under in (part.partition("/") for part in text.split(","))]
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"--{name} must be one number or fraction, such as 1/255, or several with commas between, got {text!r}."
        ) from error


def sides(text):
    """`(height, width, channels)` of a text such as 32x32x3."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ValueError(f"--image-shape must be height, width and channels, such as 224x224x3, got {text!r}.")
    return tuple(map(int, parts))


def tasks(text):
    """The task of a text such as classes, or `{output: task}` of one such as a=classes,b=regression."""
    if text is None or "=" not in text:
        return text
    return dict(part.split("=", 1) if "=" in part else (part, "") for part in text.split(","))
