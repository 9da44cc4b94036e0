"""The `int4` mode: weights of 4 bits, activations quantized on the fly; the layers that lose most keep 8 bits.

Every dense layer is rounded to 4 bits alone, and the error it makes in the logits is measured. The errors add up;
layers go back to 8 bits where that saves the most error for its bytes, until the sum is within the budget or the bytes
are spent.
"""

import numpy as np

from . import recipes
from .calibrate import measured_images, observe
from .graph import Graph
from .interpreter import Runner
from .progress import track
from .round_weights import rounded_kernels, with_kernels

SNR_DB = 15.0  # of the logits, by the sum of what each layer costs
EXTRA_SIZE = 0.08  # of the weights in 4 bits, for layers in 8


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
    calibration = observe(content, images)
    four, eight = (rounded_kernels(graph, calibration, bits) for bits in (4, 8))
    kept = _worth_eight_bits(graph, content, four, images)
    content = with_kernels(content, four | {tensor: eight[tensor] for tensor in kept})
    with recipes.silence():
        engine = quantizer.Quantizer(content)
        for dense in graph.of_kind("FULLY_CONNECTED"):
            config = recipes.dynamic(8 if int(dense.inputs[1]) in kept else 4)
            engine.update_quantization_recipe(recipes.scope(graph, dense), "FULLY_CONNECTED", config)
        return bytes(engine.quantize().quantized_model)


def _worth_eight_bits(graph, content, four, images):
    """The kernels that keep 8 bits, of `{tensor: kernel in 4 bits}`."""
    images = measured_images(graph, images)
    logits = Runner(content)(images)
    power = max(np.mean(logits**2), 1e-30)
    noises = {
        tensor: float(np.mean((Runner(with_kernels(content, {tensor: kernel}))(images) - logits) ** 2) / power)
        for tensor, kernel in track(four.items(), "Measuring int4")
    }
    left, spare, kept = sum(noises.values()), EXTRA_SIZE * sum(kernel.size for kernel in four.values()), set()
    for tensor in sorted(noises, key=lambda tensor: -noises[tensor] / four[tensor].size):
        if left <= 10 ** (-SNR_DB / 10):
            break
        if four[tensor].size <= spare:
            kept.add(tensor)
            spare, left = spare - four[tensor].size, left - noises[tensor]
    return kept
