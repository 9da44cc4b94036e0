"""Sums of errors over images, operator by operator."""

import numpy as np

from ..tflite.tensor_names import EMBEDDING, stream_name
from .op_error import CLIPPING, INSIDE, ROUNDING, OpError


class ErrorSums:
    """What is added up over images for one operator."""

    def __init__(self):
        self.signal = self.error = self.clipped = self.count = 0.0
        self.low, self.high = np.inf, -np.inf
        self.noise = 0.0
        self.causes = dict.fromkeys((CLIPPING, ROUNDING, INSIDE), 0.0)

    def add(self, wanted, exact, got, gradient, grid, limits):
        scale, zero_point = grid
        clipped = rounded = exact
        if limits is not None:
            self.low, self.high = ((limits - zero_point) * scale).tolist()
            clipped = np.clip(exact, self.low, self.high)
            rounded = (np.clip(np.round(exact / scale) + zero_point, *limits) - zero_point) * scale
            self.clipped += np.count_nonzero(np.abs(clipped - exact) > scale / 2)
        else:
            self.low, self.high = min(self.low, float(got.min())), max(self.high, float(got.max()))
        self.count += got.size
        self.signal += np.square(wanted).sum()
        self.error += np.square(got - wanted).sum()
        self.noise += np.square(gradient @ (got - exact)).mean()
        for cause, part in zip(self.causes, (clipped - exact, rounded - clipped, got - rounded)):
            self.causes[cause] += np.square(gradient @ part).mean()

    def result(self, name, kind, place, dtype, images):
        return OpError(
            name=name,
            kind=kind,
            place=place,
            dtype=dtype,
            snr_db=decibels(self.signal, self.error),
            noise=float(self.noise / images),
            low=self.low,
            high=self.high,
            clipped=self.clipped / self.count,
            cause=max(self.causes, key=self.causes.get),
        )


def places_of(graph):
    """`{tensor: where in the model}`."""
    streams = {stream_name(i): i for i in range(len(graph.operators))}
    blocks = sum(graph.name(tensor).split(";")[0] in streams for tensor in graph.producer)
    has_embedding = any(graph.name(tensor) == EMBEDDING for tensor in graph.producer)
    places, place = {}, "embedding" if has_embedding else "block 1"
    for operator in graph.operators:
        tensor = int(operator.outputs[0])
        name = graph.name(tensor).split(";")[0]
        places[tensor] = place
        if name == EMBEDDING:
            place = "block 1"
        elif name in streams:
            place = f"block {streams[name] + 2}" if streams[name] + 1 < blocks else "head"
    return places


def grid_of(graph, tensor):
    """Scale and zero point of a tensor, `(1, 0)` where it is float."""
    quantization = graph.subgraph.tensors[tensor].quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return np.float32(1), np.float32(0)
    return np.float32(quantization.scale[0]), np.float32(quantization.zeroPoint[0])


def limits_of(graph, tensor):
    """The smallest and largest integer of a tensor's type, or None where it is float."""
    dtype = graph.dtype(tensor)
    if dtype not in ("INT8", "UINT8", "INT16"):
        return None
    limits = np.iinfo(dtype.lower())
    return np.array([limits.min, limits.max], np.float32)


def dequantized(values, scale, zero_point):
    return (values.astype(np.float32) - zero_point) * scale


def decibels(power, error):
    return float(10 * np.log10(max(power, 1e-30) / max(error, 1e-30)))
