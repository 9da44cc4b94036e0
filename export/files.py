"""Files that are whole or not there at all."""

import contextlib
import os
import tempfile
from pathlib import Path


def read_file(path):
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is none at the path.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file: {str(path)!r}.")
    return path.read_bytes()


def check_writable(path, suffix):
    """Raises `ValueError` unless a file with this suffix can be written at `path`. Leaves no trace."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`path` must be a path ending in {suffix}, got path={path!r}.")
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"`path` must end in {suffix}, got path={str(path)!r}.")
    if path.is_dir():
        raise ValueError(f"`path` is a folder: path={str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"`path` cannot be written: path={str(path)!r}: there is no folder {str(path.parent)!r}.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"`path` cannot be written: path={str(path)!r}: {error.strerror or error}.") from error


def write_atomically(path, content):
    """Writes bytes so that at any moment `path` is the old file, or absent, or the whole new one."""
    path = Path(path).resolve()  # a link stays a link
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(path):
    """Removes what writers of the same path left behind when they were killed."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        with contextlib.suppress(ValueError, PermissionError):
            writer = int(partial.name.split(".")[-2])
            try:
                os.kill(writer, 0)
            except ProcessLookupError:
                partial.unlink(missing_ok=True)
