"""Rounding weights so that what a layer computes changes least, not the weights themselves.

GPTQ (arXiv:2210.17323): weights are rounded one input at a time, and the error that each makes in the layer's output is
taken up by the inputs not yet rounded, as far as the rows x that enter correlate, `H = sum x' x`. With 4 bits the range
of each channel is the one of a few with the least such error, and every weight is rounded `DESCENTS` times more, one
input after the other with all others as they are (coordinate descent, QuantEase, arXiv:2309.01885). Layers of more than
`WIDEST` inputs take the nearest step: H would not fit.
"""

import numpy as np

from keras_vit_plugin.progress import track

from ...tflite.flatbuffer import read, write

LARGEST = {8: 127, 4: 7}  # by the number of bits
DAMPING = 0.01  # of the mean diagonal of H, added to it; more where there are few rows to tell it from
COLUMNS = 32  # rounded before the rest of the matrix is updated, which is a product and quick
CLIP_CANDIDATES = np.linspace(1.0, 0.4, 25)  # shares of the range, by H's diagonal
CLIP_FACTORS = np.array([1.0, 0.9, 0.8, 1.1])  # of the best of those, by all of H
DESCENTS = 3


def rounded_kernels(graph, entering, bits=8, block_size=None):
    """`{tensor: float32 kernel}` of every dense layer of a float file, each channel or block on its grid.

    Each keeps a weight at the largest step, so that a quantizer that takes the largest weight for the range finds the
    same grid, and these weights on it.

    Args:
        graph: the `Graph` of the float file.
        entering: `{tensor: Entering}` of its kernels.
        bits: 8 or 4.
        block_size: inputs per scale of an output channel, where they divide the layer's inputs; None for all.
    """
    kernels = {}
    for tensors in track(_sharing_inputs(graph, entering), "Rounding weights"):
        given = [graph.constant(tensor) for tensor in tensors]
        blocks = number_of_blocks(given[0].shape[1], block_size)
        rounded = rounded_kernel(np.concatenate(given), entering[tensors[0]], bits, blocks)
        kernels |= zip(tensors, np.split(rounded, np.cumsum([len(kernel) for kernel in given])[:-1]))
    return kernels


def _sharing_inputs(graph, entering):
    """The kernels that are constants, in groups that the same values enter: their outputs are rounded independently."""
    groups = {}
    for dense in graph.of_kind("FULLY_CONNECTED"):
        tensor = int(dense.inputs[1])
        if graph.constant(tensor) is not None:
            groups.setdefault(id(entering[tensor]), []).append(tensor)
    return [list(dict.fromkeys(tensors)) for tensors in groups.values()]


def number_of_blocks(inputs, block_size):
    """How many scales an output channel has: 1 where the block size does not divide its inputs."""
    return inputs // block_size if block_size and inputs % block_size == 0 else 1


def rounded_kernel(kernel, entering, bits=8, blocks=1):
    """A float32 kernel on its grid.

    Args:
        kernel: `(outputs, inputs)`.
        entering: the layer's `Entering`.
        bits: 8 or 4.
        blocks: scales per output channel.
    """
    kernel = kernel.astype(np.float64)
    parts = kernel.reshape(len(kernel), blocks, -1)
    widest = np.maximum(np.abs(parts).max(2), 1e-9) / LARGEST[bits]
    if entering.products.ndim == 1:
        return _nearest(parts, widest, entering.products.reshape(blocks, -1), bits).reshape(kernel.shape)
    products = _damped(entering.products, DAMPING + kernel.shape[1] / entering.rows)
    if bits == 8:
        step = widest.astype(np.float32)
        rounded = gptq(kernel, step, products)
    else:
        rounded, step = _best_clipped(kernel, widest, products, LARGEST[bits])
        for _ in range(DESCENTS):
            rounded = _descended(rounded, step, kernel, products, LARGEST[bits])
    return rounded.astype(np.float32) * _per_weight(step, kernel)


def _nearest(parts, widest, diagonal, bits):
    """A float32 kernel on its grid, each weight on the nearest step, for a layer too wide to spread the errors."""
    step = widest if bits == 8 else _clipped(parts, widest, diagonal, LARGEST[bits])
    step = step.astype(np.float32)[..., None]
    return np.clip(np.round(parts / step), -LARGEST[bits], LARGEST[bits]).astype(np.float32) * step


def _damped(products, share):
    return products + max(share * np.diag(products).mean(), 1e-30) * np.eye(len(products))


def _per_weight(step, kernel):
    """Steps `(..., blocks)` as `(..., inputs)`."""
    return np.repeat(step, kernel.shape[1] // step.shape[-1], axis=-1)


def _best_clipped(kernel, widest, products, largest):
    """Rounded weights `(outputs, inputs)` and steps `(outputs, blocks)`, at most `widest`, with the least error."""
    clipped = _clipped(
        kernel.reshape(*widest.shape, -1), widest, np.diag(products).reshape(widest.shape[1], -1), largest
    )
    steps = np.minimum(clipped * CLIP_FACTORS[:, None, None], widest).astype(np.float32)
    candidates = np.tile(kernel, (len(steps), 1))
    rounded = gptq(candidates, steps.reshape(len(candidates), -1), products, largest).reshape(len(steps), *kernel.shape)
    change = rounded * _per_weight(steps, kernel) - kernel
    best = np.einsum("foi,foi->fo", change @ products, change).argmin(0)
    outputs = np.arange(len(kernel))
    return rounded[best, outputs], steps[best, outputs]


def _clipped(parts, scale, diagonal, largest):
    """The step of each block, at most `scale`, with the least error in what the layer computes."""
    errors = []
    for share in CLIP_CANDIDATES:
        step = (scale * share)[..., None]
        rounded = np.clip(np.round(parts / step), -largest, largest) * step
        errors.append((np.square(rounded - parts) * diagonal).sum(2))
    return scale * CLIP_CANDIDATES[np.argmin(errors, axis=0)]


def _descended(rounded, step, kernel, products, largest):
    """Every weight but the largest of each block rounded anew, one input after the other."""
    order = np.argsort(-np.diag(products))
    fixed = _is_peak(kernel, step.shape[1])[:, order]
    step = _per_weight(step.astype(np.float64), kernel)[:, order]
    rounded, products = rounded.astype(np.float64)[:, order], products[np.ix_(order, order)]
    gradient = (rounded * step - kernel[:, order]) @ products
    for start in range(0, len(order), COLUMNS):
        stop = min(start + COLUMNS, len(order))
        before = rounded[:, start:stop].copy()
        for i in range(start, stop):
            best = np.round(rounded[:, i] - gradient[:, i] / (products[i, i] * step[:, i]))
            best = np.where(fixed[:, i], rounded[:, i], np.clip(best, -largest, largest))
            gradient[:, i:stop] += np.outer((best - rounded[:, i]) * step[:, i], products[i, i:stop])
            rounded[:, i] = best
        change = (rounded[:, start:stop] - before) * step[:, start:stop]
        gradient[:, stop:] += change @ products[start:stop, stop:]
    result = np.empty_like(rounded)
    result[:, order] = rounded
    return result


def with_kernels(content, kernels):
    """A float file with these kernels, `{tensor: float32 array}`, in place of its own."""
    model = read(content)
    for tensor, kernel in kernels.items():
        model.buffers[model.subgraphs[0].tensors[tensor].buffer].data = kernel.reshape(-1).view(np.uint8)
    return write(model)


def _is_peak(kernel, blocks):
    """Which weights are the largest of their block."""
    parts = np.abs(kernel.reshape(len(kernel), blocks, -1))
    return (np.arange(parts.shape[2]) == parts.argmax(2)[..., None]).reshape(kernel.shape)


def gptq(kernel, step, products, largest=LARGEST[8]):
    """Rounded weights.

    Args:
        kernel: `(outputs, inputs)`.
        step: of each output, `(outputs,)`, or of each block of its inputs, `(outputs, blocks)`.
        products: H, `(inputs, inputs)`, positive definite.
        largest: steps of the largest weight of each output or block.

    Returns:
        int8 `(outputs, inputs)`.
    """
    step = step.astype(np.float64).reshape(len(kernel), -1)
    weights = kernel / _per_weight(step, kernel)
    peaks = np.where(_is_peak(kernel, step.shape[1]), np.sign(kernel) * largest, 0)
    order = np.argsort(-np.diag(products))  # the inputs that matter most first: theirs is the least error to take up
    weights, peaks = weights[:, order], peaks[:, order]
    # Row i of the upper Cholesky factor of H^-1 says how the error of input i is spread over those after it.
    spread = np.linalg.cholesky(np.linalg.inv(products[np.ix_(order, order)])).T
    rounded = np.empty_like(weights)
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
