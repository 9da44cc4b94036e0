"""Rounding int8 weights so that what a layer computes changes least, not the weights themselves.

GPTQ (arXiv:2210.17323): weights are rounded one input at a time, and the error that each makes in the layer's output is
taken up by the inputs not yet rounded, as far as calibration activations x correlate, `H = sum x' x`.
"""

import numpy as np

from .flatbuffer import read, write
from .progress import track

LARGEST = {8: 127, 4: 7}  # by the number of bits
DAMPING = 0.01  # of the mean diagonal of H, added to it; more where there are few rows to tell it from
COLUMNS = 128  # rounded before the rest of the matrix is updated
CLIP_CANDIDATES = np.linspace(0.4, 1.0, 25)


def rounded_kernels(graph, calibration, bits=8, block_size=None):
    """`{tensor: float32 kernel}` of every dense layer of a float file, each channel or block on its grid.

    Each keeps a weight at the largest step, so that a quantizer that takes the largest weight for the range finds the
    same grid, and these weights on it.

    Args:
        graph: the `Graph` of the float file.
        calibration: its `Calibration`.
        bits: 8 or 4.
        block_size: inputs per scale of an output channel, where they divide the layer's inputs; None for all.
    """
    kernels = {}
    for dense in track(graph.of_kind("FULLY_CONNECTED"), "Rounding weights"):
        entering, tensor = int(dense.inputs[0]), int(dense.inputs[1])
        kernel = graph.constant(tensor)
        if kernel is not None:
            products, rows = calibration.products[entering], calibration.rows[entering]
            blocks = number_of_blocks(kernel.shape[1], block_size)
            kernels[tensor] = rounded_kernel(kernel, products, rows, bits, blocks)
    return kernels


def number_of_blocks(inputs, block_size):
    """How many scales an output channel has: 1 where the block size does not divide its inputs."""
    return inputs // block_size if block_size and inputs % block_size == 0 else 1


def rounded_kernel(kernel, products, rows, bits, blocks=1):
    """A float32 kernel on its grid.

    Args:
        kernel: `(outputs, inputs)`.
        products: X' X of the `rows` rows X `(rows, inputs)` that enter, `(inputs, inputs)`.
        rows: how many they are.
        bits: 8 or 4. With 4 the range of a block is the one of least rounding and clipping error.
        blocks: scales per output channel.
    """
    parts = kernel.reshape(len(kernel), blocks, -1)
    scale = np.maximum(np.abs(parts).max(2), 1e-9) / LARGEST[bits]
    if bits == 4:
        scale = _clipped(parts, scale, np.diag(products).reshape(blocks, -1), LARGEST[bits])
    scale = scale.astype(np.float32)
    rounded = gptq(kernel, scale, products, DAMPING + kernel.shape[1] / rows, LARGEST[bits])
    return rounded.astype(np.float32) * np.repeat(scale, parts.shape[2], axis=1)


def _clipped(parts, scale, diagonal, largest):
    """The step of each block, at most `scale`, with the least error in what the layer computes."""
    errors = []
    for share in CLIP_CANDIDATES:
        step = (scale * share)[..., None]
        rounded = np.clip(np.round(parts / step), -largest, largest) * step
        errors.append((np.square(rounded - parts) * diagonal).sum(2))
    return scale * CLIP_CANDIDATES[np.argmin(errors, axis=0)]


def with_kernels(content, kernels):
    """A float file with these kernels, `{tensor: float32 array}`, in place of its own."""
    model = read(content)
    for tensor, kernel in kernels.items():
        model.buffers[model.subgraphs[0].tensors[tensor].buffer].data = kernel.reshape(-1).view(np.uint8)
    return write(model)


def gptq(kernel, scale, products, damping=DAMPING, largest=LARGEST[8]):
    """Rounded weights.

    Args:
        kernel: `(outputs, inputs)`.
        scale: step of each output, `(outputs,)`, or of each block of its inputs, `(outputs, blocks)`.
        products: H, `(inputs, inputs)`.
        damping: share of H's mean diagonal that is added to it.
        largest: steps of the largest weight of each output or block.

    Returns:
        int8 `(outputs, inputs)`.
    """
    scale = scale.astype(np.float64).reshape(len(kernel), -1)
    parts = kernel.reshape(*scale.shape, -1)
    weights = (parts / scale[..., None]).reshape(kernel.shape)
    is_peak = np.arange(parts.shape[2]) == np.abs(parts).argmax(2)[..., None]
    peaks = np.where(is_peak, np.sign(parts) * largest, 0).reshape(kernel.shape)
    diagonal = np.diag(products)
    order = np.argsort(-diagonal)  # the inputs that matter most first: theirs is the least error to take up
    damped = products[np.ix_(order, order)] + damping * diagonal.mean() * np.eye(len(diagonal))
    weights = weights[:, order]
    # Row i of the upper Cholesky factor of H^-1 says how the error of input i is spread over those after it.
    spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    rounded = np.empty_like(weights)
    peaks = peaks[:, order]
    for start in range(0, weights.shape[1], COLUMNS):
        stop = min(start + COLUMNS, weights.shape[1])
        errors = np.empty((len(weights), stop - start))
        for i in range(start, stop):
            rounded[:, i] = np.clip(np.round(weights[:, i]), -largest, largest)
            rounded[:, i] = np.where(peaks[:, i] == 0, rounded[:, i], peaks[:, i])
            errors[:, i - start] = (weights[:, i] - rounded[:, i]) / spread[i, i]
            weights[:, i + 1 : stop] -= np.outer(errors[:, i - start], spread[i, i + 1 : stop])
        weights[:, stop:] -= errors @ spread[start:stop, stop:]
    result = np.empty_like(rounded, dtype=np.int8)
    result[:, order] = rounded
    return result
