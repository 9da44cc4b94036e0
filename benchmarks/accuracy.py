"""Every mode of real and of made models, judged on images that nothing was fitted on: `make accuracy`.

    python benchmarks/accuracy.py --data DATA --output docs [--only "DeiT-tiny" ...] [--fresh]

The models are those of `judged_models.py`, DATA is as for `compare.py`. Methods were chosen on imagenet_eval, nothing
on imagenet_test or cifar10_test. Each mode is exported once and its file judged on every set; a file that the export
refuses is judged too, and said to be refused. `accuracy.json` is written after every file, and a run goes on where the
last one stopped unless `--fresh`; `accuracy.md` is the same as tables, and the README's table is written anew once
DeiT-tiny is measured in every mode. The whole takes hours on two cores.
"""

import argparse
import functools
import json
import os
import subprocess
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import real_data
from judged_models import MODELS, needed
from readme import README, with_part

from keras_vit_plugin.export import Auto, Int8, ParityError, export_tflite
from keras_vit_plugin.export.verification.outputs import keras_logits, tflite_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.files import write_atomically
from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.images.gather import gather_labelled, spread
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of

MODES = {
    "float32": {},
    "float16": {},
    "dynamic": {},
    "int8": {},
    "int8, accuracy": {"quantize": Int8(prefer="accuracy")},
    "int8-full": {},
    "int16x8": {},
    "int4": {},
    "auto, 99 %": {"quantize": Auto(min_agreement=0.99)},
}
IN_WORDS = {
    "dynamic": "`dynamic` (int8 weights)",
    "int8": "`int8` (dense layers and attention matmuls in integer)",
    "int8, accuracy": '`Int8(prefer="accuracy")`',
    "int8-full": "`int8-full` (every tensor integer)",
    "int16x8": "`int16x8` (every tensor integer, activations in 16 bits)",
    "int4": "`int4` (weights mostly in 4 bits)",
    "auto, 99 %": "`auto`, asked for 99 %",
}
NAME = "accuracy.json"
FEWER = {"int16x8": 200}  # images judged: no op of it has a fast kernel on a CPU
SMALL = 64  # pixels on a side: of smaller images all are judged in every mode
WRITER = "accuracy.py"
NOT_CALIBRATED = ("float32", "float16")


def parsed():
    """The arguments of the command line, and `{model: modes}` that are still to be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=real_data.folder())
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--only", nargs="+", choices=MODELS, metavar="MODEL", default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, metavar="MODE", default=list(MODES))
    parser.add_argument("--fresh", action="store_true", help="measure again what accuracy.json already has")
    arguments = parser.parse_args()
    try:
        known = [(row["model"], row["mode"]) for row in read(arguments.output / NAME)]
    except (OSError, ValueError) as error:
        parser.error(f"--output has an {NAME} that cannot be read: {error}")
    left = {
        name: [mode for mode in arguments.modes if arguments.fresh or (name, mode) not in known]
        for name in arguments.only
    }
    left = {name: modes for name, modes in left.items() if modes}
    real_data.check_data(parser, arguments.data, needed(left))
    real_data.make_output(parser, arguments.output)
    return arguments, left


def main():
    arguments, left = parsed()
    code()  # now: the files may change while this runs
    path = arguments.output / NAME
    for name, modes in left.items():
        for rows in judged_modes(name, modes, arguments.data):
            mode = rows[0]["mode"]
            others = [row for row in read(path) if (row["model"], row["mode"]) != (name, mode)]
            write(path, [*others, *rows])
            print(f"{name}, {mode}: " + "; ".join(in_words(row) for row in rows), flush=True)
    write_atomically(README, quoted(README.read_text(), read(path)).encode())


def judged_modes(name, modes, data):
    """Yields for each mode its rows, one for each set of images."""
    subject = MODELS[name](data)
    model = subject.model
    preprocessing = preprocessing_of(model)
    normalization = pixel_normalization(model, preprocessing.channels)
    sets = {}
    for part, (source, classes) in subject.judged.items():
        images, classes = gather_labelled(source, classes, preprocessing, subject.labels or (), model.num_classes)
        sets[part] = images, classes, keras_logits(model, images, *normalization)
    for mode in modes:
        started = time.perf_counter()
        content, refused = exported(subject, mode)
        made = {
            "model": name,
            "mode": mode,
            "size_bytes": len(content),
            "refused": refused,
            "seconds": round(time.perf_counter() - started),
            "code": code(),
        }
        count = FEWER.get(mode) if preprocessing.size[0] > SMALL else None
        yield [made | {"set": part, **figures(content, *judged, count)} for part, judged in sets.items()]


def exported(subject, mode):
    """A mode's file as bytes, and why the export refuses it, in words; empty where it does not."""
    options = {"quantize": mode, **MODES[mode]}
    if mode not in NOT_CALIBRATED:
        options["calibration"] = subject.calibration
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the labels of the calibration folder, as on the command line
        path = Path(folder) / "m.tflite"
        try:
            export_tflite(subject.model, path, labels=subject.labels, keep_rejected=True, **options)
        except ParityError as error:
            return path.with_suffix(".rejected.tflite").read_bytes(), str(error).split(". ")[0]
        return path.read_bytes(), ""


def figures(content, images, classes, reference, count=None):
    """What a file answers on so many of the images, evenly spread, against the Keras model and the truth."""
    chosen = spread(np.arange(len(images)), count or len(images))
    reference, classes = reference[chosen], classes[chosen]
    outputs = tflite_logits(content, images[chosen])
    parity = compare(reference, outputs, classes)
    return {
        "images": parity.images,
        "agreement": round(parity.agreement, 4),
        "snr_db": round(parity.snr_db, 2),
        "snr_db_error": round(snr_db_error(reference, outputs), 3),
        "top1": round(parity.top1_accuracy_tflite, 4),
        "top1_keras": round(parity.top1_accuracy_model, 4),
    }


def snr_db_error(reference, outputs):
    """The standard error of an SNR in dB over the draw of the images, to first order: that of a ratio of two means."""
    errors, signals = (
        np.square(values).mean(-1) for values in (LOGITS.error(reference, outputs), LOGITS.signal(reference))
    )
    noise = errors.mean() / signals.mean()
    relative = (errors - noise * signals).std() / len(errors) ** 0.5 / max(errors.mean(), 1e-300)
    return float(10 / np.log(10) * relative)


@functools.cache
def code():
    """The commit that ran, and the versions of what makes and runs files; as they were when it was first asked."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"commit": commit, **{name: version(name) for name in ("keras", "tensorflow", "ai-edge-litert")}}


def read(path):
    """The rows of an `accuracy.json`, none where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def write(path, rows):
    """Both files, the rows in the order of the models, modes and sets."""
    models, modes = list(MODELS), list(MODES)
    rows = sorted(rows, key=lambda row: (models.index(row["model"]), modes.index(row["mode"])))
    for file, text in ((path, json.dumps(rows, indent=1) + "\n"), (path.with_suffix(".md"), as_markdown(rows))):
        write_atomically(file, text.encode())


def quoted(text, rows, model="DeiT-tiny"):
    """A page with its table of a model written anew; as it is where a mode is not measured yet.

    Args:
        text: of the page, with a part of this program.
        rows: of `accuracy.json`.
        model: a key of `MODELS`.
    """
    rows = [row for row in rows if row["model"] == model]
    if {row["mode"] for row in rows} != set(MODES):
        return text
    sets = list(dict.fromkeys(row["set"] for row in rows))
    columns = [
        f"{part}: same answer as Keras | SNR dB | top-1 (Keras: {row['top1_keras']:.1%})"
        for part, row in ((part, next(row for row in rows if row["set"] == part)) for part in sets)
    ]
    lines = [f"| mode | MB | {' | '.join(columns)} |", "|---|---|" + "---|---|---|" * len(sets)]
    for mode in MODES:
        mine = {row["set"]: row for row in rows if row["mode"] == mode}
        cells = [
            f"{row['agreement']:.1%} | {row['snr_db']:.1f} | {row['top1']:.1%}{_few(row, rows)}"
            for row in (mine[part] for part in sets)
        ]
        words = IN_WORDS.get(mode, f"`{mode}`")
        lines.append(f"| {words} | {mine[sets[0]]['size_bytes'] / 1e6:.1f} | {' | '.join(cells)} |")
    return with_part(text, WRITER, lines)


def _few(row, rows):
    """Of a row on fewer images than the others: on how many, and what Keras has there, in words."""
    most = max(each["images"] for each in rows if each["set"] == row["set"])
    return "" if row["images"] == most else f" (of {row['images']} photos; Keras {row['top1_keras']:.1%})"


def in_words(row):
    refused = "refused, " if row["refused"] else ""
    return (
        f"{refused}{row['agreement']:.1%}, {row['snr_db']:.1f} dB, top-1 {row['top1']:.1%} (Keras "
        f"{row['top1_keras']:.1%}) on {row['images']} of {row['set']}"
    )


def as_markdown(rows):
    """The page: the worst cases first, then a table for each model."""
    lines = [
        "# Accuracy",
        "",
        "Files against their Keras models, and both against the truth, on images that nothing was fitted on, by",
        "`make accuracy`, which runs `benchmarks/accuracy.py`. A file of DeiT-tiny is also what `keras-vit export",
        "deit_tiny_patch16_224 OUT.tflite --weights FILE --calibration DIR --quantize MODE` writes and",
        "`keras-vit verify deit_tiny_patch16_224 OUT.tflite --weights FILE --images DIR` judges.",
        "Methods were chosen on imagenet_eval; nothing was on imagenet_test or cifar10_test. What each model is, and",
        "how it was made: `benchmarks/judged_models.py`. A *refused* file is one that the export does not write.",
        "An agreement p of N images is known to about 2 sqrt(p (1 - p) / N), an SNR to twice the figure behind +-.",
        "",
        "## The best and the worst of each mode",
        "",
        "| mode | best agreement | worst agreement | best SNR dB | worst SNR dB | refused |",
        "|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        mine = [row for row in rows if row["mode"] == mode]
        if not mine:
            continue
        cells = []
        for figure, text in (("agreement", "{:.1%}"), ("snr_db", "{:.1f}")):
            for choose in (max, min):
                row = choose(mine, key=lambda row: row[figure])
                cells.append(f"{text.format(row[figure])}, {row['model']}")
        refused = {row["model"] for row in mine if row["refused"]}
        lines.append(f"| {mode} | {' | '.join(cells)} | {len(refused)} of {len({row['model'] for row in mine})} |")
    for model in dict.fromkeys(row["model"] for row in rows):
        lines += ["", *_table(model, [row for row in rows if row["model"] == model])]
    return "\n".join(lines) + "\n"


def _table(model, rows):
    """The lines of one model's part."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    columns = [f"{part}: images | agreement | SNR dB | top-1 | Keras's" for part in sets]
    commits = ", ".join(sorted({row["code"]["commit"] for row in rows}))
    lines = [
        f"## {model}",
        "",
        f"`python benchmarks/accuracy.py --only {json.dumps(model)}`, at {commits}.",
        "",
        f"| mode | MB | {' | '.join(columns)} |",
        "|---|---|" + "---|---|---|---|---|" * len(sets),
    ]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        mine = {row["set"]: row for row in rows if row["mode"] == mode}
        first = next(iter(mine.values()))
        cells = [
            f"{row['images']} | {row['agreement']:.1%} | {row['snr_db']:.1f} +- {row['snr_db_error']:.1f} "
            f"| {row['top1']:.1%} | {row['top1_keras']:.1%}"
            for row in (mine[part] for part in sets)
        ]
        size = f"{first['size_bytes'] / 1e6:.{1 if first['size_bytes'] > 1e6 else 2}f}"
        lines.append(f"| {mode}{', *refused*' if first['refused'] else ''} | {size} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
