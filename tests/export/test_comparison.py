"""Figures that are summed up batch by batch are those of all images at once, in the memory of a few."""

import json
import warnings
from dataclasses import asdict

import kinds
import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from keras_vit_plugin.export import export_tflite, verify
from keras_vit_plugin.export.verification.comparison import NEIGHBOURS, Comparison
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.image_model.answers import SIGMOID, Answer

ANSWERS = {
    "logits": (Answer("logits", "classes"), (5,)),
    "softmax": (Answer("probabilities", "classes", "softmax"), (5,)),
    "binary": (Answer("logits", "binary"), (1,)),
    "binary of rank 1": (Answer("probabilities", "binary", SIGMOID), ()),
    "multi-label": (Answer("logits", "multi-label"), (4,)),
    "regression": (Answer("values", "regression"), (3,)),
    "regression of rank 1": (Answer("values", "regression"), ()),
    "embedding": (Answer("embedding", "embedding"), (16,)),
    "features": (Answer("features", "features"), (4, 3, 2)),
}


def outputs_of(name, images=700, far=3.0):
    """A reference that changes from image to image, not around zero, and outputs near it; float32."""
    generator, shape = np.random.default_rng(0), ANSWERS[name][1]
    reference = (
        far + generator.normal(0, 1, (images, *shape)) + np.linspace(0, 2, images).reshape(-1, *[1] * len(shape))
    )
    return reference.astype(np.float32), (reference + generator.normal(0, 0.4, reference.shape)).astype(np.float32)


def by_the_definitions(answer, reference, outputs, labels=None):
    """The figures of a `ParityReport` over all images, by NumPy."""
    reference, outputs = reference.astype(np.float64), outputs.astype(np.float64)
    noise = answer.noise(reference, outputs)
    found = {
        "images": len(reference),
        "snr_db": -10 * np.log10(noise),
        "relative_error": noise**0.5,
        "max_abs_error": np.abs(outputs - reference).max(),
    }
    if answer.has_decisions:
        ours, theirs = answer.decisions(outputs), answer.decisions(reference)
        found["agreement"] = (ours == theirs).mean(0).min()
        if answer.task == "multi-label":
            found["all_labels_agreement"] = (ours == theirs).all(1).mean()
        elif labels is not None:
            found["top1_accuracy_model"] = (theirs.ravel() == labels).mean()
            found["top1_accuracy_tflite"] = (ours.ravel() == labels).mean()
            decided, true = (np.bincount(each.ravel().astype(int), minlength=5) for each in (theirs, labels))
            found["top1_by_chance"] = (decided / len(labels)) @ (true / len(labels))
    elif answer.task == "regression":
        found["mean_abs_error"] = np.abs(outputs - reference).mean()
    else:
        ours, theirs = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        found["cosine"] = ((ours * theirs).sum(1) / norms).mean()
        if answer.task == "embedding":
            nearest = []
            for vectors in (ours[:NEIGHBOURS], theirs[:NEIGHBOURS]):
                unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                nearest.append((unit @ unit.T - 9 * np.eye(len(unit))).argmax(1))
            found["same_nearest"] = (nearest[0] == nearest[1]).mean()
    return found


@pytest.mark.parametrize("sizes", [(700,), (64,) * 10 + (60,), (1,) * 3 + (697,), (511, 1, 188)])
@pytest.mark.parametrize("name", ANSWERS)
def test_batches_add_up_to_the_figures_of_all_images(name, sizes):
    answer, (reference, outputs) = ANSWERS[name][0], outputs_of(name)
    labels = answer.decisions(reference).ravel().astype(int) if answer.task in ("classes", "binary") else None
    if labels is not None:
        labels[::7] = 0
    comparison, start = Comparison(answer), 0
    for size in sizes:
        rows = slice(start, start + size)
        comparison.add(reference[rows], outputs[rows], None if labels is None else labels[rows])
        start += size
    found = comparison.figures() | {"snr_db": -10 * np.log10(comparison.noise), "relative_error": comparison.noise**0.5}
    expected = by_the_definitions(answer, reference, outputs, labels)
    for figure, value in expected.items():
        np.testing.assert_allclose(found[figure], value, rtol=1e-12, err_msg=figure)
    whole = asdict(compare(reference, outputs, labels, answer))
    assert {figure for figure, value in whole.items() if value not in (None, ())} == {*expected, "name", "task"}
    for figure, value in expected.items():
        np.testing.assert_allclose(whole[figure], value, rtol=1e-12, err_msg=figure)


@pytest.mark.parametrize(
    "images, right_of_ten, doubted",
    [
        (200, 1, True),
        (200, 5, False),
        (10, 1, False),  # too few images to tell
    ],
)
def test_a_model_that_is_right_as_often_as_by_chance_is_doubted(images, right_of_ten, doubted):
    labels, turn = np.arange(images) % 10, np.arange(images) // 10 % 10
    answers = np.where(turn < right_of_ten, labels, (labels + turn) % 10)
    parity = compare(np.eye(10)[answers], np.eye(10)[answers], labels)
    assert parity.model_guesses == doubted
    told = "no more than by chance (10.0%): check `pixels` (--pixels)"
    assert (told in parity.in_words()["top-1, Keras model"]) == doubted


@pytest.mark.parametrize(
    "name, told", [("embedding", {"cosine similarity", "same nearest image"}), ("regression", {"mean error"})]
)
def test_what_has_no_classes_is_told_by_figures_of_its_own(name, told):
    reference, outputs = outputs_of(name)
    words = compare(reference, outputs, answer=ANSWERS[name][0]).in_words()
    assert told | {"SNR", "error relative to the spread", "largest error"} == set(words)


def test_an_unbalanced_set_is_no_reason_to_doubt():
    """Always the commoner class: right on 90 %, and no better than by chance; a real answer on 96 % is better."""
    labels = (np.arange(200) >= 180).astype(int)
    right = np.where(np.arange(200) % 25 == 0, 1 - labels, labels)
    assert compare(np.eye(2)[np.zeros(200, int)], np.eye(2)[labels], labels).model_guesses
    assert not compare(np.eye(2)[right], np.eye(2)[labels], labels).model_guesses
    assert not compare(np.eye(2)[labels * 0], np.eye(2)[labels], labels * 0).model_guesses  # all of one class


def test_a_signal_far_from_zero_is_summed_up_exactly():
    """Sums of squares would lose 8 of 16 digits here."""
    for name in ("regression", "embedding", "features"):
        answer, (reference, outputs) = ANSWERS[name][0], outputs_of(name, 4000, far=900.0)
        comparison = Comparison(answer)
        for start in range(0, 4000, 64):
            comparison.add(reference[start : start + 64], outputs[start : start + 64])
        np.testing.assert_allclose(comparison.noise, answer.noise(reference, outputs), rtol=1e-12)


def test_an_output_that_is_not_finite_counts_in_whatever_batch():
    reference, outputs = outputs_of("logits", 20)
    for row in (0, 19):
        broken = outputs.copy()
        broken[row, 1] = np.nan
        comparison = Comparison()
        for start in range(0, 20, 10):
            comparison.add(reference[start : start + 10], broken[start : start + 10])
        one = compare(reference, broken)
        assert comparison.noise == np.inf and one.snr_db == -300
        assert comparison.figures()["agreement"] == one.agreement <= 0.95


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its file for three images per call, and 140 photos in folders of classes, one of them damaged."""
    folder, images = tmp_path_factory.mktemp("made"), kinds.photos(140)
    model = kinds.model_of("logits")
    export_tflite(model, folder / "m.tflite", pixels="0..1", batch_size=3, **kinds.KINDS["logits"][2])
    answers = kinds.scores_of(model, images).argmax(1)
    for name in kinds.NAMES:
        (folder / "photos" / name).mkdir(parents=True)
    for place, image in enumerate(images):
        label = answers[place] if place % 5 else 0
        Image.fromarray(image).save(folder / "photos" / kinds.NAMES[label] / f"{place:03}.png")
    (folder / "photos" / "bee" / "broken.png").write_bytes(b"no image")
    return model, folder


def test_a_folder_gives_the_figures_of_an_array(made):
    from keras_vit_plugin.images.gather import gather_labelled
    from keras_vit_plugin.images.preprocessing import preprocessing_of

    model, folder = made
    with pytest.warns(UserWarning, match="1 of 141 images are left out: .*broken.png"):
        streamed = verify(model, folder / "m.tflite", folder / "photos", pixels="0..1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images, labels = gather_labelled(folder / "photos", None, preprocessing_of(model), kinds.NAMES, 4)
    whole = verify(model, folder / "m.tflite", images, labels, pixels="0..1")
    assert streamed.images == whole.images == 140 and 0.7 < streamed.top1_accuracy_tflite < 1
    assert json.dumps(streamed.to_dict()) == json.dumps(whole.to_dict())


def test_a_folder_without_a_readable_image_is_refused(made, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"None of 1 image\(s\) can be read. .*broken.png"):
        verify(made[0], made[1] / "m.tflite", tmp_path, pixels="0..1")


MEMORY = """
import os, sys, warnings
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras, numpy as np
from keras_vit_plugin.export import verify
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
model = keras.saving.load_model(sys.argv[1])
verify(model, sys.argv[2], np.random.default_rng(0).integers(0, 256, (64, 128, 128, 3), np.uint8))
before = peak()
print(verify(model, sys.argv[2], sys.argv[3]).images, peak() - before)
"""


@pytest.mark.long
def test_a_folder_of_many_photos_needs_the_memory_of_few(tmp_path):
    """2,000 photos of the model's size are 98 MB, which were held twice."""
    import keras

    images = keras.Input((128, 128, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(keras.layers.Rescaling(1 / 255)(images)))
    keras.Model(images, keras.layers.Dense(4)(x)).save(tmp_path / "m.keras")
    model = keras.saving.load_model(tmp_path / "m.keras")
    export_tflite(model, tmp_path / "m.tflite", task="classes")
    (tmp_path / "photos").mkdir()
    Image.fromarray(kinds.photos(1)[0]).save(tmp_path / "p.png")
    for place in range(2000):
        (tmp_path / "photos" / f"{place}.png").hardlink_to(tmp_path / "p.png")
    count, used = run_python(MEMORY, tmp_path / "m.keras", tmp_path / "m.tflite", tmp_path / "photos").split()
    assert count == "2000" and float(used) < 50
