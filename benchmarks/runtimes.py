"""The runtimes of `matrix.py`: each loads a file, answers images, and tells what an inference costs.

Every class has `name`, `target` (what its files are made for), `images` (how many it is asked, of each set), `foreign`
(whether its files are made for another runtime), `answer`, and the methods of `Python`.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

import arm
import browser
import numpy as np
import openvino_interpreter

from keras_vit_plugin.export.targets.mediapipe import MediaPipeRunner
from keras_vit_plugin.export.tflite.webgpu import gpu_runner
from keras_vit_plugin.image_model.answers import CLASSES, LOGITS, SOFTMAX, Answer
from keras_vit_plugin.progress import track

HERE = Path(__file__).parent
DEVICE_PYTHON = HERE.parent / ".venv-device" / "bin" / "python"
ROUNDS = 30
PROBABILITIES = Answer("probabilities", CLASSES, SOFTMAX)
SMALL_FILE = 1_000_000  # bytes
X86 = platform.machine()


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


class Gpu:
    """LiteRT's WebGPU accelerator in a process of its own, on the GPU that it finds."""

    answer = LOGITS

    def __init__(self, gpu, target, images=5, foreign=False):
        adapter, self._reason = gpu
        device = f", {adapter.split(',')[0]}" if adapter else ""
        self.name, self.target, self.images, self.foreign = f"LiteRT GPU (WebGPU){device}", target, images, foreign

    def missing(self):
        return self._reason

    def outputs(self, path, images, _):
        return gpu_runner(path.read_bytes())(images)

    def costs(self, paths, image):
        return [{} for _ in paths]  # where the CPU plays the GPU it says nothing


def all_runtimes(arm_folder):
    """Those that files are made for, then those that have to take the files of others."""
    old, new = ("tflite-runtime", "tflite_runtime.interpreter"), ("ai-edge-litert", "ai_edge_litert.interpreter")
    openvino = f"OpenVINO {importlib.metadata.version('openvino')} ({openvino_interpreter.PRECISION_HINT} hint)"
    gpu = browser.find_any_gpu()
    return [
        Python(new[0], "litert", sys.executable, new[1]),
        *(Arm(new[0], "litert", cpu, arm_folder) for cpu in arm.CPUS),
        Python(f"{old[0]} 2.14", old[0], DEVICE_PYTHON, old[1]),
        *(Arm(old[0], old[0], cpu, arm_folder) for cpu in arm.CPUS),
        Web("wasm, 1 thread", "litert", "wasm", 1),
        Web("wasm, 2 threads", "litert", "wasm", 2),
        Web("WebGPU", "gpu", "webgpu", images=5, rounds=3),
        Gpu(gpu, "gpu"),
        MediaPipe(),
        Python(f"{old[0]} 2.14", "litert", DEVICE_PYTHON, old[1], foreign=True),
        Python(openvino, "litert", sys.executable, "openvino_interpreter", foreign=True),
        Web("WebGPU", "litert", "webgpu", images=5, rounds=3, foreign=True),
        Gpu(gpu, "litert", foreign=True),
    ]


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise RuntimeError(reason[-1])
    return done.stdout
