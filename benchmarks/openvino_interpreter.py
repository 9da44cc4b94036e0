"""OpenVINO with the methods of an interpreter that `run_images.py` and `time_files.py` call.

It reads `.tflite` itself. With the hint f32 it computes floats in float32: without, it takes bfloat16 on CPUs that have
that, and answers otherwise from one CPU to the next.
"""

import numpy as np
import openvino

PRECISION_HINT = "f32"


class Interpreter:
    """A file on OpenVINO's CPU device.

    It takes as many threads as it likes, whatever `num_threads` says: with one, 2026.4.1 ends in a segmentation fault
    while it compiles small float32 files.
    """

    def __init__(self, model_path, num_threads):
        core = openvino.Core()
        model, options = core.read_model(model_path), {"INFERENCE_PRECISION_HINT": PRECISION_HINT}
        self._compiled = core.compile_model(model, "CPU", options)

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [_details(index, port) for index, port in enumerate(self._compiled.inputs)]

    def get_output_details(self):
        return [_details(index, port) for index, port in enumerate(self._compiled.outputs)]

    def resize_tensor_input(self, index, shape):
        """Nothing: the files take one image at a time."""

    def set_tensor(self, index, values):
        self._image = values

    def invoke(self):
        self._outputs = self._compiled([self._image])

    def get_tensor(self, index):
        return self._outputs[index]


def _details(index, port):
    return {"index": index, "shape": np.array(port.shape), "dtype": port.element_type.to_dtype()}
