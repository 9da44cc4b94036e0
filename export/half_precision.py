"""What a GPU that computes in float16 makes of a file."""

import copy

import numpy as np

from .gradients import has_derivatives, run_operator
from .graph import Graph
from .targets import UnsupportedByTarget


def half_precision_logits(content, images):
    """The logits of a float file if every tensor is rounded to float16, and sums overflow where float16 does.

    Products are summed in float32 within a dense layer or matmul, as GPUs do it or may be told to.

    Args:
        content: bytes of a file for one image at a time.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        `(N, classes)` float32.

    Raises:
        UnsupportedByTarget: the file holds operators that cannot be run here, so that nothing is known of its answers.
    """
    import tensorflow as tf

    graph = Graph(content)
    unknown = sorted({graph.kind(operator) for operator in graph.operators if not _is_known(graph, operator)})
    if unknown:
        raise UnsupportedByTarget(
            f"What half precision makes of the file cannot be checked: {', '.join(unknown)} cannot be computed here, "
            "or not with these options."
        )

    def rounded(values):
        return tf.cast(tf.cast(values, tf.float16), tf.float32)

    logits = []
    for image in images:
        tensors = {graph.image: rounded(tf.constant(image[None], tf.float32))}
        for operator in graph.operators:
            result = rounded(run_operator(graph, operator, tensors))
            if graph.kind(operator) == "MEAN":
                entering = tensors[int(operator.inputs[0])]
                total = rounded(result * (entering.shape.num_elements() / result.shape.num_elements()))
                result = tf.where(tf.math.is_finite(total), result, total)
            tensors[int(operator.outputs[0])] = result
        logits.append(np.ravel(tensors[int(graph.subgraph.outputs[0])]))
    return np.stack(logits)


def _is_known(graph, operator):
    alone = copy.copy(graph)
    alone.operators = [operator]
    return has_derivatives(alone)
