"""What the ops of a float `.tflite` compute, in TensorFlow: the table that `execute` runs.

An entry is `(function(options, *inputs), the options that it takes, what else must hold of an operator)`. The shape of
a result and a fused activation are for `execute` to see to.
"""

import functools

import numpy as np

FUSED = ("fusedActivationFunction",)
WINDOWS = ("padding", "strideW", "strideH", *FUSED)
TAPS = (*WINDOWS, "dilationWFactor", "dilationHFactor")
CORNERS = ("alignCorners", "halfPixelCenters")
MASKS = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")
KEPT = ("keepDims",)  # the shape of the output says it


@functools.cache
def operations():
    """`{op kind: (function, options, condition)}`."""
    return {**_of_numbers(), **_activations(), **_of_shapes(), **_layers()}


def always(graph, operator, options):
    return True


def constant(*positions):
    """Whether these inputs are constants, as what says places and sizes must be."""

    def holds(graph, operator, options):
        return all(graph.constant(int(operator.inputs[position])) is not None for position in positions)

    return holds


def not_rounded(graph, operator, options):
    """Whether a CAST gives floats."""
    return graph.dtype(int(operator.outputs[0])) == "FLOAT32"


def no_grid(graph, operator, options):
    """Whether DEQUANTIZE makes floats of halves, or of pixels with scale 1."""
    grid = graph.subgraph.tensors[int(operator.inputs[0])].quantization
    return grid is None or grid.scale is None or (list(grid.scale), list(grid.zeroPoint)) == ([1.0], [0])


def equal_strides(graph, operator, options):
    return options.strideH == options.strideW


def of_one(function):
    return (lambda options, x: function(x)), (), always


def of_two(function, understood=()):
    return (lambda options, x, y: function(x, y)), understood, always


def reducing(function):
    return (lambda options, x, along: function(x, [int(axis) for axis in np.ravel(along)])), KEPT, constant(1)


def _of_numbers():
    """Arithmetic on each value, and along axes."""
    import tensorflow as tf

    return {
        "ADD": of_two(tf.add, FUSED),
        "SUB": of_two(tf.subtract, FUSED),
        "MUL": of_two(tf.multiply, FUSED),
        "DIV": of_two(tf.divide, FUSED),
        "MINIMUM": of_two(tf.minimum),
        "MAXIMUM": of_two(tf.maximum),
        "SQUARED_DIFFERENCE": of_two(tf.math.squared_difference),
        "POW": of_two(tf.pow),
        "CAST": (lambda options, x: tf.cast(x, tf.float32), ("inDataType", "outDataType"), not_rounded),
        "DEQUANTIZE": (lambda options, x: tf.cast(x, tf.float32), (), no_grid),
        "EXP": of_one(tf.exp),
        "LOG": of_one(tf.math.log),
        "SQRT": of_one(tf.sqrt),
        "RSQRT": of_one(tf.math.rsqrt),
        "SQUARE": of_one(tf.square),
        "NEG": of_one(tf.negative),
        "ABS": of_one(tf.abs),
        "SIN": of_one(tf.sin),
        "COS": of_one(tf.cos),
        "MEAN": reducing(tf.reduce_mean),
        "SUM": reducing(tf.reduce_sum),
        "REDUCE_MAX": reducing(tf.reduce_max),
        "REDUCE_MIN": reducing(tf.reduce_min),
    }


def _activations():
    import tensorflow as tf

    return {
        "RELU": of_one(tf.nn.relu),
        "RELU6": of_one(tf.nn.relu6),
        "RELU_N1_TO_1": of_one(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
        "RELU_0_TO_1": of_one(lambda x: tf.clip_by_value(x, 0.0, 1.0)),
        "LEAKY_RELU": (lambda options, x: tf.nn.leaky_relu(x, options.alpha), ("alpha",), always),
        "PRELU": of_two(lambda x, alpha: tf.nn.relu(x) - alpha * tf.nn.relu(-x)),
        "ELU": of_one(tf.nn.elu),
        "TANH": of_one(tf.tanh),
        "LOGISTIC": of_one(tf.sigmoid),
        "HARD_SWISH": (hard_swish, (), always),
        "GELU": (lambda options, x: tf.nn.gelu(x, approximate=options.approximate), ("approximate",), always),
        "SOFTMAX": (lambda options, x: tf.nn.softmax(x * options.beta), ("beta",), always),
        "LOG_SOFTMAX": of_one(tf.nn.log_softmax),
    }


def _of_shapes():
    """What moves, joins and repeats values."""
    import tensorflow as tf

    return {
        "RESHAPE": (lambda options, x, *shape: x, ("newShape",), always),
        "SQUEEZE": (lambda options, x: x, ("squeezeDims",), always),
        "EXPAND_DIMS": (lambda options, x, axis: x, (), always),
        "TRANSPOSE": (lambda options, x, order: tf.transpose(x, order), (), constant(1)),
        "PAD": (lambda options, x, amounts: tf.pad(x, amounts), (), constant(1)),
        "SLICE": (lambda options, x, begin, size: tf.slice(x, begin, size), (), constant(1, 2)),
        "STRIDED_SLICE": (strided_slice, MASKS, constant(1, 2, 3)),
        "GATHER": (
            lambda options, x, indices: tf.gather(x, indices, axis=options.axis, batch_dims=options.batchDims),
            ("axis", "batchDims"),
            constant(1),
        ),
        "CONCATENATION": (lambda options, *parts: tf.concat(parts, options.axis), ("axis", *FUSED), always),
        "PACK": (lambda options, *parts: tf.stack(parts, options.axis), ("axis", "valuesCount"), always),
        "UNPACK": (lambda options, x: tf.unstack(x, options.num, options.axis), ("axis", "num"), always),
        "SPLIT": (
            lambda options, axis, x: tf.split(x, options.numSplits, int(np.ravel(axis)[0])),
            ("numSplits",),
            constant(0),
        ),
        "TILE": (lambda options, x, times: tf.tile(x, times), (), constant(1)),
        "BROADCAST_TO": (lambda options, x, shape: tf.broadcast_to(x, shape), (), constant(1)),
    }


def _layers():
    """Layers with weights, WINDOWS over an image, and products."""
    import tensorflow as tf

    return {
        "CONV_2D": (conv_2d, TAPS, always),
        "DEPTHWISE_CONV_2D": (depthwise_conv_2d, (*TAPS, "depthMultiplier"), equal_strides),
        "AVERAGE_POOL_2D": (
            pool(tf.nn.avg_pool2d),
            (*WINDOWS, "filterWidth", "filterHeight"),
            always,
        ),
        "MAX_POOL_2D": (pool(tf.nn.max_pool2d), (*WINDOWS, "filterWidth", "filterHeight"), always),
        "RESIZE_BILINEAR": (resize(tf.raw_ops.ResizeBilinear), CORNERS, constant(1)),
        "RESIZE_NEAREST_NEIGHBOR": (resize(tf.raw_ops.ResizeNearestNeighbor), CORNERS, constant(1)),
        "FULLY_CONNECTED": (fully_connected, (*FUSED, "keepNumDims"), always),
        "BATCH_MATMUL": (
            lambda options, x, y: tf.matmul(x, y, transpose_a=options.adjX, transpose_b=options.adjY),
            ("adjX", "adjY"),
            always,
        ),
    }


def hard_swish(options, x):
    import tensorflow as tf

    return x * tf.nn.relu6(x + 3.0) / 6.0


def strided_slice(options, x, begin, end, strides):
    import tensorflow as tf

    return tf.strided_slice(
        x,
        begin,
        end,
        strides,
        begin_mask=options.beginMask,
        end_mask=options.endMask,
        ellipsis_mask=options.ellipsisMask,
        new_axis_mask=options.newAxisMask,
        shrink_axis_mask=options.shrinkAxisMask,
    )


def conv_2d(options, x, filters, bias=None):
    """A convolution of any number of groups; filters are `(outputs, height, width, inputs of a group)`."""
    import tensorflow as tf

    filters = tf.transpose(_dilated(filters, options), (1, 2, 3, 0))
    groups = x.shape[3] // filters.shape[2]
    parts = zip(tf.split(x, groups, axis=3), tf.split(filters, groups, axis=3))
    strides = options.strideH, options.strideW
    return _biased(tf.concat([tf.nn.conv2d(a, b, strides, _padding(options)) for a, b in parts], 3), bias)


def depthwise_conv_2d(options, x, filters, bias=None):
    import tensorflow as tf

    filters = _dilated(filters, options)
    filters = tf.reshape(filters, (*filters.shape[1:3], x.shape[3], -1))
    strides = (1, options.strideH, options.strideW, 1)
    return _biased(tf.nn.depthwise_conv2d(x, filters, strides, _padding(options)), bias)


def fully_connected(options, x, kernel, bias=None):
    import tensorflow as tf

    return _biased(tf.matmul(tf.reshape(x, (-1, kernel.shape[1])), kernel, transpose_b=True), bias)


def pool(function):
    def pooled(options, x):
        window, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
        return function(x, window, strides, _padding(options))

    return pooled


def resize(function):
    def resized(options, x, size):
        return function(
            images=x, size=size, align_corners=options.alignCorners, half_pixel_centers=options.halfPixelCenters
        )

    return resized


def _padding(options):
    from ai_edge_litert import schema_py_generated as schema

    return {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}[options.padding]


def _dilated(filters, options):
    """Filters with zeros between their TAPS: TensorFlow has no gradient of a dilated convolution on a CPU."""
    import tensorflow as tf

    rows, columns = options.dilationHFactor, options.dilationWFactor
    if rows == columns == 1:
        return filters
    outputs, height, width, inputs = filters.shape
    spread = tf.pad(
        tf.reshape(filters, (outputs, height, 1, width, 1, inputs)),
        ((0, 0), (0, 0), (0, rows - 1), (0, 0), (0, columns - 1), (0, 0)),
    )
    spread = tf.reshape(spread, (outputs, height * rows, width * columns, inputs))
    return spread[:, : (height - 1) * rows + 1, : (width - 1) * columns + 1]


def _biased(x, bias):
    return x if bias is None else x + bias
