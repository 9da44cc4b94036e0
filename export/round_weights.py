"""Rounding int8 weights so that what a layer computes changes least, not the weights themselves.

GPTQ (arXiv:2210.17323): weights are rounded one input at a time, and the error that each makes in the layer's output is
taken up by the inputs not yet rounded, as far as calibration activations x correlate, `H = sum x' x`.
"""

import numpy as np

from .flatbuffer import read, tensor_type, write
from .progress import track

LARGEST = 127
DAMPING = 0.01  # of the mean diagonal of H, added to it; more where there are few rows to tell it from
COLUMNS = 128  # rounded before the rest of the matrix is updated


class RoundedWeights:
    """The rounded int8 weights of every dense layer of a float file, computed once, for any file quantized from it.

    Args:
        graph: the `Graph` of the float file.
        calibration: its `Calibration`.
    """

    def __init__(self, graph, calibration):
        self.weights = {}
        for dense in track(graph.of_kind("FULLY_CONNECTED"), "Rounding weights"):
            entering, kernel = int(dense.inputs[0]), graph.constant(dense.inputs[1])
            if kernel is None or entering not in calibration.products:
                continue
            scale = np.maximum(np.abs(kernel).max(1), 1e-9) / LARGEST
            damping = DAMPING + kernel.shape[1] / calibration.rows[entering]
            rounded = gptq(kernel, scale, calibration.products[entering], damping)
            self.weights[graph.name(dense.inputs[1])] = scale, rounded

    def put_into(self, content):
        """The file with these weights in place of its own wherever it holds them as int8 with the same scales."""
        model = read(content)
        for tensor in model.subgraphs[0].tensors:
            scale, rounded = self.weights.get(tensor.name.decode(), (None, None))
            if scale is None or tensor_type(tensor) != "INT8":
                continue
            if not np.allclose(tensor.quantization.scale, scale, rtol=1e-4):
                raise ValueError(f"The weights {tensor.name.decode()!r} have other scales than they were rounded for.")
            model.buffers[tensor.buffer].data = rounded.reshape(-1).view(np.uint8)
        return write(model)


def gptq(kernel, scale, products, damping=DAMPING):
    """Rounded weights.

    Args:
        kernel: `(outputs, inputs)`.
        scale: step of each output, `(outputs,)`.
        products: H, `(inputs, inputs)`.
        damping: share of H's mean diagonal that is added to it.

    Returns:
        int8 `(outputs, inputs)`.
    """
    weights = kernel.astype(np.float64) / scale[:, None].astype(np.float64)
    diagonal = np.diag(products)
    order = np.argsort(-diagonal)  # the inputs that matter most first: theirs is the least error to take up
    damped = products[np.ix_(order, order)] + damping * diagonal.mean() * np.eye(len(diagonal))
    weights = weights[:, order]
    # Row i of the upper Cholesky factor of H^-1 says how the error of input i is spread over those after it.
    spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    rounded = np.empty_like(weights)
    for start in range(0, weights.shape[1], COLUMNS):
        stop = min(start + COLUMNS, weights.shape[1])
        errors = np.empty((len(weights), stop - start))
        for i in range(start, stop):
            rounded[:, i] = np.clip(np.round(weights[:, i]), -LARGEST, LARGEST)
            errors[:, i - start] = (weights[:, i] - rounded[:, i]) / spread[i, i]
            weights[:, i + 1 : stop] -= np.outer(errors[:, i - start], spread[i, i + 1 : stop])
        weights[:, stop:] -= errors @ spread[start:stop, stop:]
    result = np.empty_like(rounded, dtype=np.int8)
    result[:, order] = rounded
    return result
