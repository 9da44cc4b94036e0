"""What a sealed file says of itself: anyone can make the seal, so that nothing is taken on trust."""

import json

import hostile_tflite
import numpy as np
import pytest
from PIL import Image

from keras_vit_plugin.cli.classify import classify_files
from keras_vit_plugin.cli.tables import metadata_in_words
from keras_vit_plugin.export import InvalidModelFile, inspect
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.metadata import read_metadata
from keras_vit_plugin.export.tflite.stored_metadata import set_metadata

PREPROCESSING = {"size": [2, 2], "channels": 1, "resize": None, "interpolation": "bicubic", "rule": "cover"}
ANSWER = {"name": "probabilities", "task": "classes", "activation": "softmax"}
STORED = {
    "keras_vit_plugin": "0.1.0",
    "schema": 2,
    "mode": "float32",
    "prefer": "speed",
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


def file_of(folder, **values):
    """A sealed file that says these values instead of the right ones; `...` leaves one out."""
    stored = {name: value for name, value in {**STORED, **values}.items() if value is not ...}
    path = folder / "m.tflite"
    path.write_bytes(set_metadata(hostile_tflite.packed(hostile_tflite.classifier()), stored))
    return path


def test_the_metadata_that_the_others_come_from_are_right(tmp_path):
    path = file_of(tmp_path)
    Image.new("L", (2, 2)).save(tmp_path / "p.png")
    (said,) = classify_files(path, [tmp_path / "p.png"])
    assert [answer["probability"] for answer in said["top"]] == [0.25] * 4
    assert metadata_in_words(inspect(path).metadata)["class names"] == "4: a, b, c, d"


WRONG_TYPES = (None, 7, -1, 1.5, True, "?", [], [[]], [None], {}, {"a": 1}, "x" * 10**5)
NAMES = sorted(STORED.keys() - {"keras_vit_plugin"})
RIGHT_TOO = {  # of the wrong types above, those that a name may have
    "schema": (True,),
    "prefer": ("?", "x" * 10**5),
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


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_type_is_a_sentence(name, tmp_path):
    for wrong in WRONG_TYPES:
        if any(wrong is right or wrong == right != 1 for right in RIGHT_TOO.get(name, ())):
            continue
        path = file_of(tmp_path, **{name: wrong})
        with pytest.raises(InvalidModelFile, match="^(its metadata|made by)") as refused:
            read_metadata(read(path.read_bytes()))
        assert len(str(refused.value)) < 400
    with pytest.raises(InvalidModelFile, match=r"m\.tflite: (its metadata|made by)"):  # of the last one
        inspect(path)
        with pytest.raises(InvalidModelFile, match=r"m\.tflite: (its metadata|made by)"):
            list(classify_files(path, []))


@pytest.mark.parametrize("name", sorted(STORED.keys() - {"keras_vit_plugin", "schema"}))
def test_what_is_left_out_is_a_sentence_or_has_a_usual_value(name, tmp_path):
    path = file_of(tmp_path, **{name: ...})
    if name in ("prefer", "verified_by", "calibration_sha256", "calibrated_for", "held_out", "rejected"):
        assert metadata_in_words(inspect(path).metadata)
    else:
        with pytest.raises(InvalidModelFile, match=rf"m\.tflite: its metadata .schema 2. is incomplete: '{name}'"):
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
        ({"mode": "int8-fuller"}, "`mode` must be one of float32"),
        ({"target": "moon"}, "`target` must be one of litert"),
        ({"schema": 10**12}, "made by keras-vit-plugin 0.1.0, whose metadata .schema 1000000000000. this version"),
    ],
)
def test_what_does_not_go_with_the_graph_is_a_sentence(values, said, tmp_path):
    path = file_of(tmp_path, **values)
    with pytest.raises(InvalidModelFile, match=rf"m\.tflite: .*{said}"):
        inspect(path)
    with pytest.raises(InvalidModelFile, match=said):
        read_metadata(read(path.read_bytes()))


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
