"""Holding back what libraries print, in a process whose threads may do so at the same time."""

import contextlib
import io
import logging
import os
import sys
import threading


class _Counted:
    """A change to the whole process that lasts while any thread is within it.

    The first to enter makes the change and the last to leave takes it back, in whatever order the others leave.
    """

    def __init__(self, change):
        self._change, self._lock, self._inside, self._undo = change, threading.Lock(), 0, None

    @contextlib.contextmanager
    def __call__(self):
        with self._lock:
            if not self._inside:
                self._undo = self._change()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._undo()


def _drop_file_descriptor_2():
    _prepare_stderr()
    saved = os.dup(2)
    _point_stderr_nowhere()

    def undo():
        os.dup2(saved, 2)
        os.close(saved)

    return undo


def _drop_prints_and_warnings_of_logging():
    before, sinks, level = (sys.stdout, sys.stderr), (io.StringIO(), io.StringIO()), logging.root.manager.disable
    sys.stdout, sys.stderr = sinks
    logging.disable(max(level, logging.WARNING))

    def undo():
        # Whoever has put a stream of their own there meanwhile keeps it.
        sys.stdout = before[0] if sys.stdout is sinks[0] else sys.stdout
        sys.stderr = before[1] if sys.stderr is sinks[1] else sys.stderr
        logging.disable(level)

    return undo


# Context managers. The first drops everything written to file descriptor 2, by Python or by native libraries; the
# second what Python code prints, and what it logs up to warnings.
quiet_stderr = _Counted(_drop_file_descriptor_2)
quiet_python = _Counted(_drop_prints_and_warnings_of_logging)


@contextlib.contextmanager
def silence_native_stderr():
    """Within the context, native libraries' standard error goes nowhere, Python's own stays."""
    _prepare_stderr()
    before, saved = sys.stderr, os.dup(2)
    sys.stderr = kept = os.fdopen(os.dup(2), "w", buffering=1)
    _point_stderr_nowhere()
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        sys.stderr = before if sys.stderr is kept else sys.stderr


def _prepare_stderr():
    """Writes out what Python holds back for standard error, and opens those of the three streams that are closed.

    A file would get their number, and what native libraries print would be in it.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, no room for it, or it is closed
        sys.stderr.flush()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _point_stderr_nowhere():
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
