"""`keras-vit run`: what a .tflite says of photos."""

import sys
from pathlib import Path

import click

from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import CLASS_NAMES, json_option, threads_option
from keras_vit_plugin.cli.tables import print_answer
from keras_vit_plugin.cli.terminal import print_json_array
from keras_vit_plugin.image_model.labels import read_labels
from keras_vit_plugin.progress import track

TOP = 5


@click.command("run")
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.argument("images", nargs=-1, required=True)
@click.option("--labels", metavar="PATH", help=f"{CLASS_NAMES}; default: those in the file.")
@click.option("--pixels", metavar="0..1|-1..1|0..255", help="For a TFLITE of another program: the range that it takes.")
@threads_option
@json_option
@readable_errors
def run_command(tflite, images, labels, pixels, threads, as_json):
    """Print what TFLITE says of IMAGES, the top five of several classes; exit code 1 if one cannot be read.

    A folder stands for the images in it. Of several outputs it is the first that is a model's answer.
    """
    from keras_vit_plugin.cli.classify import classify_files

    names = None if labels is None else read_labels(labels)
    results, unread = classify_files(tflite, _photos(images), names, TOP, threads, pixels), []
    if not sys.stdout.isatty():  # where the answers are seen, they tell how far it is
        results = track(results, "Reading photos")
    results = _noting(results, unread)
    if as_json:
        print_json_array(results)
    else:
        for result in results:
            print_answer(result)
    if unread:
        raise click.exceptions.Exit(1)


def _photos(paths):
    """Yields the paths, each folder replaced by the images in it, if there are any."""
    from keras_vit_plugin.images.folders import images_below

    for path in paths:
        below = images_below(path) if Path(path).is_dir() else iter(())
        yield next(below, path)
        yield from below


def _noting(results, unread):
    """Yields the results of photos, and keeps the paths of those without one in the list `unread`."""
    for result in results:
        if "error" in result:
            unread.append(result["file"])
        yield result
