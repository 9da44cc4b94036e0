"""Every mode on every runtime: does the file load there, does it give the model's answers, and what does it cost?

    python benchmarks/matrix.py --data DATA --output docs

With the data (see `compare.py`) it is DeiT-tiny on photos of `imagenet_eval`, on which methods were chosen,
and of `imagenet_test`, on which nothing was; where none is named and none lies in the usual place, it is the digits
model that the package ships, on held-out digits.
Writes `matrix.json` and `matrix.md`, and fails if a file is wrong on the runtime that it was made for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import real_data
from runtimes import PROBABILITIES, Arm, all_runtimes

import keras_vit_plugin as kv
from keras_vit_plugin.export.quantization.modes import MODES as ALL_MODES
from keras_vit_plugin.export.targets import TARGETS
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.files import write_atomically
from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.images.gather import gather_images, gather_labelled, spread
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.presets.digits import load_digits_split
from keras_vit_plugin.progress import track

HERE = Path(__file__).parent
PRESET = "deit_tiny_patch16_224"
MODES = tuple(name for name, mode in ALL_MODES.items() if not mode.chooses)
SETS = ("imagenet_eval", "imagenet_test")
NEEDED = (f"weights/{PRESET}_in1k.npz", "imagenet_calibration", "imagenet_labels.txt", *SETS)  # of the real data
SET_IMAGES = 100  # of each, at most


@dataclass(frozen=True)
class Cell:
    """What came of one mode on one runtime.

    `status` is `"right"`, `"wrong"` (it ran and is below the mode's tolerance), `"refused"` (by the export, the
    runtime, or a crash) or `"not measured"`; `reason` says why it is not right. The file is made for `target`; a
    runtime that is `foreign` has another. `agreement` and `snr_db` have one figure for each set of images.
    """

    mode: str
    target: str
    runtime: str
    foreign: bool
    status: str
    reason: str = ""
    images: tuple[int, ...] = ()
    agreement: tuple[float, ...] = ()
    snr_db: tuple[float, ...] = ()
    milliseconds: float | None = None
    instructions: int | None = None


def parsed():
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=real_data.folder())
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--arm", type=Path, default=Path(".arm"), help="where the ARM userland is unpacked, once")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    arguments = parser.parse_args()
    if arguments.data != real_data.USUAL or (arguments.data / "weights").is_dir():
        real_data.check_data(parser, arguments.data, NEEDED)
    real_data.make_output(parser, arguments.output)
    return arguments


def main():
    arguments = parsed()
    code = how(arguments.modes)  # now: the files may change while this runs
    preset, model, options, sets = subject(arguments.data)
    normalization = pixel_normalization(model, model.image_shape[-1])
    references = [keras_logits(model, images, *normalization) for images in sets.values()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {
            (mode, target): export(model, mode, target, options, folder)
            for mode in track(arguments.modes, "Exporting")
            for target in TARGETS
        }
        runtimes, images = all_runtimes(arguments.arm), list(sets.values())
        rows = [(runtime, measure(runtime, files, images, references, folder)) for runtime in runtimes]
        # Instructions are counted first; for the times, all at the end, nothing else must run on the machine.
        for runtime, row in sorted(rows, key=lambda each: not isinstance(each[0], Arm)):
            row[:] = with_costs(runtime, row, files, images[0][:1])
        cells = [cell for _, row in rows for cell in row]
    figures = json.dumps([asdict(cell) for cell in cells], indent=1) + "\n"
    write_atomically(arguments.output / "matrix.json", figures.encode())
    write_atomically(arguments.output / "matrix.md", as_markdown(cells, preset, list(sets), code).encode())
    wrong = [f"{cell.mode}: {cell.runtime}" for cell in cells if cell.status == "wrong" and not cell.foreign]
    if wrong:
        sys.exit(f"Wrong on the runtime they were made for: {', '.join(wrong)}.")


def subject(data):
    """The preset's name, the model, what its files are exported with, and `{set: images}` that they are judged on."""
    if not (data / "weights").is_dir():
        (calibration, _), (images, _) = load_digits_split()
        model = kv.build("vit_digits", weights="pretrained")
        options = {"calibration": calibration, "labels": list("0123456789")}
        return "vit_digits", model, options, {"held-out digits": images[:SET_IMAGES]}
    model = kv.build(PRESET, weights=data / "weights" / f"{PRESET}_in1k.npz")
    preprocessing = preprocessing_of(model)
    calibration = gather_images(data / "imagenet_calibration", preprocessing, "calibration")
    labels = (data / "imagenet_labels.txt").read_text().splitlines()
    sets = {
        name: gather_labelled(data / name, None, preprocessing, (), model.num_classes, limit=SET_IMAGES)[0]
        for name in SETS
    }
    return PRESET, model, {"calibration": calibration, "labels": labels}, sets


def how(modes):
    """The code and the command of a run, in words, but for the folders that it was given."""
    described = ["git", "describe", "--always", "--dirty"]
    code = subprocess.run(described, cwd=HERE, capture_output=True, text=True).stdout.strip()
    command = "make matrix" if modes == MODES else f"python benchmarks/matrix.py --modes {' '.join(modes)}"
    return f"`{command}`, code {code or 'of no repository'}"


def export(model, mode, target, options, folder):
    """The path of a file, or why there is none."""
    path = folder / f"{mode} for {target}.tflite"
    try:
        kv.export.export_tflite(model, path, quantize=mode, target=target, **options)
    except ValueError as error:
        return str(error)
    return path


def measure(runtime, files, sets, references, folder):
    """The `Cell`s of a runtime, judged on sets of images `(N, H, W, C)` against what the Keras model answers."""
    missing = runtime.missing()
    made = {mode: path for (mode, target), path in files.items() if target == runtime.target}
    sets, references = ([spread(each, runtime.images) for each in some] for some in (sets, references))
    cells = []
    for mode, path in track(list(made.items()), f"Running on {runtime.name}"):
        place = {"mode": mode, "target": runtime.target, "runtime": runtime.name, "foreign": runtime.foreign}
        if isinstance(path, str):
            cells.append(Cell(**place, status="refused", reason=path))
        elif missing:
            cells.append(Cell(**place, status="not measured", reason=missing))
        else:
            cells.append(judged(place, runtime, path, sets, references, folder))
    return cells


def with_costs(runtime, cells, files, image):
    """The `Cell`s of a runtime, those that are right with what an image `(1, H, W, C)` costs: time or instructions."""
    right = [cell for cell in cells if cell.status == "right"]
    if not right or runtime.foreign:
        return cells
    print(f"{'Counting' if isinstance(runtime, Arm) else 'Timing'} on {runtime.name}", flush=True)
    costs = runtime.costs([files[cell.mode, cell.target] for cell in right], image)
    by_mode = {cell.mode: cost for cell, cost in zip(right, costs)}
    return [replace(cell, **by_mode.get(cell.mode, {})) for cell in cells]


def judged(place, runtime, path, sets, references, folder):
    """The `Cell` of a file that is there: it is right where it is within its mode's tolerance on every set."""
    try:
        outputs = np.asarray(runtime.outputs(path, np.concatenate(sets), folder), np.float32)
    except Exception as error:  # whatever a foreign runtime does with a file
        return Cell(**place, status="refused", reason=str(error).strip().splitlines()[-1])
    if runtime.answer == PROBABILITIES:
        references = [LOGITS.probabilities(reference) for reference in references]
    parts = np.split(outputs, np.cumsum([len(images) for images in sets])[:-1])
    parities = [compare(reference, part, answer=runtime.answer) for reference, part in zip(references, parts)]
    least = ALL_MODES[place["mode"]].tolerance.min_snr_db
    right = min(parity.snr_db for parity in parities) >= least
    return Cell(
        **place,
        status="right" if right else "wrong",
        reason="" if right else f"below {least:g} dB",
        images=tuple(parity.images for parity in parities),
        agreement=tuple(parity.agreement for parity in parities),
        snr_db=tuple(round(parity.snr_db, 1) for parity in parities),
    )


def as_markdown(cells, preset, sets, how):
    """The page: tables of runtimes by modes, and the reasons of what is not right.

    Args:
        cells: the `Cell`s.
        preset: the model's name.
        sets: names of the sets of images.
        how: the code and the command, in words.
    """
    reasons = list(dict.fromkeys(cell.reason for cell in cells if cell.status in ("refused", "not measured")))
    lines = [
        "# Every mode on every runtime",
        "",
        f"{how}: {preset}.",
        "",
        "Each cell was measured: the file for that runtime is loaded there, its answers",
        "are compared with the Keras model's (share of same answers, signal-to-noise ratio: of logits less their mean",
        "over the classes, and of MediaPipe's probabilities as they are), and one image is timed",
        "on one thread (two where the row says so), or its instructions are counted under qemu, in millions (M).",
        f"The images are of {' and, after the stroke, of '.join(sets)}, so many of each as the row says.",
        "WebGPU is computed by the CPU, in float32, in the browser and where the row says SwiftShader: its time says",
        "nothing about that of a GPU.",
        "",
        *_table([cell for cell in cells if not cell.foreign], reasons),
        "",
        "## Files on a runtime that they were not made for",
        "",
        "These files are for `litert`. Where they are wrong, nothing on those runtimes tells: take the right target.",
        "",
        *_table([cell for cell in cells if cell.foreign], reasons),
        "",
        *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)),
        "",
    ]
    return "\n".join(lines)


def _table(cells, reasons):
    modes, runtimes = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("mode", "runtime"))
    yield "| runtime | images | " + " | ".join(f"`{mode}`" for mode in modes) + " |"
    yield "|---" * (len(modes) + 2) + "|"
    for runtime in runtimes:
        row = {cell.mode: cell for cell in cells if cell.runtime == runtime}
        images = max(max(cell.images, default=0) for cell in row.values()) or ""
        yield f"| {runtime} | {images} | " + " | ".join(_in_words(row[mode], reasons) for mode in modes) + " |"


def _in_words(cell, reasons):
    if cell.reason in reasons:
        return f"{cell.status} ({reasons.index(cell.reason) + 1})"
    words = [] if cell.status == "right" else ["**wrong**"]
    words += [" / ".join(f"{share:.0%}" for share in cell.agreement)]
    words += [" / ".join(f"{snr_db:.1f}" for snr_db in cell.snr_db) + " dB"]
    words += [] if cell.milliseconds is None else [f"{cell.milliseconds:,.{0 if cell.milliseconds > 100 else 1}f} ms"]
    words += [] if cell.instructions is None else [f"{cell.instructions / 1e6:,.0f} M"]
    return ", ".join(words)


if __name__ == "__main__":
    main()
