"""Runs images through a file with the interpreter of a module, and saves what it answers.

    python run_images.py MODULE MODEL IMAGES.npy RUNS LOGITS.npy

It needs that interpreter and NumPy alone: it is run by other Pythons, under qemu and in the device environment. Every
image is run RUNS times, so that instructions can be counted.
"""

import importlib
import sys

import numpy as np

module, model, images, runs, logits = sys.argv[1:]
interpreter = importlib.import_module(module).Interpreter(model_path=model, num_threads=1)
interpreter.allocate_tensors()
entry, leaving = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
interpreter.resize_tensor_input(entry["index"], [1, *entry["shape"][1:]])
interpreter.allocate_tensors()
answers = []
for image in np.load(images):
    for _ in range(int(runs)):
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
    answers.append(interpreter.get_tensor(leaving["index"])[0])
np.save(logits, answers)
