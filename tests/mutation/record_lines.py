"""Which test runs which line of the package, and how long it takes: kept per test file, for `mutate.py`."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import coverage
import pytest
from tree_copy import FOLDER, REPOSITORY

RECORD = FOLDER / "record"
PACKAGE = ("keras_vit_plugin", "export")
SUBPROCESS_CONFIG = """[run]
parallel = true
data_file = {folder}/lines
context = ${{MUTATION_CONTEXT}}
source = {sources}
core = ctrace
"""


class RecordLines:
    """A pytest plugin: one coverage context for each test, and one for each fixture that tests share.

    Args:
        folder: the copy of the tree that the tests run in.
        test_file: the test file, relative to it.
    """

    def __init__(self, folder, test_file):
        self.folder, self.test_file = folder, test_file
        self.tests = {}

    def pytest_sessionstart(self):
        self.data = tempfile.mkdtemp(prefix="keras-vit-lines-")
        sources = [str(self.folder / name) for name in PACKAGE]
        config = Path(self.data) / "config"
        config.write_text(SUBPROCESS_CONFIG.format(folder=self.data, sources=",".join(sources)))
        os.environ["COVERAGE_PROCESS_START"] = str(config)
        os.environ["MUTATION_CONTEXT"] = ""
        self.coverage = coverage.Coverage(data_file=f"{self.data}/lines.main", source=sources, config_file=False)
        self.coverage.start()

    @contextlib.contextmanager
    def context(self, name):
        previous = os.environ["MUTATION_CONTEXT"]
        os.environ["MUTATION_CONTEXT"] = name
        self.coverage.switch_context(name)
        try:
            yield
        finally:
            os.environ["MUTATION_CONTEXT"] = previous
            self.coverage.switch_context(previous)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        began = time.monotonic()
        with self.context(item.nodeid):
            yield
        test = self.tests.setdefault(item.nodeid, {"passed": False})
        test |= {"seconds": round(time.monotonic() - began, 3), "fixtures": list(item.fixturenames)}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        # Whichever test comes first builds a shared fixture; all that use it depend on the lines.
        shared = fixturedef.scope != "function"
        with self.context(f"fixture {fixturedef.argname}") if shared else contextlib.nullcontext():
            yield

    def pytest_runtest_logreport(self, report):
        test = self.tests.setdefault(report.nodeid, {"passed": False})
        if report.when == "call":
            test["passed"] = report.passed

    def pytest_sessionfinish(self):
        self.coverage.stop()
        self.coverage.save()
        self.coverage.combine([self.data], keep=True)
        data = self.coverage.get_data()
        lines = {}
        for path in data.measured_files():
            relative = Path(path).resolve().relative_to(self.folder.resolve()).as_posix()
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    lines.setdefault(context, {}).setdefault(relative, []).append(line)
        record = {"file": self.test_file, "code": code_hash(self.folder, self.test_file)}
        record_path(self.test_file).write_text(json.dumps({**record, "tests": self.tests, "lines": lines}))


def record_path(test_file):
    """Where the record of a test file is kept."""
    return RECORD / (str(test_file).removesuffix(".py").replace("/", "-") + ".json")


def code_hash(folder, test_file):
    """SHA-256 of the package and a test file, from which a record is made."""
    digest = hashlib.sha256((folder / test_file).read_bytes())
    files = [path.relative_to(folder).as_posix() for part in PACKAGE for path in (folder / part).rglob("*.py")]
    for path in sorted(path for path in files if not path.startswith("keras_vit_plugin/export")):  # a link in a copy
        digest.update((folder / path).read_bytes())
    return digest.hexdigest()


def read_records():
    """All records.

    Returns:
        `{test: seconds}` of those that passed, `{file: {line: tests that run it}}`, and the test files whose record was
        made of other code.
    """
    seconds, lines, old = {}, {}, []
    for path in sorted(RECORD.glob("*.json")):
        record = json.loads(path.read_text())
        test_file = REPOSITORY / record["file"]
        if not test_file.exists():
            continue
        if code_hash(REPOSITORY, record["file"]) != record["code"]:
            old.append(record["file"])
        for test, found in record["tests"].items():
            if not found["passed"]:
                continue
            seconds[test] = found["seconds"]
            for context in [test, *(f"fixture {name}" for name in found["fixtures"])]:
                for file, numbers in record["lines"].get(context, {}).items():
                    for number in numbers:
                        lines.setdefault(file, {}).setdefault(number, set()).add(test)
    return seconds, lines, old
