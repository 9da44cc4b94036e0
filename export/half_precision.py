"""What a GPU that computes in float16 makes of a file."""

import numpy as np

from .gradients import has_derivatives
from .graph import Graph
from .operations import run_outputs


def half_precision_logits(content, images):
    """The logits of a float file if every tensor is rounded to float16, and sums overflow where float16 does.

    Products are summed in float32 within a dense layer or matmul, as GPUs do it or may be told to.

    Args:
        content: bytes of a file for one image at a time.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        `(N, classes)` float32; None where the file holds an operator that cannot be run here.
    """
    import tensorflow as tf

    graph = Graph(content)
    if not has_derivatives(graph):
        return None

    def rounded(values):
        return tf.cast(tf.cast(values, tf.float16), tf.float32)

    logits = []
    for image in images:
        tensors = {graph.image: rounded(tf.constant(image[None], tf.float32))}
        for operator in graph.operators:
            results = {index: rounded(result) for index, result in run_outputs(graph, operator, tensors).items()}
            if graph.kind(operator) == "MEAN":
                entering, (result,) = tensors[int(operator.inputs[0])], results.values()
                total = rounded(result * (entering.shape.num_elements() / result.shape.num_elements()))
                results = {int(operator.outputs[0]): tf.where(tf.math.is_finite(total), result, total)}
            tensors.update(results)
        logits.append(np.ravel(tensors[int(graph.subgraph.outputs[0])]))
    return np.stack(logits)
