"""What a sealed file says of itself: anyone can make the seal, so that nothing is taken on trust."""

import json

import hostile_tflite
import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit_plugin.cli.classify import classify_files
from keras_vit_plugin.cli.tables import metadata_in_words
from keras_vit_plugin.export import Int8, InvalidModelFile, ParityReport, Tolerance, inspect, verify, wanted_of
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.metadata import read_metadata
from keras_vit_plugin.export.tflite.metadata_types import MOST_OPTIONS
from keras_vit_plugin.export.tflite.stored_metadata import set_metadata
from keras_vit_plugin.export.verification.named import mode_of_file, target_of_file

PREPROCESSING = {"size": [2, 2], "channels": 1, "resize": None, "interpolation": "bicubic", "rule": "cover"}
ANSWER = {"name": "probabilities", "task": "classes", "activation": "softmax"}
STORED = {
    "keras_vit_plugin": "0.1.0",
    "schema": 3,
    "mode": "float32",
    "config": {"mode": "float32"},
    "target": "litert",
    "outputs": ["probabilities"],
    "answers": [ANSWER],
    "labels": ["a", "b", "c", "d"],
    "preprocessing": PREPROCESSING,
    "parity": {"images": 8, "agreement": 1.0, "snr_db": 99.0, "others": []},
    "verified_on": "calibration",
    "verified_by": "ai-edge-litert",
    "weights_sha256": "0" * 64,
    "calibration_sha256": None,
    "calibrated_for": "float32",
    "held_out": 0,
    "rejected": "",
}
# As schema 2 had it.
SECOND = {name: value for name, value in STORED.items() if name != "config"} | {"schema": 2, "prefer": "speed"}


def file_of(folder, **values):
    """A sealed file that says these values instead of the right ones; `...` leaves one out."""
    right = SECOND if values.get("schema") == 2 else STORED
    stored = {name: value for name, value in {**right, **values}.items() if value is not ...}
    path = folder / "m.tflite"
    path.write_bytes(set_metadata(hostile_tflite.packed(hostile_tflite.classifier()), stored))
    return path


@pytest.mark.parametrize("schema", [2, 3])
def test_the_metadata_that_the_others_come_from_are_right(schema, tmp_path):
    path = file_of(tmp_path, schema=schema)
    Image.new("L", (2, 2)).save(tmp_path / "p.png")
    (said,) = classify_files(path, [tmp_path / "p.png"])
    assert [answer["probability"] for answer in said["top"]] == [0.25] * 4
    assert metadata_in_words(inspect(path).metadata)["class names"] == "4: a, b, c, d"


WRONG_TYPES = (None, 7, -1, 1.5, True, "?", [], [[]], [None], {}, {"a": 1}, "x" * 10**5)
CASES = [(3, name) for name in sorted(STORED.keys() - {"keras_vit_plugin"})] + [(2, "mode"), (2, "prefer")]
RIGHT_TOO = {  # of the wrong types above, those that a name may have
    "schema": (True,),
    "prefer": ("?", "x" * 10**5),
    "target": ("?", "x" * 10**5),  # looked up where it is needed
    "labels": (None,),
    "parity": ({}, {"a": 1}),
    "verified_on": ("?", "x" * 10**5),
    "verified_by": ("?", "x" * 10**5),
    "weights_sha256": ("?", "x" * 10**5),
    "calibration_sha256": (None, "?", "x" * 10**5),
    "calibrated_for": ("?", "x" * 10**5),
    "held_out": (7,),
    "rejected": ("?", "x" * 10**5),
}


@pytest.mark.parametrize("schema, name", CASES)
def test_a_value_of_another_type_is_a_sentence(schema, name, tmp_path):
    for wrong in WRONG_TYPES:
        if any(wrong is right or wrong == right != 1 for right in RIGHT_TOO.get(name, ())):
            continue
        if (schema, name) == (2, "mode") and isinstance(wrong, str):
            continue  # looked up where it is needed
        path = file_of(tmp_path, **{"schema": schema, name: wrong})
        with pytest.raises(InvalidModelFile, match="^(its metadata|made by)") as refused:
            read_metadata(read(path.read_bytes()))
        assert len(str(refused.value)) < 400
    with pytest.raises(InvalidModelFile, match=r"m\.tflite: (its metadata|made by)"):  # of the last one
        inspect(path)
    with pytest.raises(InvalidModelFile, match=r"m\.tflite: (its metadata|made by)"):
        list(classify_files(path, []))


@pytest.mark.parametrize("schema, name", [case for case in CASES if case[1] != "schema"])
def test_what_is_left_out_is_a_sentence_or_has_a_usual_value(schema, name, tmp_path):
    path = file_of(tmp_path, **{"schema": schema, name: ...})
    if name in ("prefer", "verified_by", "calibration_sha256", "calibrated_for", "held_out", "rejected"):
        assert metadata_in_words(inspect(path).metadata)
    else:
        said = rf"m\.tflite: its metadata .schema {schema}. is incomplete: '{name}'"
        with pytest.raises(InvalidModelFile, match=said):
            inspect(path)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"preprocessing": {**PREPROCESSING, "size": [60_000, 60_000]}}, "sides of 1 to 8192 pixels"),
        ({"preprocessing": {**PREPROCESSING, "resize": [60_000, 60_000]}}, "sides of 1 to 8192 pixels"),
        ({"preprocessing": {**PREPROCESSING, "size": [2, 2, 2]}}, "sides of 1 to 8192 pixels"),
        ({"preprocessing": {**PREPROCESSING, "size": [2, True]}}, "sides of 1 to 8192 pixels"),
        ({"preprocessing": {**PREPROCESSING, "channels": "1"}}, "sides of 1 to 8192 pixels and a channel"),
        ({"preprocessing": {**PREPROCESSING, "rule": ["cover"]}}, "`rule` of `preprocessing` must be one of cover"),
        ({"preprocessing": {**PREPROCESSING, "interpolation": "best"}}, "`interpolation` of `preprocessing`"),
        ({"preprocessing": {**PREPROCESSING, "more": 1}}, "`preprocessing` must hold a size and no other than"),
        ({"preprocessing": {"channels": 1}}, "`preprocessing` must hold a size"),
        ({"preprocessing": {**PREPROCESSING, "size": [3, 2]}}, r"takes images of \(3, 2, 1\), its graph takes"),
        ({"preprocessing": {**PREPROCESSING, "channels": 3}}, r"takes images of \(2, 2, 3\), its graph takes"),
        ({"labels": ["a", "b", "c"]}, r"hold 3 class names, its output 'probabilities' is \[1, 4\]"),
        ({"labels": {"0": "a"}}, "`labels` must be a list of names or null"),
        ({"labels": ["a", "b", "c", 4]}, "`labels` must be a list of names or null"),
        ({"outputs": ["probabilities", "embedding"]}, "its metadata name 2 outputs, its graph has 1"),
        ({"answers": [{**ANSWER, "task": "guess"}]}, "`task` must be one of classes"),
        ({"answers": [{**ANSWER, "activation": ["softmax"]}]}, "`activation` must be one of linear"),
        ({"answers": [{"name": "probabilities"}]}, "incomplete: 'task'"),
        ({"answers": [ANSWER, ANSWER]}, "say twice what an output means"),
        ({"parity": {"agreement": 1.0}}, "`parity` must be measurements"),
        ({"parity": {"images": 8, "agreement": "all"}}, "`parity` must be measurements"),
        ({"parity": {"images": 8, "snr_db": None}}, "`parity` must be measurements"),
        ({"parity": {"images": 8, "others": [{"others": [{"others": [{}]}]}]}}, "`parity` must be measurements"),
        ({"parity": {"images": 8, "others": [3]}}, "`parity` must be measurements"),
        ({"mode": "int8"}, "wrong: `mode` is 'int8', `config` of {'mode': 'float32'}"),
        ({"config": {"mode": "int8"}}, "wrong: `mode` is 'float32', `config` of {'mode': 'int8'}"),
        ({"config": {}}, "`config` must be a mode and its options"),
        ({"config": "float32"}, "`config` must be a mode and its options"),
        ({"config": {"mode": None}}, "`config` must be a mode and its options"),
        ({"config": {"mode": "float32", "budget": [1]}}, "`config` must be a mode and its options"),
        ({"config": {"mode": "float32", "budget": {}}}, "`config` must be a mode and its options"),
        (
            {"config": {"mode": "float32", **{str(i): i for i in range(MOST_OPTIONS)}}},
            "`config` must be a mode and its options",
        ),
        ({"schema": 10**12}, "made by keras-vit-plugin 0.1.0, whose metadata .schema 1000000000000. this version"),
    ],
)
def test_what_does_not_go_with_the_graph_is_a_sentence(values, said, tmp_path):
    path = file_of(tmp_path, **values)
    with pytest.raises(InvalidModelFile, match=rf"m\.tflite: .*{said}"):
        inspect(path)
    with pytest.raises(InvalidModelFile, match=said):
        read_metadata(read(path.read_bytes()))


def keras_model():
    """One of as many classes and pixels as the file's graph has."""
    images = keras.Input((2, 2, 1))
    return keras.Model(images, keras.layers.Softmax()(keras.layers.Flatten()(images)))


PARITY = ParityReport(images=128, agreement=1.0, snr_db=99.0, max_abs_error=0.0)


def test_a_mode_and_a_target_are_looked_up_where_they_are_needed(tmp_path):
    path = file_of(tmp_path, mode="int8", config={"mode": "int8", "prefer": "accuracy", "snr_db": None, "cpu": "arm"})
    metadata = read_metadata(read(path.read_bytes()))
    assert mode_of_file(metadata) == Int8(prefer="accuracy", cpu="arm")
    assert target_of_file(metadata).name == "litert"
    assert wanted_of(path, PARITY) == Int8.tolerance == Tolerance(0.95, 14)
    assert verify(keras_model(), path, np.eye(4, dtype=np.uint8).reshape(4, 2, 2, 1), pixels="0..255").snr_db > 80


@pytest.mark.parametrize("schema", [2, 3])
@pytest.mark.parametrize("mode", ["int8-fuller", "auto", "?", "x" * 10**5])
def test_a_mode_that_there_is_not_is_a_sentence(schema, mode, tmp_path):
    path = file_of(tmp_path, mode=mode, config=... if schema == 2 else {"mode": mode}, schema=schema)
    assert metadata_in_words(inspect(path).metadata)["made as"].startswith(f"{mode} for litert")
    said = "quantize='auto' is no mode of a file" if mode == "auto" else "`mode` must be one of float32"
    with pytest.raises(InvalidModelFile, match=f"^its metadata is wrong: {said}") as refused:
        mode_of_file(read_metadata(read(path.read_bytes())))
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidModelFile, match=rf"m\.tflite: its metadata is wrong: {said}"):
        wanted_of(path, PARITY)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "float32", "budget": 1},
        {"mode": "float32", "prefer": "accuracy"},
        {"mode": "float32", "x" * 10**5: "y" * 10**5},
        {"mode": "float32", "quantize": "int8"},
        {"mode": "float32", "self": 1},
        {"mode": "float32", "": 1},
        {"mode": "int8", "prefer": "?"},
        {"mode": "int8", "prefer": 7},
        {"mode": "int8", "snr_db": "?"},
        {"mode": "int8", "cpu": "abacus"},
        {"mode": "int4", "block_size": 33},
        {"mode": "int4", "block_size": "x" * 10**5},
        {"mode": "int4", "extra_size": -1.0},
        {"mode": "auto", "min_agreement": "?"},
        {"mode": "auto", "max_size": 10},
    ],
    ids=lambda options: str(options)[:50],
)
def test_options_that_the_mode_does_not_have_are_a_sentence(options, tmp_path):
    path = file_of(tmp_path, mode=options["mode"], config=options)
    assert metadata_in_words(inspect(path).metadata)["made as"].startswith(options["mode"])
    with pytest.raises(InvalidModelFile, match="^its metadata is wrong: ") as refused:
        mode_of_file(read_metadata(read(path.read_bytes())))
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidModelFile, match=r"m\.tflite: its metadata is wrong: "):
        wanted_of(path, PARITY)


@pytest.mark.parametrize("schema", [2, 3])
@pytest.mark.parametrize("target", ["moon", "?", "x" * 10**5])
def test_a_target_that_there_is_not_is_a_sentence(schema, target, tmp_path):
    path = file_of(tmp_path, target=target, schema=schema)
    assert f"float32 for {target}" in metadata_in_words(inspect(path).metadata)["made as"]
    with pytest.raises(InvalidModelFile, match="^its metadata is wrong: `target` must be one of litert") as refused:
        target_of_file(read_metadata(read(path.read_bytes())))
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidModelFile, match=r"m\.tflite: its metadata is wrong: `target` must be one of litert"):
        verify(keras_model(), path, np.zeros((4, 2, 2, 1), np.uint8), pixels="0..255")


def test_the_output_that_is_meant_is_found_by_the_signature(tmp_path):
    """Files of schema 1 name the outputs only; both names of an output are looked at where there is a signature."""
    tree = hostile_tflite.classifier()
    entry = hostile_tflite.schema.TensorMapT(name=b"scores", tensorIndex=3)
    tree.signatureDefs = [
        hostile_tflite.schema.SignatureDefT(
            inputs=[], outputs=[entry], signatureKey=b"serving_default", subgraphIndex=0
        )
    ]
    content = hostile_tflite.packed(tree)
    stored = json.loads(json.dumps(STORED)) | {"outputs": ["scores"], "answers": [{**ANSWER, "name": "scores"}]}
    assert read_metadata(read(set_metadata(content, stored))).answers[0].name == "scores"
    assert np.array_equal(read(content).subgraphs[0].outputs, [3])
