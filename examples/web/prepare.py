"""Makes what the page shows: a model's files in several modes, and a few photos, in the folder `site`.

python prepare.py                                                     # the digits model that the package ships
python prepare.py deit_tiny_patch16_224 --weights W --calibration DIR --labels names.txt
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import sentence_of
from keras_vit_plugin.image_model.labels import read_labels
from keras_vit_plugin.models import SimpleViT, ViTImageClassifier
from keras_vit_plugin.open_model import open_model
from keras_vit_plugin.presets.digits import load_digits_split

SITE = Path(__file__).parent / "site"
CONTENT = "site.json"
MODES = ("float32", "dynamic", "int8", "int8-full")
DIGITS = 12
PHOTOS = {"chelsea": "A cat", "coffee": "A cup of coffee", "rocket": "A rocket"}


def calibration_of(model, folder):
    """The images to calibrate on; None where there are none."""
    if folder:
        return folder
    return load_digits_split()[0][0] if model == "vit_digits" else None


def labels_of(model, path):
    """Class names in index order; None where they are not known."""
    if path:
        return read_labels(path)
    return [str(digit) for digit in range(10)] if model == "vit_digits" else None


def samples(model):
    """`(name, image)` of what can be clicked on the page."""
    if model == "vit_digits":
        images, labels = load_digits_split()[1]
        for image, label in list(zip(images, labels))[:DIGITS]:
            yield f"A handwritten {label}", Image.fromarray(image[..., 0])
        return
    try:
        from skimage import data
    except ImportError:
        return
    for function, name in PHOTOS.items():
        yield name, Image.fromarray(getattr(data, function)())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="vit_digits", help="a preset, a .keras file or a preset folder")
    parser.add_argument("--weights", help="as for keras-vit export")
    parser.add_argument("--calibration", help="image folder; without one only float32 and dynamic are made")
    parser.add_argument("--labels", help="text file, one class name a line")
    parser.add_argument("--modes", nargs="+", default=MODES, metavar="MODE")
    parser.add_argument("--output", type=Path, default=SITE)
    arguments = parser.parse_args()
    if arguments.output.exists() and any(arguments.output.iterdir()) and not (arguments.output / CONTENT).exists():
        parser.error(f"--output is replaced, and {str(arguments.output)!r} holds something else")
    try:
        make_site(arguments)
    except Exception as error:
        sys.exit(f"Error: {sentence_of(error)}")


def make_site(arguments):
    """Replaces the folder `arguments.output`, once the model and its labels could be read."""
    model = open_model(arguments.model, arguments.weights)
    calibration = calibration_of(arguments.model, arguments.calibration)
    labels = labels_of(arguments.model, arguments.labels)
    modes = [mode for mode in arguments.modes if calibration is not None or mode in ("float32", "float16", "dynamic")]
    shutil.rmtree(arguments.output, ignore_errors=True)
    (arguments.output / "samples").mkdir(parents=True)
    (arguments.output / CONTENT).write_text('{"models": [], "samples": []}')  # a run that is ended can be repeated

    models = []
    for mode in modes:
        path = arguments.output / f"{mode}.tflite"
        more = kv.export.MODES[mode].more_outputs and isinstance(model, (SimpleViT, ViTImageClassifier))
        report = kv.export.export_tflite(
            model, path, quantize=mode, calibration=calibration, labels=labels, outputs=("attention",) if more else ()
        )
        models.append({"file": path.name, "name": mode, "bytes": path.stat().st_size})
        agreement = report.parity.agreement
        same = f"{report.parity.snr_db:.1f} dB" if agreement is None else f"{agreement:.1%} same answers"
        print(f"{path.name}: {path.stat().st_size / 1e3:,.0f} kB, {same}")
    shown = []
    for index, (name, image) in enumerate(samples(arguments.model)):
        file = f"samples/{index:02}.png"
        image.save(arguments.output / file)
        shown.append({"file": file, "name": name})
    content = json.dumps({"models": models, "samples": shown}, indent=1)
    (arguments.output / CONTENT).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
