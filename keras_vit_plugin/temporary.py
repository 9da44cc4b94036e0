"""Partial files and temporary folders: a killed process leaves them, and the next one removes what it left."""

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing that a killed process left is known to be that
    fcntl = None

NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
FOLDER = re.compile(r"keras-vit-[0-9a-f]{32}\.temporary")


def take_lock(descriptor, path, otherwise):
    """Marks an open file or folder as in use, until it is closed or its process ends.

    A lock tells what a process id cannot: containers that share a folder number their processes alike, and threads
    share a number.

    Args:
        descriptor: the open file or folder.
        path: its name.
        otherwise: the answer where there are no such locks.

    Returns:
        Whether nobody else uses it and it still has its name: before it is marked, another process may remove it.
    """
    if fcntl is None:
        return otherwise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return otherwise


def remove_leftovers(folder, pattern):
    """Removes the files and folders in a folder whose names match and that no process uses; leaves what it cannot."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if pattern.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_unused(entry.path)


def _remove_unused(path):
    access = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR  # NFS locks only what may be written
    descriptor = os.open(path, access | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if not take_lock(descriptor, path, otherwise=False):
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_folder(size=0):
    """A new folder, removed at the end of the context, or by the next process that makes one if this one is killed.

    Args:
        size: bytes that there must be room for.

    Yields:
        Its path.

    Raises:
        OSError: there is no room for them, or later for what is written within the context; names the folder.
    """
    parent = Path(tempfile.gettempdir()).resolve()
    try:
        with contextlib.ExitStack() as stack:
            folder = _new_folder(parent, stack)
            _check_room(folder, size)
            yield folder
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise cannot_be_written(parent, error.strerror or error) from error


def cannot_be_written(folder, reason):
    """The error of a folder for temporary files in which there is no room."""
    while FOLDER.fullmatch(folder.name):  # the one that it is in is the user's
        folder = folder.parent
    return OSError(
        f"The folder for temporary files cannot be written: {str(folder)!r}: {reason}. Make room there, or name "
        "another one in the environment variable TMPDIR."
    )


def _new_folder(parent, stack):
    """Makes a folder that is in use until the `ExitStack` is closed, and removed then."""
    remove_leftovers(parent, FOLDER)
    while True:
        folder = parent / f"keras-vit-{uuid.uuid4().hex}.temporary"
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if fcntl is None:
            return folder
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover, as it had no lock yet
            continue
        stack.callback(os.close, descriptor)
        if take_lock(descriptor, folder, otherwise=True):
            return folder


def _check_room(folder, size):
    """Raises `OSError` unless a file of `size` bytes can be written: HDF5 does not survive a disk that is full."""
    if size and hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in NO_ROOM:  # else a file system that cannot tell
                    raise


@contextlib.contextmanager
def own_temporaries():
    """Within the context, all temporary files of this process go into one such folder, if one can be made.

    It is for commands: the folder of temporary files belongs to the whole process, a user's program included.
    """
    before = tempfile.tempdir
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            tempfile.tempdir = str(_new_folder(Path(tempfile.gettempdir()).resolve(), stack))
        try:
            yield
        finally:
            tempfile.tempdir = before
