"""`keras-vit debug`: where the error of a .tflite enters, and what to try."""

import os
import warnings

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import (
    import_option,
    json_option,
    mean_option,
    numbers,
    open_named,
    pixels_option,
    std_option,
    weights_option,
)
from keras_vit_plugin.cli.tables import print_debug
from keras_vit_plugin.cli.terminal import print_json, print_line
from keras_vit_plugin.files import check_apart, check_writable, is_same_file


@click.command("debug")
@click.argument("model")
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.option("--calibration", metavar="DIR", help="What TFLITE was calibrated on, where it was.")
@click.option("--images", metavar="DIR", help="Images to measure on; default: the calibration's, or synthetic ones.")
@weights_option
@import_option
@mean_option
@std_option
@pixels_option
@click.option("--picture", metavar="FILE", help="Draw the blocks as a PNG; needs matplotlib.")
@json_option
@readable_errors
def debug_command(model, tflite, calibration, images, weights, modules, mean, std, pixels, picture, as_json):
    """Show which blocks and ops of TFLITE its error comes from, and what to try against the three worst.

    MODEL must be a classifier of keras_vit_plugin: the blocks of others are not known.
    """
    from keras_vit_plugin.export.verification.debug_picture import draw
    from keras_vit_plugin.plot_style import require_matplotlib

    if picture is not None:
        check_writable(picture, ".png", "picture")
        require_matplotlib()
        check_apart({"picture": picture}, {"model": model, "tflite": tflite, "weights": weights})
        _check_no_image(picture, "picture", {"calibration": calibration, "images": images})
    report = kv.export.debug(
        open_named(model, weights, modules),
        tflite,
        calibration,
        images,
        numbers(mean, "mean"),
        numbers(std, "std"),
        pixels,
    )
    if picture is not None:
        draw(report, picture)
    if as_json:
        print_json(report.to_dict())
        return
    print_debug(tflite, report)
    if picture is not None:
        print_line(f"Picture: {picture}")


def _check_no_image(path, name, folders):
    """Raises `ValueError` where a picture would be written over an image of one of the `{name: folder}`."""
    from keras_vit_plugin.images.folders import image_files

    for folder_name, folder in folders.items():
        if folder is not None and os.path.isfile(path) and os.path.isdir(folder):
            with warnings.catch_warnings(action="ignore"):  # they come when the images are read
                images = image_files(folder)[0]
            if any(is_same_file(path, image) for image in images):
                raise ValueError(
                    f"`{name}` must not be an image of `{folder_name}`, which it would overwrite: got {name}={path!r}, "
                    f"{folder_name}={folder!r}."
                )
