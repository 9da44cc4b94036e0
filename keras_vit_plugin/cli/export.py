"""`keras-vit export`: a Keras model to a .tflite, which is written if it gives the model's answers."""

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import (
    image_shape_option,
    import_option,
    interpolation_option,
    json_option,
    labels_of,
    labels_option,
    mean_option,
    numbers,
    open_named,
    pixels_option,
    resize_option,
    sides,
    std_option,
    task_option,
    tasks,
    weights_option,
)
from keras_vit_plugin.cli.tables import print_candidates, print_pairs, print_rewrites
from keras_vit_plugin.cli.terminal import print_json, print_line
from keras_vit_plugin.export.request import request_of
from keras_vit_plugin.files import check_apart

# Options that are those of a mode, by the names that it has for them.
OF_MODES = ("prefer", "block_size", "cpu", "max_top1_drop", "max_relative_error")


@click.command("export")
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option(
    "--quantize",
    help="float32 (usual), float16, dynamic, int8, int8-full, int16x8, int4 or auto: the cheapest that is good enough.",
)
@click.option("--like", metavar="FILE", help="Take the mode, all its options and the target of this .tflite.")
@click.option("--prefer", help="For int8: speed (usual) or accuracy. For auto: speed (usual) or size.")
@click.option("--target", help="The runtime the file is for: litert (usual), tflite-runtime, gpu, mediapipe.")
@click.option("--cpu", help="For int8 and auto, whose costs count: x86-vnni (usual), x86-avx2, arm-dotprod, arm.")
@weights_option
@import_option
@click.option(
    "--calibration",
    metavar="DIR",
    help="Folder of images to calibrate on; auto, int4 and every int8 and int16 mode need one.",
)
@click.option("--verification", metavar="DIR", help="Folder of images to compare on; default: the calibration's.")
@labels_option
@mean_option
@std_option
@pixels_option
@resize_option
@interpolation_option
@image_shape_option
@task_option
@click.option("--input-dtype", help="uint8 (default; float32 for gpu), float32, or int8: pixels less 128.")
@click.option("--output-dtype", default="float32", show_default=True, help="float32, or int8 or int16 as computed.")
@click.option("--block-size", type=int, help="For int4: 32, 64, 128 or 256 inputs share a scale.")
@click.option("--batch-size", default=1, show_default=True, help="Images per call.")
@click.option("--outputs", default="", help="Besides logits: embedding, attention, or both with a comma between.")
@click.option("--min-agreement", type=float, help="Share of same answers, 0..1, from which the file is written.")
@click.option("--max-top1-drop", type=float, help="For auto: points of accuracy that may be lost.")
@click.option("--max-size", type=float, metavar="MB", help="For auto: megabytes, of 10^6 bytes.")
@click.option("--max-relative-error", type=float, help="For auto: error as a share of the spread of the answers.")
@click.option("--min-snr", type=float, help="Signal-to-noise ratio, in dB, from which it is.")
@click.option("--narrow-range", is_flag=True, help="All images to come have as little contrast as the calibration's.")
@click.option("--keep-rejected", is_flag=True, help="Keep a file that is too far from MODEL as OUT.rejected.tflite.")
@click.option(
    "--runtime-python", metavar="PATH", help="For tflite-runtime: a Python that has it, to verify the file there."
)
@click.option("--report", metavar="FILE", help="Write a page with pictures of what was kept and where error enters.")
@click.option(
    "--debug-passes", is_flag=True, help="Compute the model after every rewrite; an error names the wrong one."
)
@click.option("--explain", is_flag=True, help="Print which rewrites ran and what each changed.")
@json_option
@readable_errors
def export_command(
    model,
    out,
    quantize,
    like,
    target,
    weights,
    modules,
    calibration,
    labels,
    mean,
    std,
    image_shape,
    task,
    outputs,
    min_agreement,
    min_snr,
    max_size,
    runtime_python,
    report,
    explain,
    as_json,
    **others,
):
    """Convert MODEL to OUT.tflite; nothing is written unless the file gives the model's answers.

    MODEL is a preset name (with --weights), a .keras or .h5 file, or the folder of a preset, KerasHub's too.
    """
    options = {name: others.pop(name) for name in OF_MODES}
    if like is not None:
        quantize, made_for = _like(like, quantize)
        target = target or made_for
    mode, target = _mode(quantize or "float32", min_agreement, max_size, options), target or "litert"
    wanted = {
        "calibration": calibration,
        "tolerance": _tolerance(mode, min_agreement, min_snr),
        "report": report,
        "outputs": tuple(filter(None, outputs.split(","))),
        "runtime_python": runtime_python,
        **others,  # which `export_tflite` takes by the same names
    }
    request_of(out, mode, target, **wanted)  # raises before the model is read, which takes seconds
    check_apart({"out": out, "report": report}, {"model": model, "weights": weights, "labels": labels})
    keras_model = open_named(model, weights, modules)
    made = kv.export.export_tflite(
        keras_model,
        out,
        quantize=mode,
        target=target,
        labels=labels_of(labels, model, keras_model),
        mean=numbers(mean, "mean"),
        std=numbers(std, "std"),
        image_shape=sides(image_shape),
        task=tasks(task),
        **wanted,
    )
    if as_json:
        print_json(made.to_dict())
        return
    if made.tried:
        print_candidates(made)
    print_pairs(f"{out}: {made.mode} for {target}", made.in_words())
    if explain:
        print_rewrites(made)
    if report is not None:
        print_line(f"Report: {report}")


def _like(file, quantize):
    """The mode and the target of a file."""
    if quantize is not None:
        raise ValueError(f"--quantize does not go with --like, which names a mode; got {quantize} and {file}.")
    return kv.export.made_like(file)


def _mode(name, min_agreement, max_size, options):
    """The mode of a name, or the mode itself, with its options; what it does not take is an error."""
    options |= {"max_size": None if max_size is None else max_size * 1e6}
    mode = kv.export.mode_of(name, **options)
    return kv.export.mode_of(name, **options, min_agreement=min_agreement) if mode.chooses else mode


def _tolerance(mode, min_agreement, min_snr):
    if min_agreement is None and min_snr is None:
        return None
    if mode.chooses:
        if min_snr is not None:
            raise ValueError(f"--min-snr does not go with --quantize {mode.name}, got {min_snr}.")
        return None
    return kv.export.tolerance_of(min_agreement, min_snr)
