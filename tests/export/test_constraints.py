"""What a file may be asked to keep, per kind of output, and how files are judged by it: on outputs made by hand."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from keras_vit_plugin.export import Auto, Dynamic, Float16, Float32, Int4, Int8, Mode, mode_of
from keras_vit_plugin.export.quantization.modes.auto.auto import MOST_CANDIDATES, without_budget
from keras_vit_plugin.export.quantization.modes.auto.constraints import Constraints, checked_constraints
from keras_vit_plugin.export.quantization.modes.auto.search import explanation, search
from keras_vit_plugin.export.tflite.capabilities import Capability
from keras_vit_plugin.image_model.answers import LOGITS, SIGMOID, Answer

BINARY = Answer("logit", "binary")
LABELS = Answer("labels", "multi-label", SIGMOID)
REGRESSION = Answer("age", "regression")
EMBEDDING = Answer("embedding", "embedding")
IMAGES = 500


@dataclass(frozen=True)
class Named(Mode):
    """A mode of one file, called as the test calls it."""

    label: str

    def __str__(self):
        return self.label


def tried(files, reference, constraints, answers, labels=None, order="speed", finish=bytes):
    """The chosen `Candidate` and all, the files given as `{name: outputs}`, the most accurate first.

    Args:
        finish: a function from a file's bytes to those that are written.
    """
    modes, baseline = [Named(name) for name in files], Float32()
    outputs = dict(zip([baseline, *modes], [reference, *files.values()]))
    contents = {mode: bytes([i]) * (100 - i) for i, mode in enumerate(outputs)}
    made_by = {content: mode for mode, content in contents.items()}

    def by_name(values):
        return values if isinstance(values, dict) else {answers[0].name: values}

    _, chosen, candidates = search(
        SimpleNamespace(candidates=lambda has: modes, baseline=baseline, prefer=order),
        constraints,
        make=contents.__getitem__,
        reference=by_name(reference),
        labels=labels,
        answers=answers,
        run=lambda content: by_name(outputs[made_by[content]]),
        size_of=lambda content, mode: len(finish(content)),
    )
    return chosen, candidates


def changed(reference, images, label=0):
    """The outputs with the sign of one logit, or the place of one probability about 1/2, exchanged on some images."""
    outputs = reference.copy()
    middle = 0.5 if reference.min() >= 0 else 0.0
    outputs[:images, label] = 2 * middle - outputs[:images, label]
    return outputs


def test_yes_and_no_are_judged_by_the_decision():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"good": changed(reference, 1), "bad": changed(reference, 29)}  # 5.8 %, which argmax does not see
    chosen, candidates = tried(files, reference, Constraints(0.99), (BINARY,))
    assert chosen.name == "good" and [each.agreement for each in candidates] == [0.998, 0.942]
    assert not candidates[1].fits


def test_labels_are_judged_by_the_worst_one():
    reference = np.random.default_rng(0).choice([0.1, 0.9], (IMAGES, 4))
    files = {"good": changed(reference, 1, 2), "bad": changed(reference, 14, 3)}
    chosen, candidates = tried(files, reference, Constraints(0.99), (LABELS,))
    assert chosen.name == "good" and [each.agreement for each in candidates] == [0.998, 0.972]


def test_of_several_outputs_the_worst_is_judged():
    generator = np.random.default_rng(0)
    logits, ages = generator.normal(0, 3, (IMAGES, 5)), generator.normal(40, 10, (IMAGES, 1))
    reference = {"logits": logits, "age": ages}
    files = {
        "good": {"logits": logits + 1e-5, "age": ages + 0.1},
        "bad": {"logits": logits, "age": ages + 0.8 * generator.normal(size=ages.shape)},
    }
    constraints = checked_constraints(Auto().constraints, (LOGITS, REGRESSION))
    assert (constraints.min_agreement, constraints.max_relative_error) == (0.99, 0.05)
    chosen, (good, bad) = tried(files, reference, constraints, (LOGITS, REGRESSION))
    assert chosen.name == "good" and not bad.fits and bad.agreement == 1.0
    assert good.relative_error == pytest.approx(0.01, rel=0.1) and bad.relative_error == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize("answer", [REGRESSION, EMBEDDING, Answer("map", "features")])
def test_without_decisions_the_error_is_relative_to_the_spread(answer):
    generator = np.random.default_rng(0)
    shape = (IMAGES, 3, 3, 8) if answer.task == "features" else (IMAGES, 2)
    reference = 1000 + 10 * generator.normal(size=shape)  # an offset that carries no answer
    noise = generator.normal(size=shape)
    files = {f"{share:.0%}": reference + 10 * share * noise for share in (0.01, 0.04, 0.06)}
    constraints = checked_constraints(Auto().constraints, (answer,))
    chosen, candidates = tried(files, reference, constraints, (answer,))
    assert chosen.name == "4%" and len(candidates) == 3
    for candidate, share in zip(candidates, (0.01, 0.04, 0.06)):
        assert candidate.relative_error == pytest.approx(share, rel=0.1)
        assert share < candidate.relative_error_kept < 1.2 * share
        assert candidate.agreement is None and candidate.top1_drop is None
    text = explanation(chosen, candidates, constraints, "speed", IMAGES)
    assert f"a relative error of {chosen.relative_error:.1%}" in text and "is an estimate" in text
    assert "certainty" not in text and "not promised" not in text
    text = explanation(chosen, candidates, constraints, "speed", 20)
    assert "`max_relative_error` itself is not promised: 20 held-out images are too few (36 are needed" in text


def test_the_search_stops_at_the_first_file_that_does_not_keep_the_constraints():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {str(i): changed(reference, images) for i, images in enumerate((1, 0, 40, 0))}
    chosen, candidates = tried(files, reference, Constraints(0.99), (BINARY,))
    assert chosen.name == "1" and [each.fits for each in candidates] == [True, True, False]


def test_the_float32_file_is_the_last_resort():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    chosen, candidates = tried({"bad": changed(reference, 40)}, reference, Constraints(0.99), (BINARY,))
    assert chosen.name == "float32" and chosen.fits and len(candidates) == 2
    text = explanation(chosen, candidates, Constraints(0.99), "speed", IMAGES)
    assert "no smaller file was shown to keep" in text


def test_numbers_that_are_not_finite_keep_nothing():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    broken = reference.copy()
    broken[3] = np.nan
    _, candidates = tried({"NaN": broken}, reference, Constraints(0.5), (BINARY,))
    assert not candidates[0].fits and candidates[0].snr_db == -300 and candidates[0].agreement == 0.998


def test_accuracy_lost_and_gained_are_told_apart_from_answers_changed():
    reference = np.tile([1.0, 0.0], (IMAGES, 1))
    files = {"30 lost, 28 gained": reference.copy()}
    files["30 lost, 28 gained"][:58] = [0.0, 1.0]
    labels = np.repeat([0, 1, 0], [30, 28, IMAGES - 58])
    chosen, (candidate, *_) = tried(files, reference, Constraints(max_top1_drop=4.0), (LOGITS,), labels)
    assert candidate.fits and candidate.top1_drop == pytest.approx(0.4) and candidate.agreement == 0.884
    assert candidate.top1_drop_kept == 4.0
    _, (candidate, *_) = tried(files, reference, Constraints(max_top1_drop=1.0), (LOGITS,), labels)
    assert not candidate.fits and 1.0 < candidate.top1_drop_kept < 4.0


def test_the_size_is_that_of_the_finished_file():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"larger": reference + 1e-6, "smaller": reference + 1e-3}  # of 99 and 98 bytes

    def finish(content):
        return content + bytes(25_000)

    constraints = Constraints(max_size=25_098)
    chosen, candidates = tried(files, reference, constraints, (BINARY,), finish=finish)
    assert chosen.name == "smaller" and chosen.size_bytes == 25_098
    assert [each.fits for each in candidates] == [False, True, False]
    assert "certainty" in explanation(chosen, candidates, constraints, "speed", IMAGES)


def test_too_few_images_are_told_and_promise_less():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    chosen, candidates = tried({"good": changed(reference, 1)}, reference, Constraints(0.999), (BINARY,))
    assert chosen.name == "float32"  # 1 of 500 is more than 0.1 %
    chosen, candidates = tried({"good": changed(reference, 0)}, reference, Constraints(0.999), (BINARY,))
    text = explanation(chosen, candidates, Constraints(0.999), "speed", IMAGES)
    assert chosen.name == "good" and chosen.agreement_kept == pytest.approx(0.1 ** (1 / IMAGES))
    assert "at least 99.5% of the answers with 90% certainty" in text
    assert "`min_agreement` itself is not promised: 500 held-out images are too few (2302 are needed" in text


@pytest.mark.parametrize(
    "options, answers, match",
    [
        (
            {"min_agreement": 0.9},
            (REGRESSION,),
            r"`min_agreement` is for outputs that decide.*'age' \(regression\).*0.9",
        ),
        ({"min_agreement": 0.9}, (EMBEDDING, REGRESSION), "ask for `max_relative_error`"),
        ({"max_top1_drop": 1.0}, (EMBEDDING,), "`max_top1_drop` is for a model with one output, of classes.*1.0"),
        ({"max_top1_drop": 1.0}, (LABELS,), "ask for `min_agreement`"),
        ({"max_top1_drop": 1.0}, (LOGITS, REGRESSION), "`max_top1_drop` is for a model with one output"),
        ({"max_relative_error": 0.0}, (REGRESSION,), "`max_relative_error` must be a positive share.* got 0.0"),
    ],
)
def test_constraints_that_the_outputs_cannot_keep_are_refused(options, answers, match):
    with pytest.raises(ValueError, match=match):
        checked_constraints(Auto(**options).constraints, answers)


def test_what_is_kept_where_nothing_is_asked_for():
    def constraints(*answers, **options):
        return checked_constraints(Auto(**options).constraints, answers)

    assert constraints(LOGITS) == constraints(BINARY) == constraints(LABELS) == Constraints(min_agreement=0.99)
    assert constraints(REGRESSION) == constraints(EMBEDDING) == Constraints(max_relative_error=0.05)
    assert constraints(REGRESSION, max_size=100) == Constraints(max_size=100)
    assert constraints(LOGITS, max_relative_error=0.1) == Constraints(max_relative_error=0.1)


def test_other_modes_keep_no_constraints():
    int8 = mode_of("int8", min_agreement=None, max_top1_drop=None, max_size=None, max_relative_error=None)
    assert int8 == Int8() and not int8.chooses
    with pytest.raises(
        ValueError,
        match=r"`min_agreement` goes with quantize='auto', got min_agreement=0.9 with quantize='int8': pass "
        r"tolerance=Tolerance\(min_agreement=\.\.\.\)\.",
    ):
        mode_of("int8", min_agreement=0.9)
    with pytest.raises(
        ValueError,
        match=r"`max_relative_error` goes with quantize='auto', got max_relative_error=0.1 with quantize='int8'\.",
    ):
        mode_of("int8", max_relative_error=0.1)


@pytest.mark.parametrize("order", ["speed", "size"])
def test_files_are_made_from_the_most_accurate_to_the_cheapest(order):
    auto = Auto(prefer=order, cpu="arm")
    modes = auto.candidates(frozenset(Capability))
    names = [str(mode) for mode in modes]
    last = ["int8, budget 24 dB", "int8, budget 21 dB", "int8, budget 18 dB"]
    if order == "size":
        last = ["int4, 50% in 8 bits", "int4, 30% in 8 bits", "int4, 16% in 8 bits"]
        assert [mode.extra_size for mode in modes[-3:]] == [0.5, 0.3, 0.165]
        assert min(mode.snr_db for mode in modes[-3:]) >= 300  # of no file: the size alone decides
    assert names[:2] == ["float16", "int8, budget 36 dB"] and names[-3:] == last
    assert names[-5:-3] == (["dynamic"] if order == "size" else ["int8, budget 28 dB"]) + ["int8, budget 26 dB"]
    assert len(names) + 1 <= MOST_CANDIDATES and len(set(names)) == len(names)
    assert auto.baseline == Float32() and auto.baseline not in modes
    assert all(mode.cpu == "arm" for mode in modes if isinstance(mode, Int8))
    cheap = [Int8("speed", None, "arm")] if order == "speed" else [Dynamic(), Int4(None, None, None)]
    measured = {without_budget(mode) for mode in modes}  # once for all budgets
    assert measured == {Float16(), Int8("accuracy", None, "arm"), *cheap}


def test_without_fast_integers_the_modes_that_would_be_the_same_file_are_left_out():
    has = frozenset(Capability) - {Capability.FAST_INTEGER_DENSE}
    assert Auto(prefer="size").candidates(has) == Auto().candidates(has) == [Float16(), Dynamic()]


def test_for_size_the_smallest_of_those_that_passed_is_taken():
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"smaller": reference + 1e-3, "larger": reference + 2e-3}

    def finish(content):
        return content if content[0] == 1 else content + bytes(50)

    def chosen(order):
        return tried(files, reference, Constraints(0.99), (BINARY,), order=order, finish=finish)[0].name

    assert (chosen("size"), chosen("speed")) == ("smaller", "larger")
