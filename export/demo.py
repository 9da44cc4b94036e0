"""The main job on what the package ships: digits model -> .keras -> loaded -> int8 file -> verified -> run."""

import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_vit_plugin.files import check_writable, make_folder, read_file, write_atomically
from keras_vit_plugin.temporary import temporary_folder

from .pipeline import export_tflite
from .tflite.runner import Runner
from .verification.verify import ParityReport, compare, keras_logits

MODES = ("float32", "dynamic", "int8", "int8-full")
SHOWN_DIGITS = 20
ROUNDS = 50


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
