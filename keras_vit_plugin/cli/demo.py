"""`keras-vit demo`: digits model -> .keras -> loaded -> a file of each mode -> verified -> run."""

import io
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import json_option
from keras_vit_plugin.cli.terminal import print_json, print_line, print_table, say
from keras_vit_plugin.export import ParityReport, Runner, export_tflite
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.files import check_writable, make_folder, read_file, write_atomically
from keras_vit_plugin.temporary import temporary_folder

MODES = ("float32", "dynamic", "int8", "int8-full")
SHOWN_DIGITS = 20
ROUNDS = 50


@click.command("demo")
@click.option("--output", default="demo-output", show_default=True, type=click.Path(file_okay=False))
@json_option
@readable_errors
def demo_command(output, as_json):
    """Build the shipped digits model, export it, verify it, run it, print a table and draw a picture."""
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


@dataclass(frozen=True)
class DemoRow:
    """One mode's file: its size, how it compares on the held-out digits, and its median time per image."""

    mode: str
    size_bytes: int
    parity: ParityReport
    median_ms: float


def run_demo(folder):
    """Exports `vit_digits` in each of `MODES`, verifies it on the held-out digits, and draws twenty predictions.

    Args:
        folder: where `vit_digits.keras`, the `.tflite` files, `digits.png` and the folder `digits` with the held-out
            digits as images go; made if missing.

    Returns:
        `(rows, accuracy of the Keras model, path of the picture)`.
    """
    import keras

    from keras_vit_plugin.explain import draw_predictions
    from keras_vit_plugin.images.preprocessing import pixel_normalization
    from keras_vit_plugin.presets import build, get_preset
    from keras_vit_plugin.presets.digits import load_digits_split

    folder = Path(folder)
    make_folder(folder)
    check_writable(folder / "vit_digits.keras", ".keras")
    (x_train, _), (x_test, y_test) = load_digits_split()
    _save(build("vit_digits", weights="pretrained"), folder / "vit_digits.keras")
    model = keras.saving.load_model(folder / "vit_digits.keras")
    reference = keras_logits(model, x_test, *pixel_normalization(model, channels=1))

    _write_images(folder / "digits", x_test, y_test)
    labels = get_preset("vit_digits").labels
    runners, parities, sizes = {}, {}, {}
    for mode in MODES:
        path = folder / f"vit_digits_{mode}.tflite"
        export_tflite(model, path, quantize=mode, calibration=x_train, labels=labels)
        content = read_file(path)
        runners[mode], sizes[mode] = Runner(content, num_threads=1), len(content)
        parities[mode] = compare(reference, runners[mode](x_test), y_test)
    times = _interleaved_medians(runners, x_test[:1])

    shown = x_test[:SHOWN_DIGITS]
    answers = runners["int8-full"](shown).argmax(1)
    picture = folder / "digits.png"
    draw_predictions(shown, [labels[answer] for answer in answers], picture, correct=answers == y_test[:SHOWN_DIGITS])
    rows = [DemoRow(mode, sizes[mode], parities[mode], times[mode]) for mode in MODES]
    return rows, parities["float32"].top1_accuracy_model, picture


def _save(model, path):
    """A Keras model as a `.keras` file."""
    with temporary_folder() as folder:
        model.save(folder / path.name)
        content = (folder / path.name).read_bytes()
    write_atomically(path, content)


def _write_images(folder, images, labels):
    """The digits as an image folder with `labels.csv`, for the other commands."""
    make_folder(folder)
    rows = ["file,label"]
    for i, (image, label) in enumerate(zip(images, labels)):
        picture = io.BytesIO()
        Image.fromarray(image[..., 0]).save(picture, format="png")
        write_atomically(folder / f"{i:03}.png", picture.getvalue(), sync=False)
        rows.append(f"{i:03}.png,{label}")
    write_atomically(folder / "labels.csv", ("\n".join(rows) + "\n").encode())


def _interleaved_medians(runners, image):
    """Median milliseconds per call, the runners taking turns so that a busy moment hits all of them."""
    times = {mode: [] for mode in runners}
    for _ in range(ROUNDS):
        for mode, runner in runners.items():
            started = time.perf_counter()
            runner(image)
            times[mode].append((time.perf_counter() - started) * 1000)
    return {mode: float(np.median(values)) for mode, values in times.items()}
