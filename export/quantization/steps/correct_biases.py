"""Biases that take back the mean error of what enters a dense layer in int8 (Nagel et al. 2019, arXiv:1906.04721).

GELU gives many values near zero, which one grid rounds all the same way: per input the errors have a mean, and the
layer makes an error of every token of it.
"""

import numpy as np

from keras_vit_plugin.progress import track

from ...spec.functions import gelu
from ...tflite.runner import computed_tensors
from .calibration import rounded


def corrected_biases(graph, content, dense_layers, ranges, images):
    """`{tensor: float32 bias}` of dense layers.

    Args:
        graph: the `Graph` of the float file.
        content: bytes of the float file with the weights that will be quantized.
        dense_layers: the operators whose inputs and outputs will be in int8.
        ranges: `{tensor: (low, high)}` of these.
        images: raw pixels 0..255, `(N, H, W, C)`.
    """
    entering = {int(dense.inputs[0]) for dense in dense_layers}
    leaving = {int(dense.outputs[0]) for dense in dense_layers}
    sums, batches = dict.fromkeys(entering, 0.0), 0
    for tensor in track(computed_tensors(content, images), "Correcting biases"):
        batches += 1
        for index in entering:
            source, values = graph.source(index), tensor(index)
            in_int8 = values
            hidden = None if source is None else int(source.inputs[0])
            if hidden in leaving and graph.kind(source) == "GELU":
                in_int8 = gelu(rounded(tensor(hidden), *ranges[hidden])).reshape(values.shape)
            error = rounded(in_int8, *ranges[index]) - values
            sums[index] = sums[index] + error.reshape(-1, error.shape[-1]).mean(0)
    biases = {}
    for dense in dense_layers:
        index, kernel, bias = map(int, dense.inputs)
        shift = graph.constant(kernel) @ (sums[index] / batches)
        biases[bias] = (graph.constant(bias) - shift).astype(np.float32)
    return biases
