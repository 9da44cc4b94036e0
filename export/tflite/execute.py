"""The operators of a float file as TensorFlow functions, which have derivatives.

An operator is understood where its kind is in the table, and every option of it either is one that the function takes
or has its default value. What is not understood is never run: a wrong derivative would be silent.
"""

import functools

import numpy as np

WHOLE_NUMBERS = ("INT32", "INT64", "BOOL")
NO_EFFECT = ("asymmetricQuantizeInputs", "potScaleInt16", "quantizedBiasType", "quantSpec")  # on floats


def without_derivatives(graph):
    """The names of the operators of a float file that cannot be run here, as `"KIND (output)"`."""
    return [
        f"{graph.kind(operator)} ({graph.output_name(operator)})"
        for operator in graph.operators
        if not is_understood(graph, operator)
    ]


def is_understood(graph, operator):
    """Whether `run_operator` computes what the runtime does."""
    known = _operations().get(graph.kind(operator))
    if known is None:
        return False
    function, understood, holds = known
    options = operator.builtinOptions
    for name, value in vars(options).items() if options is not None else ():
        if name not in (*understood, *NO_EFFECT) and not _same(value, getattr(type(options)(), name)):
            return False
    if getattr(options, "fusedActivationFunction", 0) not in _fused():
        return False
    return _are_numbers(graph, operator) and holds(graph, operator, options)


def run_operator(graph, operator, values):
    """What an operator of a float file computes, of several outputs the first.

    Args:
        graph, operator: of the file.
        values: `{tensor index: values}` of the tensors that are no constants.
    """
    return next(iter(run_outputs(graph, operator, values).values()))


def run_outputs(graph, operator, values):
    """`{tensor: values}` of all outputs of an operator; arguments as for `run_operator`."""
    import tensorflow as tf

    def value(index):
        if index < 0:
            return None
        return values[index] if index in values else graph.constant(index)

    options = operator.builtinOptions
    function, *_ = _operations()[graph.kind(operator)]
    result = function(options, *(value(int(index)) for index in operator.inputs))
    results = list(result) if isinstance(result, (list, tuple)) else [result]
    fused = _fused()[getattr(options, "fusedActivationFunction", 0)]
    outputs = {}
    for index, one in zip(map(int, operator.outputs), results):
        if graph.dtype(index) in WHOLE_NUMBERS:
            one = tf.cast(one, graph.dtype(index).lower())
        outputs[index] = tf.reshape(fused(one), graph.shape(index))
    return outputs


def run_graph(graph, values):
    """Adds to `values`, which hold the input, what every operator of a file computes."""
    for operator in graph.operators:
        values.update(run_outputs(graph, operator, values))
    return values


def weights_of(graph):
    """`{tensor: TensorFlow tensor}` of the float constants of a file, to begin a compiled function's `values` with.

    A function that is given them from outside does not hold them itself: a graph of TensorFlow takes 2 GB at most.
    """
    import tensorflow as tf

    read = {int(index) for operator in graph.operators for index in operator.inputs if index >= 0}
    floats = {index: graph.constant(index) for index in sorted(read) if graph.dtype(index) == "FLOAT32"}
    return {index: tf.constant(values) for index, values in floats.items() if values is not None}


def _same(value, default):
    return value is default or np.array_equal(value, default)


def _are_numbers(graph, operator):
    """Whether what enters and leaves is float, a whole number that places are counted in, or the pixels."""
    for index in map(int, (*operator.inputs, *operator.outputs)):
        if index < 0 or (index == graph.image and graph.dtype(index) == "UINT8"):
            continue
        constant = graph.constant(index) if graph.dtype(index) != "FLOAT32" else None
        allowed = ("FLOAT32", "FLOAT16", *WHOLE_NUMBERS) if constant is not None else ("FLOAT32", *WHOLE_NUMBERS)
        if graph.dtype(index) not in allowed:
            return False
    return True


@functools.cache
def _fused():
    """Fused activation to its function."""
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.ActivationFunctionType
    return {
        kinds.NONE: lambda x: x,
        kinds.RELU: tf.nn.relu,
        kinds.RELU6: tf.nn.relu6,
        kinds.RELU_N1_TO_1: lambda x: tf.clip_by_value(x, -1.0, 1.0),
        kinds.TANH: tf.tanh,
    }


@functools.cache
def _operations():
    """Op kind to `function(options, *inputs)`, the options it takes, and what else must hold of an operator.

    The shape of a result and a fused activation are the caller's to see to.
    """
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

    def padding(options):
        return {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}[options.padding]

    def axes(indices):
        return [int(index) for index in np.ravel(indices)]

    def dilated(filters, options):
        """Filters with zeros between their taps: TensorFlow has no gradient of a dilated convolution on a CPU."""
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

    def biased(x, bias):
        return x if bias is None else x + bias

    def conv_2d(options, x, filters, bias=None):
        filters = tf.transpose(dilated(filters, options), (1, 2, 3, 0))
        groups = x.shape[3] // filters.shape[2]
        parts = zip(tf.split(x, groups, axis=3), tf.split(filters, groups, axis=3))
        strides = options.strideH, options.strideW
        return biased(tf.concat([tf.nn.conv2d(a, b, strides, padding(options)) for a, b in parts], 3), bias)

    def depthwise_conv_2d(options, x, filters, bias=None):
        filters = dilated(filters, options)
        filters = tf.reshape(filters, (*filters.shape[1:3], x.shape[3], -1))
        strides = (1, options.strideH, options.strideW, 1)
        return biased(tf.nn.depthwise_conv2d(x, filters, strides, padding(options)), bias)

    def fully_connected(options, x, kernel, bias=None):
        return biased(tf.matmul(tf.reshape(x, (-1, kernel.shape[1])), kernel, transpose_b=True), bias)

    def pool(function):
        def pooled(options, x):
            window, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
            return function(x, window, strides, padding(options))

        return pooled

    def strided_slice(options, x, begin, end, strides):
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

    def resize(function):
        def resized(options, x, size):
            return function(
                images=x, size=size, align_corners=options.alignCorners, half_pixel_centers=options.halfPixelCenters
            )

        return resized

    def hard_swish(options, x):
        return x * tf.nn.relu6(x + 3.0) / 6.0

    def always(graph, operator, options):
        return True

    def equal_strides(graph, operator, options):
        return options.strideH == options.strideW

    def constant(*positions):
        """Whether these inputs are constants, as what says places and sizes must be."""

        def holds(graph, operator, options):
            return all(graph.constant(int(operator.inputs[position])) is not None for position in positions)

        return holds

    def not_rounded(graph, operator, options):
        return graph.dtype(int(operator.outputs[0])) == "FLOAT32"

    def no_grid(graph, operator, options):
        """Whether DEQUANTIZE makes floats of halves, or of pixels with scale 1."""
        grid = graph.subgraph.tensors[int(operator.inputs[0])].quantization
        return grid is None or grid.scale is None or (list(grid.scale), list(grid.zeroPoint)) == ([1.0], [0])

    fused = ("fusedActivationFunction",)
    windows = ("padding", "strideW", "strideH", *fused)
    taps = (*windows, "dilationWFactor", "dilationHFactor")
    corners = ("alignCorners", "halfPixelCenters")
    masks = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")
    kept = ("keepDims",)  # the shape of the output says it

    def reducing(function):
        return (lambda options, x, along: function(x, axes(along))), kept, constant(1)

    def of_one(function):
        return (lambda options, x: function(x)), (), always

    def of_two(function, understood=()):
        return (lambda options, x, y: function(x, y)), understood, always

    return {
        "ADD": of_two(tf.add, fused),
        "SUB": of_two(tf.subtract, fused),
        "MUL": of_two(tf.multiply, fused),
        "DIV": of_two(tf.divide, fused),
        "MINIMUM": of_two(tf.minimum),
        "MAXIMUM": of_two(tf.maximum),
        "SQUARED_DIFFERENCE": of_two(tf.math.squared_difference),
        "POW": of_two(tf.pow),
        "CAST": (lambda options, x: tf.cast(x, tf.float32), ("inDataType", "outDataType"), not_rounded),
        "DEQUANTIZE": (lambda options, x: tf.cast(x, tf.float32), (), no_grid),
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
        "RESHAPE": (lambda options, x, *shape: x, ("newShape",), always),
        "SQUEEZE": (lambda options, x: x, ("squeezeDims",), always),
        "EXPAND_DIMS": (lambda options, x, axis: x, (), always),
        "TRANSPOSE": (lambda options, x, order: tf.transpose(x, order), (), constant(1)),
        "PAD": (lambda options, x, amounts: tf.pad(x, amounts), (), constant(1)),
        "SLICE": (lambda options, x, begin, size: tf.slice(x, begin, size), (), constant(1, 2)),
        "STRIDED_SLICE": (strided_slice, masks, constant(1, 2, 3)),
        "GATHER": (
            lambda options, x, indices: tf.gather(x, indices, axis=options.axis, batch_dims=options.batchDims),
            ("axis", "batchDims"),
            constant(1),
        ),
        "CONCATENATION": (lambda options, *parts: tf.concat(parts, options.axis), ("axis", *fused), always),
        "PACK": (lambda options, *parts: tf.stack(parts, options.axis), ("axis", "valuesCount"), always),
        "UNPACK": (lambda options, x: tf.unstack(x, options.num, options.axis), ("axis", "num"), always),
        "SPLIT": (
            lambda options, axis, x: tf.split(x, options.numSplits, int(np.ravel(axis)[0])),
            ("numSplits",),
            constant(0),
        ),
        "TILE": (lambda options, x, times: tf.tile(x, times), (), constant(1)),
        "BROADCAST_TO": (lambda options, x, shape: tf.broadcast_to(x, shape), (), constant(1)),
        "CONV_2D": (conv_2d, taps, always),
        "DEPTHWISE_CONV_2D": (depthwise_conv_2d, (*taps, "depthMultiplier"), equal_strides),
        "AVERAGE_POOL_2D": (
            pool(tf.nn.avg_pool2d),
            (*windows, "filterWidth", "filterHeight"),
            always,
        ),
        "MAX_POOL_2D": (pool(tf.nn.max_pool2d), (*windows, "filterWidth", "filterHeight"), always),
        "RESIZE_BILINEAR": (resize(tf.raw_ops.ResizeBilinear), corners, constant(1)),
        "RESIZE_NEAREST_NEIGHBOR": (resize(tf.raw_ops.ResizeNearestNeighbor), corners, constant(1)),
        "FULLY_CONNECTED": (fully_connected, (*fused, "keepNumDims"), always),
        "BATCH_MATMUL": (
            lambda options, x, y: tf.matmul(x, y, transpose_a=options.adjX, transpose_b=options.adjY),
            ("adjX", "adjY"),
            always,
        ),
    }
