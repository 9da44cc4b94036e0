"""What a file alone says of photos: `classify_files`, of every kind of output, with metadata and without."""

import itertools

import kinds
import numpy as np
import pytest
from PIL import Image

from keras_vit_plugin.cli.classify import classify_files
from keras_vit_plugin.export import InvalidModelFile, export_tflite
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.image_model.labels import class_names

WITH_PROBABILITIES = [kind for kind in kinds.KINDS if kind not in ("regression", "embedding", "features")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`{kind: (path, what Keras gives)}`, and the paths of photos."""
    folder, images, files = tmp_path_factory.mktemp("kinds"), kinds.photos(), {}
    for kind, (_, _, options) in kinds.KINDS.items():
        model, path = kinds.model_of(kind), folder / f"{kind}.tflite"
        export_tflite(model, path, pixels="0..1", **options)
        files[kind] = path, kinds.scores_of(model, images)
    photos = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(photos, images):
        Image.fromarray(image).save(path)
    return files, photos


def assert_says(found, expected, names=None):
    """The names and probabilities of every photo, the likeliest first."""
    for said, probabilities in zip(found, expected, strict=True):
        order = probabilities.argsort()[::-1]
        assert [answer["index"] for answer in said["top"]] == order.tolist()
        np.testing.assert_allclose([answer["probability"] for answer in said["top"]], probabilities[order], atol=1e-4)
        assert names is None or [answer["label"] for answer in said["top"]] == [names[i] for i in order]


@pytest.mark.parametrize("kind", WITH_PROBABILITIES)
def test_it_says_what_the_output_means(kind, made):
    path, scores = made[0][kind]
    found = list(classify_files(path, made[1]))
    assert [said["file"] for said in found] == list(map(str, made[1]))
    assert_says(found, kinds.probabilities_of(kind, scores), kinds.names_of(kind))


def test_sigmoids_that_are_called_classes_get_no_softmax(made, tmp_path):
    kind = "multi-label sigmoid"
    options = kinds.KINDS[kind][2] | {"task": "classes"}
    report = export_tflite(kinds.model_of(kind), tmp_path / "m.tflite", pixels="0..1", **options)
    assert report.parity.task == "classes"
    assert_says(classify_files(tmp_path / "m.tflite", made[1]), made[0][kind][1], kinds.NAMES)


def test_it_gives_the_numbers_of_a_regression(made):
    path, scores = made[0]["regression"]
    for said, row in zip(classify_files(path, made[1]), scores, strict=True):
        assert [number["label"] for number in said["values"]] == ["width", "height"] and "top" not in said
        np.testing.assert_allclose([number["value"] for number in said["values"]], row, atol=1e-4)


@pytest.mark.parametrize("kind", ["embedding", "features"])
@pytest.mark.parametrize("metadata", [True, False])
def test_what_tells_nothing_of_a_photo_is_refused(metadata, kind, made, tmp_path):
    path = made[0][kind][0] if metadata else kinds.without_metadata(made[0][kind][0], tmp_path)
    with pytest.raises(ValueError, match=f"no classifier of photos.*{kind}"):
        next(classify_files(path, made[1], pixels=None if metadata else "0..255"))


@pytest.mark.parametrize("kind", ["logits", "softmax", "binary sigmoid", "multi-label sigmoid"])
def test_a_file_without_metadata_is_read_by_its_graph(kind, made, tmp_path):
    path, scores = made[0][kind]
    path = kinds.without_metadata(path, tmp_path)
    with pytest.raises(ValueError, match="does not say what pixels it takes. Pass `pixels`"):
        next(classify_files(path, made[1]))
    assert_says(classify_files(path, made[1], pixels="0..255"), kinds.probabilities_of(kind, scores))
    names = kinds.names_of(kind)
    assert_says(classify_files(path, made[1], names, pixels="0..255"), kinds.probabilities_of(kind, scores), names)
    with pytest.raises(ValueError, match="one of 0..1, -1..1, 0..255; got pixels='0-255'"):
        next(classify_files(path, made[1], pixels="0-255"))


@pytest.mark.parametrize("kind", ["logits", "softmax", "binary sigmoid", "multi-label sigmoid"])
def test_older_metadata_is_read_by_the_graph(kind, made, tmp_path):
    path, scores = made[0][kind]
    found = classify_files(kinds.of_older_version(path, tmp_path), made[1])
    assert_says(found, kinds.probabilities_of(kind, scores))


def test_one_number_of_an_older_file_is_no_class(made, tmp_path):
    """A softmax over one logit is 100 % whatever it says."""
    path, scores = made[0]["binary logit"]
    for said, row in zip(classify_files(kinds.of_older_version(path, tmp_path), made[1]), scores, strict=True):
        assert said["values"] == [{"label": "number 0", "value": pytest.approx(row[0], abs=1e-4)}]


def test_pixels_of_a_file_that_takes_0_to_1_are_scaled(made, tmp_path):
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(0).normal(0, 1, (16 * 16 * 3, 4)).astype(np.float32))
    call = tf.function(lambda images: tf.reshape(images, (1, -1)) @ weights)
    call = call.get_concrete_function(tf.TensorSpec((1, 16, 16, 3)))
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([call]).convert())
    for pixels, scale, offset in (("0..1", 1 / 255, 0), ("-1..1", 1 / 127.5, -1)):
        logits = (kinds.photos(1).reshape(1, -1) * scale + offset) @ weights.numpy()
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert_says(classify_files(path, made[1][:1], pixels=pixels), expected)


def test_what_does_not_fit_is_said(made):
    path, photos = made[0]["logits"][0], made[1]
    with pytest.raises(ValueError, match="`pixels` is for a file without this package's metadata"):
        next(classify_files(path, photos, pixels="0..1"))
    with pytest.raises(ValueError, match="one name per class: the file has 4 classes, got 3"):
        next(classify_files(path, photos, labels=["a", "b", "c"]))
    unreadable = photos[0].with_name("none.png")
    first, second = classify_files(path, [unreadable, photos[0]])
    assert "none.png" in first["error"] and "top" not in first and second["top"]


def test_paths_are_taken_as_they_come(made):
    """Of a hundred thousand photos no list is made."""
    endless = classify_files(made[0]["logits"][0], itertools.repeat(made[1][0]))
    assert next(endless) == next(endless)


@pytest.mark.parametrize(
    "changed",
    [
        {"answers": [{"name": [1], "task": "classes", "activation": "linear"}]},
        {"answers": [{"name": "logits", "task": "thing", "activation": "linear"}]},
        {"answers": [1]},
        {"labels": 5},
        {"labels": [1, 2, 3, None]},
        {"preprocessing": {"size": [4, 4], "channels": 3}},
        {"preprocessing": {"size": [16, 16], "channels": 3, "interpolation": "best"}},
        {"preprocessing": {"size": [16, 16], "channels": 3, "resize": "ab"}},
        {"preprocessing": [1]},
    ],
)
def test_metadata_of_others_are_refused_with_the_files_name(changed, made, tmp_path):
    content = made[0]["logits"][0].read_bytes()
    (tmp_path / "m.tflite").write_bytes(set_metadata(content, get_metadata(read(content)) | changed))
    with pytest.raises(InvalidModelFile, match=f"{tmp_path / 'm.tflite'}: its metadata"):
        next(classify_files(tmp_path / "m.tflite", made[1]))


def test_names_of_classes_labels_and_numbers():
    binary, classes = Answer("logits", "binary"), Answer("logits", "classes")
    assert class_names(binary) == ["no", "yes"]
    assert class_names(binary, ["cat", "dog"]) == ["cat", "dog"]
    assert class_names(binary, ["ripe"]) == ["not ripe", "ripe"]
    assert class_names(classes, None, 2) == ["class 0", "class 1"]
    assert class_names(Answer("values", "regression"), None, 2) == ["number 0", "number 1"]
    assert class_names(classes, ["a", "b"], 2) == ["a", "b"]


def test_of_integer_outputs_what_they_stand_for_is_shown(made, tmp_path):
    kind = "multi-label logits"
    model, path = kinds.model_of(kind), tmp_path / "m.tflite"
    options = kinds.KINDS[kind][2] | {"calibration": kinds.photos(64)}
    report = export_tflite(model, path, "int8-full", pixels="0..1", input_dtype="int8", output_dtype="int8", **options)
    sides = ", ".join(map(str, model.input_shape[1:]))
    assert report.input == f"int8 RGB pixels less 128, -128..127, [1, {sides}]"
    expected = kinds.probabilities_of(kind, made[0][kind][1])
    for said, row in zip(classify_files(path, made[1]), expected, strict=True):
        for answer in said["top"]:
            assert abs(answer["probability"] - row[answer["index"]]) < 0.15
