"""Many cases through watched processes, several at a time."""

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from cases import KERAS, LITERT, NAMES, TFLITE_RUNTIME, make_case, remove
from verdict import ANSWERED, FAULTS, REFUSED, SIGNAL, Verdict, files_below, verdict
from watched import Limits, Watched

FAILURES = Path("fuzz-files-failures")
PROGRESS_SECONDS = 20
DEVICE_PYTHON = Path(__file__).parents[2] / ".venv-device" / "bin" / "python"
# Each process is warmed up by what makes it import most.
BUILT = "keras-vit verify seeds/vit.keras seeds/vit.tflite --images seeds/photos"
CLASSIFIED = "vit.py classify seeds/dense.tflite seeds/photos/0.png"


@dataclass(frozen=True)
class Result:
    """A case, and what became of it."""

    seed: int
    format: str
    mutation: str
    runtime: str
    argv: tuple[str, ...]
    outcome: str
    detail: str
    seconds: float
    memory: int

    @property
    def is_fault(self):
        return self.outcome in FAULTS


class Bench:
    """The processes of one thread: one with TensorFlow, and two without for `vit.py`, one of them with tflite-runtime.

    Args:
        folder: its own.
        seeds: the folder of `make_seeds`, which one `Bench` of several makes.
        limits: `Limits`.
    """

    def __init__(self, folder, seeds, limits=Limits()):  # noqa: B008, it is frozen
        self.folder, self.seeds = Path(folder) / "case", Path(seeds)
        self.folder.mkdir(parents=True)
        device = DEVICE_PYTHON if DEVICE_PYTHON.exists() else sys.executable
        self._workers = {
            name: Watched(folder, name, python, limits, [warm_up.split()])
            for name, python, warm_up in (
                (KERAS, sys.executable, BUILT),
                (LITERT, sys.executable, CLASSIFIED),
                (TFLITE_RUNTIME, device, CLASSIFIED),
            )
        }

    def make_seeds(self):
        self._workers[KERAS].call("seeds:make_seeds", self.seeds)

    def judge(self, seed):
        """The `Result` of a case; its files are in `folder` until the next one.

        What ends a process is tried again in a new one, as commands have one each: the cases before it may be why, or
        a machine that is busy. A signal counts all the same, since a crash may depend on where memory happens to lie.
        """
        case, said, ran = self._judge_once(seed)
        if ran.died:
            again = self._judge_once(seed)
            if said.outcome != SIGNAL or again[2].died:
                case, said, ran = again
            else:
                said = Verdict(SIGNAL, f"{said.detail}, but not again in a process of its own")
        self.ran = ran
        return Result(
            seed,
            case.format,
            case.mutation,
            case.runtime,
            case.argv,
            said.outcome,
            said.detail,
            ran.seconds,
            ran.memory,
        )

    def _judge_once(self, seed):
        case = make_case(seed, self.folder, self.seeds)
        before = files_below(self.folder)
        ran = self._workers[case.runtime].run(case.argv, case.stdin)
        return case, verdict(case, ran, before, files_below(self.folder), self.seeds), ran

    def keep(self, result, to):
        """Copies the files of the last case, and what the command printed, into a folder."""
        remove(to)
        to.mkdir(parents=True)
        with contextlib.suppress(shutil.Error, OSError):  # pipes, and links that lead nowhere
            shutil.copytree(self.folder, to / "case", symlinks=True, ignore=shutil.ignore_patterns("seeds", "pipe"))
        (to / "stdout").write_bytes(self.ran.out)
        (to / "stderr").write_bytes(self.ran.err)
        (to / "result.json").write_text(json.dumps(asdict(result), indent=1))
        return to

    def close(self):
        for worker in self._workers.values():
            worker.close()


def campaign(
    seeds,
    minutes=None,
    workers=1,
    failures=FAILURES,
    out=print,
    limits=Limits(),  # noqa: B008, it is frozen
    keep_all=False,
):
    """Judges cases until the time is over; returns the `Result`s.

    Args:
        seeds: a list or range of integers.
        minutes: None is without end.
        workers: how many cases at a time.
        failures: folder in which the files of faults are kept, each under its seed.
        out: prints a line.
        limits: `Limits`.
        keep_all: keep the files of every case.
    """
    results, waiting, over = [], iter(seeds), threading.Event()

    def work(bench):
        for seed in waiting:  # of a range or list, which threads may share
            result = _judged(bench, seed)
            results.append(result)
            if result.is_fault or keep_all:
                bench.keep(result, Path(failures) / str(seed))
            if result.is_fault:
                out(fault_line(result))
            if over.is_set():
                return

    with tempfile.TemporaryDirectory(prefix="fuzz-files-") as folder, ThreadPoolExecutor(workers) as pool:
        benches = [Bench(Path(folder) / str(index), Path(folder) / "seeds", limits) for index in range(workers)]
        try:
            benches[0].make_seeds()
            working = [pool.submit(work, bench) for bench in benches]
            try:
                _wait(working, results, len(seeds), float("inf") if minutes is None else 60 * minutes, out)
            finally:
                over.set()
            for each in working:
                each.result()
        finally:
            for bench in benches:
                bench.close()
    return results


def _judged(bench, seed):
    try:
        return bench.judge(seed)
    except Exception as error:
        raise RuntimeError(f"case {seed} cannot be judged: {error}") from error


def _wait(working, results, count, seconds, out):
    """Until all threads are done, or the time is over, or somebody ends it; tells how far it is."""
    started = time.monotonic()
    try:
        while (left := started + seconds - time.monotonic()) > 0:
            state = wait(working, min(left, PROGRESS_SECONDS), FIRST_EXCEPTION)
            if not state.not_done or any(each.exception() for each in state.done):
                return
            out(progress_line(results, count, time.monotonic() - started, left))
    except KeyboardInterrupt:
        out("Ended early: the last cases are waited for.")


def fault_line(result):
    """A fault in one line, in which a terminal finds nothing to obey."""
    command, detail = shlex.join(result.argv)[:300], " ".join(result.detail.split())[:400]
    line = f"{result.outcome.upper()} {result.format}, {result.mutation}, {result.runtime}: {command}: {detail}"
    return f"{line.encode('unicode_escape').decode()} (make fuzz-files SEED={result.seed})"


def progress_line(results, count, taken, left):
    """How far a campaign is, and how long it lasts at most."""
    rate = len(results) / taken
    left = min(left, (count - len(results)) / rate if rate else left)
    faults = sum(result.is_fault for result in results)
    return f"{len(results)} cases, {rate:.1f} a second, {faults} fault(s), {left / 60:.1f} minutes left at most"


def table(results):
    """Counts by format and outcome, as lines of Markdown."""
    shown = [REFUSED, ANSWERED, *FAULTS]
    lines = [f"| format | cases | {' | '.join(shown)} |", f"|---|{'---:|' * (len(shown) + 1)}"]
    for name in (*NAMES, "all"):
        outcomes = Counter(result.outcome for result in results if name in ("all", result.format))
        if not outcomes:
            continue
        cells = " | ".join(str(outcomes[outcome]) for outcome in shown)
        lines.append(f"| {name} | {outcomes.total()} | {cells} |")
    return lines
