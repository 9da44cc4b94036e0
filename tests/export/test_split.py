"""What a file is fitted on never verifies it."""

import itertools
import warnings

import numpy as np
import pytest
from conftest import pixels
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.export import Auto, Dynamic, Int4, Int8, Tolerance, export_tflite, mode_of
from keras_vit_plugin.export.image_sets import gather_calibration, split_indices, without_calibration
from keras_vit_plugin.export.job import job_of
from keras_vit_plugin.export.request import request_of
from keras_vit_plugin.images.gather import fingerprint
from keras_vit_plugin.images.preprocessing import Preprocessing


@pytest.mark.parametrize("count, calibrating, held_out, sizes", [
    (250, 64, 128, (64, 128)), (250, 256, 128, (188, 62)), (64, 64, 128, (48, 16)), (16, 64, 128, (12, 4)),
    (4, 64, 128, (2, 2)), (3, 64, 128, (3, 0)), (250, 64, 0, (64, 0)), (1, 64, 128, (1, 0)),
])  # fmt: skip
def test_images_are_calibrated_on_or_held_out(count, calibrating, held_out, sizes):
    calibration, rest = split_indices(count, calibrating, held_out)
    assert (len(calibration), len(rest)) == sizes
    assert not set(calibration) & set(rest) and len(set(rest)) == len(rest)
    if count > 8:  # spread over a folder that is sorted by classes
        halves = [np.count_nonzero(np.asarray(indices) < count / 2) / len(indices) for indices in (calibration, rest)]
        assert all(0.4 <= share <= 0.6 for share, size in zip(halves, sizes) if size)


@pytest.mark.parametrize("mode", [Dynamic, Int8, Int4])
def test_an_export_verifies_on_what_nothing_was_fitted_on(mode, tmp_path, monkeypatch):
    from keras_vit_plugin.export import verdict

    class Watched(mode):
        def prepare(self, content, setting):
            seen["fitted"] = setting.images
            return super().prepare(content, setting)

    def watched(runner, judged, *args):
        seen.setdefault("judged", judged)
        return outputs_of(runner, judged, *args)

    model = kv.build("vit_test")
    images = pixels(model.image_shape, 40)
    seen, outputs_of = {}, verdict.outputs_of
    monkeypatch.setattr(verdict, "outputs_of", watched)
    report = export_tflite(model, tmp_path / "m.tflite", Watched(), calibration=images, tolerance=Tolerance(0, 0))
    fitted, judged = ({image.tobytes() for image in seen[name]} for name in ("fitted", "judged"))
    assert fitted and judged and not fitted & judged
    assert report.verified_on == "held-out" and report.parity.images == len(judged) == 10
    assert report.file.metadata["calibration_sha256"] == fingerprint(seen["fitted"])
    again, *_ = gather_calibration(images, Preprocessing((16, 16)), mode())
    assert fingerprint(again) == fingerprint(seen["fitted"])  # `debug` finds them again


@pytest.fixture(scope="module")
def classifier():
    """Says how many tenths of white an image is, of five."""
    import keras

    images = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    head = keras.layers.Dense(5)
    model = keras.Model(images, head(mean))
    centres = np.arange(5) / 10  # the largest of -(x - c)^2 = 2 c x - c^2 + ...
    head.set_weights([np.repeat(2 * centres[None] / 3, 3, axis=0), -(centres**2)])
    return model


def greys():
    """40 images `(8, 8, 3)`, each with a few other pixels, and how many tenths of white they are."""
    labels = np.arange(40) % 5
    images = np.clip(labels[:, None, None, None] * 25.5 + pixels((8, 8, 3), 40) / 32, 0, 255)
    return images.astype(np.uint8), labels


def sub_folders(images, labels, folder):
    for number, (image, label) in enumerate(zip(images, labels)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:02}.png")
    return folder


def listed(images, labels, folder):
    rows = ["file,label", *(f"{number:03}.png,{label}.0" for number, label in enumerate(labels))]
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder_of(images, folder, 1)


LABELLED = {
    "pair": lambda images, labels, _: (images, labels),
    "batches": lambda images, labels, _: [(images[:20], labels[:20]), (images[20:], labels[20:])],
    "sub-folders": sub_folders,
    "labels.csv": listed,
}


@pytest.mark.parametrize("name", LABELLED)
def test_held_out_images_bring_their_labels(name, classifier, tmp_path):
    source = LABELLED[name](*greys(), tmp_path)
    report = export_tflite(classifier, tmp_path / "m.tflite", "dynamic", calibration=source)
    assert report.verified_on == "held-out" and report.parity.images == 10
    assert report.parity.top1_accuracy_model == report.parity.top1_accuracy_tflite == 1.0


def test_labels_of_calibration_in_another_order_are_told(classifier, tmp_path):
    images, labels = greys()
    folder, names = sub_folders(images, labels, tmp_path), list("43210")
    with pytest.warns(UserWarning, match="'0' is class 4. By their sorted order"):
        report = export_tflite(classifier, tmp_path / "m.tflite", "int8", calibration=folder, labels=names)
    assert report.parity.top1_accuracy_model < 0.5
    with warnings.catch_warnings():  # nor are they read where they judge nothing
        warnings.filterwarnings("error", message="Sub-folders")
        report = export_tflite(
            *(classifier, tmp_path / "m.tflite", "int8"), calibration=folder, labels=names, verification=images + 1
        )
    assert report.parity.top1_accuracy_model is None


def endless(images):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(images).batch(8).repeat()


def folder_of(images, folder, times):
    for number in range(times * len(images)):
        Image.fromarray(images[number % len(images)]).save(folder / f"{number:03}.png")
    return folder


REPEATS = {
    "array": lambda images, _: np.concatenate([images] * 10),
    "floats": lambda images, _: np.concatenate([images, images + 0.2, images - 0.2]).clip(0, 255),
    "each many times": lambda images, _: np.repeat(images, 10, axis=0),
    "endless dataset": lambda images, _: endless(images),
    "generator": lambda images, _: itertools.cycle(images),
    "folder": lambda images, folder: folder_of(images, folder, 3),
}


@pytest.mark.parametrize("name", REPEATS)
@pytest.mark.parametrize("mode, held_out, sizes", [("int8", 128, (24, 8)), ("auto", 1024, (16, 16))])
def test_repeated_images_count_once(name, mode, held_out, sizes, tmp_path):
    source = REPEATS[name](pixels((8, 8, 3), 32), tmp_path)
    with pytest.warns(UserWarning, match=r"`calibration`: 32 of the \d+ images taken are distinct; repeats are"):
        fitted, rest, _ = gather_calibration(source, Preprocessing((8, 8)), mode_of(mode), held_out)
    assert (len(fitted), len(rest)) == sizes
    assert len({image.tobytes() for image in [*fitted, *rest]}) == 32


def test_labels_follow_the_images_that_are_kept():
    images, labels = pixels((8, 8, 3), 40), np.arange(40)
    source = (np.concatenate([images[:1], images]), np.concatenate([[0], labels]))
    with pytest.warns(UserWarning, match="40 of the 41 images taken are distinct"):
        _, rest, found = gather_calibration(source, Preprocessing((8, 8)), Int8(), num_classes=40)
    assert len(rest) == 10 and [images[label].tobytes() for label in found] == [image.tobytes() for image in rest]


def test_images_that_are_all_distinct_are_all_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted, rest, _ = gather_calibration(pixels((8, 8, 3), 40), Preprocessing((8, 8)), Int8())
    assert len(fitted) + len(rest) == 40


@pytest.mark.long
def test_auto_does_not_prove_by_repeats(tmp_path):
    model = kv.build("vit_test")
    images = np.concatenate([pixels(model.image_shape, 8)] * 40)
    with pytest.warns(UserWarning, match="`calibration`: 8 of the 320 images taken are distinct"):
        report = export_tflite(
            model, tmp_path / "m.tflite", Auto(min_agreement=0.99, max_relative_error=1.0), calibration=images
        )
    assert report.parity.images == 4 and "4 held-out images are too few" in report.choice


def test_few_calibration_images_are_not_asked_to_verify(tmp_path):
    model = kv.build("vit_test")
    with pytest.warns(UserWarning, match="fewer than 16"):
        report = export_tflite(
            model, tmp_path / "m.tflite", "dynamic", calibration=pixels(model.image_shape, 3), tolerance=Tolerance(0, 0)
        )
    assert report.verified_on == "synthetic"


def test_verification_images_that_were_calibrated_on_are_left_out(tmp_path):
    images = pixels((4, 4, 3), 10)
    with pytest.warns(UserWarning, match="4 of 10 images are calibrated on and left out"):
        left, labels = without_calibration(images, np.arange(10), images[:4])
    assert labels.tolist() == [4, 5, 6, 7, 8, 9] and np.array_equal(left, images[4:])
    model = kv.build("vit_test")
    images = pixels(model.image_shape, 20)
    with pytest.raises(ValueError, match="nothing but the 20 images that the file is calibrated on"):
        export_tflite(model, tmp_path / "m.tflite", "dynamic", calibration=images, verification=images)


def test_one_image_cannot_tell_how_much_numbers_differ_between_images(tmp_path):
    import keras

    images = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    kind, age = keras.layers.Dense(3, "softmax", name="kind"), keras.layers.Dense(1, "relu", name="age")
    classes, numbers = keras.Model(images, kind(x)), keras.Model(images, {"kind": kind(x), "age": age(x)})

    def checked(model, count):
        job = job_of(model, request_of(tmp_path / "m.tflite", verification=pixels((4, 4, 3), count)))
        return {answer.name: answer.task for answer in job.answers}, len(job.images.verification)

    assert checked(numbers, 2) == ({"kind": "classes", "age": "regression"}, 2)
    assert checked(classes, 1) == ({"probabilities": "classes"}, 1)
    with pytest.raises(ValueError, match="`verification` must hold two images or more, got 1: an error of 'age'"):
        checked(numbers, 1)
