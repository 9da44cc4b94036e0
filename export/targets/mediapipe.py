"""`mediapipe`: MediaPipe's ImageClassifier, which reads labels from a file and wants probabilities out."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_vit_plugin.image_model.answers import CLASSES, LINEAR, SIGMOID, SOFTMAX
from keras_vit_plugin.temporary import temporary_folder

from ..tflite.errors import InvalidModelFile
from .mediapipe_metadata import with_activation, with_tflite_metadata
from .target import Target

RUN_MEDIAPIPE = Path(__file__).with_name("run_mediapipe.py")
IMAGES_PER_PROCESS = 256


@dataclass(frozen=True)
class MediaPipe(Target):
    """A runtime that takes RGB photos of any size and gives names of classes."""

    def check_arguments(self, runtime_python=None):
        if importlib.util.find_spec("mediapipe") is None:
            raise ImportError(f"target={self.name!r} needs the package mediapipe: pip install mediapipe")

    def answers(self, answers):
        activation = SOFTMAX if answers[0].task == CLASSES else SIGMOID
        return (replace(answers[0], name="probabilities", activation=activation),)

    def adapted(self, content, metadata):
        answer = metadata.answers[0]
        if answer.activation != LINEAR:
            return content
        return with_activation(content, "SOFTMAX" if answer.task == CLASSES else "LOGISTIC")

    def finished(self, content, metadata, description):
        return with_tflite_metadata(content, metadata.labels, description, metadata.version)

    def open(self, content, runtime_python=None):
        return MediaPipeRunner(content), f"MediaPipe's ImageClassifier {importlib.metadata.version('mediapipe')}"


MEDIAPIPE = MediaPipe(
    name="mediapipe",
    runtime="MediaPipe's ImageClassifier",
    version="2.21",
    input_dtypes=("uint8", "float32"),
    largest_batch=1,
    needs_labels=True,
)


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
