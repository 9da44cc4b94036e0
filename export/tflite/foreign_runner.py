"""Running a `.tflite` in a process of its own: on the runtime of another Python, or because it may end its process."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np

from .errors import InvalidModelFile
from .flatbuffer import check_file
from .runner import Runner, interpreter_module, reason_of, threads_of
from .serve_interpreter import receive, send

PROGRAM = Path(__file__).with_name("serve_interpreter.py")
VERSION_CODE = "import numpy, tflite_runtime, tflite_runtime.interpreter; print(tflite_runtime.__version__)"
START_SECONDS = 60
SPARE_MEMORY = 1 << 30  # bytes that a file may take beside
MEMORY_PER_BYTE = 8  # for each of its own
SPARE_SECONDS = 20  # that an answer may take beside
SECONDS_PER_MEGABYTE = 2  # for each of its own; DeiT-tiny, of 23 MB, takes 0.06 s an image on two cores


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


def guarded_runner(content, num_threads=None):
    """A `Runner` of a file from elsewhere: one that ends its process, or never ends, does not take this one with it.

    Args:
        content: bytes of the file.
        num_threads: threads of the interpreter; None is one per core that this process may use.

    Raises:
        InvalidModelFile: as for `Runner`; or the file ends its process, wants too much memory, or takes too long.
        ImportError: no interpreter is installed.
    """
    return Runner(content, interpreter=guarded_interpreter(content, num_threads))


def guarded_interpreter(content, num_threads=1):
    """What `guarded_runner` runs on; it also tells the operators as an interpreter does.

    Raises:
        InvalidModelFile: the file is damaged, or the interpreter does not load it.
        ValueError: `num_threads` is no positive integer.
    """
    threads = threads_of(num_threads)
    check_file(content)
    return ForeignInterpreter(content, [sys.executable, "-P"], interpreter_module(), num_threads=threads)


def check_runs(content):
    """Raises `InvalidModelFile` unless the interpreter survives a file and an image of zeros; looks in a process."""
    runner = guarded_runner(content)
    runner(np.zeros((1, *runner.image_shape), np.uint8))


def foreign_runner(content, python):
    """A `Runner` of a file on the tflite-runtime of another Python.

    Args:
        content: bytes of the file.
        python: path of the Python, as for `check_runtime_python`.

    Raises:
        InvalidModelFile: the file is damaged, that runtime cannot load it, or does not survive it.
        ValueError: `python` cannot be run.
    """
    check_file(content)
    return Runner(content, interpreter=ForeignInterpreter(content, [_program(python)], "tflite_runtime.interpreter"))


def foreign_load_error(content, python):
    """Why the tflite-runtime of another Python cannot load a file, in its own words; `""` where it can."""
    try:
        foreign_runner(content, python)
    except InvalidModelFile as error:
        return str(error)
    return ""


class ForeignInterpreter:
    """What this package uses of an interpreter, in another process.

    Args:
        content: bytes of the file.
        python: the command that starts a Python.
        module: where that has `Interpreter`: a module's name, or the path of its `.py`.
        runtime: what errors call it; None takes the module's name.
        num_threads: of the interpreter.
        memory: bytes that the file may take; 0 does not limit them, None goes by its size.
        seconds: that an answer may take; None goes by the file's size.

    Attributes:
        device: what the interpreter says that it runs on; empty where it says nothing.

    Raises:
        InvalidModelFile: the runtime cannot load the file, or does not survive it.
    """

    def __init__(self, content, python, module, runtime=None, num_threads=1, memory=None, seconds=None):
        self._runtime = runtime or module.split(".")[0].replace("_", "-")
        self._memory = SPARE_MEMORY + MEMORY_PER_BYTE * len(content) if memory is None else memory
        self._seconds = SPARE_SECONDS + SECONDS_PER_MEGABYTE * len(content) // 10**6 if seconds is None else seconds
        limits = map(str, (num_threads, self._memory, self._seconds))
        command = [*python, "-c", PROGRAM.read_text(), module, *limits]
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, `_close` closes it
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed)
        self._close = weakref.finalize(self, _close, self._process, self._printed)
        told = json.loads(str(self._ask(model=np.frombuffer(content, np.uint8))["told"]))
        self._inputs, self._outputs, self._signatures = told["inputs"], told["outputs"], told["signatures"]
        self._nodes, self._image, self._values, self.device = told["nodes"], None, {}, told["device"]

    def get_input_details(self):
        return self._inputs

    def get_output_details(self):
        return self._outputs

    def _get_full_signature_list(self):
        return self._signatures

    def _get_ops_details(self):
        return self._nodes

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
            raise InvalidModelFile(f"{self._runtime} {self._end()}")
        if str(answer.get("error")) in ("MemoryError", "RuntimeError"):  # and nothing more
            raise InvalidModelFile(f"{self._runtime} says no reason why it fails{self._limit('; it')}")
        if "error" in answer:
            raise InvalidModelFile(f"{self._runtime} cannot run this file: {reason_of(str(answer['error']))}")
        return answer

    def _end(self):
        """How the process ended, in words."""
        code = self._process.wait()
        if code == -getattr(signal, "SIGALRM", 0):
            return f"took more than {self._seconds} seconds on this file"
        if code < 0:
            limit = self._limit(", for which it")
            return f"was ended by signal {-code} ({signal.strsignal(-code)}) on this file{limit}"
        self._printed.seek(0)
        return f"ended with code {code} on this file: {_last_line(self._printed.read())}"

    def _limit(self, joined):
        """What memory it may take, in words after what is said; empty where that is not limited."""
        return f"{joined} may take {self._memory >> 20} MiB of memory" if self._memory else ""


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
