"""What an output means, and what an error in it is worth, against numbers worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from keras_vit_plugin.export.quantization.tolerance import Tolerance
from keras_vit_plugin.export.report import changed_answers
from keras_vit_plugin.export.verification.parity import compare, compare_all
from keras_vit_plugin.image_model.answers import TASKS, Answer

LOGITS, PROBABILITIES = Answer("logits", "classes"), Answer("probabilities", "classes", "softmax")
GENERATOR = np.random.default_rng(0)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def test_an_offset_of_all_logits_changes_no_figure():
    reference = GENERATOR.normal(0, 2, (200, 10))
    outputs = reference + GENERATOR.normal(0, 0.1, reference.shape)
    plain, moved = compare(reference, outputs), compare(reference + 100, outputs + 100)
    assert moved.snr_db == pytest.approx(plain.snr_db, abs=1e-6) and 25 < plain.snr_db < 27
    # Softmax ignores another offset in the file too; an error of one class is none that it ignores.
    assert compare(reference, outputs + 3).snr_db == pytest.approx(plain.snr_db, abs=1e-6)
    assert compare(reference, outputs + 3 * np.eye(10)[0]).snr_db < 8


def test_a_constant_error_of_probabilities_is_an_error():
    reference = softmax(GENERATOR.normal(0, 2, (200, 10)))
    assert compare(reference, reference, answer=PROBABILITIES).snr_db == 300
    constant = compare(reference, reference + 0.1, answer=PROBABILITIES)
    assert constant.snr_db == pytest.approx(10 * np.log10(reference.var() / 0.01), abs=0.01)
    again = compare(reference, softmax(reference), answer=PROBABILITIES)  # a second softmax
    assert again.agreement == 1.0 and again.snr_db < 3


def test_a_yes_or_no_is_decided_at_a_half_or_at_zero():
    logits = np.array([[2.0], [-1.0], [0.2], [-0.1]])
    outputs = np.array([[2.0], [-1.0], [-0.2], [-0.3]])
    parity = compare(logits, outputs, np.array([1, 0, 1, 1]), Answer("logits", "binary"))
    assert parity.agreement == 0.75
    assert (parity.top1_accuracy_model, parity.top1_accuracy_tflite) == (0.75, 0.5)
    sigmoid = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-outputs))
    assert compare(*sigmoid, answer=Answer("probabilities", "binary", "sigmoid")).agreement == 0.75
    noise, signal = np.square(outputs - logits).mean(), logits.var()  # spread over the images, not around zero
    assert parity.snr_db == pytest.approx(10 * np.log10(signal / noise))


def test_several_labels_are_judged_one_by_one():
    reference = np.array([[0.9, 0.1, 0.6], [0.2, 0.8, 0.1], [0.7, 0.3, 0.4], [0.1, 0.9, 0.8]])
    outputs = reference.copy()
    outputs[0, 2] = 0.4  # the highest of the row stays the highest
    parity = compare(reference, outputs, answer=Answer("probabilities", "multi-label", "sigmoid"))
    assert parity.agreement == 0.75 and parity.all_labels_agreement == 0.75
    outputs[1, 0] = 0.6
    parity = compare(reference, outputs, answer=Answer("probabilities", "multi-label", "sigmoid"))
    assert parity.agreement == 0.75 and parity.all_labels_agreement == 0.5


def test_a_regression_is_judged_by_its_spread():
    reference = 40 + 10 * GENERATOR.normal(0, 1, (500, 1))
    outputs = reference + GENERATOR.normal(0, 0.5, reference.shape)
    parity = compare(reference, outputs, answer=Answer("values", "regression"))
    assert parity.agreement is None and parity.snr_db == pytest.approx(26, abs=0.7)  # not 38, as around zero
    assert parity.relative_error == pytest.approx(0.05, abs=0.005)
    assert parity.mean_abs_error == pytest.approx(np.abs(outputs - reference).mean())
    # The number in small units counts as much as that in large ones.
    both = np.concatenate([reference, GENERATOR.normal(0, 0.01, reference.shape)], 1)
    wrong = both + np.array([0, 0.02])
    assert compare(both, wrong, answer=Answer("values", "regression")).snr_db < -5


def test_vectors_are_judged_by_direction_and_neighbours():
    reference = GENERATOR.normal(0, 1, (50, 16)) + 20  # an offset that all images share tells none apart
    outputs = reference + GENERATOR.normal(0, 0.3, reference.shape)
    parity = compare(reference, outputs, answer=Answer("embedding", "embedding"))
    assert parity.snr_db == pytest.approx(10 * np.log10(1 / 0.09), abs=0.6)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (reference, outputs)]
    assert parity.cosine == pytest.approx((unit[0] * unit[1]).sum(1).mean())
    nearest = [(values @ values.T - 9 * np.eye(50)).argmax(1) for values in unit]
    assert parity.same_nearest == pytest.approx((nearest[0] == nearest[1]).mean()) and parity.same_nearest < 1
    maps = compare(reference.reshape(50, 2, 2, 4), outputs.reshape(50, 2, 2, 4), answer=Answer("features", "features"))
    assert maps.snr_db == pytest.approx(parity.snr_db) and maps.same_nearest is None


def test_nearly_constant_outputs_are_not_blamed_for_rounding():
    reference = np.float32(0.5) + np.float32(1e-6) * GENERATOR.normal(0, 1, (100, 1)).astype(np.float32)
    rounded = np.nextafter(reference, np.float32(1))
    assert compare(reference, rounded, answer=Answer("probabilities", "binary", "sigmoid")).snr_db > 75


@pytest.mark.parametrize("task", TASKS)
def test_what_is_not_finite_is_wrong_in_every_task(task):
    shape = {"binary": (6, 1), "features": (6, 2, 2, 3)}.get(task, (6, 3))
    reference = GENERATOR.normal(0, 1, shape)
    outputs = reference.copy()
    outputs[0] = np.nan
    parity = compare(reference, outputs, answer=Answer("output", task))
    assert parity.snr_db == -300 and (parity.agreement is None or parity.agreement < 1)
    json.dumps(parity.to_dict(), allow_nan=False)
    assert not Tolerance(None, -200).holds(parity)


def test_every_output_must_keep_the_tolerance():
    reference = GENERATOR.normal(0, 1, (20, 3)), GENERATOR.normal(0, 1, (20, 1))
    answers = LOGITS, Answer("age", "regression")
    good = compare_all(reference, reference, None, answers)
    bad = compare_all(reference, (reference[0], -reference[1]), None, answers)
    assert Tolerance(1.0, 80).holds(good) and not Tolerance(1.0, 80).holds(bad)
    assert [other.name for other in bad.others] == ["age"]
    assert "age: SNR" in bad.in_words() and "logits: same class" in bad.in_words()


def test_changed_answers_of_every_kind_of_decision():
    logits = np.array([[3.0, 0], [0, 1.0]])
    (changed,) = changed_answers(logits, logits * [[1, 1], [1, -1]], LOGITS)
    assert (changed.image, changed.model_class, changed.file_class) == (1, 1, 0)
    assert changed.model_probability == pytest.approx(1 / (1 + np.exp(-1)))
    # The page once put a second softmax on probabilities: 98 % became 57 %.
    (changed,) = changed_answers(np.array([[0.98, 0.01, 0.01]]), np.array([[0.1, 0.8, 0.1]]), PROBABILITIES)
    assert (changed.model_probability, changed.file_probability) == (0.98, 0.8)
    sigmoid = Answer("probabilities", "binary", "sigmoid")
    (changed,) = changed_answers(np.array([[0.995], [0.2]]), np.array([[0.9], [0.717]]), sigmoid)
    assert (changed.model_class, changed.file_class) == (0, 1)
    assert (changed.model_probability, changed.file_probability) == (pytest.approx(0.8), pytest.approx(0.717))
    (changed,) = changed_answers(np.array([[0.9, 0.2]]), np.array([[0.9, 0.6]]), replace(sigmoid, task="multi-label"))
    assert (changed.model_class, changed.model_probability, changed.file_probability) == (1, 0.2, 0.6)
    assert changed_answers(logits, -logits, Answer("values", "regression")) == ()
