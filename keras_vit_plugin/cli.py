"""The `keras-vit` command: parses, calls, prints."""

import contextlib
import errno
import functools
import os
import sys
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path

import click

import keras_vit_plugin as kv
from keras_vit_plugin.export.request import check_arguments, check_paths
from keras_vit_plugin.files import check_apart, is_same_file
from keras_vit_plugin.image_model.labels import read_labels
from keras_vit_plugin.progress import print_lines, track
from keras_vit_plugin.quiet import silence_native_stderr
from keras_vit_plugin.tables import (
    metadata_in_words,
    print_answer,
    print_candidates,
    print_debug,
    print_pairs,
    print_rewrites,
)
from keras_vit_plugin.temporary import own_temporaries
from keras_vit_plugin.terminal import (
    in_one_line,
    print_json,
    print_json_array,
    print_line,
    print_table,
    say,
    show_every_character,
    strip_control,
)

TOP = 5
CLASS_NAMES = "Class names: a file with one a line, or a folder with a sub-folder per class"
TRACEBACK = "keras_vit.traceback"
MOST_LINES, LONGEST_LINE = 12, 1500  # of an error


def _readable_errors(command):
    """Turns every error into a sentence and exit code 1 instead of a traceback, which `--traceback` shows."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None
        except Exception as error:
            if click.get_current_context().meta.get(TRACEBACK):
                say(traceback.format_exc(), err=True)
                raise click.exceptions.Exit(1) from error
            raise click.ClickException(sentence_of(error)) from error

    def remember(context, _, value):
        context.meta[TRACEBACK] = value

    return click.option(
        "--traceback", is_flag=True, expose_value=False, callback=remember, help="Show where an error was raised."
    )(wrapped)


def sentence_of(error):
    """What the command says of an exception: its message, shortened, and of an unexpected kind that it is a fault."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and str(error).startswith("[Errno"):
        return f"Standard output cannot be written: {error.strerror}."  # all files that are written have a name
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)  # a KeyError would quote it
    lines = [line.rstrip() for line in strip_control(said).splitlines() if line.strip()] or ["no message"]
    text = "\n".join(line[:LONGEST_LINE] + " ..." * (len(line) > LONGEST_LINE) for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        text += f"\n... and {len(lines) - MOST_LINES} lines more (--traceback shows all)"
    if isinstance(error, (ValueError, OSError, ImportError, kv.export.ParityError)) and type(error) is not UnicodeError:
        return text
    return f"{type(error).__name__}: {text}\nThis is a fault of keras-vit, not of yours: --traceback shows where."


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
mean_option = click.option("--mean", metavar="M[,M,M]", help="For pixels scaled to 0..1, if the model does not say it.")
pixels_option = click.option("--pixels", metavar="0..1|-1..1|0..255", help="Instead: the range of the model's input.")
image_shape_option = click.option(
    "--image-shape", metavar="HxWxC", help="Height, width and channels of an image, if the model does not say them."
)
task_option = click.option(
    "--task",
    help="What the outputs mean, if the model does not say it: classes, binary, multi-label, regression, embedding, "
    "features; or NAME=TASK,NAME=TASK for several.",
)
std_option = click.option("--std", metavar="S[,S,S]", help="For pixels scaled to 0..1, if the model does not say it.")


class _Commands(click.Group):
    """Commands whose errors of usage, which quote the command line, are no orders to a terminal."""

    def make_context(self, *args, **kwargs):
        with _readable_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx):
        with _readable_usage():
            return super().invoke(ctx)


@contextlib.contextmanager
def _readable_usage():
    try:
        yield
    except click.ClickException as error:
        error.message = strip_control(error.message)
        raise


@click.group(cls=_Commands)
@click.version_option(kv.__version__, prog_name="keras-vit")
@click.pass_context
def main(context):
    """Vision Transformers from Keras to small, fast, verified .tflite files."""
    # Export needs this backend; and TensorFlow's start-up messages would drown what the command prints.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    context.with_resource(silence_native_stderr())
    context.with_resource(own_temporaries())
    show_every_character()
    context.with_resource(print_lines())
    context.with_resource(_short_warnings())


@contextlib.contextmanager
def _short_warnings():
    """Within the context, warnings are printed as lines."""
    before, warnings.showwarning = warnings.showwarning, _print_warning
    try:
        yield
    finally:
        warnings.showwarning = before


def _print_warning(message, category, filename, lineno, file=None, line=None):
    """A warning to the user as a line; those for developers are left out."""
    if issubclass(category, UserWarning) or category is RuntimeWarning:
        say(f"Warning: {message}", err=True)


@main.command("list")
@click.argument("pattern", default="*")
@json_option
@_readable_errors
def list_command(pattern, as_json):
    """List the presets that match PATTERN, such as 'vit_*'."""
    rows = [(name, kv.presets.get_preset(name)) for name in kv.list_presets(pattern)]
    if as_json:
        print_json([{"name": name, **asdict(preset)} for name, preset in rows])
        return
    if not rows:
        say(f"No preset matches {pattern!r}: keras-vit list prints all.")
        return
    print_table(
        ("preset", "image", "patch", "width", "layers", "weights"),
        (
            (
                name,
                "x".join(map(str, preset.image_shape)),
                preset.patch_size,
                preset.hidden_dim,
                preset.num_layers,
                "shipped" if preset.ships_weights else "hub" if preset.pretrained else "",
            )
            for name, preset in rows
        ),
        no_wrap=True,
        box=None,
        padding=(0, 2, 0, 0),
    )


@main.command()
@click.option("--output", default="demo-output", show_default=True, type=click.Path(file_okay=False))
@json_option
@_readable_errors
def demo(output, as_json):
    """Build the shipped digits model, export it, verify it, run it, print a table and draw a picture."""
    from keras_vit_plugin.export.demo import run_demo

    rows, accuracy, picture = run_demo(output)
    if as_json:
        print_json({"accuracy_keras": accuracy, "rows": [asdict(row) for row in rows], "picture": str(picture)})
        return
    print_table(
        ("mode", "size kB", "accuracy", "agreement", "SNR dB", "ms per image"),
        (
            (
                row.mode,
                f"{row.size_bytes / 1000:.0f}",
                f"{row.parity.top1_accuracy_tflite:.1%}",
                f"{row.parity.top1_agreement:.1%}",
                f"{row.parity.snr_db:.1f}",
                f"{row.median_ms:.3f}",
            )
            for row in rows
        ),
        title="vit_digits",
    )
    say(f"{rows[0].parity.images} held-out digits; the Keras model gets {accuracy:.1%} of them right.")
    print_line(f"Twenty of them and what the int8-full file calls them: {picture}")


@main.command()
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option(
    "--quantize",
    default="float32",
    show_default=True,
    help="float32, float16, dynamic, int8, int8-full, int16x8, int4; or auto: the cheapest that is good enough.",
)
@click.option(
    "--prefer", default="speed", show_default=True, help="For int8: speed or accuracy. For auto: speed or size."
)
@click.option(
    "--target",
    default="litert",
    show_default=True,
    help="The runtime the file is for: litert, tflite-runtime, gpu, mediapipe.",
)
@click.option("--cpu", help="For int8 and auto, whose costs count: x86-vnni (usual), x86-avx2, arm-dotprod, arm.")
@weights_option
@import_option
@click.option(
    "--calibration",
    metavar="DIR",
    help="Folder of images to calibrate on; auto, int4 and every int8 and int16 mode need one.",
)
@click.option("--verification", metavar="DIR", help="Folder of images to compare on; default: the calibration's.")
@click.option("--labels", metavar="PATH", help=f"{CLASS_NAMES}; default: the preset's.")
@mean_option
@std_option
@pixels_option
@click.option("--resize", metavar="cover|pad|stretch", help="How photos get the model's size, if it does not say it.")
@click.option("--interpolation", metavar="NAME", help="And by what: bilinear, bicubic, lanczos3, nearest.")
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
@click.option("--explain", is_flag=True, help="Print which rewrites ran and what each changed.")
@json_option
@_readable_errors
def export(
    model,
    out,
    quantize,
    prefer,
    target,
    cpu,
    weights,
    modules,
    calibration,
    verification,
    labels,
    mean,
    std,
    pixels,
    resize,
    interpolation,
    image_shape,
    task,
    input_dtype,
    output_dtype,
    block_size,
    batch_size,
    outputs,
    min_agreement,
    max_top1_drop,
    max_size,
    max_relative_error,
    min_snr,
    narrow_range,
    keep_rejected,
    runtime_python,
    report,
    explain,
    as_json,
):
    """Convert MODEL to OUT.tflite; nothing is written unless the file gives the model's answers.

    MODEL is a preset name (with --weights), a .keras or .h5 file, or the folder of a preset, KerasHub's too.
    """
    tolerance = _tolerance(quantize, min_agreement, min_snr)
    check_arguments(quantize, target, prefer, input_dtype, output_dtype, block_size, batch_size, tolerance, cpu)
    check_paths(out, report, quantize, calibration, target, runtime_python)
    check_apart({"out": out, "report": report}, {"model": model, "weights": weights, "labels": labels})
    keras_model = _open(model, weights, modules)
    wish = {} if quantize != "auto" else {"min_agreement": min_agreement}
    made = kv.export.export_tflite(
        keras_model,
        out,
        quantize=quantize,
        prefer=prefer,
        target=target,
        cpu=cpu,
        calibration=calibration,
        labels=_labels(labels, model, keras_model),
        mean=_numbers(mean, "mean"),
        std=_numbers(std, "std"),
        pixels=pixels,
        resize=resize,
        interpolation=interpolation,
        image_shape=_sides(image_shape),
        task=_tasks(task),
        input_dtype=input_dtype,
        output_dtype=output_dtype,
        block_size=block_size,
        batch_size=batch_size,
        outputs=tuple(filter(None, outputs.split(","))),
        verification=verification,
        tolerance=tolerance,
        report=report,
        max_top1_drop=max_top1_drop,
        max_size=None if max_size is None else max_size * 1e6,
        max_relative_error=max_relative_error,
        keep_rejected=keep_rejected,
        narrow_range=narrow_range,
        runtime_python=runtime_python,
        **wish,
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


@main.command()
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
@click.option("--threads", type=int, help="Threads of the interpreter; default: one per usable core.")
@json_option
@_readable_errors
def verify(
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
        _open(model, weights, modules),
        tflite,
        images,
        mean=_numbers(mean, "mean"),
        std=_numbers(std, "std"),
        num_threads=threads,
        pixels=pixels,
        file_pixels=file_pixels,
        image_shape=_sides(image_shape),
        task=_tasks(task),
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


@main.command()
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
@_readable_errors
def debug(model, tflite, calibration, images, weights, modules, mean, std, pixels, picture, as_json):
    """Show which blocks and ops of TFLITE its error comes from, and what to try against the three worst.

    MODEL must be a classifier of keras_vit_plugin: the blocks of others are not known.
    """
    from keras_vit_plugin.export.verification.debug_picture import draw
    from keras_vit_plugin.files import check_writable
    from keras_vit_plugin.plot_style import require_matplotlib

    if picture is not None:
        check_writable(picture, ".png", "picture")
        require_matplotlib()
        check_apart({"picture": picture}, {"model": model, "tflite": tflite, "weights": weights})
        _check_no_image(picture, "picture", {"calibration": calibration, "images": images})
    report = kv.export.debug(
        _open(model, weights, modules),
        tflite,
        calibration,
        images,
        _numbers(mean, "mean"),
        _numbers(std, "std"),
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


@main.command()
@click.argument("model")
@click.argument("photo", type=click.Path(dir_okay=False))
@click.option("--out", required=True, metavar="FILE", help="What to write: a page, .html, or a picture, .png.")
@click.option("--theme", metavar="light|dark", help="For a .png: the page that it is for; default: light.")
@weights_option
@import_option
@click.option("--labels", metavar="PATH", help=f"{CLASS_NAMES}; default: the preset's.")
@mean_option
@std_option
@pixels_option
@click.option("--resize", metavar="cover|pad|stretch", help="How photos get the model's size, if it does not say it.")
@click.option("--interpolation", metavar="NAME", help="And by what: bilinear, bicubic, lanczos3, nearest.")
@json_option
@_readable_errors
def explain(model, photo, out, theme, weights, modules, labels, mean, std, pixels, resize, interpolation, as_json):
    """Show what MODEL attends to in PHOTO: every layer and head, rollout, position embeddings, patch filters.

    MODEL must have the PatchEmbedding and the attention of keras_vit_plugin, as its classifiers have.
    """
    from keras_vit_plugin.explain.pictures import check_explanation
    from keras_vit_plugin.files import not_a_file

    check_explanation(out, theme, (".html", ".png"), "out")
    check_apart({"out": out}, {"photo": photo, "model": model, "weights": weights, "labels": labels})
    if not Path(photo).is_file():
        raise FileNotFoundError(f"No photo: {photo!r}: {not_a_file(photo)}.")
    keras_model = _open(model, weights, modules)
    explanation = kv.explain.explain_photo(
        keras_model,
        photo,
        _labels(labels, model, keras_model),
        _numbers(mean, "mean"),
        _numbers(std, "std"),
        pixels,
        resize,
        interpolation,
    )
    kv.explain.write_explanation(explanation, in_one_line(f"{Path(model).name} on {Path(photo).name}"), out, theme)
    if as_json:
        print_json({"out": out, **explanation.to_dict()})
        return
    if explanation.answer:
        print_answer({"file": photo, "top": explanation.to_dict()["answer"]})
    for note in explanation.notes:
        say(note)
    print_line(f"Written: {out}")


@main.command()
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.argument("images", nargs=-1, required=True)
@click.option("--labels", metavar="PATH", help=f"{CLASS_NAMES}; default: those in the file.")
@click.option("--pixels", metavar="0..1|-1..1|0..255", help="For a TFLITE of another program: the range that it takes.")
@click.option("--threads", type=int, help="Threads of the interpreter; default: one per usable core.")
@json_option
@_readable_errors
def run(tflite, images, labels, pixels, threads, as_json):
    """Print what TFLITE says of IMAGES, the top five of several classes; exit code 1 if one cannot be read.

    A folder stands for the images in it. Of several outputs it is the first that is a model's answer.
    """
    from keras_vit_plugin.export.classify import classify_files

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


@main.command()
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.option("--check", metavar="SHA256", help="Of the whole file; exit code 1 unless TFLITE has it.")
@json_option
@_readable_errors
def inspect(tflite, check, as_json):
    """Print what TFLITE contains: ops, versions, types, and what its delegate leaves out."""
    from keras_vit_plugin.export.tflite.flatbuffer import naming

    report = kv.export.inspect(tflite, check)
    if as_json:
        print_json(report.to_dict())
        return
    with naming(tflite):
        metadata = metadata_in_words(report.metadata)
    outside = ", ".join(f"{count} {name}" for name, count in (report.nodes_outside_delegate or {}).items())
    print_pairs(
        tflite,
        {
            "size": f"{report.size_bytes / 1e6:.2f} MB",
            "SHA-256": report.sha256,
            "inputs": ", ".join(f"{end['dtype']} {end['shape']}" for end in report.inputs),
            "outputs": ", ".join(f"{end['dtype']} {end['shape']}" for end in report.outputs),
            "ops": f"{sum(report.ops.values())}: " + ", ".join(f"{n} {name}" for name, n in report.ops.items()),
            "oldest runtime by op versions": report.min_runtime or "unknown",
            "float tensors inside": str(report.float_tensors),
            "flex ops": str(report.flex_ops),
            "XNNPACK partitions": str(report.delegate_partitions),
            "outside the delegate": outside or "nothing",
            **({"cannot be loaded": report.load_error} if report.load_error else {}),
            **metadata,
        },
    )


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


def _open(model, weights, modules=()):
    from keras_vit_plugin.open_model import import_modules, open_model

    import_modules(modules)
    return open_model(model, weights)


def _labels(path, name, model):
    """Class names from a file, else the preset's where the class count is still the preset's."""
    if path is not None:
        return read_labels(path)
    names = getattr(kv.presets.ARCHITECTURES.get(name), "labels", ())
    return names if names and tuple(model.output_shape) == (None, len(names)) else None


def _numbers(text, name):
    """Numbers and fractions with commas between, such as 1/255."""
    if text is None:
        return None
    try:
        return [float(over) / float(under or 1) for over, _, under in (part.partition("/") for part in text.split(","))]
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"--{name} must be one number or fraction, such as 1/255, or several with commas between, got {text!r}."
        ) from error


def _sides(text):
    """`(height, width, channels)` of a text such as 32x32x3."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ValueError(f"--image-shape must be height, width and channels, such as 224x224x3, got {text!r}.")
    return tuple(map(int, parts))


def _tasks(text):
    if text is None or "=" not in text:
        return text
    return dict(part.split("=", 1) if "=" in part else (part, "") for part in text.split(","))


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


def _tolerance(mode, min_agreement, min_snr):
    if min_agreement is None and min_snr is None:
        return None
    if mode == "auto":
        if min_snr is not None:
            raise ValueError(f"--min-snr does not go with --quantize auto, got {min_snr}.")
        return None
    return kv.export.tolerance_of(min_agreement, min_snr)
