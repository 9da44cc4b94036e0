"""The main job on real weights and real photos: what `docs/accuracy.json` says of DeiT-tiny, on some of its photos."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from claims import check_claim, claim, least_share, least_snr_db
from conftest import DEIT, real_data
from judged import Judge

import keras_vit_plugin as kv
from keras_vit_plugin.export import Auto, Int8

COMMAND = Path(sys.executable).with_name("keras-vit")
MODEL, PHOTOS = "DeiT-tiny", 125  # every fourth
MEGABYTES = {"float32": 23.3, "float16": 11.8, "dynamic": 6.2, "int8": 6.5, "int8-full": 6.2, "int4": 3.7}


@pytest.fixture(scope="module")
def judge():
    return Judge(kv.build(DEIT, weights=real_data("weights", f"{DEIT}_in1k.npz")), PHOTOS)


@pytest.mark.parametrize("mode", ["float32", "float16", "dynamic", "int8", "int8-full"])
def test_a_file_keeps_what_is_claimed(mode, judge, deit_file):
    path = deit_file(mode)
    assert path.stat().st_size <= MEGABYTES[mode] * 1e6
    check_claim(judge.parity(path), claim(MODEL, mode, "imagenet_eval"))


@pytest.mark.sampled(0)
@pytest.mark.parametrize(
    "mode, options, megabytes, count",
    [
        ("int8, accuracy", {"mode": Int8(prefer="accuracy")}, 7.2, PHOTOS),
        ("int16x8", {"mode": "int16x8"}, 6.5, 50),
        ("int4", {"mode": "int4"}, MEGABYTES["int4"], PHOTOS),
        ("auto, 99 %", {"mode": Auto(min_agreement=0.99)}, 11.8, PHOTOS),
    ],
)
def test_a_slower_file_keeps_what_is_claimed(mode, options, megabytes, count, judge, deit_file):
    path = deit_file(**options)
    assert path.stat().st_size <= megabytes * 1e6
    check_claim(judge.parity(path, count), claim(MODEL, mode, "imagenet_eval"))


def test_the_command_line_says_the_same(judge, deit_file, tmp_path):
    """`verify` on a folder of some of the photos."""
    source = real_data("imagenet_eval")
    with (source / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::20]
    lines = ["file,label", *(f"{row['file']},{row['label']}" for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for row in rows:
        (tmp_path / row["file"]).symlink_to((source / row["file"]).resolve())
    weights, path = real_data("weights", f"{DEIT}_in1k.npz"), deit_file("int8")
    arguments = ("verify", DEIT, path, "--weights", weights, "--images", tmp_path, "--json")
    result = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report, row = json.loads(result.stdout), claim(MODEL, "int8", "imagenet_eval")
    assert report["images"] == len(rows) == 25
    assert report["agreement"] >= least_share(row["agreement"], len(rows), row["images"])
    assert report["snr_db"] >= least_snr_db(row, len(rows))
    # The figures of the other tests of this file, which run the Keras model once for all: the same code underneath.
    some = Judge(judge.model, folder=tmp_path).parity(path)
    np.testing.assert_allclose(report["snr_db"], some.snr_db, rtol=1e-3)
    assert report["top1_accuracy_model"] == some.top1_accuracy_model
