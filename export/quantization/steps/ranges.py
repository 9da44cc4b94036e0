"""The ranges of activations in the `int8` mode's operators."""

from keras_vit_plugin.progress import track

from ...spec.functions import gelu
from ...tflite.graph import DENSE
from .levels import FEW_ROWS

READERS = {"GELU": gelu}


def int8_ranges(graph, observations):
    """Per tensor the range to quantize it with, `{tensor: (low, high)}`.

    The least rounding and clipping error, measured behind the one function that reads the tensor, but nothing clipped
    of keys and values, nor of queries and scores that softmax reads, where the largest decide everything. The range of
    a matmul's right-hand side is also made to have zero point 0.
    """
    observed, found = [tensor for tensor in quantized_tensors(graph) if tensor in observations], {}
    ranges = {}
    for tensor in track(observed, "Choosing ranges"):
        seen, reader = observations[tensor], READERS.get(graph.only_reader(tensor))
        if (id(seen), reader) not in found:  # values that are moved are the same
            found[id(seen), reader] = seen.least_error(reader)
        ranges[tensor] = found[id(seen), reader]
    for dense in graph.of_kind("FULLY_CONNECTED"):
        if graph.rows(dense.outputs[0]) >= FEW_ROWS:
            entering = int(dense.inputs[0])
            same = [int(move.inputs[0]) for move in graph.moves_before(entering)]
            ranges |= {source: ranges[entering] for source in same if source in observations}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        left, right, output = int(matmul.inputs[0]), int(matmul.inputs[1]), int(matmul.outputs[0])
        unclipped = (left, right, output) if graph.only_reader(output) == "SOFTMAX" else (right,)
        ranges |= {tensor: observations[tensor].full() for tensor in unclipped if tensor in observations}
        if right in ranges:
            largest = max(map(abs, ranges[right])) or 1.0
            ranges[right] = (-largest * 128 / 127, largest)
        for tensor in (left, right):
            same = [int(move.inputs[0]) for move in graph.moves_before(tensor)]
            ranges |= {source: ranges[tensor] for source in same if source in observations}
        ranges |= {int(move.outputs[0]): ranges[output] for move in graph.moves_after(output)}
    return ranges


def quantized_tensors(graph):
    """What enters and leaves the operators that may be quantized, and the operators that move its values."""
    tensors = set()
    for operator in graph.of_kind(*DENSE, "BATCH_MATMUL"):
        for tensor in operator.inputs[:2]:
            tensors |= {int(tensor), *(int(move.inputs[0]) for move in graph.moves_before(int(tensor)))}
        for tensor in operator.outputs:
            tensors |= {int(tensor), *(int(move.outputs[0]) for move in graph.moves_after(int(tensor)))}
    return sorted(tensors)
