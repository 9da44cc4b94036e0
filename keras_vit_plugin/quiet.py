"""Holding back what native code writes to standard error."""

import contextlib
import os
import sys


@contextlib.contextmanager
def quiet_stderr():
    """Drops everything written to file descriptor 2, by Python or by native libraries, within the context."""
    saved = os.dup(2)
    _point_stderr_nowhere()
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def silence_native_stderr():
    """For the rest of the process: native libraries' standard error goes nowhere, Python's own stays."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    _point_stderr_nowhere()


def _point_stderr_nowhere():
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
