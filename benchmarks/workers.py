"""Runtimes that need another environment than the benchmark's: they run in processes of their own and time themselves.

A worker is `torch_roads.py serve` in `.venv-torch`. It answers one command after another, so its inferences take their
turn among those of this process.
"""

import json
import os
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

PYTHON = Path(__file__).parents[1] / ".venv-torch" / "bin" / "python"
PROGRAM = Path(__file__).with_name("torch_roads.py")
_workers = {}


class Unavailable(RuntimeError):
    """The other environment, or a program in it, does not work."""


def make(road, weights, calibration, folder):
    """Files of a road of `torch_roads.py`: `{mode: path}`, and `{mode: why}` of those that could not be made.

    Args:
        road: a name that it knows.
        weights: path of DeiT-tiny's `.npz`.
        calibration: normalized images, float32 `(N, H, W, 3)`.
        folder: where the files go.

    Raises:
        Unavailable: the environment is missing, or the program ended with an error.
    """
    if not PYTHON.exists():
        raise Unavailable("there is no .venv-torch: make .venv-torch/installed")
    np.save(folder / "calibration.npy", calibration)
    command = [PYTHON, PROGRAM, "make", road, weights, folder / "calibration.npy", folder]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1][:300])
    made = json.loads(done.stdout.strip().splitlines()[-1])
    files = {mode: Path(folder) / name for mode, name in made.items() if isinstance(name, str)}
    return files, {mode: answer["failed"] for mode, answer in made.items() if mode not in files}


def opened(path, threads):
    """A function from one input to logits, computed by a worker, with `seconds(input)`, timed by the worker.

    Raises:
        Unavailable: the worker does not answer, or has another number of threads.
    """
    place = threads, frozenset(os.sched_getaffinity(0))  # a worker keeps the cores that it was started on
    if place not in _workers:
        _workers[place] = Worker(threads)
    return Running(_workers[place], path)


class Worker:
    """One process of `torch_roads.py serve`; `ask` may be called from several threads."""

    def __init__(self, threads):
        self.threads = threads
        command = [str(PYTHON), str(PROGRAM), "serve", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lock = threading.Lock()
        weakref.finalize(self, self.process.kill)

    def ask(self, **command):
        with self.lock:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        if not answer:
            raise Unavailable(f"the worker ended at {command}")
        return json.loads(answer)


class Running:
    """A file that is open in a worker."""

    def __init__(self, worker, path):
        self.worker, self.path, self.pixels = worker, str(path), None
        self.folder = tempfile.TemporaryDirectory()
        self.image, self.logits = (str(Path(self.folder.name) / name) for name in ("image.npy", "logits.npy"))
        threads = worker.ask(open=self.path)["threads"]
        if threads != worker.threads:
            raise Unavailable(f"the worker has {threads} threads instead of {worker.threads}")

    def __call__(self, pixels):
        self._hand_over(pixels)
        self.worker.ask(run=self.path, image=self.image, logits=self.logits)
        return np.load(self.logits)

    def seconds(self, pixels):
        self._hand_over(pixels)
        return self.worker.ask(run=self.path, image=self.image)["seconds"]

    def _hand_over(self, pixels):
        if pixels is not self.pixels:
            np.save(self.image, pixels)
            self.pixels = pixels
