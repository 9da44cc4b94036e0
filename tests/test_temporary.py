"""Temporary files end with their process, however that ends, and are told from a living one's."""

import errno
import os
import signal
import subprocess
import sys
import tempfile

import pytest
from conftest import REPOSITORY, run_python, started

from keras_vit_plugin.temporary import own_temporaries, temporary_folder

HOLD = """
import sys
from keras_vit_plugin.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "weights").write_bytes(b"many")
    print(folder, flush=True)
    sys.stdin.read()
"""

EXPORT_AND_DIE = """
import os, signal, sys, tempfile
import keras_vit_plugin as kv
kv.export.export_tflite(kv.build("vit_test"), sys.argv[1])
print(*os.listdir(tempfile.gettempdir()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

DIE_CONVERTING = """
import os, signal, sys
import keras_vit_plugin as kv
import tensorflow as tf
tf.lite.TFLiteConverter.from_saved_model = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
kv.export.export_tflite(kv.build("vit_test"), sys.argv[1])
"""

NO_ROOM = """
import resource, sys
import keras_vit_plugin as kv
from keras_vit_plugin.checkpoints.keras_files import assign_keras_tensors
model = kv.build("vit_test")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for write in (
    lambda: kv.export.export_tflite(model, sys.argv[1]),
    lambda: assign_keras_tensors(model, {}, "weights"),
):
    try:
        write()
    except OSError as error:
        print(error)
"""


@pytest.fixture
def temp(tmp_path, monkeypatch):
    """A folder that temporary files go into, here and in child processes."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def killed(code, *arguments):
    """What a process printed that kills itself."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY
    )
    assert done.returncode == -signal.SIGKILL
    return done.stdout.decode().split()


def test_a_folder_lasts_as_long_as_its_process(temp):
    with started([sys.executable, "-c", HOLD], text=True, cwd=REPOSITORY) as process:
        theirs = process.stdout.readline().strip()
        with temporary_folder() as ours:
            assert {str(each) for each in temp.iterdir()} == {theirs, str(ours)}
        assert os.listdir(theirs) == ["weights"]
        process.kill()
    with temporary_folder() as ours:
        assert list(temp.iterdir()) == [ours]
    assert not list(temp.iterdir())


def test_other_folders_of_that_name_are_left_alone(temp):
    for name in ("keras-vit-demo", "keras-vit-1.temporary"):
        (temp / name).mkdir()
    (temp / f"keras-vit-{'0' * 32}.temporary").symlink_to(temp / "keras-vit-demo")
    with temporary_folder():
        pass
    assert len(list(temp.iterdir())) == 3


def test_a_killed_export_leaves_nothing_behind(temp, tmp_path):
    assert killed(EXPORT_AND_DIE, tmp_path / "m.tflite") == []
    assert not list(temp.iterdir())


def test_the_next_export_removes_what_a_killed_conversion_left(temp, tmp_path):
    killed(DIE_CONVERTING, tmp_path / "m.tflite")
    assert len(list(temp.iterdir())) == 1
    with temporary_folder():
        pass
    assert not list(temp.iterdir())


def test_a_full_folder_is_named_once(temp, tmp_path):
    said = run_python(NO_ROOM, tmp_path / "m.tflite").splitlines()
    wanted = f"The folder for temporary files cannot be written: {str(temp)!r}: File too large. Make room there, or "
    assert len(said) == 2 and all(line.startswith(wanted) for line in said)
    assert not list(temp.iterdir())


def test_a_commands_own_temporaries(temp):
    with own_temporaries():
        with tempfile.NamedTemporaryFile(delete=False) as file:
            assert os.path.dirname(os.path.dirname(file.name)) == str(temp)
        assert len(list(temp.iterdir())) == 1
    assert tempfile.gettempdir() == str(temp) and not list(temp.iterdir())


def test_an_error_of_another_file_stays_what_it_is(temp):
    error = OSError(errno.ENOSPC, "No space left on device", "m.tflite")
    with pytest.raises(OSError) as caught, own_temporaries():
        raise error
    assert caught.value is error


def test_commands_work_where_no_temporary_file_can_be_made(temp, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temp / "missing"))
    with own_temporaries():
        assert tempfile.tempdir == str(temp / "missing")


def test_a_folder_that_another_process_takes_for_a_leftover_is_made_again(temp, monkeypatch):
    """Between making and locking it, it looks like one."""
    opened, taken = os.open, []

    def open_late(path, *arguments):
        if str(path).endswith(".temporary") and not taken:
            taken.append(os.rmdir(path))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", open_late)
    with temporary_folder() as folder:
        assert taken and folder.is_dir() and os.listdir(temp) == [folder.name]
