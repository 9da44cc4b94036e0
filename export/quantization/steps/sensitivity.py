"""How far an error in each activation moves the answers: gradients through a float file, its ops run in TensorFlow."""

import numpy as np

from keras_vit_plugin.image_model.answers import CLASSES, LINEAR, LOGITS
from keras_vit_plugin.progress import track

from ...tflite.execute import run_graph, weights_of, without_derivatives
from ...tflite.graph import Graph
from .calibration import WIDEST, Entering, all_outputs, check_finite, measured_images, observe, rounded, summed

PROBES = 4  # random directions of each image; two cost int8-full half a decibel on a model with outliers
FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
SMALLEST_POWER = 1e-20  # of an output that counts by its power


def scaled_ranges(content, ranges, images, answers=(LOGITS,)):
    """Ranges made wider or narrower, each so that its error moves the answers least.

    With u random signs, the mean of `(d(u' logits) / dx . error)^2` is the squared length of the first-order change of
    the logits (Hutchinson's estimator). Unlike a sum of squares over a tensor's elements, it knows errors that agree,
    as those of clipping do. What an answer ignores is left out of u.

    Args:
        content: bytes of the float file.
        ranges: `{tensor index: (low, high)}`.
        images: raw pixels 0..255, `(N, H, W, C)`.
        answers: what the outputs of the file are, in their order.

    Returns:
        `{tensor index: (low, high)}`, the same where an op has no derivative here.
    """
    graph = Graph(content)
    if not has_derivatives(graph):
        return ranges
    generator = np.random.default_rng(0)
    errors = {tensor: np.zeros(len(FACTORS)) for tensor in ranges if _has_gradient(graph, tensor)}
    images = measured_images(graph, images)
    scales = output_scales(content, images, answers)
    logit_gradients = LogitGradients(graph, answers, scales)
    for image in track(images, "Searching ranges"):
        batch = np.broadcast_to(image, graph.subgraph.tensors[graph.image].shape)
        values, gradients = logit_gradients(batch, generator)
        for tensor, error in errors.items():
            low, high = ranges[tensor]
            for i, factor in enumerate(FACTORS):
                change = rounded(values[tensor], low * factor, high * factor) - values[tensor]
                error[i] += np.square(gradients[tensor] @ change).sum()
    best = {tensor: FACTORS[error.argmin()] for tensor, error in errors.items()}
    return ranges | {
        tensor: (ranges[tensor][0] * factor, ranges[tensor][1] * factor) for tensor, factor in best.items()
    }


def sensitive_entering(content, images, answers=(LOGITS,)):
    """What enters every dense layer, each row as often as an error in the layer's answer to it moves the answers.

    A row x counts as much as the root mean square of `d(u' logits) / dy`, y its answer and u random signs: a background
    patch less than the class token. Source: the Hessian of GuidedQuant (Kim et al. 2025, arXiv:2505.07004), which
    weighs by the mean square; the root was 1 dB better on DeiT-tiny, as few rows then count for all.

    Args:
        content: bytes of the float file.
        images: raw pixels 0..255, `(N, H, W, C)`.
        answers: what the outputs of the file are, in their order.

    Returns:
        `{tensor of the kernel: Entering}`; every row once where an op has no derivative here.
    """
    import tensorflow as tf

    graph = Graph(content)
    if not has_derivatives(graph):
        return observe(graph, images, ()).entering
    dense_layers = graph.of_kind("FULLY_CONNECTED")
    shape, weights = graph.subgraph.tensors[graph.image].shape, weights_of(graph)

    @tf.function(autograph=False)
    def weighted_products(image, probes):
        tensors = {graph.image: tf.broadcast_to(image, shape), **weights}
        with tf.GradientTape() as tape:
            tape.watch(tensors[graph.image])
            run_graph(graph, tensors)
            moved = moved_by(graph, tensors, probes)
        leaving = [tensors[int(dense.outputs[0])] for dense in dense_layers]
        gradients = tape.gradient(moved, leaving, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        results = []
        for dense, gradient in zip(dense_layers, gradients):
            rows = tf.reshape(tensors[int(dense.inputs[0])], (-1, graph.width(dense.inputs[1])))
            gradient = tf.reshape(gradient, (rows.shape[0], -1))
            count = tf.sqrt(tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True))
            if rows.shape[1] <= WIDEST:
                products = tf.matmul(count * rows, rows, transpose_a=True)
            else:
                products = tf.reduce_sum(count * tf.square(rows), axis=0)
            results.append((products, tf.reduce_sum(count), tf.reduce_sum(tf.square(count))))
        return moved, results

    generator = np.random.default_rng(0)
    sums = [[0.0, 0.0, 0.0] for _ in dense_layers]
    scales = output_scales(content, measured_images(graph, images), answers)
    for number, image in enumerate(track(images, "Weighing activations")):
        probes = random_probes(graph, answers, scales, generator)
        moved, found = weighted_products(image.astype(np.float32), probes)
        check_finite([moved], number)
        for total, results in zip(sums, found):
            total[:] = [before + result.numpy() for before, result in zip(total, results)]
    # As many rows as would say as much if all counted the same (Kish's effective sample size).
    return summed(
        (int(dense.inputs[1]), Entering(products, max(weight**2 / max(squares, 1e-30), 1.0)))
        for dense, (products, weight, squares) in zip(dense_layers, sums)
    )


def has_derivatives(graph):
    """Whether every operator is one that can be run here."""
    return not without_derivatives(graph)


def output_scales(content, images, answers):
    """What to multiply each output of a float file by, so that errors in several count alike, and by number.

    Returns:
        A number or one for each number of a regression, per answer.
    """
    scales = []
    for answer, outputs in zip(answers, all_outputs(content, images)):
        power = answer.power(outputs) * outputs[0].size
        scales.append(np.where(power > SMALLEST_POWER, 1 / np.sqrt(np.maximum(power, SMALLEST_POWER)), 1.0))
    return scales


class LogitGradients:
    """What a float file's operators compute, and how the answers follow; compiled at the first call.

    Args:
        graph: the `Graph` of a float file.
        answers: what the outputs are, in their order.
        scales: what each is multiplied by, as of `output_scales`.
    """

    def __init__(self, graph, answers=(LOGITS,), scales=(1.0,)):
        import tensorflow as tf

        self.graph, self.answers, self.scales = graph, answers, scales
        self.indices = [index for index in graph.producer if _has_gradient(graph, index)]
        self.weights = weights_of(graph)
        self.compiled = tf.function(self._run, autograph=False)

    def __call__(self, images, generator):
        """Runs the file, and its derivatives.

        Args:
            images: raw pixels, as many as the file takes per call.
            generator: for the random signs u.

        Returns:
            `{tensor: (values,)}`, and the derivatives of `u' outputs`, `{tensor: (PROBES, values)}`, of float tensors.
        """
        images, gradients = np.asarray(images, np.float32), []
        for _ in range(PROBES):
            computed, found = self.compiled(images, random_probes(self.graph, self.answers, self.scales, generator))
            gradients.append([np.ravel(gradient) for gradient in found])
        return {index: np.ravel(values) for index, values in zip(self.indices, computed)}, {
            index: np.stack(each) for index, *each in zip(self.indices, *gradients)
        }

    def _run(self, images, probes):
        import tensorflow as tf

        tensors = {self.graph.image: images, **self.weights}
        with tf.GradientTape() as tape:
            tape.watch(images)
            run_graph(self.graph, tensors)
            moved = moved_by(self.graph, tensors, probes)
        computed = [tensors[index] for index in self.indices]
        return computed, tape.gradient(moved, computed, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _has_gradient(graph, tensor):
    return tensor in graph.producer and graph.dtype(tensor) == "FLOAT32"


def random_probes(graph, answers, scales, generator):
    """Random signs for each output; where an answer ignores offsets, directions without one, of one length."""
    probes = []
    for index, answer, scale in zip(map(int, graph.subgraph.outputs), answers, scales):
        if answer.task == CLASSES and answer.activation == LINEAR:
            directions = generator.normal(size=graph.shape(index))
            probe = answer.error(np.zeros_like(directions), directions)
            length = np.linalg.norm(probe, axis=-1, keepdims=True)
            probe *= np.sqrt(probe.shape[-1] - 1) / np.maximum(length, 1e-12)
        else:
            probe = generator.choice((-1.0, 1.0), graph.shape(index))
        probes.append((probe * scale).astype(np.float32))
    return probes


def moved_by(graph, tensors, probes):
    """The sum of the outputs times their probes."""
    import tensorflow as tf

    outputs = map(int, graph.subgraph.outputs)
    return tf.add_n([tf.reduce_sum(tensors[index] * probe) for index, probe in zip(outputs, probes)])
