"""Files for MediaPipe, in its own ImageClassifier."""

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import fields

import numpy as np
import pytest
from conftest import DEIT, REPOSITORY, pixels, randomize, real_data

import keras_vit_plugin as kv
from keras_vit_plugin.export import TARGETS, Runner, export_tflite, verify
from keras_vit_plugin.export.finish import Finish
from keras_vit_plugin.export.targets.mediapipe_metadata import with_activation, with_tflite_metadata
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.metadata import Metadata
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.images.gather import gather_images
from keras_vit_plugin.images.preprocessing import Preprocessing, pixel_normalization, preprocessing_of

RUN_MEDIAPIPE = REPOSITORY / "export" / "targets" / "run_mediapipe.py"
LABELS = ["ant", "bee", "cat", "dog", "eel"]
MODES = ("float32", "float16", "dynamic", "int8", "int8-full", "int16x8", "int4")


def assert_same_answers(files, images, labels, folder):
    """MediaPipe's answers are those of the interpreter, class by index and by name, and its score."""
    np.save(folder / "pixels.npy", images)
    done = subprocess.run(
        [sys.executable, "-P", RUN_MEDIAPIPE, folder / "pixels.npy", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[[")]
    assert len(answers) == len(files)
    for file, there in zip(files, answers):
        here = Runner(file.read_bytes())(images)
        assert len(there) == len(here)
        for ((index, label, score), *_), probabilities in zip(there, here):
            assert index == probabilities.argmax() and label == labels[index]
            assert abs(score - probabilities.max()) < 2e-3  # int16 kernels of another build round elsewhere


@pytest.mark.long
def test_its_image_classifier_takes_every_mode(tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 16)
    options = {"calibration": images, "labels": LABELS, "tolerance": kv.export.Tolerance(0, 0), "target": "mediapipe"}
    files = [tmp_path / f"{mode}.tflite" for mode in (*MODES, "float32 pixels")]
    for mode, path in zip(MODES, files):
        report = export_tflite(model, path, quantize=mode, **options)
        assert report.file.inputs[0]["dtype"] == "uint8"
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().split() == LABELS
    export_tflite(model, files[-1], input_dtype="float32", **options)
    assert_same_answers(files, images, LABELS, tmp_path)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def decibels(reference, outputs):
    """Of probabilities: what differs between the classes over the error, both as they are."""
    signal = reference - reference.mean(1, keepdims=True)
    return 10 * np.log10(np.square(signal).mean() / np.square(outputs - reference).mean())


@pytest.mark.long
def test_probabilities_are_compared_as_probabilities(tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 16)
    for target in ("litert", "mediapipe"):
        path = tmp_path / f"{target}.tflite"
        export_tflite(model, path, quantize="dynamic", target=target, labels=LABELS)
    reference = keras_logits(model, images, *pixel_normalization(model, 3)).astype(np.float64)
    logits = Runner((tmp_path / "litert.tflite").read_bytes())(images).astype(np.float64)
    found = verify(model, tmp_path / "mediapipe.tflite", images)
    assert abs(found.snr_db - decibels(softmax(reference), softmax(logits))) < 0.1
    # A constant error of every probability is one; centred on the reference it would be none.
    assert decibels(softmax(reference), softmax(logits) + 0.1) < found.snr_db - 3
    assert found.max_abs_error < 1


def foreign_classifier(last, units):
    """A Keras model of these layers' own that ends in an activation."""
    import keras

    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, activation="relu")(images)
    x = keras.layers.Dense(units, last, kernel_initializer=keras.initializers.RandomNormal(0, 1))(
        keras.layers.Flatten()(x)
    )
    return keras.Model(images, x)


@pytest.mark.parametrize("last, units, task", [("softmax", 5, None), (None, 5, None), ("sigmoid", 5, None)])
@pytest.mark.long
def test_its_scores_are_the_models_probabilities(last, units, task, tmp_path):
    """A second softmax would leave the classes in their order: the scores tell."""
    model, images = foreign_classifier(last, units), pixels((16, 16, 3), 8)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, target="mediapipe", labels=LABELS, pixels="0..1", task=task)
    scores = np.asarray(model(images.astype(np.float32) / 255), np.float64)
    expected = softmax(scores) if last is None else scores
    assert expected.max() - expected.min() > 0.3
    runner, name = TARGETS["mediapipe"].open(path.read_bytes())
    np.testing.assert_allclose(runner.outputs(images)["probabilities"], expected, atol=1e-3)
    assert name.startswith("MediaPipe's ImageClassifier")
    assert report.verified_by == name and report.parity.snr_db > 50
    assert verify(model, path, images, pixels="0..1").snr_db > 50


@pytest.mark.long
def test_deit_tiny_on_real_photos(deit_file, tmp_path):
    path, labels = deit_file("dynamic", "mediapipe"), real_data("imagenet_labels.txt").read_text().splitlines()
    model = kv.build(DEIT, weights=real_data("weights", f"{DEIT}_in1k.npz"))
    photos = gather_images(real_data("imagenet_eval"), preprocessing_of(model), "images", 20)
    assert_same_answers([path], photos, labels, tmp_path)
    parity = verify(model, path, photos)
    assert parity.agreement >= 0.95 and parity.snr_db > 20


@pytest.mark.long
def test_run_calls_its_classes_by_name(tmp_path):
    from PIL import Image

    from keras_vit_plugin.cli.classify import classify_files

    model = kv.build("vit_test")
    export_tflite(model, tmp_path / "m.tflite", target="mediapipe", labels=LABELS)
    Image.fromarray(pixels(model.image_shape, 1)[0]).save(tmp_path / "a.png")
    (result,) = classify_files(tmp_path / "m.tflite", [tmp_path / "a.png"])
    assert sorted(answer["label"] for answer in result["top"]) == LABELS
    assert abs(sum(answer["probability"] for answer in result["top"]) - 1) < 1e-5


@pytest.fixture(scope="module")
def twelve_numbers():
    """A file of a foreign model that gives the pixels of 2 x 2 as they are, `(1, 12)`."""
    import tensorflow as tf

    signature = [tf.TensorSpec((1, 2, 2, 3), tf.float32, name="images")]
    flat = tf.function(lambda images: {"logits": tf.reshape(images, (1, 12))}, input_signature=signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([flat.get_concrete_function()], tf.Module()).convert()


@pytest.mark.parametrize("kind", ["SOFTMAX", "LOGISTIC"])
def test_the_activation_that_is_added_gives_probabilities(kind, twelve_numbers):
    images = (pixels((2, 2, 3), 3) / 99).astype(np.float32)
    logits = images.reshape(3, 12)
    expected = softmax(logits) if kind == "SOFTMAX" else 1 / (1 + np.exp(-logits))
    (name, given), *others = Runner(with_activation(twelve_numbers, kind)).outputs(images).items()
    assert name == "probabilities" and others == []
    np.testing.assert_allclose(given, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "answer, activation, added",
    [
        (Answer("logits", "classes"), "softmax", ["SOFTMAX"]),
        (Answer("logits", "multi-label"), "sigmoid", ["LOGISTIC"]),
        (Answer("scores", "classes", "softmax"), "softmax", []),
    ],
)
def test_a_file_gives_probabilities_and_is_given_no_second_activation(answer, activation, added, twelve_numbers):
    unsaid = dict.fromkeys(field.name for field in fields(Metadata))
    said = {"outputs": (), "labels": LABELS, "preprocessing": Preprocessing((2, 2)), "answers": (answer,)}
    said |= {"version": "3.1", "config": {"mode": "float32"}}
    finish = Finish(Metadata(**unsaid | said), TARGETS["mediapipe"], "")
    graph = Graph(finish(twelve_numbers, verified_by="a test"))
    assert [graph.kind(operator) for operator in graph.operators] == ["RESHAPE", *added]
    assert finish.answers == (Answer("probabilities", answer.task, activation),)


def test_the_metadata_say_what_goes_in_and_what_comes_out(twelve_numbers):
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    content = with_tflite_metadata(twelve_numbers, LABELS, "twelve numbers", "3.1")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {name: archive.read(name).decode().split() for name in archive.namelist()} == {"labels.txt": LABELS}
    model = read(content)
    (place,) = (entry.buffer for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    packed = bytes(model.buffers[place].data)
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(packed, 0)
    stored = schema.ModelMetadataT.InitFromPackedBuf(packed)
    assert (stored.description, stored.version) == (b"twelve numbers", b"3.1")
    assert (stored.name, stored.minParserVersion) == (b"ImageClassifier", b"1.0.0")
    (graph,) = stored.subgraphMetadata
    (images,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert [(part.stats.min, part.stats.max) for part in (images, scores)] == [([0.0], [255.0]), ([0.0], [1.0])]
    assert [part.name for part in (images, scores)] == [b"images", b"probabilities"]
    kinds = [part.content.contentPropertiesType for part in (images, scores)]
    assert kinds == [schema.ContentProperties.ImageProperties, schema.ContentProperties.FeatureProperties]
    assert images.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    (normalization,) = images.processUnits
    assert normalization.optionsType == schema.ProcessUnitOptions.NormalizationOptions
    assert (normalization.options.mean, normalization.options.std) == ([0.0], [1.0])
    (names,) = scores.associatedFiles
    assert (names.name, names.description) == (b"labels.txt", b"class names")
    assert names.type == schema.AssociatedFileType.TENSOR_AXIS_LABELS and images.associatedFiles is None


@pytest.mark.parametrize(
    "preset, arguments, match",
    [
        ("vit_test", {}, "needs `labels`, got none"),
        ("vit_digits", {"labels": list("0123456789")}, "needs RGB images, got 1 channel"),
        ("vit_test", {"labels": LABELS, "outputs": ("attention",)}, "reads one output"),
        ("vit_test", {"labels": LABELS, "batch_size": 2}, "one image per call"),
    ],
)
def test_what_it_cannot_take_is_refused(preset, arguments, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        export_tflite(kv.build(preset), tmp_path / "m.tflite", target="mediapipe", **arguments)
    assert not (tmp_path / "m.tflite").exists()


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ImportError, match="needs the package mediapipe: pip install"):
        export_tflite(kv.build("vit_test"), tmp_path / "m.tflite", target="mediapipe", labels=LABELS)
