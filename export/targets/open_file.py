"""Running a file the way its target does: the road that it is verified on."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_vit_plugin.temporary import temporary_folder

from ..tflite.errors import InvalidModelFile
from ..tflite.foreign_runner import check_runtime_python, foreign_runner
from ..tflite.runner import Runner
from .target import TARGETS

RUN_MEDIAPIPE = Path(__file__).with_name("run_mediapipe.py")
IMAGES_PER_PROCESS = 256


def target_runner(content, target, runtime_python=None):
    """Opens a finished file as its target does, where that is possible here.

    Args:
        content: bytes of the file.
        target: a key of `TARGETS`.
        runtime_python: path of a Python with tflite-runtime, or None.

    Returns:
        `(runner, name of the runtime)`; the runner has `batch_size` and `outputs(images)`, as `Runner` has them.
    """
    if TARGETS[target].labels_inside:
        version = importlib.metadata.version("mediapipe")
        return MediaPipeRunner(content), f"MediaPipe's ImageClassifier {version}"
    if runtime_python is not None:
        return foreign_runner(content, runtime_python), f"tflite-runtime {check_runtime_python(runtime_python)}"
    return Runner(content), f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


class MediaPipeRunner:
    """MediaPipe's ImageClassifier as a function from raw pixels to probabilities, in a process of its own.

    Args:
        content: bytes of a finished file with TFLite metadata.
    """

    batch_size = IMAGES_PER_PROCESS

    def __init__(self, content):
        self._content = content

    def outputs(self, images):
        """`{"probabilities": (N, classes) float32}` for raw RGB pixels `(N, H, W, 3)`.

        Raises:
            InvalidModelFile: MediaPipe does not take the file; says why.
        """
        with temporary_folder() as folder:
            file, pixels = folder / "m.tflite", folder / "pixels.npy"
            file.write_bytes(self._content)
            np.save(pixels, np.asarray(images, np.uint8))
            # -P: modules of this folder must not stand in for Python's own
            command = [sys.executable, "-P", RUN_MEDIAPIPE, pixels, file]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise InvalidModelFile(f"MediaPipe's ImageClassifier does not run this file: {reason}")
        answers = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[[[")))
        probabilities = np.zeros((len(answers), max(len(answer) for answer in answers)), np.float32)
        for row, answer in zip(probabilities, answers):
            for index, _, score in answer:
                row[index] = score
        return {"probabilities": probabilities}
