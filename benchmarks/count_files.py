"""Runs files with ai-edge-litert between two system calls each, which `count_instructions.c` marks under qemu.

    python count_files.py RUNS MODEL ...

It needs that interpreter and NumPy alone. One thread; a run before the first mark warms up.
"""

import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

runs, *models = sys.argv[1:]
for model in models:
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    values = np.random.default_rng(0).normal(size=entry["shape"]).astype(entry["dtype"])
    interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    os.getppid()
    for _ in range(int(runs)):
        interpreter.invoke()
    os.getppid()
