"""Random models exported until the time is over: `make fuzz MINUTES=10`, or one again: `make fuzz SEED=12`.

A process of its own runs the cases, is watched, and is replaced when it dies or hangs.
"""

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

FAILURES = Path("fuzz-failures.txt")
START_LIMIT, CASE_LIMIT = 600, 600  # seconds


def work(pipe):
    """Answers seeds with results; for a process of its own."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    sys.path.insert(0, str(Path(__file__).parent))
    from judge import judge

    pipe.send("ready")
    while (seed := pipe.recv()) is not None:
        pipe.send(vars(judge(seed)))


class Worker:
    """A process that judges cases; a dead or hanging one is replaced at the next case."""

    def __init__(self, case_limit=CASE_LIMIT, target=work):
        self._limit, self._target, self._process = case_limit, target, None

    def judge(self, seed):
        """The fields of a `Result` of a seed, a crash or a hang of the process too."""
        if self._process is None and (died := self._start()):
            raise RuntimeError(f"the fuzzer's process does not start: {died}")
        started = time.monotonic()
        self._pipe.send(seed)
        result, died = self._answer(self._limit)
        if result is None:
            outcome = "hang" if died == "hang" else "crash"
            detail = f"no answer in {self._limit} s" if died == "hang" else died
            result = {"seed": seed, "outcome": outcome, "detail": detail, "seconds": time.monotonic() - started}
        return {"mode": "?", "target": "?", "road": "?", "what": "", "trace": "", **result}

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._target, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self._answer(START_LIMIT)[1]

    def _answer(self, limit):
        """`(what it sends, None)`, or `(None, how it died)`."""
        try:
            if self._pipe.poll(limit):
                return self._pipe.recv(), None
            died = "hang"
        except (EOFError, OSError):
            self._process.join(5)
            died = f"the process died with {self._process.exitcode}"
        self.close()
        return None, died


def fuzz(seeds, minutes=None, failures=FAILURES, worker=None, out=print, verbose=False):
    """Judges seeds until the time is over; returns the results.

    Args:
        seeds: an iterable of integers.
        minutes: None is without end.
        failures: where faults are written in full.
        worker: a `Worker`.
        out: prints a line.
        verbose: whether for every case.
    """
    worker, results, until = worker or Worker(), [], None
    try:
        for seed in seeds:
            result = worker.judge(seed)
            until = until or (None if minutes is None else time.monotonic() + 60 * minutes)  # less the start
            results.append(result)
            if verbose:
                out(
                    " ".join(
                        str(result[key])
                        for key in ("seed", "outcome", "mode", "target", "road", "what", "detail", "seconds")
                    )
                )
            if is_fault(result):
                line = " ".join(result["detail"].split())
                out(
                    f"{result['outcome'].upper()} {result['mode']} for {result['target']} by {result['road']}: "
                    f"{line[:300]} (seed {seed} reproduces it: make fuzz SEED={seed})"
                )
                with open(failures, "a", encoding="utf-8") as file:
                    file.write(f"seed {seed}: {result['outcome']}: {result['mode']} for {result['target']} by ")
                    file.write(f"{result['road']}\n{result['what']}\n{line}\n{result['trace']}\n\n")
            if until is not None and time.monotonic() > until:
                break
    finally:
        worker.close()
    return results


def is_fault(result):
    return result["outcome"] not in ("right", "refused")


def table(results):
    """Counts by mode, target and outcome, as lines."""
    outcomes = ("right", "refused", "must be written", "wrong", "crash", "hang")
    counts = Counter((result["mode"], result["target"], result["outcome"]) for result in results)
    rows = sorted({(mode, target) for mode, target, _ in counts})
    lines = [f"{'mode':<10} {'target':<15}" + "".join(f"{outcome:>16}" for outcome in outcomes)]
    for mode, target in rows:
        numbers = "".join(f"{counts[mode, target, outcome] or '':>16}" for outcome in outcomes)
        lines.append(f"{mode:<10} {target:<15}{numbers}")
    totals = Counter(result["outcome"] for result in results)
    lines.append(f"{'all':<26}" + "".join(f"{totals[outcome]:>16}" for outcome in outcomes))
    reasons = Counter(_reason(result) for result in results if result["outcome"] == "refused")
    lines += [f"refused {count} times: {reason}" for reason, count in reasons.most_common()]
    return lines


def _reason(result):
    """The beginning of a refusal, without what differs from case to case."""
    return re.sub(r"[\d.]+", "N", " ".join(result["detail"].split()))[:110]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, help="judge this case alone")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    parser.add_argument("--first", type=int, default=int(time.time()) % 10**6 * 1000, help="the first of the seeds")
    options = parser.parse_args()
    seeds = range(options.first, options.first + 10**6) if options.seed is None else [options.seed]
    print(f"{len(seeds)} case(s) at most, from seed {seeds[0]} on", flush=True)
    results = fuzz(seeds, options.minutes, out=lambda line: print(line, flush=True), verbose=options.verbose)
    if options.seed is not None:
        (result,) = results
        print(result["what"], result["detail"], result["trace"], f"{result['seconds']:.1f} s", sep="\n")
    for line in table(results):
        print(line)
    faults = sum(map(is_fault, results))
    if faults:
        print(f"{faults} fault(s), in full in {FAILURES}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
