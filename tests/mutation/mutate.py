"""Random single mutations of the package, each run against the tests that run the changed line: `make mutate`.

A mutation is caught where a test fails, or does not end in time. Tests run in copies of the working tree. Which test
runs which line is recorded by `make mutate-record`, anew after a change of the package or of the tests.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import forked_pytest
import single_mutations
from choose_tests import Choice
from tree_copy import FOLDER, REPOSITORY, TreeCopy

PARTS = ("layers", "models", "presets", "checkpoints", "explain", "export")
LEFT_OUT = ("export/progress.py",)  # words on a terminal
EQUIVALENT = Path(__file__).with_name("equivalent.json")
NAMED = Path(__file__).with_name("named.json")
FIRST_SECONDS = 5  # of recorded time; most mutations end there
Z = 1.96  # 95 %


def package_sources():
    """`{path: source}` of the files that are mutated and of those that use them."""
    paths = [*(REPOSITORY / "keras_vit_plugin").glob("*.py")]
    for part in PARTS:
        folder = REPOSITORY / ("export" if part == "export" else f"keras_vit_plugin/{part}")
        paths += folder.rglob("*.py")
    return {path.relative_to(REPOSITORY).as_posix(): path.read_text() for path in sorted(paths)}


@dataclass
class Mutant:
    """A mutated file and what became of it."""

    number: int
    path: str
    line: int
    source_line: str
    kind: str
    change: str
    source: str
    tests: list[str]
    verdict: str = "waiting"  # then: caught, time, survived, untested, equivalent
    by: str = ""
    left_out: int = 0  # tests that did not fit into the time
    stages: list[list[str]] = field(default_factory=list)

    def record(self):
        named = ("number", "verdict", "path", "line", "kind", "change", "source_line", "by", "left_out")
        return {name: getattr(self, name) for name in named} | {"tests": len(self.tests)}


def sampled(count, seed, sources, choice):
    """`count` mutants: sites and, at each, one alternative, drawn by the seed."""
    generator = random.Random(seed)
    every = [
        (path, site)
        for path, source in sources.items()
        if path.count("/") > (path.startswith("keras_vit_plugin")) and path not in LEFT_OUT
        for site in single_mutations.sites(source)
    ]
    mutants = []
    for number, (path, site) in enumerate(generator.sample(every, min(count, len(every)))):
        mutation = generator.choice(site)
        tests = choice.ordered(path, choice.tests(path, mutation))
        text = mutation.applied(sources[path])
        mutants.append(
            Mutant(number, path, mutation.line, mutation.source_line, mutation.kind, mutation.change, text, tests)
        )
    return mutants, len(every)


def named(sources, choice):
    """The mutants of `named.json`, which tests once let pass."""
    mutants = []
    for number, entry in enumerate(json.loads(NAMED.read_text())):
        source, old = sources[entry["path"]], entry["old"]
        if source.count(old) != 1:
            raise ValueError(
                f"named.json: {old!r} must occur once in {entry['path']}, occurs {source.count(old)} times."
            )
        line = source[: source.index(old)].count("\n") + 1
        tests = choice.ordered(entry["path"], choice.tests_near(entry["path"], line, source))
        text = source.replace(old, entry["new"])
        mutants.append(Mutant(number, entry["path"], line, old.strip(), "named", entry["name"], text, tests))
    return mutants


def is_equivalent(mutant, equivalents):
    """Whether a person has judged that no test can tell the mutant from the program."""
    key = (mutant.path, mutant.source_line, mutant.change)
    return key in {(entry["path"], entry["source_line"], entry["change"]) for entry in equivalents}


class Run:
    """Runs mutants in several processes side by side.

    Args:
        mutants: what to run.
        choice: the records of the tests.
        workers: how many processes.
        seconds: of recorded time, at most, that one mutant's tests may take.
    """

    def __init__(self, mutants, choice, workers, seconds):
        self.choice = choice
        self.waiting = [mutant for mutant in mutants if mutant.verdict == "waiting"]
        self.total, self.seconds = len(self.waiting), seconds
        self.copies = [TreeCopy(f"mutant-{i}") for i in range(workers)]
        self.running, self.started, self.limits = {}, {}, {}
        self.began, self.done = time.monotonic(), 0

    def run(self, after_each):
        """Runs all; calls `after_each` after every mutant that is judged."""
        forked_pytest.import_the_slow_packages()
        try:
            while self.waiting or self.running:
                while self.waiting and self.copies:
                    self.begin(self.waiting.pop(0), self.copies.pop())
                if self.judged():
                    after_each()
        finally:
            for process in self.started:  # where it was interrupted
                forked_pytest.end(process)

    def judged(self):
        """Waits for a run of pytest to end; whether its mutant is judged by it."""
        process, status = forked_pytest.wait(self.started, self.limits)
        del self.started[process], self.limits[process]
        mutant, copy, log = self.running.pop(process)
        if status == 0 and mutant.stages:
            self.next_stage(mutant, copy)
            return False
        copy.write(mutant.path, (REPOSITORY / mutant.path).read_text())
        self.copies.append(copy)
        mutant.verdict = {0: "survived", None: "time"}.get(status, "caught")
        mutant.by = "" if status == 0 else _first_failure(log) or f"exit status {status}"
        self.done += 1
        self.tell(mutant)
        return True

    def begin(self, mutant, copy):
        taken = self.choice.within(mutant.tests, self.seconds)
        mutant.left_out = len(mutant.tests) - len(taken)
        first = self.choice.within(taken, FIRST_SECONDS)
        rest = [test for test in taken if test not in set(first)]
        mutant.stages = [first, *([rest] if rest else [])]
        copy.write(mutant.path, mutant.source)
        self.next_stage(mutant, copy)

    def next_stage(self, mutant, copy):
        tests = mutant.stages.pop(0)
        log = FOLDER / f"{copy.folder.name}.log"
        process = forked_pytest.start(copy, ["-x", "--durations=0", "--no-header", *tests], log)
        self.running[process] = (mutant, copy, log)
        self.started[process] = time.monotonic()
        self.limits[process] = 300 + 8 * sum(self.choice.seconds[test] for test in tests)

    def tell(self, mutant):
        left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        by = f" by {mutant.by}" if mutant.by else ""
        print(
            f"{self.done}/{self.total}, about {left / 60:.0f} min left: #{mutant.number} {mutant.verdict}{by}: "
            f"{mutant.path}:{mutant.line} {mutant.kind}: {mutant.change:.100}",
            flush=True,
        )


def _first_failure(log):
    found = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", log.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else ""


def summary(mutants, sites):
    """The counts, the share that was caught with its 95 % interval (Wilson 1927), and a table of the others."""
    counts = {verdict: sum(m.verdict == verdict for m in mutants) for verdict in
              ("caught", "time", "survived", "untested", "equivalent")}  # fmt: skip
    judged = sum(counts.values()) - counts["equivalent"]
    caught = counts["caught"] + counts["time"]
    lines = [f"{len(mutants)} of {sites} sites; " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items())]
    if judged:
        share, z2 = caught / judged, Z**2 / judged
        middle, half = (
            (share + z2 / 2) / (1 + z2),
            Z * math.sqrt(share * (1 - share) / judged + z2 / judged / 4) / (1 + z2),
        )
        lines.append(
            f"{caught} of {judged} caught: {share:.1%} (95 % interval {middle - half:.1%} to {middle + half:.1%})"
        )
    for mutant in mutants:
        if mutant.verdict in ("survived", "untested"):
            tests = f"{len(mutant.tests)} tests" + (f", {mutant.left_out} left out" if mutant.left_out else "")
            lines.append(f"#{mutant.number} {mutant.verdict} ({tests}) {mutant.path}:{mutant.line} {mutant.kind}")
            lines.append(f"    {mutant.source_line}\n    {mutant.change:.200}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120, help="recorded time of one mutant's tests, at most")
    parser.add_argument("--named", action="store_true", help="the mutants of named.json instead of random ones")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the sample to run, such as survivors")
    parser.add_argument("--json", type=Path, help="where to write the result of every mutant")
    arguments = parser.parse_args()

    sources = package_sources()
    choice = Choice(sources)
    if not choice.seconds:
        parser.error("no test is recorded: make mutate-record")
    if choice.old:
        print(f"{len(choice.old)} test files are recorded of other code, such as {choice.old[0]}: make mutate-record")
    equivalents = json.loads(EQUIVALENT.read_text())
    if arguments.named:
        mutants, sites = named(sources, choice), 0
    else:
        mutants, sites = sampled(arguments.count, arguments.seed, sources, choice)
    if arguments.only is not None:
        mutants = [mutant for mutant in mutants if mutant.number in arguments.only]
    for mutant in mutants:
        if is_equivalent(mutant, equivalents):
            mutant.verdict = "equivalent"
        elif not mutant.tests:
            mutant.verdict = "untested"

    def save():
        if arguments.json:
            arguments.json.write_text(json.dumps([mutant.record() for mutant in mutants], indent=1) + "\n")

    Run(mutants, choice, arguments.workers, arguments.seconds).run(save)
    save()
    print(summary(mutants, sites))
    return 0


if __name__ == "__main__":
    sys.exit(main())
