"""The mutations of `make mutate`: what is changed and what is left alone."""

import json

import mutate
import pytest
import single_mutations
from choose_tests import Choice

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
    ],
)
def test_the_share_has_its_interval(verdicts, said):
    mutants = [mutate.Mutant(i, "a.py", 1, "x = 1", "constant", "1 -> 2", "", [], v) for i, v in enumerate(verdicts)]
    assert said in mutate.summary(mutants, 8000)
    assert mutate.summary(mutants, 8000).count("x = 1") == sum(v in ("survived", "untested") for v in verdicts)


def test_a_line_outside_of_functions_is_tested_by_what_uses_its_name():
    lines, outside, bodies = single_mutations.uses("A = 1\nB = {1: A}\n\n\ndef f(x=A):\n    return B[x]\n")
    assert lines["B"] == {6} and outside["A"] == {"B", "f"} and bodies["f"] == {6}


def test_a_table_is_tested_by_the_test_files_that_name_it():
    sources = mutate.package_sources()
    choice = Choice(sources)
    naming, other = "tests/export/test_targets.py::test_of_the_table", "tests/layers/test_layers.py::test_a"
    choice.seconds = {naming: 0.1, other: 0.1}
    (mutation, *_), *_ = single_mutations.sites(sources["export/op_versions.py"])
    found = choice.tests("export/op_versions.py", mutation)
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
