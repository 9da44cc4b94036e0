"""LiteRT's WebGPU accelerator with the methods of an interpreter that `serve_interpreter` calls.

A driver can end its process, so this is loaded in one of its own, whose standard error is a file that can be read. It
needs NumPy and ai-edge-litert alone.
"""

import os
import re

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator

ADAPTER = re.compile(r"Selected adapter: (.*?)(?:, arch=.*)?, backend=(\w+), adapterType=(.*)")
ERROR = re.compile(r"^ERROR: \[[^]]*\] (.+)", re.MULTILINE)
MOST_PRINTED = 1 << 20  # bytes


class Interpreter:
    """A file on the GPU.

    Args:
        model_content: bytes of a file with one input.
        num_threads: of an interpreter; a GPU has none.

    Attributes:
        device: the GPU that the accelerator took, in words; empty where it names none.

    Raises:
        RuntimeError: there is no GPU, or it does not run every operator of the file.
    """

    def __init__(self, model_content, num_threads=1):
        try:
            self._model = CompiledModel.from_buffer(model_content, hardware_accel=HardwareAccelerator.GPU)
        except RuntimeError as error:
            said = ERROR.search(_printed()) or re.search("└ (?!ERROR)([^.]+)", str(error))
            raise RuntimeError(said.group(1) if said else str(error)) from error
        adapter = ADAPTER.search(_printed())
        self.device = "{}, {}, {}".format(*adapter.groups()) if adapter else ""
        key = next(iter(self._model.get_signature_list()))
        self._signature = self._model.get_signature_list()[key]
        self._entries = _described(self._model.get_input_tensor_details(key), self._signature["inputs"])
        self._leaving = _described(self._model.get_output_tensor_details(key), self._signature["outputs"])
        self._inputs, self._outputs = self._model.create_input_buffers(0), self._model.create_output_buffers(0)

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return self._entries

    def get_output_details(self):
        return self._leaving

    def _get_full_signature_list(self):
        names, details = self._signature["outputs"], self._leaving
        outputs = {name: int(detail["index"]) for name, detail in zip(names, details)}
        return {"serving_default": {"inputs": {}, "outputs": outputs}}

    def _get_ops_details(self):
        return []

    def set_tensor(self, index, values):
        self._inputs[0].write(np.ascontiguousarray(values))

    def invoke(self):
        self._model.run_by_index(0, self._inputs, self._outputs)

    def get_tensor(self, index):
        place = [detail["index"] for detail in self._leaving].index(index)
        shape, dtype = self._leaving[place]["shape"], self._leaving[place]["dtype"]
        return np.array(self._outputs[place].read(int(np.prod(shape)), dtype)).reshape(shape)


def _described(details, names):
    """Tensors as an interpreter describes them, in the order of a signature; scales are not told."""
    return [{**details[name], "dtype": np.dtype(details[name]["dtype"]), "quantization": (0.0, 0)} for name in names]


def _printed():
    """What the libraries of this process have printed."""
    os.lseek(2, 0, os.SEEK_SET)
    return os.read(2, MOST_PRINTED).decode(errors="replace")
