"""What a GPU that computes in float16 makes of a file."""

import numpy as np

from ..tflite.errors import UnsupportedByTarget
from ..tflite.execute import run_outputs, without_derivatives
from ..tflite.graph import Graph


def half_precision_outputs(content, images):
    """The outputs of a float file if every tensor is rounded to float16, and sums overflow where float16 does.

    Products are summed in float32 within a dense layer or matmul, as GPUs may be told to. Some sum them in float16:
    DeiT-tiny, 50 dB here, has 35 dB on an H100 through WebGPU.

    Args:
        content: bytes of a file for one image at a time.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        A list of float32 `(N, values)`, one array for each output in the graph's order.

    Raises:
        UnsupportedByTarget: the file holds operators that cannot be run here, so that nothing is known of its answers.
    """
    import tensorflow as tf

    graph = Graph(content)
    if unknown := without_derivatives(graph):
        raise UnsupportedByTarget(
            f"What half precision makes of the file cannot be checked: {', '.join(sorted(set(unknown)))} cannot be "
            "computed here, or not with these options."
        )

    def rounded(values):
        return tf.cast(tf.cast(values, tf.float16), tf.float32)

    rows = []
    for image in images:
        tensors = {graph.image: rounded(tf.constant(image[None], tf.float32))}
        for operator in graph.operators:
            results = {index: rounded(result) for index, result in run_outputs(graph, operator, tensors).items()}
            if graph.kind(operator) == "MEAN":
                entering, (result,) = tensors[int(operator.inputs[0])], results.values()
                total = rounded(result * (entering.shape.num_elements() / result.shape.num_elements()))
                results = {int(operator.outputs[0]): tf.where(tf.math.is_finite(total), result, total)}
            tensors.update(results)
        rows.append([np.ravel(tensors[int(index)]) for index in graph.subgraph.outputs])
    return [np.stack(values) for values in zip(*rows)]
