"""Files that are whole or not there at all."""

import contextlib
import os
import re
import stat
import uuid
from pathlib import Path

from keras_vit_plugin.temporary import remove_leftovers, take_lock

PARTIAL = re.compile(r"\.keras-vit-[0-9a-f]{32}\.partial")
# What is at a path, as `stat.S_IFMT` has it, and is no file.
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(path):
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is none at the path, or what is there is no regular file, as a pipe is none.
    """
    if not os.path.isfile(path):  # reading a pipe would wait
        what = "." if not os.path.exists(path) else f": {not_a_file(path)}."
        raise FileNotFoundError(f"No file: {str(path)!r}{what}")
    return Path(path).read_bytes()


def not_a_file(path):
    """What is at a path where there is no regular file, in words."""
    if os.path.isdir(path):
        return "it is a folder"
    return "it is a pipe or a device, no regular file" if os.path.exists(path) else "there is no such file"


def check_writable(path, suffix=None, name="path"):
    """Raises `ValueError` unless a file can be written at `path`. Leaves no trace.

    Args:
        path: where to.
        suffix: what it must end in, such as `".tflite"`, in capitals too; None takes all.
        name: of the argument that it is.
    """
    ending = f" ending in {suffix}" if suffix else ""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise ValueError(f"`{name}` must be a path{ending}, got {name}={path!r}.")
    given = f"{name}={str(path)!r}"
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError(f"`{name}` must have no NUL character in it, got {given}.")
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` must be text that a file can be called, got {given}.") from error
    path = Path(path)
    if suffix is not None and path.name.lower() == suffix:
        raise ValueError(f"`{name}` must have a name before {suffix}, got {given}.")
    if suffix is not None and path.suffix.lower() != suffix:
        raise ValueError(f"`{name}` must end in {suffix}, got {given}.")
    try:
        with _partial(_target(path).parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"`{name}` cannot be written: {given}: {reason}. Give another path.") from error


def check_apart(outputs, inputs):
    """Raises `ValueError` where a file that is to be written is one that is read, by another name or a link too.

    Args:
        outputs, inputs: `{name of the argument: path}`; what is no path, as None, is passed over.
    """
    for name, path in outputs.items():
        for other, read in inputs.items():
            if is_same_file(path, read):
                raise ValueError(
                    f"`{name}` must be another file than `{other}`, which it would overwrite: got {name}={str(path)!r} "
                    f"and {other}={str(read)!r}."
                )


def is_same_file(path, other):
    """Whether two paths lead to one file, by links too; False for what is no path."""
    if not all(isinstance(each, (str, os.PathLike)) for each in (path, other)):
        return False
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one is not there, or cannot be
        return False


def write_atomically(path, content, sync=True):
    """Writes bytes so that at any moment `path` is the old file, or absent, or the whole new one.

    A file that was there keeps its permissions, and a link stays a link to what is replaced.

    Args:
        path: where to.
        content: the bytes.
        sync: whether that holds through a loss of power too, which takes some milliseconds.

    Raises:
        OSError: it cannot be written, of the kind that says why; the old file is whole.
    """
    try:
        _write(_target(path), content, sync)
    except OSError as error:
        reason = f"{error.strerror or error}, with {len(content):,} bytes to write"
        raise _named(error, path, f"{reason}. What was there is unchanged: make room, or give another path") from error


def make_folder(path):
    """Makes a folder, and those that it is in, unless it is there.

    Raises:
        OSError: it cannot be made, of the kind that says why.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _named(error, path, f"{error.strerror or error}. Give the path of a folder") from error


def _named(error, path, words):
    """An error of the same kind whose sentence names the path."""
    named = type(error)(f"`path` cannot be written: path={str(path)!r}: {words}.")
    named.errno = error.errno
    return named


def _target(path):
    """The file that a path leads to, whether it is there or not yet.

    Raises:
        OSError: there can be none; says why.
    """
    path = Path(path)
    parent = path.parent
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise type(error)(f"it is a link to {os.readlink(path)!r}, which is not there") from error
        if not parent.is_dir():
            raise type(error)(f"there is no folder {str(parent)!r}") from error
    else:
        if not stat.S_ISREG(mode):
            raise OSError(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")
        if not os.access(path, os.W_OK):
            raise PermissionError("it is read-only")
    return Path(os.path.realpath(path))


def _write(path, content, sync):
    remove_leftovers(path.parent, PARTIAL)
    with _partial(path.parent) as (file, partial):
        with contextlib.suppress(FileNotFoundError):
            _take_permissions(partial, os.stat(path))
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
        if os.name == "nt":  # where an open file cannot be renamed
            file.close()
        os.replace(partial, path)
    if sync:
        _sync_folder(path.parent)


@contextlib.contextmanager
def _partial(folder):
    """A new file in a folder, removed at the end of the context if it is still there.

    Its name is short, as the file's own may have all the characters that a name can have.

    Yields:
        `(the file, open and in use, its path)`.
    """
    while True:
        partial = folder / f".keras-vit-{uuid.uuid4().hex}.partial"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(partial, flags, 0o666)  # less the umask
        try:
            with open(descriptor, "wb") as file:
                if take_lock(descriptor, partial, otherwise=True):
                    yield file, partial
                    return
        finally:
            partial.unlink(missing_ok=True)


def _take_permissions(path, old):
    """Gives a file the owner, where this process may, and the permissions of another, of which `old` is the `stat`."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(path, old.st_uid, old.st_gid)
    with contextlib.suppress(OSError):  # some file systems have none
        os.chmod(path, stat.S_IMODE(old.st_mode))


def _sync_folder(folder):
    """Makes a folder's new names last through a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
