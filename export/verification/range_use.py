"""How far images go outside the ranges that a quantized file holds."""

from dataclasses import dataclass

import numpy as np

from ..quantization.steps.calibration import is_observed
from ..tflite.runner import computed_tensors

SUFFIX = "_quantized"  # which the quantizer adds to the name of a tensor that it puts beside the float one


@dataclass(frozen=True)
class RangeUse:
    """What some images need of a file's ranges.

    Attributes:
        share: of the values of all quantized activations, 0..1, those outside of their range.
        excess: how far the value farthest outside lies from its range, as a share of the range's width.
        tensor: the name of that value's tensor; empty where all are inside.
    """

    share: float
    excess: float
    tensor: str = ""


def range_use(file, float_file, images):
    """The `RangeUse` of images, by what the float file computes; None where the file holds no ranges.

    Args:
        file: the `Graph` of the quantized file.
        float_file: the `Graph` of the float file that it was made of.
        images: raw pixels 0..255, `(N, H, W, C)`.
    """
    ranges, graph = activation_ranges(file), float_file
    tensors = {graph.name(index): index for index in graph.producer if is_observed(graph, index)}
    held = {tensors[name]: limits for name, limits in ranges.items() if name in tensors}
    if not held:
        return None
    outside = total = 0
    worst = RangeUse(0.0, 0.0)
    for tensor in computed_tensors(graph.content, images):
        for index, (low, high) in held.items():
            values = tensor(index)
            total += values.size
            outside += np.count_nonzero((values < low) | (values > high))
            excess = max(low - values.min(initial=low), values.max(initial=high) - high) / (high - low)
            if excess > worst.excess:
                worst = RangeUse(0.0, float(excess), graph.name(index))
    return RangeUse(outside / max(total, 1), worst.excess, worst.tensor)


def activation_ranges(graph):
    """`{name of a tensor: (low, high)}` of the activations that a file, a `Graph`, holds in int8 or int16.

    Half a step more at each end: what rounds to the ends is not outside.
    """
    ranges = {}
    for index in graph.producer:
        kept = graph.subgraph.tensors[index].quantization
        if graph.dtype(index) not in ("INT8", "INT16") or kept is None or kept.scale is None or len(kept.scale) != 1:
            continue
        limits = np.iinfo(graph.dtype(index).lower())
        scale, zero_point = float(kept.scale[0]), int(kept.zeroPoint[0])
        name = graph.name(index).removesuffix(SUFFIX)
        ranges[name] = (limits.min - zero_point - 0.5) * scale, (limits.max - zero_point + 0.5) * scale
    return ranges
