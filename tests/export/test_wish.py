"""What may be wished for, per kind of output, and how files are judged by it: on outputs made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_vit_plugin.export.quantization.modes.auto import search as search_module
from keras_vit_plugin.export.quantization.modes.auto.search import Wish, explanation, search
from keras_vit_plugin.export.request import wish_of
from keras_vit_plugin.image_model.answers import LOGITS, SIGMOID, Answer

BINARY = Answer("logit", "binary")
LABELS = Answer("labels", "multi-label", SIGMOID)
REGRESSION = Answer("age", "regression")
EMBEDDING = Answer("embedding", "embedding")
IMAGES = 500


def tried(monkeypatch, files, reference, wish, answers, labels=None, order="speed", **options):
    """The chosen name and all `Candidate`s, the files given as `{name: outputs}`, the most accurate first."""
    contents = {bytes([i]) * (100 - i): outputs for i, outputs in enumerate([reference, *files.values()])}
    float32, *others = contents
    made = [(name, "int8", "speed", content) for name, content in zip(files, others)]
    monkeypatch.setattr(search_module, "_candidates", lambda *_: iter(made))
    _, chosen, candidates = search(
        SimpleNamespace(lowered=lambda mode: float32),
        None,
        np.zeros(IMAGES),
        reference,
        labels,
        wish,
        order,
        answers=answers,
        run=lambda content, _: contents[content],
        **options,
    )
    return chosen, candidates


def changed(reference, images, label=0):
    """The outputs with the sign of one logit, or the place of one probability about 1/2, exchanged on some images."""
    outputs = reference.copy()
    middle = 0.5 if reference.min() >= 0 else 0.0
    outputs[:images, label] = 2 * middle - outputs[:images, label]
    return outputs


def test_yes_and_no_are_judged_by_the_decision(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"good": changed(reference, 1), "bad": changed(reference, 29)}  # 5.8 %, which argmax does not see
    chosen, candidates = tried(monkeypatch, files, reference, Wish(0.99), (BINARY,))
    assert chosen.name == "good" and [each.agreement for each in candidates] == [0.998, 0.942]
    assert not candidates[1].fits


def test_labels_are_judged_by_the_worst_one(monkeypatch):
    reference = np.random.default_rng(0).choice([0.1, 0.9], (IMAGES, 4))
    files = {"good": changed(reference, 1, 2), "bad": changed(reference, 14, 3)}
    chosen, candidates = tried(monkeypatch, files, reference, Wish(0.99), (LABELS,))
    assert chosen.name == "good" and [each.agreement for each in candidates] == [0.998, 0.972]


def test_of_several_outputs_the_worst_is_judged(monkeypatch):
    generator = np.random.default_rng(0)
    logits, ages = generator.normal(0, 3, (IMAGES, 5)), generator.normal(40, 10, (IMAGES, 1))
    reference = {"logits": logits, "age": ages}
    files = {
        "good": {"logits": logits + 1e-5, "age": ages + 0.1},
        "bad": {"logits": logits, "age": ages + 0.8 * generator.normal(size=ages.shape)},
    }
    wish = wish_of("auto", None, None, None, answers=(LOGITS, REGRESSION))
    assert (wish.min_agreement, wish.max_relative_error) == (0.99, 0.05)
    chosen, (good, bad) = tried(monkeypatch, files, reference, wish, (LOGITS, REGRESSION))
    assert chosen.name == "good" and not bad.fits and bad.agreement == 1.0
    assert good.relative_error == pytest.approx(0.01, rel=0.1) and bad.relative_error == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize("answer", [REGRESSION, EMBEDDING, Answer("map", "features")])
def test_without_decisions_the_error_is_relative_to_the_spread(monkeypatch, answer):
    generator = np.random.default_rng(0)
    shape = (IMAGES, 3, 3, 8) if answer.task == "features" else (IMAGES, 2)
    reference = 1000 + 10 * generator.normal(size=shape)  # an offset that carries no answer
    noise = generator.normal(size=shape)
    files = {f"{share:.0%}": reference + 10 * share * noise for share in (0.01, 0.04, 0.06)}
    wish = wish_of("auto", None, None, None, answers=(answer,))
    chosen, candidates = tried(monkeypatch, files, reference, wish, (answer,))
    assert chosen.name == "4%" and len(candidates) == 3
    for candidate, share in zip(candidates, (0.01, 0.04, 0.06)):
        assert candidate.relative_error == pytest.approx(share, rel=0.1)
        assert share < candidate.relative_error_kept < 1.2 * share
        assert candidate.agreement is None and candidate.top1_drop is None
    text = explanation(chosen, candidates, wish, "speed", IMAGES)
    assert f"a relative error of {chosen.relative_error:.1%}" in text and "is an estimate" in text
    assert "certainty" not in text and "not promised" not in text
    text = explanation(chosen, candidates, wish, "speed", 20)
    assert "`max_relative_error` itself is not promised: 20 held-out images are too few (36 are needed" in text


def test_the_search_stops_at_the_first_file_that_does_not_keep_the_wish(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {str(i): changed(reference, images) for i, images in enumerate((1, 0, 40, 0))}
    chosen, candidates = tried(monkeypatch, files, reference, Wish(0.99), (BINARY,))
    assert chosen.name == "1" and [each.fits for each in candidates] == [True, True, False]


def test_the_float32_file_is_the_last_resort(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    chosen, candidates = tried(monkeypatch, {"bad": changed(reference, 40)}, reference, Wish(0.99), (BINARY,))
    assert chosen.name == "float32" and chosen.fits and len(candidates) == 2
    text = explanation(chosen, candidates, Wish(0.99), "speed", IMAGES)
    assert "no smaller file was shown to keep" in text


def test_numbers_that_are_not_finite_keep_nothing(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    broken = reference.copy()
    broken[3] = np.nan
    _, candidates = tried(monkeypatch, {"NaN": broken}, reference, Wish(0.5), (BINARY,))
    assert not candidates[0].fits and candidates[0].snr_db == -300 and candidates[0].agreement == 0.998


def test_accuracy_lost_and_gained_are_told_apart_from_answers_changed(monkeypatch):
    reference = np.tile([1.0, 0.0], (IMAGES, 1))
    files = {"30 lost, 28 gained": reference.copy()}
    files["30 lost, 28 gained"][:58] = [0.0, 1.0]
    labels = np.repeat([0, 1, 0], [30, 28, IMAGES - 58])
    chosen, (candidate, *_) = tried(monkeypatch, files, reference, Wish(max_top1_drop=4.0), (LOGITS,), labels)
    assert candidate.fits and candidate.top1_drop == pytest.approx(0.4) and candidate.agreement == 0.884
    assert candidate.top1_drop_kept == 4.0
    _, (candidate, *_) = tried(monkeypatch, files, reference, Wish(max_top1_drop=1.0), (LOGITS,), labels)
    assert not candidate.fits and 1.0 < candidate.top1_drop_kept < 4.0


def test_the_size_is_that_of_the_finished_file(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"larger": reference + 1e-6, "smaller": reference + 1e-3}  # of 99 and 98 bytes

    def finish(content):
        return content + bytes(25_000)

    wish = Wish(max_size=25_098)
    chosen, candidates = tried(monkeypatch, files, reference, wish, (BINARY,), finish=finish)
    assert chosen.name == "smaller" and chosen.size_bytes == 25_098
    assert [each.fits for each in candidates] == [False, True, False]
    assert "certainty" in explanation(chosen, candidates, wish, "speed", IMAGES)


def test_too_few_images_are_told_and_promise_less(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    chosen, candidates = tried(monkeypatch, {"good": changed(reference, 1)}, reference, Wish(0.999), (BINARY,))
    assert chosen.name == "float32"  # 1 of 500 is more than 0.1 %
    chosen, candidates = tried(monkeypatch, {"good": changed(reference, 0)}, reference, Wish(0.999), (BINARY,))
    text = explanation(chosen, candidates, Wish(0.999), "speed", IMAGES)
    assert chosen.name == "good" and chosen.agreement_kept == pytest.approx(0.1 ** (1 / IMAGES))
    assert "at least 99.5% of the answers with 90% certainty" in text
    assert "`min_agreement` itself is not promised: 500 held-out images are too few (2302 are needed" in text


@pytest.mark.parametrize(
    "wish, answers, match",
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
def test_wishes_that_the_outputs_cannot_keep_are_refused(wish, answers, match):
    arguments = {"min_agreement": None, "max_top1_drop": None, "max_size": None} | wish
    with pytest.raises(ValueError, match=match):
        wish_of("auto", **arguments, answers=answers)


def test_what_is_kept_where_nothing_is_wished_for():
    def wish(*answers, **arguments):
        return wish_of(
            "auto", **({"min_agreement": None, "max_top1_drop": None, "max_size": None} | arguments), answers=answers
        )

    assert wish(LOGITS) == wish(BINARY) == wish(LABELS) == Wish(min_agreement=0.99)
    assert wish(REGRESSION) == wish(EMBEDDING) == Wish(max_relative_error=0.05)
    assert wish(REGRESSION, max_size=100) == Wish(max_size=100)
    assert wish(LOGITS, max_relative_error=0.1) == Wish(max_relative_error=0.1)
    assert wish_of("int8", None, None, None) is None
    with pytest.raises(ValueError, match=r"got quantize='int8': pass tolerance=Tolerance\(min_agreement=\.\.\.\)\."):
        wish_of("int8", 0.9, None, None)
    with pytest.raises(ValueError, match="`max_relative_error` goes with quantize='auto', got quantize='int8'\\."):
        wish_of("int8", None, None, None, 0.1)


@pytest.mark.parametrize("order", ["speed", "size"])
def test_files_are_made_from_the_most_accurate_to_the_cheapest(monkeypatch, order):
    class Engine:
        def __init__(self, *_, **__):
            pass

        def within(self, *budget):
            return str(budget).encode()

    monkeypatch.setattr(search_module, "MixedInt8", Engine)
    monkeypatch.setattr(search_module, "Int4", Engine)
    monkeypatch.setattr(search_module, "quantize", lambda content, mode, *_, **__: mode.encode())
    files = SimpleNamespace(lowered=lambda *_: b"", target=SimpleNamespace(integer_dense=True), cpu="arm")
    names = [name for name, *_ in search_module._candidates(files, None, order)]
    last = ["int8, budget 24 dB", "int8, budget 21 dB", "int8, budget 18 dB"]
    if order == "size":
        last = ["int4, 50% in 8 bits", "int4, 30% in 8 bits", "int4, 16% in 8 bits"]
    assert names[:2] == ["float16", "int8, budget 36 dB"] and names[-3:] == last
    assert names[-5:-3] == (["dynamic"] if order == "size" else ["int8, budget 28 dB"]) + ["int8, budget 26 dB"]
    assert len(names) + 1 <= search_module.MOST_CANDIDATES and len(set(names)) == len(names)


def test_for_size_the_smallest_of_those_that_passed_is_taken(monkeypatch):
    reference = np.random.default_rng(0).choice([-3.0, 3.0], (IMAGES, 1))
    files = {"smaller": reference + 1e-3, "larger": reference + 2e-3}

    def finish(content):
        return content if content[0] == 1 else content + bytes(50)

    def chosen(order):
        return tried(monkeypatch, files, reference, Wish(0.99), (BINARY,), order=order, finish=finish)[0].name

    assert (chosen("size"), chosen("speed")) == ("smaller", "larger")
