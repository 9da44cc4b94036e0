"""pytest in forks of a process that has imported TensorFlow already: a run starts in a second, not in ten."""

import contextlib
import os
import resource
import signal
import sys
import time


def import_the_slow_packages():
    """What the tests import, but nothing of this package, and nothing that starts a thread of its own."""
    import ai_edge_litert.interpreter  # noqa: F401
    import keras_hub  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pytest  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tensorflow  # noqa: F401


def start(copy, arguments, output, plugins=()):
    """Starts pytest in a fork, in a copy of the tree and a process group of its own; returns its process id."""
    process = os.fork()
    if process:
        return process
    status = 70  # the fork itself failed
    try:
        os.setpgid(0, 0)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        copy.enter()
        sys.path.insert(0, str(copy.folder))
        import pytest

        status = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=list(plugins)))
        sys.stdout.flush()
    finally:
        os._exit(status)


def wait(started, limits):
    """Waits for any of the processes to end or to pass its limit.

    Args:
        started: `{process id: time it was started}`.
        limits: `{process id: seconds}`.

    Returns:
        The process id and its exit status; None for the status where it was ended at its limit.
    """
    while True:
        for process in started:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                end(process)
                return process, os.waitstatus_to_exitcode(status)
            if time.monotonic() - started[process] > limits[process]:
                end(process)
                os.waitpid(process, 0)
                return process, None
        time.sleep(0.05)


def end(process):
    """Ends a run and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
