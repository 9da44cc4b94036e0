"""Killing an export at any moment leaves the old file, or none, or a whole new one."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance, export_tflite, inspect, verify
from keras_vit_plugin.export.files import write_atomically

WRITE_AND_DIE = """
import os, signal, sys
from keras_vit_plugin.export import files
die = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
setattr(files.os, sys.argv[2], die)
files.write_atomically(sys.argv[1], b"new" * 1000)
"""

EXPORT_FOREVER = """
import sys, numpy as np, keras, keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance
model = keras.saving.load_model(sys.argv[1])
images = np.load(sys.argv[2])
options = {"calibration": images, "verification": 255 - images, "tolerance": Tolerance(0, 0)}
print("ready", flush=True)
while True:
    kv.export.export_tflite(model, sys.argv[3], quantize="int8-full", **options)
"""


def test_writing_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "m.tflite"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_kill_while_writing_never_harms(moment, old, tmp_path):
    path = tmp_path / "m.tflite"
    if old is not None:
        path.write_bytes(old)
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, path, moment], cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old
    write_atomically(path, b"next")  # and the next writer clears what the killed one left
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "m.tflite", b"new")
    assert not list(tmp_path.iterdir())


def test_another_writers_unfinished_file_is_left_alone(tmp_path):
    theirs = tmp_path / f".m.tflite.{os.getppid()}.partial"
    theirs.write_bytes(b"half")
    write_atomically(tmp_path / "m.tflite", b"new")
    assert theirs.exists()


@pytest.mark.parametrize("with_old_file", [False, True])
def test_killing_exports_at_random_moments(with_old_file, tmp_path):
    import numpy as np

    model = kv.build("vit_test")
    images = pixels(model.image_shape, 8)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "out"
    out.mkdir()
    path = out / "m.tflite"
    old = None
    if with_old_file:
        export_tflite(model, path)
        old = path.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT_FOREVER, tmp_path / "m.keras", tmp_path / "images.npy", path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(random.uniform(0, 4))
    process.kill()
    process.wait()
    if path.exists() and path.read_bytes() != old:
        assert inspect(path).metadata["mode"] == "int8-full"
        said = inspect(path).metadata["parity"]["snr_db"]
        assert verify(model, path, 255 - images).snr_db == pytest.approx(said, abs=0.01)
    elif with_old_file:
        assert path.read_bytes() == old
    export_tflite(model, path, tolerance=Tolerance(0, 0))
    assert list(out.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target.tflite").write_bytes(b"old")
    (tmp_path / "link.tflite").symlink_to(tmp_path / "target.tflite")
    write_atomically(tmp_path / "link.tflite", b"new")
    assert (tmp_path / "link.tflite").is_symlink()
    assert (tmp_path / "target.tflite").read_bytes() == b"new"
