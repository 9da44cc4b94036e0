"""What a file says of itself: written, and read of every version."""

import hostile_tflite
import keras
import numpy as np
import pytest
from conftest import functional_model, pixels

import keras_vit_plugin as kv
from keras_vit_plugin.cli.tables import metadata_in_words
from keras_vit_plugin.export import (
    Float32,
    Int8,
    InvalidModelFile,
    ParityError,
    Tolerance,
    export_tflite,
    inspect,
    verify,
    wanted_of,
)
from keras_vit_plugin.export.image_sets import Images
from keras_vit_plugin.export.job import Job
from keras_vit_plugin.export.make import Made
from keras_vit_plugin.export.request import request_of
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.metadata import (
    SCHEMA,
    _names_of_outputs,
    answers_of,
    as_metadata,
    guessed_answer,
    read_metadata,
)
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata
from keras_vit_plugin.export.verdict import _refusal
from keras_vit_plugin.export.verification.named import mode_of_file, target_of_file
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.image_model.answers import Answer

# As version 0.1.0 wrote it before there was a schema number.
OLD = {
    "keras_vit_plugin": "0.1.0",
    "mode": "int8",
    "prefer": "speed",
    "target": "litert",
    "outputs": ["logits"],
    "labels": None,
    "colour": "RGB",
    "preprocessing": {
        "size": [16, 16], "channels": 3, "resize": None, "interpolation": "bicubic", "rule": "cover",
    },
    "parity": {"images": 64, "top1_agreement": 0.95, "snr_db": 20.0, "max_abs_error": 0.1},
    "verified_on": "calibration",
    "weights_sha256": "0" * 64,
    "calibration_sha256": None,
}  # fmt: skip
ANSWER = {"name": "logits", "task": "classes", "activation": "linear"}
SECOND = {**OLD, "schema": 2, "answers": [ANSWER], "parity": {"images": 64, "agreement": 0.95, "snr_db": 20.0}}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("metadata") / "m.tflite"
    export_tflite(kv.build("vit_test"), path, calibration=pixels((16, 16, 3), 16), labels=list("abcde"))
    return path.read_bytes()


def test_what_is_written_is_read(file):
    metadata = read_metadata(read(file))
    stored = get_metadata(read(file))
    assert stored["schema"] == SCHEMA == 3
    assert stored["mode"] == "float32" and stored["config"] == {"mode": "float32"}
    assert (metadata.mode, metadata.target, metadata.labels) == ("float32", "litert", list("abcde"))
    assert mode_of_file(metadata) == Float32() and target_of_file(metadata) is kv.export.TARGETS["litert"]
    assert metadata.answers[0].task == "classes" and metadata.outputs == ("logits",)
    assert metadata.parity["agreement"] == 1.0 and metadata.verified_by.startswith("ai-edge-litert")
    assert metadata.preprocessing.image_shape == (16, 16, 3)
    assert {"SNR", "same answers", "verified with"} <= set(metadata_in_words(stored))


def test_the_options_of_the_mode_are_written_and_read(tmp_path):
    mode, path, images = Int8(prefer="accuracy", snr_db=25.0), tmp_path / "m.tflite", pixels((16, 16, 3), 16)
    report = export_tflite(kv.build("vit_test"), path, mode, calibration=images, tolerance=Tolerance(0, 0))
    stored = get_metadata(read(path.read_bytes()))
    assert stored["mode"] == "int8" and stored["config"] == report.config == mode.to_dict()
    assert mode_of_file(read_metadata(read(path.read_bytes()))) == mode
    assert metadata_in_words(stored)["made as"].startswith("int8 for litert")


def test_older_metadata_is_read(file):
    old = set_metadata(file, OLD)
    metadata = read_metadata(read(old))
    assert metadata.parity["agreement"] == 0.95 and metadata.answers[0].activation == "linear"
    assert metadata_in_words(inspect(old).metadata)["same answers"].startswith("95.0%")
    parity = verify(kv.build("vit_test"), old, pixels((16, 16, 3), 4))
    assert parity.images == 4 and wanted_of(old, parity) == Int8.tolerance.on(4)


@pytest.mark.parametrize("older", [OLD, SECOND])
def test_the_preference_of_older_metadata_is_an_option_of_int8(older, file):
    """It stood beside every mode, of which the others did not look at it."""
    for mode, prefer, wanted in (
        ("int8", "speed", Int8()),
        ("int8", "accuracy", Int8(prefer="accuracy")),
        ("float32", "accuracy", Float32()),
    ):
        metadata = read_metadata(read(set_metadata(file, {**older, "mode": mode, "prefer": prefer})))
        assert metadata.mode == mode and mode_of_file(metadata) == wanted
    for missing in ({}, {"config": {"mode": "int4"}}):  # of a newer schema
        metadata = as_metadata({name: value for name, value in older.items() if name != "prefer"} | missing)
        assert mode_of_file(metadata) == Int8()
    with pytest.raises(InvalidModelFile, match=r"its metadata .schema \d. is wrong: `prefer` must be a text, got 7"):
        as_metadata({**older, "prefer": 7})


@pytest.mark.parametrize("missing", ["mode", "outputs", "preprocessing", "weights_sha256", "parity"])
def test_incomplete_metadata_is_a_sentence(missing):
    with pytest.raises(InvalidModelFile, match=r"metadata .schema 1. is incomplete"):
        as_metadata({name: value for name, value in OLD.items() if name != missing} | {"schema": 1})


def test_metadata_of_a_newer_version_says_to_upgrade():
    with pytest.raises(InvalidModelFile, match="made by keras-vit-plugin 9.9, .*schema 4.*upgrade"):
        as_metadata({**OLD, "keras_vit_plugin": "9.9", "schema": 4})


def test_a_file_is_as_large_as_it_was_judged(tmp_path):
    """`max_size` is judged before parity is known."""
    from keras_vit_plugin.export import pipeline

    sizes = []

    class Watched(pipeline.Finish):
        def __call__(self, *args, **kwargs):
            content = super().__call__(*args, **kwargs)
            sizes.append(len(content))
            return content

    model = kv.build("vit_test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Finish", Watched)
        report = export_tflite(model, tmp_path / "m.tflite")
    assert len(set(sizes)) == 1 and sizes[0] == report.size_bytes == (tmp_path / "m.tflite").stat().st_size


def test_the_written_bytes_are_those_that_were_verified(tmp_path, monkeypatch):
    from keras_vit_plugin.export import pipeline

    class Changing(pipeline.Finish):
        def __call__(self, content, parity=None, *args):
            if parity is not None:  # after it was verified
                content = content.replace(b"logits", b"logit5")
            return super().__call__(content, parity, *args)

    monkeypatch.setattr(pipeline, "Finish", Changing)
    with pytest.raises(ValueError, match="not the one that was verified"):
        export_tflite(kv.build("vit_test"), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_a_refusal_says_what_helps(tmp_path):
    """`debug` only where it works, calibration only where there is some, and that a model is undecided."""
    images, path = pixels((16, 16, 3), 16), tmp_path / "m.tflite"
    with pytest.raises(ParityError) as refused:
        export_tflite(kv.build("vit_test"), path, tolerance=Tolerance(0, 250))
    assert "keras-vit debug" in str(refused.value) and "calibrate" not in str(refused.value)
    assert "--min-agreement or --min-snr" in str(refused.value) and "undecided" not in str(refused.value)
    with pytest.raises(ParityError) as refused:
        export_tflite(functional_model(), path, "int8", calibration=images, tolerance=Tolerance(0, 250))
    assert "debug" not in str(refused.value) and "calibrate on more typical images" in str(refused.value)
    undecided = compare(np.array([[1.0, 0.99, -5]] * 8), np.array([[0.99, 1.0, -5]] * 8))
    request = request_of(path, "int8", calibration=images, tolerance=Tolerance(0.95, 14))
    held_out = Images(images, None, None, images[:8], None, "held-out")
    job = Job(request, None, None, None, None, held_out, None)
    said = _refusal(job, Made(b"", request.mode, b""), undecided, {}, (), debuggable=False)
    assert "the same answer on 0.0% of 8 held-out" in said and "ratio is kept: the model is undecided" in said


def test_a_rejected_file_can_be_looked_at(tmp_path):
    from keras_vit_plugin.export import ParityError, Tolerance, debug

    model = kv.build("vit_test")
    path = tmp_path / "m.tflite"
    with pytest.raises(ParityError, match="m.rejected.tflite.*keras-vit debug"):
        export_tflite(model, path, "dynamic", tolerance=Tolerance(0, 250), keep_rejected=True)
    assert [each.name for each in tmp_path.iterdir()] == ["m.rejected.tflite"]
    rejected = tmp_path / "m.rejected.tflite"
    assert "too far" in read_metadata(read(rejected.read_bytes())).rejected
    assert debug(model, rejected).ops and verify(model, rejected, pixels(model.image_shape, 4)).snr_db > 10


@pytest.mark.long
def test_mediapipe_gets_no_second_softmax(tmp_path):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(x))
    for activation in ("softmax", "sigmoid", None):
        model = keras.Model(images, keras.layers.Dense(4, activation=activation)(x))
        if activation is None:
            model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))  # labels of their own
        path = tmp_path / f"{activation}.tflite"
        report = export_tflite(model, path, target="mediapipe", labels=list("abcd"), pixels="0..255")
        assert report.verified_by.startswith("MediaPipe's ImageClassifier") and report.parity.snr_db > 60
        photos = pixels((16, 16, 3), 2)
        scores = np.asarray(model(photos.astype("float32")))
        wanted = scores if activation else 1 / (1 + np.exp(-scores))
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=path.read_bytes())
        got = interpreter.get_signature_runner("serving_default")(images=photos[:1])
        np.testing.assert_allclose(got["probabilities"], wanted[:1], atol=1e-5)


def test_outputs_are_named_by_the_signature_and_end_as_the_graph_does(tmp_path):
    model = keras.Sequential([functional_model(), keras.layers.Softmax(name="last")])
    export_tflite(model, tmp_path / "m.tflite", pixels="0..1")
    tree = read((tmp_path / "m.tflite").read_bytes())
    assert list(_names_of_outputs(tree)) == ["probabilities"]
    (classes,) = answers_of(tree, [Answer("probabilities", "classes")])
    (numbers,) = answers_of(tree, [Answer("probabilities", "regression")])
    assert (classes.activation, numbers.activation) == ("softmax", "linear")


@pytest.mark.parametrize("behind", [[], ["RESHAPE"], ["QUANTIZE", "DEQUANTIZE"], ["SQUEEZE", "CAST"]])
@pytest.mark.parametrize(
    "kind, shape, expected",
    [
        ("LOGISTIC", (1,), ("probabilities", "binary", "sigmoid")),
        ("FULLY_CONNECTED", (1,), ("values", "regression", "linear")),
        ("SOFTMAX", (1, 2, 2, 4), ("output", "features", "linear")),
        ("LOGISTIC", (), ("output", "features", "linear")),
        ("SOFTMAX", (1, 4), ("probabilities", "classes", "softmax")),
        ("LOGISTIC", (1, 1), ("probabilities", "binary", "sigmoid")),
        ("LOGISTIC", (1, 4), ("probabilities", "multi-label", "sigmoid")),
        ("FULLY_CONNECTED", (1, 1), ("values", "regression", "linear")),
        ("FULLY_CONNECTED", (1, 4), ("logits", "classes", "linear")),
        ("MEAN", (1, 4), ("embedding", "embedding", "linear")),
    ],
)
def test_an_answer_of_which_nothing_is_said_is_guessed(kind, shape, expected, behind):
    """By the operator that computes it, behind those that convert or reshape it."""
    codes = [kind, *behind]
    tensors = [hostile_tflite.tensor(f"tensor {number}", shape) for number in range(len(codes) + 2)]
    operators = [hostile_tflite.operator(code, (code + 1,), (code + 2,)) for code in range(len(codes))]
    graph = hostile_tflite.schema.SubGraphT(
        tensors=tensors, inputs=[1], outputs=[len(tensors) - 1], operators=operators
    )
    tree = hostile_tflite.model(codes, [graph])
    assert guessed_answer(tree) == guessed_answer(tree, len(tensors) - 1) == Answer(*expected)
    graph.outputs = []
    with pytest.raises(InvalidModelFile, match="its graph gives nothing"):
        guessed_answer(tree)
