"""Killing an export at any moment leaves the old file, or none, or a whole new one."""

import contextlib
import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, pixels, run_python, started

import keras_vit_plugin as kv
from keras_vit_plugin import files, temporary
from keras_vit_plugin.cli.demo import run_demo
from keras_vit_plugin.export import Tolerance, export_tflite, inspect, pipeline, verify
from keras_vit_plugin.export.tflite.errors import InvalidModelFile
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.stored_metadata import set_metadata
from keras_vit_plugin.files import check_writable, make_folder, read_file, write_atomically
from keras_vit_plugin.temporary import remove_leftovers

WRITE_AND_DIE = """
import os, signal, sys
from keras_vit_plugin import files
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


def test_a_folder_that_is_there_is_made(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


LEFT_BY_AN_EXPORT = """
import os, tempfile, keras, keras_vit_plugin as kv
images = keras.Input((4, 4, 3))
model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
kv.export.export_tflite(model, "m.tflite", pixels="0..1")
print(sorted(os.listdir(tempfile.gettempdir())))
"""


def test_an_export_leaves_no_temporary_file_while_its_program_runs(tmp_path):
    """Nor those that TensorFlow would remove when the program ends."""
    (tmp_path / "temporary").mkdir()
    code = f"import os; os.chdir({str(tmp_path)!r})\n{LEFT_BY_AN_EXPORT}"
    assert run_python(code, TMPDIR=str(tmp_path / "temporary")) == "[]\n"


def test_where_no_file_is_to_read_it_is_said_what_is_there(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"content")
    assert read_file(tmp_path / "m.tflite") == read_file(str(tmp_path / "m.tflite")) == b"content"
    with pytest.raises(FileNotFoundError, match=r"^No file: '.*nowhere'\.$"):
        read_file(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^No file: '.*': it is a folder\.$"):
        read_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(
            FileNotFoundError, match=r"^No file: '.*pipe': it is a pipe or a device, no regular file\.$"
        ):
            read_file(tmp_path / "pipe")


def test_writing_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "m.tflite"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_kill_while_writing_never_harms(moment, old, tmp_path):
    path = tmp_path / "[m].tflite"  # brackets mean something to a pattern
    if old is not None:
        path.write_bytes(old)
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, path, moment], cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old
    write_atomically(path, b"next")  # and the next writer clears what the killed one left
    assert list(tmp_path.iterdir()) == [path]


NO_ROOM = """
import resource, sys
from keras_vit_plugin.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_atomically(sys.argv[1], b"new" * 1000)
except OSError as error:
    print(type(error).__name__, error.errno, error)
"""

WRITE_AND_WAIT = """
import sys
from keras_vit_plugin import files
files.os.replace = lambda *arguments: print("ready", flush=True) or sys.stdin.read()
files.write_atomically(sys.argv[1], b"theirs")
"""

# As a user who is not root, whom permissions would not stop.
CHECK_AS_NOBODY = """
import os, sys
from keras_vit_plugin.cli.demo import run_demo
from keras_vit_plugin.files import check_writable
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    check_writable(sys.argv[1], ".tflite")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_disk_without_room_is_told_with_the_path(old, tmp_path):
    path = tmp_path / "m.tflite"
    if old is not None:
        path.write_bytes(old)
    said = run_python(NO_ROOM, path)
    assert said.startswith(f"OSError {errno.EFBIG} `path` cannot be written: path={str(path)!r}: File too large")
    assert "another path" in said
    assert (path.read_bytes() if path.exists() else None) == old
    assert list(tmp_path.iterdir()) == [path] * (old is not None)


def test_any_failure_keeps_its_kind_and_number(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError, match=r"path='.*m\.tflite': Operation not permitted") as caught:
        write_atomically(tmp_path / "m.tflite", b"new")
    assert caught.value.errno == errno.EPERM
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["m.tflite", "*.tflite", "[m].tflite"])
def test_an_unfinished_file_lives_as_long_as_its_writer(name, tmp_path):
    command = [sys.executable, "-c", WRITE_AND_WAIT, tmp_path / "m.tflite"]
    with started(command, cwd=REPOSITORY) as writer:
        assert writer.stdout.readline() == b"ready\n"
        (theirs,) = tmp_path.iterdir()
        write_atomically(tmp_path / name, b"ours")
        assert theirs.read_bytes() == b"theirs"
        writer.kill()
    write_atomically(tmp_path / name, b"ours")
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_threads_that_write_one_path(tmp_path):
    path, failures = tmp_path / "m.tflite", []

    def write(letter):
        try:
            for _ in range(200):
                write_atomically(path, letter * 100_000, sync=False)
                assert len(set(path.read_bytes())) == 1 and path.stat().st_size == 100_000
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(tmp_path.iterdir()) == [path]


def test_a_partial_that_another_process_removes_before_it_is_locked(tmp_path, monkeypatch):
    removed = []

    def take_lock(descriptor, path, otherwise):
        if not removed:
            removed.append(path)
            remove_leftovers(path.parent, files.PARTIAL)
        return temporary.take_lock(descriptor, path, otherwise)

    monkeypatch.setattr(files, "take_lock", take_lock)
    write_atomically(tmp_path / "m.tflite", b"new")
    assert removed and (tmp_path / "m.tflite").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "m.tflite"]


@pytest.mark.parametrize("locks", ["no module", "no file system"])
def test_where_there_are_no_locks_files_are_written_and_leftovers_stay(locks, tmp_path, monkeypatch):
    class Refusing:
        LOCK_EX = LOCK_NB = 0

        def flock(self, *_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(temporary, "fcntl", None if locks == "no module" else Refusing())
    leftover = tmp_path / f".keras-vit-{'0' * 32}.partial"
    leftover.touch()
    write_atomically(tmp_path / "m.tflite", b"new")
    assert set(tmp_path.iterdir()) == {tmp_path / "m.tflite", leftover}
    monkeypatch.undo()
    write_atomically(tmp_path / "m.tflite", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "m.tflite"]


@pytest.mark.parametrize("mode", [None, 0o600, 0o664])
def test_permissions_are_those_of_the_old_file_or_of_any_new_one(mode, tmp_path):
    path, other = tmp_path / "m.tflite", tmp_path / "other"
    other.touch()
    if mode is not None:
        path.touch()
        path.chmod(mode)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == (mode or stat.S_IMODE(other.stat().st_mode))


@pytest.mark.parametrize(
    "name", ["[a].tflite", "*.tflite", "a\nb.tflite", "caf\udce9.tflite", "n" * 248 + ".tflite", "m.tflite.tflite"]
)
def test_odd_names_are_written(name, tmp_path):
    check_writable(tmp_path / name, ".tflite")
    for content in (b"one", b"two"):
        write_atomically(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == [name]


def make_link_to_nothing(path):
    path.symlink_to("nothing")


def make_link_to_itself(path):
    path.symlink_to(path.name)


def make_link_to_a_device(path):
    path.symlink_to(os.devnull)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):  # a socket's path must be short
        made.bind(path.name)


@pytest.mark.parametrize(
    "make, reason",
    [
        (os.mkdir, "it is a folder, not a file"),
        (os.mkfifo, "it is a FIFO, not a file"),
        (make_socket, "it is a socket, not a file"),
        (make_link_to_a_device, "it is a device, not a file"),
        (make_link_to_nothing, "it is a link to 'nothing', which is not there"),
        (make_link_to_itself, "Too many levels of symbolic links"),
    ],
)
def test_what_cannot_become_a_file_is_refused(make, reason, tmp_path):
    path = tmp_path / "m.tflite"
    make(path)
    with pytest.raises(ValueError, match=f"`path` cannot be written: path={str(path)!r}: {reason}"):
        check_writable(path, ".tflite")
    with pytest.raises(OSError, match=f"path={str(path)!r}: {reason}"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path] and not path.is_file()


@pytest.mark.parametrize(
    "name, reason",
    [
        ("n" * 249 + ".tflite", "File name too long"),
        ("f/" * 3000 + "m.tflite", "File name too long"),
        ("a\0.tflite", "no NUL character"),
        ("a\ud800.tflite", "text that a file can be called"),
        (".tflite", "must have a name before .tflite"),
        ("no/m.tflite", "there is no folder '.*no'"),
        ("file/m.tflite", "there is no folder '.*file'"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(name, reason, tmp_path):
    (tmp_path / "file").touch()
    path = f"{tmp_path}/{name}"
    with pytest.raises(ValueError, match=reason) as caught:
        check_writable(path, ".tflite", "report")
    assert f"report={path!r}" in str(caught.value) and str(caught.value).startswith("`report` ")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("name", ["m.tflite", "m.TFLITE", "m.TfLite"])
def test_a_suffix_may_be_in_capitals(name, tmp_path):
    check_writable(tmp_path / name, ".tflite")
    with pytest.raises(ValueError, match="must end in .html"):
        check_writable(tmp_path / name, ".html")


@pytest.mark.parametrize("path", [None, 3, b"m.tflite", os.DirEntry])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match="`path` must be a path ending in .tflite"):
        check_writable(path, ".tflite")


@pytest.mark.parametrize("read_only, reason", [("file", "it is read-only"), ("folder", "Permission denied")])
def test_without_permission_an_export_is_refused(read_only, reason):
    with tempfile.TemporaryDirectory() as name:  # every user may look into
        folder, path = Path(name), Path(name) / "m.tflite"
        folder.chmod(0o555 if read_only == "folder" else 0o777)
        if read_only == "file":
            path.touch()
            path.chmod(0o444)
        assert f"path={str(path)!r}: {reason}" in run_python(CHECK_AS_NOBODY, path)
        folder.chmod(0o777)


def test_a_kept_file_is_checked_before_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "job_of", lambda *given: pytest.fail("the export began"))
    with pytest.raises(ValueError, match="File name too long"):
        export_tflite(None, tmp_path / ("n" * 248 + ".tflite"), keep_rejected=True)


def test_a_page_names_a_file_whose_name_is_no_unicode(tmp_path):
    path = tmp_path / "caf\udce9.tflite"
    export_tflite(kv.build("vit_test"), path, report=tmp_path / "m.html")
    assert path.exists() and "caf\\udce9.tflite" in (tmp_path / "m.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("with_old_file", [False, True])
@pytest.mark.long
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
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target.tflite", tmp_path / "link.tflite"
    target.write_bytes(b"old")
    link.symlink_to("folder/target.tflite")
    check_writable(link, ".tflite")
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name, kind", [("file", FileExistsError), ("file/in", NotADirectoryError)])
def test_a_demo_that_has_no_folder_says_so_first(name, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vit_plugin.presets.digits.load_digits_split", lambda: pytest.fail("the demo began"))
    (tmp_path / "file").touch()
    with pytest.raises(kind, match=f"path={str(tmp_path / name)!r}: .*Give the path of a folder"):
        run_demo(tmp_path / name)


def test_an_export_looks_at_the_tables_that_it_wrote_itself(tmp_path, monkeypatch):
    """Files between its steps are taken on trust, the finished one is not."""

    def set_and_damage(*arguments):
        tree = read(set_metadata(*arguments))
        tree.subgraphs[0].tensors[1].buffer = len(tree.buffers)
        return write(tree)

    monkeypatch.setattr("keras_vit_plugin.export.finish.set_metadata", set_and_damage)
    with pytest.raises(InvalidModelFile, match="a damaged TFLite model"):
        export_tflite(kv.build("vit_digits", weights="pretrained"), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
