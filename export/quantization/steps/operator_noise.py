"""How much noise quantized operators would each add to the answers, estimated by gradients in one pass over few images.

The error d that an operator makes in its output moves the answers by `J d` to first order, J the derivative of the
answers by that output. With u random signs, the mean of `(u' J d)^2` is the squared length of it (Hutchinson's
estimator), and `u' J` is one gradient for all operators at once. Measuring instead takes a quantized file for each.
"""

import numpy as np

from keras_vit_plugin.images.gather import spread
from keras_vit_plugin.progress import track

from ...tflite.execute import run_graph, run_outputs, weights_of
from .levels import FIXED
from .sensitivity import moved_by, output_scales, random_probes

RUNS = 32  # gradients, of one image and one probe each
LEAST_STEP = 1e-12  # of the grid of values that are all zero


def estimated_noises(graph, images, answers, changes, kernels=None):
    """The noise that each change of a float file adds to the answers.

    Args:
        graph: the `Graph` of a float file that has derivatives.
        images: raw pixels 0..255, `(N, H, W, C)`.
        answers: what the outputs of the file are, in their order.
        changes: `{key: [(operator, function)]}`: the operators that change together, and for each the function from
            `{tensor: values}` of the float file to its changed output.
        kernels: `{tensor: float32 array}` of kernels that are in place of the file's own.

    Returns:
        `{key: noise}`, in the unit of `mean_noise`.
    """
    import tensorflow as tf

    shape, weights = graph.shape(graph.image), weights_of(graph)
    weights |= {tensor: tf.constant(kernel) for tensor, kernel in (kernels or {}).items()}
    outputs = list(dict.fromkeys(int(op.outputs[0]) for changed in changes.values() for op, _ in changed))

    @tf.function(autograph=False)
    def squares(image, probes):
        tensors = {graph.image: tf.broadcast_to(image, shape), **weights}
        with tf.GradientTape() as tape:
            tape.watch(tensors[graph.image])
            run_graph(graph, tensors)
            moved = moved_by(graph, tensors, probes)
        unread = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(moved, [tensors[output] for output in outputs], unconnected_gradients=unread)
        gradients = dict(zip(outputs, gradients))
        found = []
        for changed in changes.values():
            moves = []
            for operator, function in changed:
                output = int(operator.outputs[0])
                moves.append(tf.reduce_sum(gradients[output] * (function(tensors) - tensors[output])))
            found.append(tf.square(tf.add_n(moves)))
        return tf.stack(found)

    generator = np.random.default_rng(0)
    scales = output_scales(graph.content, images, answers)
    total = np.zeros(len(changes))
    for image in track(spread(images, RUNS), "Estimating noise"):
        probes = random_probes(graph, answers, scales, generator)
        total += squares(image.astype(np.float32), probes).numpy()
    noises = total / (min(RUNS, len(images)) * len(answers) * shape[0])
    return dict(zip(changes, noises.tolist()))


def with_kernel(graph, operator, kernel):
    """A function, as for `estimated_noises`, of an operator with another kernel."""
    index = int(operator.inputs[1])

    def changed(tensors):
        return run_outputs(graph, operator, {**tensors, index: kernel})[int(operator.outputs[0])]

    return changed


def on_level(graph, operator, level, ranges):
    """A function, as for `estimated_noises`, of an operator whose inputs, and on fixed scales its output, are in int8.

    Args:
        graph, operator: of the float file, its kernel on the grid of int8.
        level: `FIXED` or `ON_THE_FLY`.
        ranges: `{tensor: (low, high)}` of what fixed scales are for.
    """
    import tensorflow as tf

    computed = [index for index in map(int, operator.inputs[:2]) if index in graph.producer]
    output = int(operator.outputs[0])

    def changed(tensors):
        given = dict(tensors)
        for index in computed:
            values = tensors[index]
            if level != FIXED:  # each row has a range of its own
                low = tf.minimum(tf.reduce_min(values, -1, keepdims=True), 0.0)
                given[index] = _on_grid(values, low, tf.maximum(tf.reduce_max(values, -1, keepdims=True), 0.0))
            elif index in ranges:
                given[index] = _on_grid(values, *ranges[index])
        values = run_outputs(graph, operator, given)[output]
        return _on_grid(values, *ranges[output]) if level == FIXED and output in ranges else values

    return changed


def _on_grid(values, low, high):
    """As `calibration.rounded`, in TensorFlow."""
    import tensorflow as tf

    scale = tf.maximum((high - low) / 255, LEAST_STEP)
    zero_point = tf.round(-128 - low / scale)
    return (tf.clip_by_value(tf.round(values / scale) + zero_point, -128, 127) - zero_point) * scale
