"""The mutations of `make mutate`: what is changed and what is left alone."""

import json
import os
import subprocess
import sys

import mutate
import pytest
import record_tests
import single_mutations
from choose_tests import Choice
from tree_copy import REPOSITORY, TreeCopy

SOURCE = '''"""A text that no program reads: 1 < 2."""

RATE = 0.5


def keep(values, *, least=1):
    """Docstring with 3 + 4."""
    if not values:
        raise ValueError(f"`values` must hold {least + 1}.")
    print("so many", len(values) - 1)
    found = [value for value in values if value >= least and value != 7]
    found.sort(reverse=True)
    return max(found), min(found)
'''


def changes(source):
    return {mutation.change for site in single_mutations.sites(source) for mutation in site}


def test_each_kind_of_mutation_is_offered():
    assert changes(SOURCE) == {
        "0.5 -> 1.5",
        "0.5 -> (-0.5)",
        "1 -> 2",  # the default; the other numbers are worded, printed or compared below
        "1 -> (0)",
        "not values -> (values)",
        'raise ValueError(f"`values` must hold {least + 1}.") -> pass'.replace('f"', "f'").replace('.")', ".')"),
        "value >= least and value != 7 -> (value >= least or value != 7)",
        "value >= least and value != 7 -> (not (value >= least and value != 7))",
        "value >= least -> (value > least)",
        "value >= least -> (value < least)",
        "value != 7 -> (value == 7)",
        "7 -> 8",
        "7 -> (6)",
        "found.sort(reverse=True) -> pass",
        "found.sort(reverse=True) -> (found.sort())",
        "True -> False",
        "(max(found), min(found)) -> ((min(found), max(found)))",
        "max -> min",
        "min -> max",
    }


def test_a_mutation_changes_one_place_and_the_rest_stays_as_written():
    for site in single_mutations.sites(SOURCE):
        for mutation in site:
            changed = mutation.applied(SOURCE)
            assert changed != SOURCE
            compile(changed, "changed", "exec")
            assert mutation.source_line in SOURCE


def test_every_mutation_of_the_package_compiles():
    sources = mutate.package_sources()
    assert len(sources) > 100
    for path, source in list(sources.items())[:: len(sources) // 10]:
        for site in single_mutations.sites(source):
            compile(site[0].applied(source), path, "exec")


def test_a_sample_is_the_same_for_a_seed_and_of_all_parts():
    sources = mutate.package_sources()
    choice = Choice(sources)
    first, second = (mutate.sampled(60, 4, sources, choice)[0] for _ in range(2))
    assert [m.record() for m in first] == [m.record() for m in second]
    assert all(m.path.startswith("export/") or m.path.split("/")[1] in mutate.PARTS for m in first)
    assert len({m.path for m in first}) > 10


def test_every_named_mutation_is_still_there():
    sources = mutate.package_sources()
    entries = json.loads(mutate.NAMED.read_text())
    assert len(mutate.named(sources, Choice(sources))) == len(entries) > 10


def test_every_equivalent_mutation_is_still_there_and_has_a_reason():
    sources = mutate.package_sources()
    for entry in json.loads(mutate.EQUIVALENT.read_text()):
        mutations = [mutation for site in single_mutations.sites(sources[entry["path"]]) for mutation in site]
        assert (entry["source_line"], entry["change"]) in {(each.source_line, each.change) for each in mutations}
        assert len(entry["reason"]) > 20


@pytest.mark.parametrize(
    "verdicts, said",
    [
        (["caught"] * 270 + ["survived"] * 30, "270 of 300 caught: 90.0% (95 % interval 86.1% to 92.9%)"),
        (["caught"] * 8 + ["time", "untested", "equivalent"], "9 of 10 caught"),
        (["caught"] * 8 + ["not run"] * 2, "8 of 10 caught"),
    ],
)
def test_the_share_has_its_interval(verdicts, said):
    mutants = [mutate.Mutant(i, "a.py", 1, "x = 1", "constant", "1 -> 2", "", [], v) for i, v in enumerate(verdicts)]
    assert said in mutate.summary(mutants, 8000)
    assert mutate.summary(mutants, 8000).count("x = 1") == sum(
        v in ("survived", "untested", "not run") for v in verdicts
    )


def test_a_line_outside_of_functions_is_tested_by_what_uses_its_name():
    lines, outside, bodies = single_mutations.uses("A = 1\nB = {1: A}\n\n\ndef f(x=A):\n    return B[x]\n")
    assert lines["B"] == {6} and outside["A"] == {"B", "f"} and bodies["f"] == {6}


def test_a_table_is_tested_by_the_test_files_that_name_it():
    sources = mutate.package_sources()
    choice = Choice(sources)
    naming, other = "tests/export/test_targets.py::test_of_the_table", "tests/layers/test_layers.py::test_a"
    choice.seconds = {naming: 0.1, other: 0.1}
    (mutation, *_), *_ = single_mutations.sites(sources["export/tflite/op_versions.py"])
    found = choice.tests("export/tflite/op_versions.py", mutation)
    assert naming in found and other not in found


def test_each_of_two_constants_in_a_line_is_tested_by_what_uses_its_own_name():
    sites = single_mutations.sites("A, B = 1, 2\n")
    assert {mutation.change: mutation.name for site in sites for mutation in site} == {
        "1 -> 2": "A",
        "1 -> (0)": "A",
        "2 -> 3": "B",
        "2 -> (1)": "B",
    }
    _, outside, _ = single_mutations.uses("A = 1\nB, C = A, 2\n")
    assert outside["A"] == {"B", "C"}


@pytest.fixture(scope="module")
def tests_of_a_broken_package(tmp_path_factory):
    """A folder of tests; those in `of_conftest` have a `conftest.py` that imports the package."""
    folder = tmp_path_factory.mktemp("broken")
    for name, text in {
        "package.py": "raise ValueError('mutated')",
        "tests/test_of_package.py": "import package\n\n\ndef test_it(): pass",
        "tests/test_others.py": "def test_it(): pass\n\n\ndef test_false(): assert False",
        "tests/of_conftest/conftest.py": "import package",
        "tests/of_conftest/test_more.py": "def test_it(): pass",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    "arguments, status, verdict",
    [
        (["tests/test_others.py::test_it"], 0, "survived"),
        (["tests/test_others.py::test_false"], 1, "caught"),
        (["tests/test_of_package.py"], 2, "caught"),
        (["tests/test_others.py::test_it", "tests/test_of_package.py::test_it"], 4, "caught"),
        (["tests/of_conftest/test_more.py::test_it"], 4, "caught"),
        (["tests/test_others.py::test_that_was_renamed"], 4, "not run"),
        (["tests/test_that_was_removed.py::test_it"], 4, "not run"),
        (["tests/test_others.py", "-k", "none_of_them"], 5, "not run"),
    ],
)
def test_a_mutant_is_caught_where_a_test_fails_or_an_import(tests_of_a_broken_package, arguments, status, verdict):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=tests_of_a_broken_package, env={"PYTHONPATH": "."}, capture_output=True, text=True
    )
    log = done.stdout + done.stderr
    assert (done.returncode, mutate.verdict(done.returncode, log)) == (status, verdict), log
    if status == 4:
        assert arguments[-1] in mutate._first_failure(log) or "conftest" in log or "of_package" in log


def test_a_crash_is_caught_and_a_fork_that_fails_is_not():
    assert [mutate.verdict(status, "") for status in (-11, None, 70)] == ["caught", "time", "not run"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--workers", "0"], "--workers: must be 1 or more, got 0"),
        (["--count", "-1"], "--count: must be 1 or more, got -1"),
        (["--seconds", "0"], "--seconds: must be 1 or more, got 0"),
        (["--json", "no/such/folder/m.json"], "--json: cannot be written: "),
    ],
)
def test_unfit_arguments_of_mutate_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit):
        mutate.parser_of_arguments().parse_args(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--workers", "0"], "--workers: must be 1 or more, got 0"),
        (["tests/layers", "tests/nope"], "'tests/nope' holds no test file to record"),
        (["tests/mutation"], "'tests/mutation' holds no test file to record"),
        (["/nowhere"], "'/nowhere' holds no test file to record"),
    ],
)
def test_unfit_arguments_of_record_tests_are_refused(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["record_tests.py", *arguments])
    with pytest.raises(SystemExit):
        record_tests.parsed()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("value, data", [("", REPOSITORY.parent / "shared" / "data"), ("own", "own")])
def test_a_copy_of_the_tree_reads_the_same_real_data(value, data, tmp_path, monkeypatch):
    copy = TreeCopy.__new__(TreeCopy)
    copy.folder = tmp_path
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("KERAS_VIT_DATA", value)
    monkeypatch.chdir(REPOSITORY)
    copy.enter()
    assert os.environ["KERAS_VIT_DATA"] == str(REPOSITORY / data) and os.getcwd() == str(tmp_path)


def test_a_modules_own_tests_are_tried_first():
    page, mlp, explain = "tests/export/test_page.py", "tests/layers/test_mlp.py", "tests/explain/test_explain.py"
    choice = Choice({})
    choice.seconds = {
        f"{explain}::test_a": 1.0,
        f"{page}::test_a": 2.0,
        f"{mlp}::test_b[1]": 4.0,
        f"{mlp}::test_b[2]": 3.0,
    }
    ordered = {
        path: choice.ordered(path, choice.seconds) for path in ("keras_vit_plugin/layers/mlp.py", "export/page.py")
    }
    # Both cases before another module's tests.
    of_mlp, of_page = ordered.values()
    assert of_mlp == [f"{mlp}::test_b[2]", f"{mlp}::test_b[1]", f"{explain}::test_a", f"{page}::test_a"]
    assert of_page == [f"{page}::test_a", f"{explain}::test_a", f"{mlp}::test_b[2]", f"{mlp}::test_b[1]"]


def test_a_test_file_is_recorded_once():
    files = record_tests.test_files(["tests/mutation/../layers", "tests/layers", "tests/test_cli.py"])
    assert len(files) == len(set(files)) > 2 and files[-1] == "tests/test_cli.py"
