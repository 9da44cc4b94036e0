"""Every mode on every runtime: does the file load there, does it give the model's answers, and what does it cost?

    python benchmarks/matrix.py --data DATA --output docs

With the data (see `compare.py`) it is DeiT-tiny on real photos, without it the digits model that the package ships.
Writes `matrix.json` and `matrix.md`, and fails if a file is wrong on the runtime that it was made for.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import arm
import browser
import numpy as np

import keras_vit_plugin as kv
from keras_vit_plugin.export.answers import CLASSES, LOGITS, SOFTMAX, Answer
from keras_vit_plugin.export.images import gather_images, gather_labelled
from keras_vit_plugin.export.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.export.progress import track
from keras_vit_plugin.export.target_runner import MediaPipeRunner
from keras_vit_plugin.export.targets import TARGETS
from keras_vit_plugin.export.verify import TOLERANCES, compare, keras_logits
from keras_vit_plugin.presets.digits import load_digits_split

HERE = Path(__file__).parent
DEVICE_PYTHON = HERE.parent / ".venv-device" / "bin" / "python"
PRESET = "deit_tiny_patch16_224"
MODES = tuple(TOLERANCES)
ROUNDS = 30
PROBABILITIES = Answer("probabilities", CLASSES, SOFTMAX)
SMALL_FILE = 1_000_000  # bytes
X86 = platform.machine()


@dataclass(frozen=True)
class Cell:
    """What came of one mode on one runtime.

    `status` is `"right"`, `"wrong"` (it ran and is below the mode's tolerance), `"refused"` (by the export, the
    runtime, or a crash) or `"not measured"`; `reason` says why it is not right. The file is made for `target`; a
    runtime that is `foreign` has another.
    """

    mode: str
    target: str
    runtime: str
    foreign: bool
    status: str
    reason: str = ""
    images: int = 0
    agreement: float | None = None
    snr_db: float | None = None
    milliseconds: float | None = None
    instructions: int | None = None


class Python:
    """The interpreter of a Python on this machine."""

    answer = LOGITS

    def __init__(self, name, target, python, module, images=100, foreign=False):
        self.name, self.target, self.images, self.foreign = f"{name}, {X86}", target, images, foreign
        self._python, self._module = python, module

    def missing(self):
        return "" if Path(self._python).exists() else "no device environment: make .venv-device/installed"

    def outputs(self, path, images, folder):
        np.save(folder / "images.npy", images)
        arguments = [self._module, path, folder / "images.npy", 1, folder / "logits.npy"]
        run([self._python, HERE / "run_images.py", *arguments])
        return np.load(folder / "logits.npy")

    def costs(self, paths, image):
        printed = run([self._python, HERE / "time_files.py", self._module, ROUNDS, *paths])
        return [{"milliseconds": round(each, 2)} for each in json.loads(printed)]


class Arm:
    """A runtime's aarch64 wheel on an emulated CPU."""

    foreign, answer = False, LOGITS

    def __init__(self, runtime, target, cpu, folder, images=4):
        self.name, self.target, self.images = f"{runtime}, {cpu}", target, images
        self._runtime, self._cpu, self._folder = runtime, cpu, folder

    def missing(self):
        return arm.missing_tools()

    def outputs(self, path, images, _):
        return arm.logits(arm.prepare(self._folder), self._runtime, path, images, self._cpu)

    def costs(self, paths, image):
        folder = arm.prepare(self._folder)
        counted = track(paths, f"Counting on {self.name}")
        return [
            {"instructions": arm.instructions_per_inference(folder, path, image, self._cpu, runs(path), self._runtime)}
            for path in counted
        ]


def runs(path):
    """How many inferences are counted: starting Python varies by more than one of a small model."""
    return 1 if path.stat().st_size > SMALL_FILE else 1000


class Web:
    """LiteRT.js in a browser."""

    answer = LOGITS

    def __init__(self, name, target, accelerator, threads=1, images=20, rounds=ROUNDS, foreign=False):
        self.name, self.target, self.images, self.foreign = f"browser, {name}", target, images, foreign
        self._options = {"accelerator": accelerator, "threads": threads}
        self._rounds = rounds

    def missing(self):
        return browser.missing_tools()

    def _run(self, path, images, rounds):
        with browser.Browser(webgpu=self._options["accelerator"] == "webgpu") as page:
            return page.run(path.read_bytes(), images.astype(np.uint8), rounds=rounds, **self._options)

    def outputs(self, path, images, _):
        return self._run(path, images, 1)[0]

    def costs(self, paths, image):
        return [{"milliseconds": round(self._run(path, image, self._rounds)[1], 2)} for path in paths]


class MediaPipe:
    """MediaPipe's ImageClassifier, which gives probabilities."""

    name, target, images, foreign = f"MediaPipe, {X86}", "mediapipe", 100, False
    answer = PROBABILITIES

    def missing(self):
        return ""

    def outputs(self, path, images, _):
        return MediaPipeRunner(path.read_bytes()).outputs(images)["probabilities"]

    def costs(self, paths, image):
        return [{} for _ in paths]  # it times its own resizing too


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("KERAS_VIT_DATA", default)))
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--arm", type=Path, default=Path(".arm"), help="where the ARM userland is unpacked, once")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    arguments = parser.parse_args()

    preset, model, options, images = subject(arguments.data)
    normalization = pixel_normalization(model, images.shape[-1])
    reference = keras_logits(model, images, *normalization)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {
            (mode, target): export(model, mode, target, options, folder)
            for mode in track(arguments.modes, "Exporting")
            for target in TARGETS
        }
        runtimes = all_runtimes(arguments.arm)
        cells = [cell for runtime in runtimes for cell in measure(runtime, files, images, reference, folder)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "matrix.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    (arguments.output / "matrix.md").write_text(as_markdown(cells, preset))
    wrong = [f"{cell.mode}: {cell.runtime}" for cell in cells if cell.status == "wrong" and not cell.foreign]
    if wrong:
        sys.exit(f"Wrong on the runtime they were made for: {', '.join(wrong)}.")


def subject(data):
    """The preset's name, the model, what its files are exported with, and the images that they are judged on."""
    if not (data / "weights").is_dir():
        (calibration, _), (images, _) = load_digits_split()
        model = kv.build("vit_digits", weights="pretrained")
        return "vit_digits", model, {"calibration": calibration, "labels": list("0123456789")}, images[:100]
    model = kv.build(PRESET, weights=data / "weights" / f"{PRESET}_in1k.npz")
    preprocessing = preprocessing_of(model)
    calibration = gather_images(data / "imagenet_calibration", preprocessing, "calibration")
    labels = (data / "imagenet_labels.txt").read_text().splitlines()
    images, _ = gather_labelled(data / "imagenet_eval", None, preprocessing, (), model.num_classes, limit=100)
    return PRESET, model, {"calibration": calibration, "labels": labels}, images


def export(model, mode, target, options, folder):
    """The path of a file, or why there is none."""
    path = folder / f"{mode} for {target}.tflite"
    try:
        kv.export.export_tflite(model, path, quantize=mode, target=target, **options)
    except ValueError as error:
        return str(error)
    return path


def all_runtimes(arm_folder):
    old, new = ("tflite-runtime", "tflite_runtime.interpreter"), ("ai-edge-litert", "ai_edge_litert.interpreter")
    return [
        Python(new[0], "litert", sys.executable, new[1]),
        *(Arm(new[0], "litert", cpu, arm_folder) for cpu in arm.CPUS),
        Python(f"{old[0]} 2.14", old[0], DEVICE_PYTHON, old[1]),
        *(Arm(old[0], old[0], cpu, arm_folder) for cpu in arm.CPUS),
        Web("wasm, 1 thread", "litert", "wasm", 1),
        Web("wasm, 2 threads", "litert", "wasm", 2),
        Web("WebGPU", "gpu", "webgpu", images=5, rounds=3),
        MediaPipe(),
        Python(f"{old[0]} 2.14", "litert", DEVICE_PYTHON, old[1], foreign=True),
        Web("WebGPU", "litert", "webgpu", images=5, rounds=3, foreign=True),
    ]


def measure(runtime, files, images, reference, folder):
    """The `Cell`s of a runtime."""
    missing = runtime.missing()
    made = {mode: path for (mode, target), path in files.items() if target == runtime.target}
    chosen = np.linspace(0, len(images) - 1, min(runtime.images, len(images))).astype(int)
    cells, right = [], []
    for mode, path in track(list(made.items()), f"Running on {runtime.name}"):
        place = {"mode": mode, "target": runtime.target, "runtime": runtime.name, "foreign": runtime.foreign}
        if isinstance(path, str):
            cells.append(Cell(**place, status="refused", reason=path))
        elif missing:
            cells.append(Cell(**place, status="not measured", reason=missing))
        else:
            cells.append(judged(place, runtime, path, images[chosen], reference[chosen], folder))
            if cells[-1].status == "right":
                right.append(mode)
    if not right or runtime.foreign:
        return cells
    costs = dict(zip(right, runtime.costs([made[mode] for mode in right], images[:1])))
    return [Cell(**{**asdict(cell), **costs.get(cell.mode, {})}) for cell in cells]


def judged(place, runtime, path, images, reference, folder):
    try:
        outputs = np.asarray(runtime.outputs(path, images, folder), np.float32)
    except Exception as error:  # whatever a foreign runtime does with a file
        return Cell(**place, status="refused", reason=str(error).strip().splitlines()[-1])
    if runtime.answer == PROBABILITIES:
        reference = LOGITS.probabilities(reference)
    parity = compare(reference, outputs, answer=runtime.answer)
    least = TOLERANCES[place["mode"]]
    right = parity.snr_db >= least.min_snr_db
    return Cell(
        **place,
        status="right" if right else "wrong",
        reason="" if right else f"below {least.min_snr_db:g} dB",
        images=parity.images,
        agreement=parity.agreement,
        snr_db=round(parity.snr_db, 1),
    )


def as_markdown(cells, preset):
    """The page: tables of runtimes by modes, and the reasons of what is not right."""
    reasons = list(dict.fromkeys(cell.reason for cell in cells if cell.status in ("refused", "not measured")))
    lines = [
        "# Every mode on every runtime",
        "",
        f"`make matrix`, {preset}. Each cell was measured: the file for that runtime is loaded there, its answers",
        "are compared with the Keras model's (share of same answers, signal-to-noise ratio: of logits less their mean",
        "over the classes, and of MediaPipe's probabilities as they are), and one image is timed",
        "on one thread (two where the row says so), or its instructions are counted under qemu, in millions (M).",
        "WebGPU is computed by the CPU here (SwiftShader): its time says nothing about that of a GPU.",
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
        images = max(cell.images for cell in row.values()) or ""
        yield f"| {runtime} | {images} | " + " | ".join(_in_words(row[mode], reasons) for mode in modes) + " |"


def _in_words(cell, reasons):
    if cell.reason in reasons:
        return f"{cell.status} ({reasons.index(cell.reason) + 1})"
    words = [] if cell.status == "right" else ["**wrong**"]
    words += [f"{cell.agreement:.0%}", f"{cell.snr_db:.1f} dB"]
    words += [] if cell.milliseconds is None else [f"{cell.milliseconds:,.{0 if cell.milliseconds > 100 else 1}f} ms"]
    words += [] if cell.instructions is None else [f"{cell.instructions / 1e6:,.0f} M"]
    return ", ".join(words)


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise RuntimeError(reason[-1])
    return done.stdout


if __name__ == "__main__":
    main()
