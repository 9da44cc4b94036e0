"""The fuzzer finds no fault in half a minute of fixed seeds, and would find one."""

from dataclasses import replace

import keras
import numpy as np
import oracle
import pytest
from judge import CRASH, HANG, WRONG, judge
from random_cases import Case
from random_model import Head, RandomModel, make_ordinary, pictures
from run import Worker, fuzz, is_fault, table
from stubborn import work

import keras_vit_plugin as kv
from keras_vit_plugin.export import pipeline, verdict
from keras_vit_plugin.export.tflite.flatbuffer import read

ENOUGH = 8  # a loaded machine may manage fewer cases, which tell nothing of how many are refused
SEEDS = range(10_000, 10_040)


def easy_case(seed, mode="dynamic"):
    """A small classifier that every mode is right about."""
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((12, 12, 3)), keras.layers.Conv2D(8, 3, 2, activation="relu"), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(4, name="head")])
    made = RandomModel(model, np.float64(1 / 255), np.float64(0), {"pixels": "0..1"}, [Head("head", "classes")])
    generator = np.random.default_rng(seed)
    make_ordinary(made, generator)
    photos = [pictures(generator, 40, made.shape) for _ in range(3)]
    return Case(seed, made, "float32", mode, "litert", {}, "array", *photos, must_be_written=True)


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=pytest.mark.long)])
def test_random_models_hold(seconds, tmp_path):
    faults = tmp_path / "faults.txt"
    results = fuzz(SEEDS, seconds / 60, faults)
    assert not any(map(is_fault, results)), faults.read_text()
    right = sum(result["outcome"] == "right" for result in results)
    assert right >= len(results) / 2 or len(results) < ENOUGH, "\n".join(table(results))


def test_an_output_that_is_scaled_in_the_file_is_found(monkeypatch):
    finish = pipeline.write_atomically

    def write(path, content):
        finish(path, _with_a_scaled_vector(content) if str(path).endswith(".tflite") else content)

    monkeypatch.setattr(pipeline, "write_atomically", write)
    result = judge(0, easy_case)
    assert result.outcome == WRONG and "dB" in result.detail
    monkeypatch.undo()
    assert not is_fault(vars(judge(0, easy_case)))


def test_a_false_claim_is_found(monkeypatch):
    honest = verdict.compare_all
    monkeypatch.setattr(
        verdict, "compare_all", lambda *arguments: replace(honest(*arguments), snr_db=45.0, agreement=1.0)
    )
    result = judge(0, easy_case)
    assert result.outcome == WRONG and "are claimed" in result.detail


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("add.cc:228 ADD failed to prepare"), ValueError("loc(a)")]
)
def test_what_no_user_can_read_is_a_crash(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(pipeline, "made", fail)
    assert judge(0, easy_case).outcome == CRASH


def test_a_process_that_hangs_or_dies_is_named_and_replaced(tmp_path):
    lines = []
    results = fuzz(range(4), None, tmp_path / "faults.txt", Worker(2, work), lines.append)
    assert [result["outcome"] for result in results] == ["right", HANG, CRASH, "right"]
    assert "SEED=1" in lines[0] and "SEED=2" in lines[1] and "died with -6" in lines[1]
    assert "seed 1: hang" in (tmp_path / "faults.txt").read_text()


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"input_dtype": "int8", "output_dtype": "int8"}])
def test_the_oracle_reads_every_dtype(options, tmp_path):
    case, path = easy_case(0), tmp_path / "m.tflite"
    kv.export.export_tflite(
        case.made.model, path, quantize="int8-full", calibration=case.calibration, pixels="0..1", **options
    )
    (reference,) = case.made.outputs(case.fresh)
    assert oracle.snr_db("classes", "linear", reference, oracle.file_outputs(path, case.fresh)["logits"]) > 20


def test_the_oracle_measures_what_the_documentation_says():
    reference = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert oracle.snr_db("classes", "linear", reference, reference + 100) == 300
    assert abs(oracle.snr_db("classes", "softmax", reference, reference + 1) - 0.0) < 1e-9
    assert abs(oracle.snr_db("regression", "linear", reference, reference + [0.15, 0.0]) - 20.0) < 1e-9
    assert oracle.agreement("classes", "linear", reference, reference[::-1]) == 0.0
    assert oracle.agreement("multi-label", "linear", reference - 1.5, reference - 1.5 + [[0, 1], [0, 0]]) == 0.5


def _with_a_scaled_vector(content):
    """A file whose largest float vector is three times itself."""
    tree = read(content)
    place = max(
        (content.find(bytes(buffer.data)), len(buffer.data))
        for buffer in tree.buffers
        if buffer.data is not None and 16 <= len(buffer.data) <= 64
    )
    start, length = place
    values = np.frombuffer(content[start : start + length], np.float32) * 3
    return content[:start] + values.tobytes() + content[start + length :]
