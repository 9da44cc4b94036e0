"""The operators of float files in TensorFlow: values as the runtime's, derivatives as of the Keras model."""

import hostile_tflite
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import pixels, randomize
from keras import layers, ops

from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.quantization.steps.sensitivity import has_derivatives
from keras_vit_plugin.export.tflite.execute import NO_EFFECT, run_graph, run_operator, run_outputs, without_derivatives
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.image_model.image_model import ImageModel


class Function(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def conv(**options):
    return layers.Conv2D(6, 3, **options)


ZOO = {
    "relu": lambda: [conv(activation="relu"), layers.Dense(5, activation="relu")],
    "relu6": lambda: [conv(activation="relu6", strides=2, padding="same")],
    "dilated": lambda: [conv(dilation_rate=2, padding="same", activation="relu")],
    "dilated valid": lambda: [conv(dilation_rate=(2, 3))],
    "grouped": lambda: [conv(), layers.Conv2D(4, 3, groups=2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2, activation="relu")],
    "average pool": lambda: [conv(), layers.AveragePooling2D(3, strides=2, padding="same")],
    "max pool": lambda: [conv(activation="tanh"), layers.MaxPooling2D(2)],
    "leaky": lambda: [conv(), layers.LeakyReLU(negative_slope=0.3)],
    "prelu": lambda: [conv(), layers.PReLU(alpha_initializer="random_normal")],
    "tanh": lambda: [conv(activation="tanh")],
    "sigmoid": lambda: [conv(activation="sigmoid")],
    "elu": lambda: [conv(activation="elu")],
    "swish": lambda: [conv(activation="hard_swish"), layers.Conv2D(4, 1, activation="silu")],
    "softmax": lambda: [conv(activation="softmax")],
    "log softmax": lambda: [conv(activation="log_softmax")],
    "gelu": lambda: [
        conv(activation="gelu"),
        layers.Dense(4, activation=lambda x: keras.activations.gelu(x, approximate=True)),
    ],
    "normed": lambda: [conv(), layers.BatchNormalization(), layers.LayerNormalization()],
    "resized": lambda: [conv(), layers.UpSampling2D(2, interpolation="bilinear"), layers.UpSampling2D(2)],
    "padded": lambda: [conv(), layers.ZeroPadding2D(2), layers.Cropping2D(((1, 0), (0, 2)))],
    "strided slice": lambda: [conv(), Function(lambda x: x[:, ::2, 1:, 0])],
    "split": lambda: [conv(), Function(lambda x: ops.multiply(*ops.split(x, 2, axis=-1)))],
    "stack": lambda: [conv(), Function(lambda x: ops.stack([x, ops.sqrt(ops.abs(x) + 1.0)], axis=1))],
    "unstack": lambda: [conv(), Function(lambda x: ops.subtract(*ops.unstack(x, axis=-1)[:2]))],
    "take": lambda: [conv(), Function(lambda x: ops.take(x, [2, 0, 2], axis=-1))],
    "arithmetic": lambda: [
        conv(),
        Function(lambda x: ops.maximum(-ops.square(x), ops.log(ops.exp(x) + 1.0)) / (2.0 + x**2)),
    ],
    "differences": lambda: [
        conv(),
        Function(lambda x: ops.minimum(tf.math.squared_difference(x, ops.sin(x)), ops.cos(x))),
    ],
    "reduced": lambda: [
        conv(),
        Function(lambda x: ops.max(x, axis=1) + ops.min(x, axis=1) + ops.sum(x, 1) + ops.mean(x, 1)),
    ],
    "clipped": lambda: [conv(), Function(lambda x: ops.clip(x, -1.0, 1.0) + ops.clip(x, 0.0, 1.0))],
    "tiled": lambda: [conv(), Function(lambda x: ops.tile(ops.expand_dims(x, 1), (1, 2, 1, 1, 1)))],
}


def zoo_model(name):
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 9, 3))
    x = image
    for layer in ZOO[name]():
        x = layer(x)
    model = keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    randomize(model)
    return model


def lowered(model):
    return lower_keras(ImageModel(model, 1 / 64, -2.0), input_dtype="float32")


def opened(content):
    """An interpreter of the runtime's own kernels, whose tensors can all be read."""
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def interpreted(content, image):
    """Every tensor of the file, by the runtime's own kernels."""
    interpreter = opened(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.sampled(10)
def test_values_are_the_runtimes_and_derivatives_are_kerass(name):
    model = zoo_model(name)
    content = lowered(model)
    graph = Graph(content)
    assert without_derivatives(graph) == []
    image = pixels((9, 9, 3), 1).astype(np.float32)
    tensor = interpreted(content, image)
    held = {int(i): tensor(int(i)) for operator in graph.operators for i in operator.outputs} | {graph.image: image}
    for operator in graph.operators:
        for index, result in run_outputs(graph, operator, held).items():
            size = max(1.0, np.abs(tensor(index)).max())
            np.testing.assert_allclose(result, tensor(index), atol=3e-5 * size, err_msg=graph.kind(operator))

    signs = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    x = tf.constant(image / 64 - 2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        moved = tf.reduce_sum(model(x, training=False) * signs)
    expected = tape.gradient(moved, x) / 64
    values = {graph.image: tf.constant(image)}
    with tf.GradientTape() as tape:
        tape.watch(values[graph.image])
        run_graph(graph, values)
        moved = tf.reduce_sum(values[int(graph.subgraph.outputs[0])] * signs)
    found = tape.gradient(moved, values[graph.image])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def changed(content, kind, **options):
    """The file with other options of the first operator of a kind."""
    model = read(content)
    graph = Graph(content)
    number = next(i for i, operator in enumerate(graph.operators) if graph.kind(operator) == kind)
    for name, value in options.items():
        assert hasattr(model.subgraphs[0].operators[number].builtinOptions, name)
        setattr(model.subgraphs[0].operators[number].builtinOptions, name, value)
    return Graph(write(model))


@pytest.mark.parametrize(
    "name, kind, options",
    [
        ("relu", "CONV_2D", {"fusedActivationFunction": 5}),  # SIGN_BIT
        ("relu", "FULLY_CONNECTED", {"weightsFormat": 1}),  # shuffled
        ("depthwise", "DEPTHWISE_CONV_2D", {"strideH": 1}),
        ("strided slice", "STRIDED_SLICE", {"offset": True}),
    ],
)
def test_an_option_that_is_not_understood_is_refused_by_name(name, kind, options):
    content = lowered(zoo_model(name))
    assert has_derivatives(Graph(content))
    graph = changed(content, kind, **options)
    (refused,) = without_derivatives(graph)
    assert refused.startswith(f"{kind} (") and not has_derivatives(graph)


@pytest.mark.parametrize(
    "name, kind, options", [("softmax", "SOFTMAX", {"beta": 2.5}), ("leaky", "LEAKY_RELU", {"alpha": 0.7})]
)
def test_an_option_that_is_understood_is_followed(name, kind, options):
    graph, image = changed(lowered(zoo_model(name)), kind, **options), pixels((9, 9, 3), 1).astype(np.float32)
    tensor = interpreted(write(graph.model), image)
    (operator,) = graph.of_kind(kind)
    entering, leaving = int(operator.inputs[0]), int(operator.outputs[0])
    found = run_operator(graph, operator, {entering: tensor(entering)})
    np.testing.assert_allclose(found, tensor(leaving), atol=1e-5 * max(1.0, np.abs(tensor(leaving)).max()))


def test_an_input_that_is_absent_has_no_type():
    """Whatever type the last tensor has, which -1 would name."""
    content = lowered(zoo_model("relu"))
    model = read(content)
    graph = model.subgraphs[0]
    graph.tensors.append(schema.TensorT(name=b"last", shape=[1], type=schema.TensorType.STRING, buffer=0))
    number = next(i for i, operator in enumerate(graph.operators) if Graph(content).kind(operator) == "CONV_2D")
    graph.operators[number].inputs = [*graph.operators[number].inputs[:2], -1]  # no bias
    assert has_derivatives(Graph(write(model)))


def test_an_unknown_operator_is_refused_by_name():
    image = keras.Input((9, 9, 3))
    x = Function(lambda x: ops.slice_update(x, (0, 1, 1, 0), ops.ones((1, 2, 2, 3))))(layers.Conv2D(3, 1)(image))
    graph = Graph(lowered(keras.Model(image, layers.Flatten()(x))))
    assert [name.split()[0] for name in without_derivatives(graph)] == ["DYNAMIC_UPDATE_SLICE"]


def test_constants_of_every_type_have_their_own_values():
    content = lowered(zoo_model("relu"))
    model = read(content)
    tensors = model.subgraphs[0].tensors
    shape = next(tensor for tensor in tensors if tensor.type == schema.TensorType.INT32)
    index = tensors.index(shape)
    wanted = Graph(content).constant(index)
    shape.type = schema.TensorType.INT64
    model.buffers[shape.buffer].data = wanted.astype(np.int64).view(np.uint8)
    found = Graph(write(model)).constant(index)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)
    shape.type = schema.TensorType.STRING
    with pytest.raises(ValueError, match="has the type STRING"):
        Graph(write(model)).constant(index)


def test_options_without_effect_are_options_of_the_schema():
    classes = [each for name, each in vars(schema).items() if name.endswith("OptionsT")]
    assert set(NO_EFFECT) <= {option for each in classes for option in vars(each())}


def ints(*values):
    return np.array(values, np.int32)


def floats(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


MAPS, ROWS = (1, 6, 5, 4), (2, 3)
ACTIVATION, PADDING = schema.ActivationFunctionType, schema.Padding
WINDOW = {"padding": PADDING.SAME, "strideW": 2, "strideH": 2}
POOLED = ("Pool2DOptions", {**WINDOW, "filterWidth": 3, "filterHeight": 2})
CONVOLVED = {**WINDOW, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
# `(kind, inputs, options, number of outputs)`; an input is its shape, or the array of a constant.
SINGLE = [
    ("ADD", [ROWS, ROWS], ("AddOptions", {"fusedActivationFunction": ACTIVATION.RELU})),
    ("ADD", [ROWS, floats(3)], ("AddOptions", {"fusedActivationFunction": ACTIVATION.RELU6})),
    ("SUB", [ROWS, ROWS], ("SubOptions", {"fusedActivationFunction": ACTIVATION.RELU_N1_TO_1})),
    ("MUL", [ROWS, floats(2, 1)], ("MulOptions", {})),
    ("DIV", [ROWS, ROWS], ("DivOptions", {})),
    *((kind, [ROWS, ROWS], ("MaximumMinimumOptions", {})) for kind in ("MINIMUM", "MAXIMUM")),
    ("SQUARED_DIFFERENCE", [ROWS, ROWS], ("SquaredDifferenceOptions", {})),
    ("POW", [ROWS, np.full((1, 1), 3, np.float32)], ("PowOptions", {})),
    *((kind, [ROWS], None) for kind in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ELU", "TANH", "LOGISTIC")),
    *(
        (kind, [ROWS], None)
        for kind in ("HARD_SWISH", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "NEG", "ABS", "SIN", "COS")
    ),
    ("LEAKY_RELU", [ROWS], ("LeakyReluOptions", {"alpha": 0.3})),
    ("PRELU", [MAPS, floats(1, 1, 4)], None),
    *(("GELU", [ROWS], ("GeluOptions", {"approximate": approximate})) for approximate in (False, True)),
    ("SOFTMAX", [ROWS], ("SoftmaxOptions", {"beta": 0.5})),
    ("LOG_SOFTMAX", [ROWS], ("LogSoftmaxOptions", {})),
    *((kind, [MAPS, ints(1, 2)], ("ReducerOptions", {"keepDims": True})) for kind in ("MEAN", "SUM", "REDUCE_MAX")),
    ("REDUCE_MIN", [MAPS, ints(-1)], ("ReducerOptions", {"keepDims": False})),
    ("RESHAPE", [ROWS, ints(3, 2)], ("ReshapeOptions", {"newShape": [3, 2]})),
    ("SQUEEZE", [(2, 1, 3)], ("SqueezeOptions", {"squeezeDims": [1]})),
    ("EXPAND_DIMS", [ROWS, ints(1)], ("ExpandDimsOptions", {})),
    ("TRANSPOSE", [ROWS, ints(1, 0)], ("TransposeOptions", {})),
    ("PAD", [ROWS, ints([0, 1], [2, 0])], ("PadOptions", {})),
    ("SLICE", [ROWS, ints(1, 0), ints(1, 2)], ("SliceOptions", {})),
    (
        "STRIDED_SLICE",
        [MAPS, ints(0, 1, 2, 1), ints(1, 2, 9, 2), ints(1, 2, 1, 1)],
        ("StridedSliceOptions", {"beginMask": 4, "endMask": 2, "shrinkAxisMask": 8}),
    ),
    ("GATHER", [MAPS, ints(4, 0)], ("GatherOptions", {"axis": 2})),
    ("GATHER", [ROWS, ints([2], [0])], ("GatherOptions", {"axis": 1, "batchDims": 1})),
    ("CONCATENATION", [ROWS, (2, 1)], ("ConcatenationOptions", {"axis": 1})),
    ("PACK", [ROWS, ROWS], ("PackOptions", {"axis": 1, "valuesCount": 2})),
    ("UNPACK", [ROWS], ("UnpackOptions", {"axis": 1, "num": 3}), 3),
    ("SPLIT", [ints(3), MAPS], ("SplitOptions", {"numSplits": 2}), 2),
    ("TILE", [ROWS, ints(2, 3)], ("TileOptions", {})),
    ("BROADCAST_TO", [ROWS, ints(4, 2, 3)], None),
    ("CONV_2D", [MAPS, floats(3, 2, 2, 4), floats(3)], ("Conv2DOptions", CONVOLVED)),
    (
        "CONV_2D",
        [MAPS, floats(4, 2, 3, 2), floats(4)],  # of two groups
        ("Conv2DOptions", {**CONVOLVED, "dilationWFactor": 2, "strideH": 2}),
    ),
    (
        "DEPTHWISE_CONV_2D",
        [MAPS, floats(1, 3, 2, 8), floats(8)],
        ("DepthwiseConv2DOptions", {**CONVOLVED, "padding": PADDING.VALID, "depthMultiplier": 2, "dilationHFactor": 2}),
    ),
    *((kind, [MAPS], POOLED) for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")),
    *(
        (f"RESIZE_{how}", [MAPS, ints(9, 7)], (options, {name: True}))
        for how, options in (
            ("BILINEAR", "ResizeBilinearOptions"),
            ("NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        )
        for name in ("alignCorners", "halfPixelCenters")
    ),
    ("FULLY_CONNECTED", [(2, 2, 3), floats(4, 3), floats(4)], ("FullyConnectedOptions", {"keepNumDims": True})),
    ("BATCH_MATMUL", [(2, 3, 4), (2, 5, 3)], ("BatchMatMulOptions", {"adjX": True, "adjY": True})),
    ("DEQUANTIZE", [floats(2, 3).astype(np.float16)], None),
    ("CAST", [ints(4, -2)], ("CastOptions", {"inDataType": hostile_tflite.INT, "outDataType": hostile_tflite.FLOAT})),
]
POSITIVE = ("LOG", "SQRT", "RSQRT", "DIV")


def of_one_operator(kind, inputs, options=None, outputs=1):
    """The bytes of a file of one operator, with the shapes that the runtime finds."""
    types = {"f": hostile_tflite.FLOAT, "i": hostile_tflite.INT, "e": schema.TensorType.FLOAT16}
    constants = [each for each in inputs if isinstance(each, np.ndarray)]
    tensors, entering = [], []
    for each in inputs:
        if isinstance(each, np.ndarray):
            buffer = 1 + next(place for place, constant in enumerate(constants) if constant is each)
            tensors.append(hostile_tflite.tensor(f"constant {buffer}", each.shape, types[each.dtype.char], buffer))
        else:
            entering.append(len(tensors))
            tensors.append(hostile_tflite.tensor(f"input {len(tensors)}", each))
    leaving = range(len(inputs), len(inputs) + outputs)
    tensors += [hostile_tflite.tensor(f"output {number}", ()) for number in leaving]
    name, values = options or ("NONE", {})
    made = hostile_tflite.operator(0, range(len(inputs)), leaving, name, **values)
    if not entering:  # an interpreter needs one
        entering.append(len(tensors))
        tensors.append(hostile_tflite.tensor("input", (1,)))
    graph = schema.SubGraphT(tensors=tensors, inputs=entering, outputs=list(leaving), operators=[made])
    tree = hostile_tflite.model((kind,), [graph], constants)
    tree.operatorCodes[0].version = 2 if kind == "BROADCAST_TO" else 1  # which has no first
    interpreter = opened(write(tree))
    interpreter.invoke()
    for index in leaving:
        graph.tensors[index].shape = list(interpreter.get_tensor(index).shape)
    return write(tree)


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case[0])
def test_an_operator_alone_computes_what_the_runtime_does(case):
    graph = Graph(of_one_operator(*case))
    assert without_derivatives(graph) == []
    interpreter = opened(graph.content)
    generator, values = np.random.default_rng(1), {}
    for index in map(int, graph.subgraph.inputs):
        values[index] = generator.normal(size=graph.shape(index)).astype(np.float32)
        if case[0] in POSITIVE:
            values[index] = np.abs(values[index]) + np.float32(0.1)
        interpreter.set_tensor(index, values[index])
    interpreter.invoke()
    (operator,) = graph.operators
    found = run_outputs(graph, operator, values)
    assert list(found) == list(map(int, graph.subgraph.outputs))
    for index, result in found.items():
        np.testing.assert_allclose(result, interpreter.get_tensor(index), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "grid, understood",
    [(None, True), ((1.0, 0), True), ((0.5, 0), False), ((1.0, 1), False)],
)
def test_pixels_are_floats_where_their_scale_is_one(grid, understood):
    tensors = [hostile_tflite.tensor("images", (1, 2, 2, 1), schema.TensorType.UINT8)]
    tensors.append(hostile_tflite.tensor("numbers", (1, 2, 2, 1)))
    if grid is not None:
        tensors[0].quantization = schema.QuantizationParametersT(scale=[grid[0]], zeroPoint=[grid[1]])
    graph = schema.SubGraphT(
        tensors=tensors, inputs=[0], outputs=[1], operators=[hostile_tflite.operator(0, (0,), (1,))]
    )
    graph = Graph(write(hostile_tflite.model(("DEQUANTIZE",), [graph])))
    assert without_derivatives(graph) == ([] if understood else ["DEQUANTIZE (numbers)"])
    if understood:
        image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
        np.testing.assert_array_equal(run_operator(graph, graph.operators[0], {0: image}), image.astype(np.float32))
