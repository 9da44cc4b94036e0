"""Whether `quantize="auto"` keeps what it promises: a thousand searches on images drawn from a known population.

The population is large enough to be the truth; a search sees only its draw. A promise is broken where the file that was
chosen keeps less, in the population, than what the search was certain of.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_vit_plugin.export import search as search_module
from keras_vit_plugin.export.answers import SIGMOID, Answer
from keras_vit_plugin.export.certainty import RISK, limit
from keras_vit_plugin.export.search import Wish, search

SEARCHES = 1000
BROKEN_AT_MOST = RISK * SEARCHES + 3 * np.sqrt(SEARCHES * RISK * (1 - RISK))  # counting noise
POPULATION = 20_000
CLASSES = Answer("logits", "classes")
LABELS = Answer("labels", "multi-label", SIGMOID)
# True shares of the same answers, the most accurate file first.
ALL_TOO_BAD = (0.989,) * 11
CLOSE = (0.997, 0.995, 0.993, 0.991, 0.9895, 0.989, 0.988, 0.98, 0.97)
WORST_IN_FRONT = (0.985, 0.999, 0.98, 0.9895, 0.9999)


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


def searched(monkeypatch, reference, files, images, wish, generator, answer=CLASSES, labels=None):
    """`(index, Candidate)` of the file that one search on so many images chooses; index -1 is float32."""
    drawn = generator.integers(0, len(reference), images)
    made = [(f"file {i}", "int8", "speed", bytes([i])) for i in range(len(files))]
    monkeypatch.setattr(search_module, "_candidates", lambda *_: iter(made))
    outputs = [*files, reference]
    content, chosen, _ = search(
        SimpleNamespace(lowered=lambda mode: bytes([len(files)])),
        None,
        drawn,
        reference[drawn],
        None if labels is None else labels[drawn],
        wish,
        "speed",
        answers=(answer,),
        run=lambda content, drawn: outputs[content[0]][drawn],
    )
    return content[0], chosen


@pytest.mark.parametrize("images", [36, 186, 1000])
@pytest.mark.parametrize(
    "kind, agreements",
    [
        ("normal", ALL_TOO_BAD),
        ("normal", CLOSE),
        ("heavy tails", CLOSE),
        ("classes alike", WORST_IN_FRONT),
        ("broken images", CLOSE),
    ],
)
def test_the_promise_is_kept_in_nine_searches_of_ten(monkeypatch, kind, agreements, images):
    reference, files, true = population(kind, agreements)
    generator = np.random.default_rng(1)
    broken = 0
    for _ in range(SEARCHES):
        index, candidate = searched(monkeypatch, reference, files, images, Wish(min_agreement=0.99), generator)
        broken += [*true, 1.0][index] < candidate.agreement_kept
    assert broken <= BROKEN_AT_MOST
