"""`keras-vit` as a user types it, but in a fork of a process that has imported TensorFlow: it starts in half a second.

What tests of the imports themselves, or of standard error from the first byte on, start is the installed program.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["ai_edge_litert.interpreter", "keras_hub", "matplotlib.figure", "tensorflow"])


def keras_vit(*arguments):
    """Runs the command.

    Returns:
        `subprocess.CompletedProcess` with what it printed, as text.
    """
    arguments = list(map(str, arguments))
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        descriptors = [multiprocessing.reduction.DupFd(file.fileno()) for file in (printed, said)]
        process = context.Process(target=_run, args=(arguments, os.getcwd(), dict(os.environ), descriptors))
        process.start()
        process.join()
        texts = []
        for file in (printed, said):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["keras-vit", *arguments], process.exitcode, *texts)


def _run(arguments, folder, environment, descriptors):
    for target, descriptor in zip((1, 2), descriptors):
        os.dup2(descriptor.detach(), target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["keras-vit", *arguments]
    with _recorded():
        from keras_vit_plugin.cli import main

        main()


@contextlib.contextmanager
def _recorded():
    """Records lines for `make mutate-record`: in a program that is started anew coverage does so by itself."""
    config = os.environ.get("COVERAGE_PROCESS_START")
    if not config:
        yield
        return
    import coverage

    lines = coverage.Coverage(config_file=config)
    lines.start()
    try:
        yield
    finally:
        lines.stop()
        lines.save()
