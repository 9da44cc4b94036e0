"""No fault in fixed cases of every format, and the watch would find one of every kind."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import verdict as judge
from campaign import Bench, Result, campaign, table
from cases import NAMES, TURNS, Case, copy, make_case, remove
from formats import FORMATS
from mutate_tflite import is_sealed
from verdict import files_below, verdict
from watched import Limits, Ran, Watched

CASES = range(3 * len(TURNS))
FAULTS = {
    "refuse": judge.REFUSED,
    "answer": judge.ANSWERED,
    "die": judge.SIGNAL,
    "leave": judge.SIGNAL,
    "hang": judge.HANG,
    "grab": judge.MEMORY,
    "grab_and_hold": judge.MEMORY,
    "grab_in_a_child": judge.MEMORY,
    "show_a_traceback": judge.TRACEBACK,
    "call_it_a_fault": judge.TRACEBACK,
    "print_an_escape": judge.ESCAPE,
    "print_an_escape_as_a_library_does": judge.ESCAPE,
    "leave_a_file": judge.LEFT,
    "write_over_a_file": judge.LEFT,
    "leave_a_temporary_file": judge.LEFT,
    "say_nothing": judge.UNCLEAR,
    "name_nothing": judge.UNCLEAR,
    "say_too_much": judge.UNCLEAR,
    "print_an_object": judge.UNCLEAR,
    "print_nan": judge.WRONG,
    "print_an_error_and_go_on": judge.WRONG,
    "write_a_file_without_its_hash": judge.WRONG,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A `Bench` with the seeds that it made."""
    folder = tmp_path_factory.mktemp("bench")
    made = Bench(folder / "0", folder / "seeds")
    made.make_seeds()
    yield made
    made.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    worker = Watched(tmp_path_factory.mktemp("watched"), "fake", limits=Limits(seconds=3, memory=250e6))
    yield worker
    worker.close()


def fake_case(name, **options):
    return Case(0, ".keras", "bytes flipped", ("fake", name), ("mutated",), file=Path("mutated.keras"), **options)


@pytest.mark.long
def test_cases_of_every_format_hold(bench, tmp_path):
    results = []
    for seed in CASES:
        results.append(bench.judge(seed))
        if results[-1].is_fault:
            bench.keep(results[-1], tmp_path / str(seed))
    faults = [
        f"seed {result.seed}: {result.outcome}: {result.argv} {result.detail}" for result in results if result.is_fault
    ]
    assert not faults, "\n".join([*faults, f"The files are in {tmp_path}.", *table(results)])
    assert {result.format for result in results} == set(NAMES)
    assert {result.outcome for result in results} == {judge.REFUSED, judge.ANSWERED}
    assert {result.argv[0] for result in results} >= {"keras-vit", "vit.py"}


def test_every_program_is_given_files():
    commands = [command for row in FORMATS.values() for command in row.commands]
    assert {command.split()[0] for command in commands} == {"keras-vit", "vit.py", "prepare.py"}


@pytest.mark.parametrize("name", FAULTS)
def test_the_watch_finds(name, watched):
    if FAULTS[name] == judge.MEMORY and not Path("/proc/self/status").exists():
        pytest.skip("memory is measured as Linux tells it")
    folder = watched.folder / "case"
    remove(folder)
    folder.mkdir()
    (folder / "old.tflite").write_bytes(b"whole")
    before = files_below(folder)
    ran = watched.run(["fake", name])
    said = verdict(fake_case(name), ran, before, files_below(folder), None)
    assert (said.outcome, said.is_fault) == (FAULTS[name], FAULTS[name] not in (judge.REFUSED, judge.ANSWERED)), said
    assert watched.run(["fake", "answer"]).code == 0  # in another process, where this one was ended
    assert not list(watched.temporary.iterdir())


def answered(out):
    return Ran(0, "", "", out.encode(), b"", 0.1, 0)


@pytest.mark.long
def test_the_oracles_know_a_wrong_answer(bench, tmp_path):
    seeds = bench.seeds
    probabilities = judge.answers_of_a_photo(seeds / "photo.png", seeds)
    tops = [
        {"index": int(index), "label": judge.NAMES[index], "probability": float(probabilities[index])}
        for index in np.argsort(-probabilities)
    ]
    others = [{**answer, "probability": answer["probability"] + 0.01} for answer in tops]
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n[dog]\n")
    content = (seeds / "dense.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[:-1])
    whole = (seeds / "timm.npz").read_bytes()
    (tmp_path / "timm.npz").write_bytes(whole[:400] + bytes([whole[400] ^ 1]) + whole[401:])
    for promise, file, right, wrong in (
        ("answer_is_of_the_pixels", seeds / "photo.png", tops, others),
        ("labels_stand", tmp_path / "labels.txt", [{"label": "[dog]"}], [{"label": "dog"}]),
    ):
        case = replace(fake_case(""), argv=("keras-vit", "run", "--json"), file=file, promises=(promise,))
        for top, outcome in ((right, judge.ANSWERED), (wrong, judge.WRONG)):
            ran = answered(json.dumps([{"file": "p", "top": top}]))
            assert verdict(case, ran, {}, {}, seeds).outcome == outcome
    for promise, right, wrong in (
        ("seal_holds", seeds / "dense.tflite", tmp_path / "cut.tflite"),
        ("archive_is_whole", seeds / "timm.npz", tmp_path / "timm.npz"),
    ):
        for file, outcome in ((right, judge.ANSWERED), (wrong, judge.WRONG)):
            case = replace(fake_case(""), file=file, promises=(promise,))
            assert verdict(case, answered(""), {}, {}, seeds).outcome == outcome
    must = replace(fake_case(""), must_be_refused=True)
    assert verdict(must, answered("cat"), {}, {}, seeds).outcome == judge.WRONG
    assert is_sealed(content) and not is_sealed(content[:-1])


def test_a_case_is_the_same_again(bench, tmp_path):
    for seed in range(len(TURNS)):
        first = make_case(seed, tmp_path / "case", bench.seeds)
        files = files_below(tmp_path / "case")
        assert make_case(seed, tmp_path / "case", bench.seeds) == first
        assert files.keys() == files_below(tmp_path / "case").keys()
        if not (first.file or Path("a.h5")).name.endswith((".h5", ".keras", "mutated")):  # HDF5 writes the time
            assert files_below(tmp_path / "case") == files


@pytest.mark.parametrize("name", FORMATS)
def test_every_mutation_fits_a_seed(name, bench, tmp_path):
    form = FORMATS[name]
    for mutation in {mutation for group in form.mutations for mutation in group}:
        for attempt in range(200):
            case, random = tmp_path / str(attempt), Random(attempt)
            case.mkdir(exist_ok=True)
            source = bench.seeds / random.choice(sorted(form.seeds))
            file = case / f"mutated{source.suffix}"
            copy(source, file)
            try:
                mutation(file, random)
            except Exception:
                continue
            break
        else:
            pytest.fail(f"{mutation.__name__} fits no seed of {name}")


def test_the_table_counts_every_case():
    results = [
        Result(seed, name, "", "", (), outcome, "", 0.1, 0)
        for seed, (name, outcome) in enumerate(
            [(".keras", judge.REFUSED), (".keras", judge.HANG), ("photo", judge.ANSWERED)]
        )
    ]
    lines = table(results)
    assert "| .keras | 2 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |" in lines and lines[-1].startswith(
        "| all | 3 | 1 | 1 |"
    )


class FakeBench:
    """Judges every case at once: every third is a fault."""

    def __init__(self, folder, seeds, limits):
        self.kept = []

    def make_seeds(self):
        pass

    def judge(self, seed):
        outcome = judge.HANG if seed % 3 == 0 else judge.REFUSED
        return Result(seed, ".keras", "truncated", "keras-vit run", ("keras-vit", "run"), outcome, "30 s", 0.0, 0)

    def keep(self, result, to):
        to.mkdir(parents=True)

    def close(self):
        pass


@pytest.mark.long
def test_a_campaign_tells_of_faults_and_keeps_their_files(monkeypatch, tmp_path):
    monkeypatch.setattr("campaign.Bench", FakeBench)
    lines = []
    results = campaign(range(1, 8), workers=2, failures=tmp_path / "failures", out=lines.append)
    assert sorted(result.seed for result in results) == list(range(1, 8))
    assert len(lines) == 2 and all(line.startswith("HANG .keras, truncated") for line in lines)
    assert "make fuzz-files SEED=3" in "".join(lines)
    assert sorted(path.name for path in (tmp_path / "failures").iterdir()) == ["3", "6"]
    assert len(campaign(range(1, 10**6), minutes=0, failures=tmp_path / "more", out=lines.append)) < 10**6
