"""The matrix: every mode on every runtime."""

import json
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import REPOSITORY, pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.presets.digits import load_digits_split


@pytest.fixture(scope="module")
def matrix():
    import matrix
    import runtimes

    matrix.runtimes, matrix.Python = runtimes, runtimes.Python
    return matrix


@pytest.fixture(scope="module")
def digits(matrix, tmp_path_factory):
    """The files of two modes for two targets, images, and what the Keras model answers."""
    _, model, options, sets = matrix.subject(REPOSITORY / "no data here")
    images = sets["held-out digits"]
    folder = tmp_path_factory.mktemp("matrix")
    modes, targets = ("dynamic", "int4"), ("litert", "tflite-runtime")
    files = {
        (mode, target): matrix.export(model, mode, target, options, folder) for mode in modes for target in targets
    }
    sets = [images[:12], images[20:28]]
    return files, sets, [keras_logits(model, each, 1 / 127.5, -1.0) for each in sets]


@pytest.mark.long
def test_a_cell_is_measured_or_says_why_not(matrix, digits, tmp_path):
    files, sets, references = digits
    here = matrix.Python("ai-edge-litert", "litert", sys.executable, "ai_edge_litert.interpreter")
    dynamic, int4 = matrix.measure(here, files, sets, references, tmp_path)
    assert (dynamic.status, int4.status) == ("right", "right")
    assert dynamic.images == (12, 8) and dynamic.agreement == (1.0, 1.0)
    assert min(dynamic.snr_db) > 30 and dynamic.milliseconds is None
    timed, int4 = matrix.with_costs(here, [dynamic, int4], files, sets[0][:1])
    assert timed.milliseconds > 0 and timed == replace(dynamic, milliseconds=timed.milliseconds)
    assert int4.mode == "int4" and int4.milliseconds > 0

    nowhere = matrix.Python("old", "tflite-runtime", REPOSITORY / "no such python", "tflite_runtime.interpreter")
    dynamic, int4 = matrix.measure(nowhere, files, sets, references, tmp_path)
    assert dynamic.status == "not measured" and "make .venv-device" in dynamic.reason
    assert int4.status == "refused" and "no dense layers with weights of 4 bits" in int4.reason

    without_module = matrix.Python("none", "litert", sys.executable, "no_such_module")
    assert (
        "No module named 'no_such_module'"
        in matrix.measure(without_module, files, sets, references, tmp_path)[0].reason
    )


@pytest.mark.long
def test_wrong_answers_are_called_wrong(matrix, digits, tmp_path):
    files, sets, references = digits
    here = matrix.Python("ai-edge-litert", "litert", sys.executable, "ai_edge_litert.interpreter", foreign=True)
    cells = matrix.measure(here, files, sets, [-each for each in references], tmp_path)
    assert [cell.status for cell in cells] == ["wrong", "wrong"]
    assert matrix.with_costs(here, cells, files, sets[0][:1]) == cells
    assert "| **wrong**, 0% / 0%, " in matrix.as_markdown(cells, "digits", ["one", "other"], "now")
    halves = [references[0], -references[1]]  # wrong on one set is wrong
    assert matrix.measure(here, files, sets, halves, tmp_path)[0].status == "wrong"


class Giving:
    """A runtime that answers what it is told."""

    name, target, images, foreign = "told", "litert", 100, False

    def __init__(self, outputs, answer):
        self._outputs, self.answer = outputs, answer

    def missing(self):
        return ""

    def outputs(self, path, images, folder):
        return self._outputs

    def costs(self, paths, image):
        return [{} for _ in paths]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.long
def test_probabilities_are_judged_as_probabilities_and_logits_less_their_mean(matrix, digits, tmp_path):
    files, (images, _), (reference, _) = digits
    right = softmax(reference.astype(np.float64))
    signal = np.square(right - right.mean(1, keepdims=True)).mean()
    for outputs, status, snr_db in (
        (right * 0.99 + 0.001, "right", 40.0),
        (right + 0.3, "wrong", 10 * np.log10(signal / 0.09)),  # an error of all classes alike is one here,
        (softmax(right), "wrong", None),  # and so is a second softmax
    ):
        cell = matrix.measure(Giving(outputs, matrix.PROBABILITIES), files, [images], [reference], tmp_path)[0]
        assert (cell.status, cell.agreement) == (status, (1.0,))
        assert snr_db is None or cell.snr_db == pytest.approx((snr_db,), abs=0.06)
    # of logits it is none, and hides none
    moved = matrix.measure(Giving(reference + 100, matrix.LOGITS), files, [images], [reference + 7], tmp_path)[0]
    assert moved.status == "right" and moved.snr_db[0] > 80
    wrong = reference + 100 + np.random.default_rng(0).normal(0, reference.std(), reference.shape)
    given = matrix.measure(Giving(wrong, matrix.LOGITS), files, [images], [reference + 100], tmp_path)[0]
    assert given.snr_db[0] < 5


@pytest.mark.long
def test_mediapipe_is_measured_by_itself(matrix, tmp_path):
    model, images = kv.build("vit_test"), pixels((16, 16, 3), 8)
    randomize(model)
    options = {"labels": ["ant", "bee", "cat", "dog", "eel"], "calibration": images}
    files = {("dynamic", "mediapipe"): matrix.export(model, "dynamic", "mediapipe", options, tmp_path)}
    reference = keras_logits(model, images, 1 / 127.5, -1.0)
    (cell,) = matrix.measure(matrix.runtimes.MediaPipe(), files, [images], [reference], tmp_path)
    assert (cell.status, cell.images, cell.agreement) == ("right", (8,), (1.0,)) and cell.snr_db[0] > 20


def test_openvino_is_a_second_reader(matrix, digits, tmp_path, every_core):
    files, sets, references = digits
    here = matrix.Python("OpenVINO", "litert", sys.executable, "openvino_interpreter", foreign=True)
    cells = matrix.measure(here, files, sets, references, tmp_path)
    assert [cell.status for cell in cells] == ["right", "right"] and min(cells[0].snr_db) > 25
    assert cells[0].images == (12, 8) and cells[0].foreign
    assert matrix.with_costs(here, cells, files, sets[0][:1]) == cells  # a file of another runtime is not timed


def test_without_a_gpu_its_row_says_why(matrix, tmp_path):
    files = {("float16", "gpu"): tmp_path / "m.tflite"}
    nowhere = matrix.runtimes.Gpu(("", "no GPU, no row"), "gpu")
    (cell,) = matrix.measure(nowhere, files, [np.zeros((2, 8, 8, 1))], [np.zeros((2, 10))], tmp_path)
    assert (cell.status, cell.reason) == ("not measured", "no GPU, no row")


def test_the_page_numbers_its_reasons(matrix):
    def cell(mode, runtime, **values):
        return matrix.Cell(mode, "litert", runtime, foreign=False, **values)

    measured = {"images": (9, 9), "agreement": (0.99, 1.0), "snr_db": (28.1, 27.0)}
    cells = [
        cell("int8", "A", status="right", milliseconds=9.123, **measured),
        cell("int4", "A", status="refused", reason="no kernels"),
        cell("int8", "B", status="right", instructions=139_400_000, **measured),
        cell("int4", "B", status="not measured", reason="no qemu"),
    ]
    page = matrix.as_markdown(cells, "digits", ["eval", "test"], matrix.how(matrix.MODES))
    assert "| A | 9 | 99% / 100%, 28.1 / 27.0 dB, 9.1 ms | refused (1) |" in page
    assert "| B | 9 | 99% / 100%, 28.1 / 27.0 dB, 139 M | not measured (2) |" in page
    assert "The images are of eval and, after the stroke, of test, so many of each" in page
    assert "`make matrix`, code " in page
    assert "1. no kernels" in page and "2. no qemu" in page


def what_the_page_says(page):
    """The code and the command, the model, and the names of the sets, which the page has and `matrix.json` has not."""
    how, preset = re.search(r"^(`.+`, code .+): (\w+)\.$", page, re.MULTILINE).groups()
    sets = re.search(r"^The images are of (.+), so many of each", page, re.MULTILINE)[1]
    return preset, sets.split(" and, after the stroke, of "), how


def test_the_page_of_the_matrix_is_what_was_measured(matrix):
    rows = json.loads((REPOSITORY / "docs" / "matrix.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "matrix.md").read_text(encoding="utf-8")
    assert matrix.as_markdown([matrix.Cell(**row) for row in rows], *what_the_page_says(page)) == page


@pytest.mark.parametrize("sets", [["held-out digits"], ["imagenet_eval", "imagenet_test"]])
def test_a_page_of_the_matrix_is_made_again_of_its_json(matrix, sets):
    measured = {"images": (9,) * len(sets), "agreement": (0.99,) * len(sets), "snr_db": (28.1,) * len(sets)}
    cells = [
        matrix.Cell("int8", "litert", "A", foreign=False, status="right", milliseconds=9.1, **measured),
        matrix.Cell("int8", "litert", "B", foreign=True, status="refused", reason="no kernels"),
    ]
    page = matrix.as_markdown(cells, "digits", sets, matrix.how(("int8",)))
    stored = json.loads(json.dumps([asdict(cell) for cell in cells]))
    assert matrix.as_markdown([matrix.Cell(**row) for row in stored], *what_the_page_says(page)) == page


def test_the_subject_is_what_the_package_ships_where_there_is_no_data(matrix):
    preset, model, options, sets = matrix.subject(REPOSITORY / "no data here")
    assert preset == "vit_digits" and isinstance(model, kv.ViTImageClassifier) and len(options["labels"]) == 10
    np.testing.assert_array_equal(sets["held-out digits"], load_digits_split()[1][0][:100])
