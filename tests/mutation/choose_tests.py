"""Which tests can notice a mutation, in the order in which they are tried."""

import functools
import re

import single_mutations
from record_lines import read_records
from tree_copy import REPOSITORY

NAMED_MOST = 8  # how far a name defined with another name is followed


class Choice:
    """The records of all tests, asked by mutation.

    Args:
        sources: `{path of the package's file: its source}`.
    """

    def __init__(self, sources):
        self.seconds, self.tests_by_line, self.old = read_records()
        self.uses = {path: single_mutations.uses(source) for path, source in sources.items()}

    def tests(self, path, mutation):
        """Tests that run the mutated line, or that use what a line outside of functions defines."""
        if not mutation.in_function:
            return self._using(path, mutation.name)
        found = self._running(path, {mutation.line}) or self._running(path, self._statement(path, mutation))
        called_at_import = any(mutation.name in outside for _, outside, _ in self.uses.values())
        return found | self._using(path, mutation.name) if called_at_import else found

    def tests_near(self, path, line, source):
        """The tests of the mutation that is nearest to a line."""
        every = [site[0] for site in single_mutations.sites(source)]
        return self.tests(path, min(every, key=lambda mutation: abs(mutation.line - line)))

    def _running(self, path, lines):
        by_line = self.tests_by_line.get(path, {})
        return set().union(*(by_line.get(line, set()) for line in lines))

    def _statement(self, path, mutation):
        """The recorded line just before: the start of a statement of several lines."""
        before = [line for line in self.tests_by_line.get(path, {}) if mutation.line - 10 <= line < mutation.line]
        return {max(before)} if before else set()

    def _using(self, path, name):
        names, found = {name}, set()
        for _ in range(NAMED_MOST):
            more = set().union(*(each[1].get(n, set()) for each in self.uses.values() for n in names)) - names
            if not more:
                break
            names |= more
        for other, (lines, _, _) in self.uses.items():
            found |= self._running(other, set().union(*(lines.get(n, set()) for n in names)))
        for test in self.seconds:  # a test may look at what is defined without running a line of the package
            if _words(test.partition("::")[0]) & names:
                found.add(test)
        return found | self._running(path, self.uses[path][2].get(name, set()))

    def ordered(self, path, tests):
        """The module's own tests, then a case of each test function, the part's own before others; quick ones first.

        Of `layers/mlp.py` the own are those of `tests/layers`, of `export/page.py` those of `test_page.py`.
        """
        by_function = {}
        for test in sorted(tests, key=lambda each: (self.seconds[each], each)):
            by_function.setdefault(test.partition("[")[0], []).append(test)
        rank = {test: i for cases in by_function.values() for i, test in enumerate(cases)}
        part, _, module = path.removeprefix("keras_vit_plugin/").removesuffix(".py").partition("/")
        of_module = f"tests/export/test_{module.rpartition('/')[2]}.py::" if part == "export" else f"tests/{part}/"
        own = re.compile(
            "tests/export/" if path.startswith("export/") else "tests/(layers|models|presets|checkpoints|explain)/"
        )

        def place(test):
            return not test.startswith(of_module), rank[test], not own.match(test), self.seconds[test], test

        return sorted(tests, key=place)

    def within(self, tests, seconds):
        """As many of the tests as take so many seconds; always one."""
        taken, spent = [], 0.0
        for test in tests:
            if taken and spent + self.seconds[test] > seconds:
                continue
            taken.append(test)
            spent += self.seconds[test]
        return taken


@functools.cache
def _words(test_file):
    """The words of a test file; none where it is recorded and no longer there."""
    path = REPOSITORY / test_file
    return frozenset(re.findall(r"\w+", path.read_text())) if path.exists() else frozenset()
