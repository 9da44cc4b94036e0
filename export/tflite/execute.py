"""The operators of a float file as TensorFlow functions, which have derivatives.

An operator is understood where its kind is in the table, and every option of it either is one that the function takes
or has its default value. What is not understood is never run: a wrong derivative would be silent.
"""

import functools

import numpy as np

from .operations import operations

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
    known = operations().get(graph.kind(operator))
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
    function, *_ = operations()[graph.kind(operator)]
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
