"""How much noise each operator would add to the answers in int8, estimated by gradients in one pass over a few images.

The error d that an operator makes in its output moves the answers by `J d` to first order, J the derivative of the
answers by that output. With u random signs, the mean of `(u' J d)^2` is the squared length of it (Hutchinson's
estimator), and `u' J` is one gradient for all operators at once. Measuring instead takes a quantized file for each.
"""

import numpy as np

from keras_vit_plugin.progress import track

from ...tflite.execute import run_graph, run_outputs, weights_of
from .levels import FIXED
from .sensitivity import moved_by, output_scales, random_probes

RUNS = 32  # gradients, of one image and one probe each
FEWEST_STEPS = 1e-12  # a step of the grid of values that are all zero


def estimated_noises(graph, kernels, images, answers, levels, ranges):
    """The noise that each operator alone adds to the answers on each level.

    Args:
        graph: the `Graph` of a float file that has derivatives.
        kernels: `{tensor: float32 kernel}` of its dense layers on the grid of int8.
        images: raw pixels 0..255, `(N, H, W, C)`.
        answers: what the outputs of the file are, in their order.
        levels: `[(operator's number in the graph, level)]`, a level `FIXED` or `ON_THE_FLY`.
        ranges: `{tensor: (low, high)}` of what fixed scales are for.

    Returns:
        `{(number, level): noise}`, in the unit of `mean_noise`.
    """
    import tensorflow as tf

    shape, weights = graph.shape(graph.image), weights_of(graph)
    weights |= {tensor: tf.constant(kernel) for tensor, kernel in kernels.items()}
    outputs = {number: int(graph.operators[number].outputs[0]) for number, _ in levels}

    @tf.function(autograph=False)
    def squares(image, probes):
        tensors = {graph.image: tf.broadcast_to(image, shape), **weights}
        with tf.GradientTape() as tape:
            tape.watch(tensors[graph.image])
            run_graph(graph, tensors)
            moved = moved_by(graph, tensors, probes)
        gradients = tape.gradient(
            moved, [tensors[output] for output in outputs.values()], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        by_number = dict(zip(outputs, gradients))
        found = []
        for number, level in levels:
            operator = graph.operators[number]
            error = quantized_output(graph, operator, tensors, level, ranges) - tensors[outputs[number]]
            found.append(tf.square(tf.reduce_sum(by_number[number] * error)))
        return tf.stack(found)

    generator = np.random.default_rng(0)
    scales = output_scales(graph.content, images, answers)
    chosen = images[np.linspace(0, len(images) - 1, RUNS).round().astype(int)]
    total = np.zeros(len(levels))
    for image in track(chosen, "Estimating int8"):
        probes = random_probes(graph, answers, scales, generator)
        total += squares(image.astype(np.float32), probes).numpy()
    noises = total / (len(chosen) * len(answers) * shape[0])
    return dict(zip(levels, noises.tolist()))


def quantized_output(graph, operator, tensors, level, ranges):
    """What an operator gives, as a float tensor, whose inputs, and on fixed scales its output, are in int8."""
    import tensorflow as tf

    given = dict(tensors)
    for index in map(int, operator.inputs[:2]):
        if index not in graph.producer and index != graph.image:
            continue  # a kernel, which is on its grid
        if level == FIXED:
            given[index] = _on_grid(tensors[index], *ranges[index]) if index in ranges else tensors[index]
        else:
            values = tensors[index]
            low = tf.minimum(tf.reduce_min(values, -1, keepdims=True), 0.0)
            given[index] = _on_grid(values, low, tf.maximum(tf.reduce_max(values, -1, keepdims=True), 0.0))
    output = int(operator.outputs[0])
    values = run_outputs(graph, operator, given)[output]
    return _on_grid(values, *ranges[output]) if level == FIXED and output in ranges else values


def _on_grid(values, low, high):
    """As `calibration.rounded`, in TensorFlow."""
    import tensorflow as tf

    scale = tf.maximum((high - low) / 255, FEWEST_STEPS)
    zero_point = tf.round(-128 - low / scale)
    return (tf.clip_by_value(tf.round(values / scale) + zero_point, -128, 127) - zero_point) * scale
