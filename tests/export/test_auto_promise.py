"""Whether `quantize="auto"` keeps what it promises: a thousand searches on images drawn from a known population.

The population is large enough to be the truth; a search sees only its draw. A promise is broken where the file that was
chosen keeps less, in the population, than what the search was certain of.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_vit_plugin.export import Float32, Int8
from keras_vit_plugin.export.quantization.modes.auto.certainty import RISK
from keras_vit_plugin.export.quantization.modes.auto.constraints import Constraints
from keras_vit_plugin.export.quantization.modes.auto.search import search
from keras_vit_plugin.image_model.answers import SIGMOID, Answer

SEARCHES, FEWER_SEARCHES = 1000, 400
POPULATION = 20_000
CLASSES = Answer("logits", "classes")
BINARY = Answer("logit", "binary")
LABELS = Answer("labels", "multi-label", SIGMOID)
# True shares of the same answers, the most accurate file first.
ALL_TOO_BAD = (0.989,) * 11
CLOSE = (0.997, 0.995, 0.993, 0.991, 0.9895, 0.989, 0.988, 0.98, 0.97)
WORST_IN_FRONT = (0.985, 0.999, 0.98, 0.9895, 0.9999)


def assert_kept(broken, searches):
    """The share of broken promises is that of the risk, up to three standard deviations of counting it."""
    assert broken <= RISK * searches + 3 * np.sqrt(searches * RISK * (1 - RISK))


def errors_of(kind, generator, count, classes):
    """Errors of one file, `(count, classes)`, of no scale yet."""
    errors = generator.normal(size=(count, classes))
    if kind == "heavy tails":
        errors = errors / np.sqrt(generator.chisquare(2, (count, 1)) / 2)
    if kind == "classes alike":
        errors = errors * 0.3 + generator.normal(size=(count, 1)) + generator.normal(size=classes)
    if kind == "broken images":
        errors = errors * np.where(generator.random((count, 1)) < 0.02, 1.0, 1e-6)
    return errors


def population(kind, agreements, answer=CLASSES, classes=5, seed=0):
    """Outputs of the model `(POPULATION, classes)`, of every file, and the files' true agreements near those given."""
    generator = np.random.default_rng(seed)
    reference = generator.normal(0, 3, (POPULATION, classes))
    common = errors_of(kind, generator, POPULATION, classes)  # files of one model err alike

    def seen(logits):
        return 1 / (1 + np.exp(-logits)) if answer.activation == SIGMOID else logits

    files = []
    for agreement in agreements:
        errors = common + errors_of(kind, generator, POPULATION, classes)
        low, high = 1e-6, 1e6
        for _ in range(40):
            scale = np.sqrt(low * high)
            kept = answer.agreement(seen(reference), seen(reference + scale * errors))
            low, high = (scale, high) if kept > agreement else (low, scale)
        files.append(seen(reference + high * errors).astype(np.float32))
    reference = seen(reference)
    return reference, files, [answer.agreement(reference, outputs) for outputs in files]


def searched(reference, files, images, constraints, generator, answer=CLASSES, labels=None, largest=None):
    """`(index, Candidate)` of the file that one search on so many images chooses, and all; the last is float32's."""
    drawn = generator.integers(0, len(reference), images)
    modes, baseline = [Int8(snr_db=i + 1) for i in range(len(files))], Float32()
    contents = {mode: bytes([i]) for i, mode in enumerate([*modes, baseline])}
    outputs = [*files, reference if largest is None else largest]
    content, chosen, candidates = search(
        SimpleNamespace(candidates=lambda has: modes, baseline=baseline, prefer="speed"),
        constraints,
        make=contents.__getitem__,
        reference={answer.name: reference[drawn]},
        labels=None if labels is None else labels[drawn],
        answers=(answer,),
        run=lambda content: {answer.name: outputs[content[0]][drawn]},
        size_of=lambda content, mode: len(content),
    )
    return content[0], chosen, candidates


@pytest.mark.parametrize(
    "images, kind, agreements",
    [
        (36, "normal", CLOSE),
        (186, "normal", CLOSE),
        (256, "normal", ALL_TOO_BAD),
        (1000, "normal", ALL_TOO_BAD),
        (1000, "heavy tails", CLOSE),
        (1000, "classes alike", WORST_IN_FRONT),
        (256, "broken images", CLOSE),
    ],
)
def test_the_promise_is_kept_in_nine_searches_of_ten(images, kind, agreements):
    reference, files, true = population(kind, agreements)
    generator = np.random.default_rng(1)
    broken = 0
    for _ in range(SEARCHES):
        index, candidate, _ = searched(reference, files, images, Constraints(min_agreement=0.99), generator)
        broken += [*true, 1.0][index] < candidate.agreement_kept
    assert_kept(broken, SEARCHES)


@pytest.mark.parametrize("answer, labels, images", [(BINARY, 1, 256), (LABELS, 4, 256), (LABELS, 4, 40)])
def test_the_promise_is_kept_for_the_worst_label(answer, labels, images):
    reference, files, true = population("normal", [0.98, 0.96, 0.948, 0.945, 0.94], answer, labels)
    generator = np.random.default_rng(2)
    broken, chosen = 0, []
    for _ in range(FEWER_SEARCHES):
        index, candidate, _ = searched(reference, files, images, Constraints(min_agreement=0.95), generator, answer)
        broken += [*true, 1.0][index] < candidate.agreement_kept
        chosen.append(index)
    assert_kept(broken, FEWER_SEARCHES)
    assert max(chosen) > 0  # a file was chosen at all


@pytest.mark.parametrize("images, gained", [(60, 0.0), (200, 0.02)])
def test_the_promised_top1_drop_is_kept(images, gained):
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, POPULATION)
    right = generator.random(POPULATION) < 0.85
    one_hot = np.eye(3, dtype=np.float32)
    answers = np.where(right, labels, (labels + 1) % 3)
    files, true = [], []
    for drop in (0.005, 0.01, 0.0305, 0.031, 0.035, 0.06):
        chance = np.where(right, (drop + gained) / 0.85, gained / 0.15)
        changed = np.where(right, (labels + 1) % 3, labels)
        files.append(one_hot[np.where(generator.random(POPULATION) < chance, changed, answers)])
        true.append(100 * (right.mean() - (files[-1].argmax(1) == labels).mean()))
    broken = 0
    for _ in range(FEWER_SEARCHES):
        constraints = Constraints(max_top1_drop=3.0)
        index, candidate, _ = searched(one_hot[answers], files, images, constraints, generator, labels=labels)
        broken += [*true, 0.0][index] > candidate.top1_drop_kept
    assert_kept(broken, FEWER_SEARCHES)


def test_of_a_size_the_bounds_hold_for_all_files_at_once():
    reference, files, true = population("normal", [0.97] * 8)
    generator = np.random.default_rng(4)
    broken = 0
    for _ in range(FEWER_SEARCHES):
        constraints = Constraints(max_size=1)
        _, _, candidates = searched(reference, files[:-1], 100, constraints, generator, largest=files[-1])
        broken += any(share < candidate.agreement_kept for share, candidate in zip(true, candidates))
    assert_kept(broken, FEWER_SEARCHES)
