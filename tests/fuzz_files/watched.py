"""A process that runs commands and is watched: its death, its time and its memory. Linux alone tells of memory."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

WORKER = Path(__file__).with_name("commands_worker.py")
START_SECONDS = 300
SAMPLE_SECONDS = 0.05
SAMPLES_ABOVE = 4  # one that is being started has the memory of its parent for a moment
OF_TENSORFLOW = "__autograph_generated_file"  # TensorFlow removes them when the process ends
PAGE = os.sysconf("SC_PAGE_SIZE")
# Nothing is downloaded, tests side by side do not wait for each other's threads, and text is as on a user's terminal.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "KAGGLE_OFFLINE": "1",
    "PYTHONIOENCODING": "utf-8:strict",
}


@dataclass(frozen=True)
class Limits:
    """What a command may take: `seconds`, resident `memory` of all its processes in bytes, and cases per process."""

    seconds: float = 30
    memory: float = 1.5e9
    cases: int = 300


@dataclass(frozen=True)
class Ran:
    """What became of a command.

    Attributes:
        code: its exit code; None where it gave none.
        died: why not: `"signal"`, `"hang"`, `"memory"`; empty otherwise.
        detail: of `died`.
        out, err: what it printed, bytes.
        seconds, memory: what it took, at its peak, in bytes.
        left: files in the folder for temporary ones.
    """

    code: int | None
    died: str
    detail: str
    out: bytes
    err: bytes
    seconds: float
    memory: int
    left: tuple[str, ...] = ()


class Watched:
    """A worker process; it is started when it is needed, and another takes its place when it dies.

    Args:
        folder: where `case` is, and what it prints; one that several workers take in turn.
        name: of its folder for temporary files.
        python: the program that runs `commands_worker.py`.
        limits: `Limits`.
        warm_up: `(argv, ...)` of commands that a new process runs before the first case, in `folder / "case"`.
    """

    def __init__(self, folder, name, python=sys.executable, limits=Limits(), warm_up=()):  # noqa: B008, it is frozen
        self.folder, self._python, self._limits, self._warm_up = Path(folder), python, limits, warm_up
        self._process, self._cases, self._warm = None, 0, False
        self.temporary = self.folder / f"temporary of {name}"
        self.temporary.mkdir(parents=True, exist_ok=True)

    def run(self, argv, stdin=None):
        """Runs a command in `folder / "case"` and returns what became of it, a `Ran`."""
        self._start()
        self._warm_up_once()
        self._cases += 1
        started = time.monotonic()
        _forget_peak(self._process.pid)
        self._send({"argv": list(argv), "folder": str(self.folder / "case"), "stdin": stdin and str(stdin)})
        code, died, detail, memory = self._answer(started + self._limits.seconds, self._limits.memory)
        left = () if died else self._left()
        out, err = ((self.folder / name).read_bytes()[: 1 << 22] for name in ("stdout", "stderr"))
        if died or left or self._cases >= self._limits.cases:
            self.close()
        return Ran(code, died, detail, out, err, time.monotonic() - started, memory, left)

    def call(self, function, *arguments):
        """Calls `"module:function"` of this folder in the process.

        Raises:
            RuntimeError: it raised an exception, or the process died.
        """
        self._start()
        self._send({"call": function, "arguments": [str(argument) for argument in arguments]})
        code, died, detail, _ = self._answer(time.monotonic() + START_SECONDS, float("inf"))
        if died or code:
            raise RuntimeError(f"{function} failed: {detail or code}: {self._said()[-3000:]}")

    def close(self):
        """Ends the process, and all that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._printed):
            with contextlib.suppress(OSError):
                stream.close()
        self._process = None
        for path in self.temporary.iterdir():
            subprocess.run(["rm", "-rf", path], check=True)

    def _left(self):
        names = sorted(path.name for path in self.temporary.iterdir())
        return tuple(name for name in names if not name.startswith(OF_TENSORFLOW))

    def _start(self):
        if self._process is not None:
            return
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115, `close` closes it
        self._process = subprocess.Popen(
            [self._python, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**os.environ, **ENVIRONMENT, "TMPDIR": str(self.temporary)},
            start_new_session=True,
        )
        self._cases, self._warm = 0, False

    def _warm_up_once(self):
        for argv in () if self._warm else self._warm_up:
            self._send({"argv": argv, "folder": str(self.folder / "case")})
            code, died, detail, _ = self._answer(time.monotonic() + START_SECONDS, float("inf"))
            if died or code:
                said = (self.folder / "stderr").read_text(errors="replace") + self._said()
                raise RuntimeError(f"{' '.join(argv)} does not work: {detail or code}: {said[-3000:]}")
        self._warm = True

    def _send(self, request):
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(BrokenPipeError):  # `_answer` tells that it is dead
            self._process.stdin.flush()

    def _answer(self, until, most_memory):
        """`(exit code or None, how it died, detail, memory at the peak)`."""
        memory, above = 0, 0
        while True:
            if select.select([self._process.stdout], [], [], SAMPLE_SECONDS)[0]:
                line = self._process.stdout.readline()
                if not line:
                    return None, "signal", _death(self._process.wait()), memory
                memory = max(memory, _peak(self._process.pid))
                if memory > most_memory:
                    return None, "memory", f"{memory / 1e9:.2f} GB at the peak", memory
                return json.loads(line)["code"], "", "", memory
            now = session_memory(self._process.pid)
            if now > most_memory:  # what forks share counts once
                now = session_memory(self._process.pid, shared_once=True)
            above = above + 1 if now > most_memory else 0
            if above >= SAMPLES_ABOVE:
                return None, "memory", f"{now / 1e9:.2f} GB, and it went on", now
            memory = max(memory, now if above == 0 else 0)
            if time.monotonic() > until:
                return None, "hang", f"no answer in {self._limits.seconds:g} s", memory

    def _said(self):
        self._printed.seek(0)
        return self._printed.read().decode(errors="replace")


def _death(code):
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended the process with {code}"


def _forget_peak(process):
    with contextlib.suppress(OSError), open(f"/proc/{process}/clear_refs", "w") as file:
        file.write("5")


def _peak(process):
    """The highest resident memory of a process since `_forget_peak`, in bytes."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0)
    return 0


def session_memory(leader, shared_once=False):
    """The resident memory of all processes of a session, in bytes; counting what they share once takes longer."""
    size = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if name.isdecimal():
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[3]) != leader:
                    continue
                if shared_once:
                    with open(f"/proc/{name}/smaps_rollup") as file:
                        size += next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
                else:
                    size += int(fields[21]) * PAGE
    return size
