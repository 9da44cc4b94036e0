"""Times files with the interpreter of a module, in turns, and prints the median milliseconds of each as JSON.

    python time_files.py MODULE ROUNDS MODEL ...

It needs that interpreter and NumPy alone, as `run_images.py`. One thread, pinned to one core where that can be done.
"""

import importlib
import json
import os
import sys
import time

import numpy as np

module, rounds, *models = sys.argv[1:]
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
interpreters = []
for model in models:
    interpreter = importlib.import_module(module).Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    pixels = np.random.default_rng(0).integers(0, 128, entry["shape"])
    interpreter.set_tensor(entry["index"], pixels.astype(entry["dtype"]))
    interpreter.invoke()
    interpreters.append(interpreter)
times = []
for _ in range(int(rounds)):
    times.append([])
    for interpreter in interpreters:
        started = time.perf_counter()
        interpreter.invoke()
        times[-1].append((time.perf_counter() - started) * 1000)
print(json.dumps(np.median(times, axis=0).tolist()))
