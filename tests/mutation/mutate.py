"""Random single mutations of the package, each run against the tests that run the changed line: `make mutate`.

A mutation is caught where a test fails, or does not end in time. Where pytest could not run the tests, the verdict is
"not run", which counts as not caught. Tests run in copies of the working tree. Which test runs which line is recorded
by `make mutate-record`, anew after a change of the package or of the tests.
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
from arguments import positive, writable_file
from choose_tests import Choice
from tree_copy import FOLDER, REPOSITORY, TreeCopy

PARTS = ("layers", "models", "presets", "checkpoints", "cli", "explain", "images", "image_model", "export")

EQUIVALENT = Path(__file__).with_name("equivalent.json")
NAMED = Path(__file__).with_name("named.json")
EVERY_TEST = ("-m", "long or not long")  # those that are recorded; which of them are long is no matter here
COLLECTING_SECONDS = 600
FIRST_SECONDS = 5  # of recorded time; most mutations end there
Z = 1.96  # 95 %
VERDICTS = ("caught", "time", "survived", "untested", "not run", "equivalent")
# What pytest prints where a test file or a conftest.py cannot be imported.
NOT_IMPORTED = re.compile(r"^(?:_+ ERROR collecting |ImportError while loading conftest )", re.MULTILINE)


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
    verdict: str = "waiting"  # then one of VERDICTS
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
        if path.count("/") > (path.startswith("keras_vit_plugin"))
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


class KeepCollected:
    """A pytest plugin that writes the names of the collected tests to a file."""

    def __init__(self, path):
        self.path = path
        path.unlink(missing_ok=True)

    def pytest_collection_finish(self, session):
        self.path.write_text(json.dumps([item.nodeid for item in session.items]))

    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else []


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

    def missing_tests(self):
        """The tests of the mutants that the program as it is does not have."""
        tests = {test: None for mutant in self.waiting for test in mutant.tests}
        if not tests:
            return []
        forked_pytest.import_the_slow_packages()
        copy, files = self.copies[0], sorted({test.partition("::")[0] for test in tests})
        files = [file for file in files if (copy.folder / file).exists()]
        found = KeepCollected(copy.folder / "collected.json")
        process = forked_pytest.start(copy, ["--collect-only", *EVERY_TEST, *files], self.log(copy), [found])
        try:
            forked_pytest.wait({process: time.monotonic()}, {process: COLLECTING_SECONDS})
        finally:
            forked_pytest.end(process)  # where it was interrupted
        collected = set(found.read())
        return [test for test in tests if test not in collected]

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
        text = log.read_text(errors="replace")
        mutant.verdict = verdict(status, text)
        mutant.by = "" if status == 0 else _first_failure(text) or f"exit status {status}"
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
        log = self.log(copy)
        process = forked_pytest.start(copy, ["-x", "--durations=0", "--no-header", *EVERY_TEST, *tests], log)
        self.running[process] = (mutant, copy, log)
        self.started[process] = time.monotonic()
        self.limits[process] = 300 + 8 * sum(self.choice.seconds[test] for test in tests)

    def log(self, copy):
        return FOLDER / f"{copy.folder.name}.log"

    def tell(self, mutant):
        left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        by = f" by {mutant.by}" if mutant.by else ""
        print(
            f"{self.done}/{self.total}, about {left / 60:.0f} min left: #{mutant.number} {mutant.verdict}{by}: "
            f"{mutant.path}:{mutant.line} {mutant.kind}: {mutant.change:.100}",
            flush=True,
        )


def verdict(status, log):
    """What a run of pytest says of a mutant.

    Args:
        status: the exit status of pytest, negative for a signal; None where the run did not end in time.
        log: what pytest printed.
    """
    if status is None:
        return "time"
    if status == 0:
        return "survived"
    # 1: a test failed. Where an import fails, the status is 2, or 4 if tests were asked for by name; 4 is also that of
    # a name that no test has.
    return "caught" if status == 1 or status < 0 or NOT_IMPORTED.search(log) else "not run"


def _first_failure(log):
    found = re.search(r"^(?:(?:FAILED|ERROR) (tests/.+?)(?: - .*)?|ERROR: (.+))$", log, re.MULTILINE)
    return (found[1] or found[2]) if found else ""


def summary(mutants, sites):
    """The counts, the share that was caught with its 95 % interval (Wilson 1927), and a table of the others."""
    counts = {verdict: sum(m.verdict == verdict for m in mutants) for verdict in VERDICTS}
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
        if mutant.verdict in ("survived", "untested", "not run"):
            tests = f"{len(mutant.tests)} tests" + (f", {mutant.left_out} left out" if mutant.left_out else "")
            tests += f", {mutant.by}" if mutant.by else ""
            lines.append(f"#{mutant.number} {mutant.verdict} ({tests}) {mutant.path}:{mutant.line} {mutant.kind}")
            lines.append(f"    {mutant.source_line}\n    {mutant.change:.200}")
    return "\n".join(lines)


def parser_of_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=positive, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--seconds", type=positive, default=120, help="recorded time of one mutant's tests, at most")
    parser.add_argument("--named", action="store_true", help="the mutants of named.json instead of random ones")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the sample to run, such as survivors")
    parser.add_argument("--json", type=writable_file, help="where to write the result of every mutant")
    return parser


def main():
    parser = parser_of_arguments()
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
        if unknown := set(arguments.only) - {mutant.number for mutant in mutants}:
            parser.error(f"--only must be of 0..{len(mutants) - 1}, got {min(unknown)}")
        mutants = [mutant for mutant in mutants if mutant.number in arguments.only]
    for mutant in mutants:
        if is_equivalent(mutant, equivalents):
            mutant.verdict = "equivalent"
        elif not mutant.tests:
            mutant.verdict = "untested"

    def save():
        if arguments.json:
            arguments.json.write_text(json.dumps([mutant.record() for mutant in mutants], indent=1) + "\n")

    run = Run(mutants, choice, arguments.workers, arguments.seconds)
    if missing := run.missing_tests():
        sys.exit(f"{len(missing)} recorded tests are no longer there, such as {missing[0]}: make mutate-record")
    run.run(save)
    save()
    print(summary(mutants, sites))
    return 0


if __name__ == "__main__":
    sys.exit(main())
