"""The `int4` mode: weights of 4 bits, activations quantized on the fly; the layers that lose most keep 8 bits.

Every dense layer is rounded to 4 bits alone, and the error it makes in the logits is measured. The errors add up;
layers go back to 8 bits where that saves the most error for its bytes, until the sum is within the budget or the bytes
are spent. Then the weights are rounded from the first layer to the last, each layer to what the model computes there,
given what the layers rounded before it pass on (Frantar et al. 2022, arXiv:2210.17323, with the error of earlier layers
as in Li et al. 2025, arXiv:2504.02692).
"""

import numpy as np

from . import recipes
from .calibrate import observe
from .graph import Graph
from .interpreter import Runner, computed_tensors
from .progress import track
from .round_weights import DAMPING, rounded_kernel, rounded_kernels, with_kernels

SNR_DB = 15.0  # of the logits, by the sum of what each layer costs
EXTRA_SIZE = 0.08  # of the weights in 4 bits, for layers in 8
WORK = 20e9  # multiply-accumulates of one measurement
MEASURED_IMAGES = (2, 16)
ROUNDED_IMAGES = (8, 32)


def quantize_int4(content, images):
    """Quantizes a float file to `int4`.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        The file as bytes.
    """
    from ai_edge_quantizer import quantizer

    graph = Graph(content)
    work = sum(graph.multiplications(operator) for operator in graph.of_kind("FULLY_CONNECTED", "BATCH_MATMUL"))
    bits = _bits(graph, content, images, work)
    content = with_kernels(content, _rounded_in_order(graph, content, _some(images, work, ROUNDED_IMAGES), bits))
    with recipes.silence():
        engine = quantizer.Quantizer(content)
        for dense in graph.of_kind("FULLY_CONNECTED"):
            config = recipes.dynamic(bits[int(dense.inputs[1])])
            engine.update_quantization_recipe(recipes.scope(graph, dense), "FULLY_CONNECTED", config)
        return bytes(engine.quantize().quantized_model)


def _some(images, work, limits):
    """As many images, evenly spread, as `WORK` allows."""
    count = min(int(np.clip(WORK / work, *limits)), len(images))
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _bits(graph, content, images, work):
    """How many bits each kernel gets, `{tensor: 4 | 8}`."""
    calibration = observe(content, images)
    four = rounded_kernels(graph, calibration, bits=4)
    images = _some(images, work, MEASURED_IMAGES)
    logits = Runner(content)(images)
    power = max(np.mean(logits**2), 1e-30)
    noises = {
        tensor: float(np.mean((Runner(with_kernels(content, {tensor: kernel}))(images) - logits) ** 2) / power)
        for tensor, kernel in track(four.items(), "Measuring int4")
    }
    bits = dict.fromkeys(four, 4)
    left, spare = sum(noises.values()), EXTRA_SIZE * sum(kernel.size for kernel in four.values())
    for tensor in sorted(noises, key=lambda tensor: -noises[tensor] / four[tensor].size):
        if left <= 10 ** (-SNR_DB / 10):
            break
        if four[tensor].size <= spare:
            bits[tensor], spare, left = 8, spare - four[tensor].size, left - noises[tensor]
    return bits


def _rounded_in_order(graph, content, images, bits):
    """Rounded kernels and corrected biases, `{tensor: array}`, each on what the layers rounded before it pass on."""
    layers = {}
    for dense in graph.of_kind("FULLY_CONNECTED"):
        layers.setdefault(int(dense.inputs[0]), []).append(dense)
    changed = {}
    for entering, readers in track(layers.items(), "Rounding weights"):
        width, products, crossed, rows = graph.width(readers[0].inputs[1]), 0.0, 0.0, 0
        means, wanted_means = 0.0, 0.0
        runs = (computed_tensors(with_kernels(content, changed), images), computed_tensors(content, images))
        for tensors in zip(*runs):
            passed, wanted = (tensor(entering).reshape(-1, width) for tensor in tensors)
            products, crossed = products + passed.T @ passed, crossed + passed.T @ wanted
            means, wanted_means = means + passed.sum(0), wanted_means + wanted.sum(0)
            rows += len(passed)
        damping = (DAMPING + width / rows) * np.diag(products).mean() * np.eye(width)
        # The kernel that gives from what is passed on, as well as it can, what the model computes.
        towards = np.linalg.solve(products + damping, crossed + damping)
        for dense in readers:
            tensor, bias = int(dense.inputs[1]), int(dense.inputs[2])
            kernel = graph.constant(tensor)
            aim = (kernel @ towards.T).astype(np.float32)
            rounded = rounded_kernel(aim, products, rows, bits[tensor])
            changed[tensor] = rounded
            shift = kernel @ (wanted_means / rows) - rounded @ (means / rows)
            changed[bias] = (graph.constant(bias) + shift).astype(np.float32)
    return changed
