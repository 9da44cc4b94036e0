"""Standard error comes back, whatever threads did with it."""

import os

import pytest
from conftest import run_python

THREADS = """
import contextlib, io, logging, os, sys, threading
from keras_vit_plugin.quiet import quiet_python, quiet_stderr
order = [int(step) for step in sys.argv[1]]
contexts = [contextlib.ExitStack() for _ in range(3)]
before, descriptors = (sys.stdout, sys.stderr, logging.root.manager.disable), len(os.listdir("/proc/self/fd"))
inside = set()
for step in order:  # each number enters first and leaves when it comes again, in a thread of its own
    def change():
        if step in inside:
            contexts[step].close()
        else:
            contexts[step].enter_context(quiet_stderr())
            contexts[step].enter_context(quiet_python())
    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    inside ^= {step}
    if inside:
        os.write(2, b"lost")
        print("lost")
assert (sys.stdout, sys.stderr, logging.root.manager.disable) == before
assert len(os.listdir("/proc/self/fd")) == descriptors
os.write(2, b"back")
print("back")
"""


@pytest.mark.parametrize("order", ["0011", "001122", "012012", "012210", "010212"])
def test_standard_error_comes_back_in_whatever_order_threads_leave(order):
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", THREADS, order], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["back"] and done.stderr == "back"


def test_an_exception_inside_gives_it_back():
    from keras_vit_plugin.quiet import quiet_stderr

    before = os.fstat(2)
    with pytest.raises(ZeroDivisionError), quiet_stderr(), quiet_stderr():
        assert os.path.samestat(os.fstat(2), os.stat(os.devnull))
        _ = 1 / 0
    assert os.path.samestat(os.fstat(2), before)


EXPORTS = """
import sys, threading, warnings
import keras
import numpy as np
import keras_vit_plugin as kv
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
failures = []
def export(number):
    try:
        kv.export.export_tflite(models[number], f"{sys.argv[1]}/{number}.tflite", "dynamic", calibration=images)
    except Exception as error:
        failures.append(repr(error))
models = [kv.build("vit_test") for _ in range(2)]
threads = [threading.Thread(target=export, args=(number,)) for number in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
assert sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
import os
assert not os.path.samestat(os.fstat(2), os.stat(os.devnull))
print("both")
"""


@pytest.mark.long
def test_two_exports_at_once_are_right_and_leave_standard_error(tmp_path):
    assert "both" in run_python(EXPORTS, tmp_path)
    files = [(tmp_path / f"{number}.tflite").stat().st_size for number in range(2)]
    assert all(size > 1000 for size in files)


CLOSED_STREAMS = """
import os, sys
from keras_vit_plugin.quiet import quiet_stderr, silence_native_stderr
for number in range(3):
    os.close(number)
sys.stderr = None  # as Python itself has it that is started with them closed
with silence_native_stderr(), quiet_stderr(), open(sys.argv[1], "wb") as file:
    assert file.fileno() > 2
    file.write(b"model")
    for number in range(3):
        os.write(number, b"a library's message")
"""


def test_a_file_never_gets_the_number_of_a_closed_standard_stream(tmp_path):
    run_python(CLOSED_STREAMS, tmp_path / "m.tflite")
    assert (tmp_path / "m.tflite").read_bytes() == b"model"


def test_a_command_without_standard_error():
    import subprocess
    import sys

    program = 'exec "$0" -c "from keras_vit_plugin.cli import main; main()" list vit_test 2>&-'
    done = subprocess.run(["sh", "-c", program, sys.executable], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "vit_test" in done.stdout
