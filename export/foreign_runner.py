"""Running a `.tflite` on tflite-runtime in another Python: TensorFlow and it cannot share a process."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np

from .flatbuffer import InvalidModelFile, check_whole
from .interpreter import Runner
from .serve_interpreter import receive, send

PROGRAM = Path(__file__).with_name("serve_interpreter.py")
VERSION_CODE = "import numpy, tflite_runtime, tflite_runtime.interpreter; print(tflite_runtime.__version__)"
START_SECONDS = 60


def check_runtime_python(python):
    """Looks whether a Python has tflite-runtime.

    Args:
        python: its path, or its name where it is in PATH.

    Returns:
        The version of tflite-runtime, such as `"2.14.0"`.

    Raises:
        ValueError: there is no such program, or it cannot import NumPy and tflite-runtime.
    """
    try:
        told = subprocess.run(
            [_program(python), "-c", VERSION_CODE], capture_output=True, text=True, timeout=START_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"`runtime_python` {str(python)!r} cannot be run as a Python: {error}.") from error
    if told.returncode:
        raise ValueError(f"`runtime_python` {str(python)!r} cannot import tflite-runtime: {_last_line(told.stderr)}.")
    return told.stdout.strip()


def foreign_runner(content, python):
    """A `Runner` of a file on the tflite-runtime of another Python.

    Args:
        content: bytes of the file.
        python: path of the Python, as for `check_runtime_python`.

    Raises:
        InvalidModelFile: the file is damaged, that runtime cannot load it, or does not survive it.
        ValueError: `python` cannot be run.
    """
    check_whole(content)
    return Runner(content, interpreter=_ForeignInterpreter(content, python))


def foreign_load_error(content, python):
    """Why the tflite-runtime of another Python cannot load a file, in its own words; `""` where it can."""
    try:
        foreign_runner(content, python)
    except InvalidModelFile as error:
        return str(error)
    return ""


class _ForeignInterpreter:
    """What `Runner` uses of an interpreter, in another process."""

    def __init__(self, content, python):
        command = [_program(python), "-c", PROGRAM.read_text()]
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, `_close` closes it
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed)
        self._close = weakref.finalize(self, _close, self._process, self._printed)
        told = json.loads(str(self._ask(model=np.frombuffer(content, np.uint8))["told"]))
        self._inputs, self._outputs, self._signatures = told["inputs"], told["outputs"], told["signatures"]
        self._image, self._values = None, {}

    def get_input_details(self):
        return self._inputs

    def get_output_details(self):
        return self._outputs

    def _get_full_signature_list(self):
        return self._signatures

    def set_tensor(self, index, values):
        self._image = values

    def invoke(self):
        self._values = self._ask(image=self._image)

    def get_tensor(self, index):
        return self._values[str(index)]

    def _ask(self, **arrays):
        """The answer to a request; raises `InvalidModelFile` where there is none."""
        try:
            send(self._process.stdin, **arrays)
            answer = receive(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            code = self._process.wait()
            self._printed.seek(0)
            raise InvalidModelFile(
                f"tflite-runtime ended with code {code} on this file: {_last_line(self._printed.read())}"
            )
        if "error" in answer:
            raise InvalidModelFile(f"tflite-runtime cannot run this file: {answer['error']}")
        return answer


def _program(python):
    found = shutil.which(os.fspath(python))
    if found is None:
        raise ValueError(f"`runtime_python` must be the path of a Python with tflite-runtime, got {str(python)!r}.")
    return found


def _close(process, printed):
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, printed):
        with contextlib.suppress(OSError):  # what a dead process has not read
            stream.close()


def _last_line(text):
    return (text.strip().splitlines() or ["it says nothing"])[-1].rstrip(".")
