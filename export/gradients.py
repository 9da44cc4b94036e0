"""How far an error in each activation moves the logits: gradients through a float file, its ops run in TensorFlow."""

import numpy as np

from .calibrate import Entering, measured_images, observe, rounded
from .graph import Graph
from .progress import track

PROBES = 4
FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)


def scaled_ranges(content, ranges, images):
    """Ranges made wider or narrower, each so that its error moves the logits least.

    With u random signs, the mean of `(d(u' logits) / dx . error)^2` is the squared length of the first-order change of
    the logits (Hutchinson's estimator). Unlike a sum of squares over a tensor's elements, it knows errors that agree,
    as those of clipping do.

    Args:
        content: bytes of the float file.
        ranges: `{tensor index: (low, high)}`.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        `{tensor index: (low, high)}`, the same where an op has no derivative here.
    """
    graph = Graph(content)
    if not has_derivatives(graph):
        return ranges
    generator = np.random.default_rng(0)
    errors = {tensor: np.zeros(len(FACTORS)) for tensor in ranges if tensor in graph.producer}
    for image in track(measured_images(graph, images), "Searching ranges"):
        batch = np.broadcast_to(image, graph.subgraph.tensors[graph.image].shape)
        values, gradients = logit_gradients(graph, batch, generator)
        for tensor, error in errors.items():
            low, high = ranges[tensor]
            for i, factor in enumerate(FACTORS):
                change = rounded(values[tensor], low * factor, high * factor) - values[tensor]
                error[i] += np.square(gradients[tensor] @ change).sum()
    best = {tensor: FACTORS[error.argmin()] for tensor, error in errors.items()}
    return ranges | {
        tensor: (ranges[tensor][0] * factor, ranges[tensor][1] * factor) for tensor, factor in best.items()
    }


def sensitive_entering(content, images):
    """What enters every dense layer, each row as often as an error in the layer's answer to it moves the logits.

    A row x counts as much as the root mean square of `d(u' logits) / dy`, y its answer and u random signs: a background
    patch less than the class token. Source: the Hessian of GuidedQuant (Kim et al. 2025, arXiv:2505.07004), which
    weighs by the mean square; the root was 1 dB better on DeiT-tiny, as few rows then count for all.

    Args:
        content: bytes of the float file.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        `{tensor of the kernel: Entering}`; every row once where an op has no derivative here.
    """
    import tensorflow as tf

    graph = Graph(content)
    if not has_derivatives(graph):
        return observe(content, images).entering
    dense_layers = graph.of_kind("FULLY_CONNECTED")
    shape = graph.subgraph.tensors[graph.image].shape

    @tf.function
    def weighted_products(image, signs):
        tensors = {graph.image: tf.broadcast_to(image, shape)}
        with tf.GradientTape() as tape:
            tape.watch(tensors[graph.image])
            for operator in graph.operators:
                tensors[int(operator.outputs[0])] = run_operator(graph, operator, tensors)
            probe = tf.reduce_sum(tensors[int(graph.subgraph.outputs[0])] * signs)
        answers = [tensors[int(dense.outputs[0])] for dense in dense_layers]
        gradients = tape.gradient(probe, answers, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        results = []
        for dense, gradient in zip(dense_layers, gradients):
            rows = tf.reshape(tensors[int(dense.inputs[0])], (-1, graph.width(dense.inputs[1])))
            gradient = tf.reshape(gradient, (rows.shape[0], -1))
            weights = tf.sqrt(tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True))
            products = tf.matmul(weights * rows, rows, transpose_a=True)
            results.append((products, tf.reduce_sum(weights), tf.reduce_sum(tf.square(weights))))
        return results

    generator = np.random.default_rng(0)
    sums = [[0.0, 0.0, 0.0] for _ in dense_layers]
    logits_shape = graph.subgraph.tensors[int(graph.subgraph.outputs[0])].shape
    for image in track(images, "Weighing activations"):
        signs = generator.choice((-1.0, 1.0), logits_shape).astype(np.float32)
        for total, results in zip(sums, weighted_products(image.astype(np.float32), signs)):
            total[:] = [before + result.numpy() for before, result in zip(total, results)]
    # As many rows as would say as much if all counted the same (Kish's effective sample size).
    return {
        int(dense.inputs[1]): Entering(products, max(weight**2 / max(squares, 1e-30), 1.0))
        for dense, (products, weight, squares) in zip(dense_layers, sums)
    }


def has_derivatives(graph):
    """Whether every operator is one that can be run here."""
    known = _operations()
    return all(graph.kind(operator) in known for operator in graph.operators)


def run_operator(graph, operator, values):
    """What an operator of a float file computes.

    Args:
        graph, operator: of the file.
        values: `{tensor index: values}` of the tensors that are no constants.
    """
    import tensorflow as tf

    inputs = [values[int(index)] if int(index) in values else graph.constant(int(index)) for index in operator.inputs]
    result = _operations()[graph.kind(operator)](operator.builtinOptions, *inputs)
    return tf.reshape(result, graph.subgraph.tensors[int(operator.outputs[0])].shape)


def logit_gradients(graph, images, generator):
    """What the operators compute, and how the logits follow.

    Args:
        graph: the `Graph` of a float file.
        images: raw pixels, as many as the file takes per call.
        generator: for the random signs u.

    Returns:
        `{tensor: (values,)}`, and the derivatives of `u' logits`, `{tensor: (PROBES, values)}`.
    """
    import tensorflow as tf

    tensors = {graph.image: tf.constant(images, tf.float32)}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensors[graph.image])
        for operator in graph.operators:
            tensors[int(operator.outputs[0])] = run_operator(graph, operator, tensors)
        logits = tensors[int(graph.subgraph.outputs[0])]
        signs = generator.choice((-1.0, 1.0), (PROBES, *logits.shape)).astype(np.float32)
        probes = [tf.reduce_sum(logits * probe) for probe in signs]
    computed = {index: tensors[index] for index in graph.producer}
    gradients = [tape.gradient(probe, computed, unconnected_gradients=tf.UnconnectedGradients.ZERO) for probe in probes]
    return {index: np.ravel(tensor) for index, tensor in computed.items()}, {
        index: np.stack([np.ravel(gradient[index]) for gradient in gradients]) for index in computed
    }


def _operations():
    """Op kind to `function(options, *inputs)`; the shape of the result is the caller's to set."""
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

    def padding(options):
        return {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}[options.padding]

    def axis(indices):
        return [int(index) for index in np.ravel(indices)]

    return {
        "ADD": lambda options, x, y: x + y,
        "SUB": lambda options, x, y: x - y,
        "MUL": lambda options, x, y: x * y,
        "CAST": lambda options, x: x,
        "DEQUANTIZE": lambda options, x: tf.cast(x, tf.float32),
        "PAD": lambda options, x, amounts: tf.pad(x, amounts),
        "CONV_2D": lambda options, x, filters, bias: (
            tf.nn.conv2d(x, tf.transpose(filters, (1, 2, 3, 0)), (options.strideH, options.strideW), padding(options))
            + bias
        ),
        "RESHAPE": lambda options, x, *shape: x,
        "TRANSPOSE": lambda options, x, order: tf.transpose(x, order),
        "SLICE": lambda options, x, begin, size: tf.slice(x, begin, size),
        "CONCATENATION": lambda options, *parts: tf.concat(parts, options.axis),
        "MEAN": lambda options, x, along: tf.reduce_mean(x, axis(along)),
        "SUM": lambda options, x, along: tf.reduce_sum(x, axis(along)),
        "REDUCE_MAX": lambda options, x, along: tf.reduce_max(x, axis(along)),
        "RSQRT": lambda options, x: tf.math.rsqrt(x),
        "EXP": lambda options, x: tf.exp(x),
        "DIV": lambda options, x, y: x / y,
        "MINIMUM": lambda options, x, y: tf.minimum(x, y),
        "LOGISTIC": lambda options, x: tf.sigmoid(x),
        "SOFTMAX": lambda options, x: tf.nn.softmax(x * options.beta),
        "GELU": lambda options, x: tf.nn.gelu(x, approximate=options.approximate),
        "FULLY_CONNECTED": lambda options, x, kernel, bias: tf.matmul(x, kernel, transpose_b=True) + bias,
        "BATCH_MATMUL": lambda options, x, y: tf.matmul(x, y, transpose_a=options.adjX, transpose_b=options.adjY),
    }
