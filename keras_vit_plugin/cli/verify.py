"""`keras-vit verify`: whether a .tflite answers as its Keras model, on images."""

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import (
    image_shape_option,
    import_option,
    json_option,
    mean_option,
    numbers,
    open_named,
    pixels_option,
    sides,
    std_option,
    task_option,
    tasks,
    threads_option,
    weights_option,
)
from keras_vit_plugin.cli.tables import print_pairs
from keras_vit_plugin.cli.terminal import print_json, say


@click.command("verify")
@click.argument("model")
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.option("--images", required=True, metavar="DIR", help="Folder with labels.csv, or a sub-folder per class.")
@weights_option
@import_option
@mean_option
@std_option
@pixels_option
@click.option(
    "--file-pixels",
    metavar="0..1|-1..1|0..255",
    help="For a TFLITE of another program: the range that it takes; default: what MODEL takes.",
)
@image_shape_option
@task_option
@click.option("--min-agreement", type=float, help="Share of same answers, 0..1; default: that of the file's mode.")
@click.option("--min-snr", type=float, help="Signal-to-noise ratio in dB; default: that of the file's mode.")
@threads_option
@json_option
@readable_errors
def verify_command(
    model,
    tflite,
    images,
    weights,
    modules,
    mean,
    std,
    pixels,
    file_pixels,
    image_shape,
    task,
    min_agreement,
    min_snr,
    threads,
    as_json,
):
    """Compare TFLITE with MODEL on the same images: agreement, signal-to-noise ratio, accuracy.

    The exit code is 1 if TFLITE keeps less than is wanted of its mode, or than --min-agreement and --min-snr say.
    """
    report = kv.export.verify(
        open_named(model, weights, modules),
        tflite,
        images,
        mean=numbers(mean, "mean"),
        std=numbers(std, "std"),
        num_threads=threads,
        pixels=pixels,
        file_pixels=file_pixels,
        image_shape=sides(image_shape),
        task=tasks(task),
    )
    metadata = kv.export.inspect(tflite).metadata
    wanted = kv.export.wanted_of(tflite, report, min_agreement, min_snr)
    if as_json:
        print_json({**report.to_dict(), "holds": wanted.holds(report)})
    else:
        if not metadata:
            given = f"pixels {file_pixels}" if file_pixels else "what the model is given"
            say(f"{tflite} was not made by keras-vit: it is given {given}.", err=True)
        print_pairs(tflite, {"images": str(report.images), **report.in_words()})
    if not wanted.holds(report):
        agreement = "" if wanted.min_agreement is None else f"{wanted.min_agreement:.1%} of the answers and "
        raise click.ClickException(f"{tflite} keeps less than {agreement}{wanted.min_snr_db:g} dB.")
