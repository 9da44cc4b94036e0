"""What the modes make of models that people have: it loads, it is right, and noise is that of the answers."""

import functools

import hostile_tflite
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import pixels, randomize
from keras import layers, ops
from quantized import quantized

from keras_vit_plugin.export.lowering.convert import convert
from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.quantization.modes import int4, int8, integer_only
from keras_vit_plugin.export.quantization.modes.int4 import MixedInt4
from keras_vit_plugin.export.quantization.modes.int8 import MixedInt8
from keras_vit_plugin.export.quantization.steps import tune_gains
from keras_vit_plugin.export.quantization.steps.calibration import all_outputs, observe
from keras_vit_plugin.export.quantization.steps.levels import FIXED
from keras_vit_plugin.export.quantization.steps.prepare import prepared
from keras_vit_plugin.export.quantization.steps.round_weights import with_kernels
from keras_vit_plugin.export.tflite import loadable
from keras_vit_plugin.export.tflite.errors import InvalidModelFile
from keras_vit_plugin.export.tflite.flatbuffer import read, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.operators import op_name, tensor_type
from keras_vit_plugin.export.tflite.runner import Runner, load_error
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.image_model.answers import LOGITS, Answer
from keras_vit_plugin.image_model.image_model import ImageModel

SHAPE = (8, 8, 3)
LEAST_DB = {"dynamic": 30, "int8": 20, "int8-full": 20, "int16x8": 25, "int4": 5}
HALVES = (1 / 127.5, -1.0)


class LearnedQuery(layers.Layer):
    """Attention pooling: a few weights ask all tokens."""

    def build(self, shape):
        self.query = self.add_weight(shape=(1, 2, shape[-1]), initializer="random_normal", name="query")

    def call(self, x):
        return ops.matmul(ops.softmax(ops.matmul(self.query, ops.transpose(x, (0, 2, 1)))), x)


class Times(layers.Layer):
    """A product with a constant, on the right."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(1, shape[-1], 6), initializer="random_normal", name="matrix")

    def call(self, x):
        return ops.matmul(x, self.matrix)


class Plus(layers.Layer):
    def call(self, x):
        return x + ops.tanh(x) - ops.sigmoid(x)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(tune_gains, "STEPS", (2, 2))


@functools.cache
def tokens_model(*between):
    """A model with a convolution, these layers on 16 tokens, and a dense head."""
    image = keras.Input(SHAPE)
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 2, strides=2)(image))
    for layer in between:
        x = layer()(x)
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    randomize(model)
    return model


def dense():
    return layers.Dense(12)


@functools.cache
def lowered(model, scale=1 / 127.5, offset=-1.0, input_dtype="uint8"):
    return add_missing_biases(lower_keras(ImageModel(model, scale, offset), input_dtype=input_dtype))


def snr_db(model, content, scale=1 / 127.5, offset=-1.0):
    """On the images that all files here are calibrated on."""
    expected = np.asarray(model(pixels(SHAPE, 16) * np.float32(scale) + np.float32(offset)))
    return -10 * np.log10(LOGITS.noise(expected, Runner(content)(pixels(SHAPE, 16))))


@pytest.mark.parametrize("mode", LEAST_DB)
@pytest.mark.parametrize("layer", [LearnedQuery, Times])
def test_a_product_with_a_constant_loads_and_is_right(layer, mode):
    model = tokens_model(dense, layer)
    assert snr_db(model, quantized(lowered(model), mode, pixels(SHAPE, 16))) >= LEAST_DB[mode]


@pytest.mark.parametrize("scale, offset", [HALVES, (1 / 255, 0.0), (1 / 64, -2.0), (1 / 128, -1.0)])
@pytest.mark.sampled(1)
def test_int16_sums_load_with_any_scales(scale, offset):
    image = keras.Input(SHAPE)
    x = layers.Conv2D(12, 3, padding="same")(image)  # zeros around the image keep its normalization out of the kernel
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(Plus()(x))))
    randomize(model)
    content = quantized(lowered(model, scale, offset), "int16x8", pixels(SHAPE, 16))
    assert snr_db(model, content, scale, offset) >= LEAST_DB["int16x8"]
    file = Graph(content)
    sums = file.of_kind("ADD", "SUB")
    assert len(sums) >= 2 and {file.dtype(int(operator.outputs[0])) for operator in sums} == {"INT16"}


@pytest.mark.parametrize("mode, input_dtype", [("int8-full", "uint8"), ("int8-full", "int8"), ("int16x8", "uint8")])
@pytest.mark.parametrize("kind", ["GlobalMaxPooling2D", "MaxPooling2D", "UpSampling2D", "ZeroPadding2D"])
@pytest.mark.sampled(4)
def test_what_reads_the_pixels_themselves_keeps_their_scale(kind, mode, input_dtype):
    image = keras.Input(SHAPE)
    options = {"interpolation": "bilinear"} if kind == "UpSampling2D" else {}
    x = layers.Flatten()(getattr(layers, kind)(**options)(image))
    model = keras.Model(image, [layers.Dense(5)(x), layers.Dense(3)(x)])
    randomize(model)
    keras_model, images = ImageModel(model, 1 / 255, 0.0), pixels(SHAPE, 16)
    content = add_missing_biases(lower_keras(keras_model, input_dtype="uint8"))
    file = quantized(content, mode, images, input_dtype=input_dtype, answers=keras_model.answers)
    given = Runner(file).in_order(images)
    for answer, expected, found in zip(keras_model.answers, keras_model(images), given):
        assert answer.noise(expected, found) < 0.01  # 20 dB


def test_pixels_that_a_convolution_reads_are_not_what_it_gives():
    model = tokens_model()
    content = lowered(model, 1 / 255, 0.0, "float32")
    graph = Graph(content)
    images = pixels(SHAPE, 8)
    observations = observe(Graph(content), images).observations
    assert observations[graph.image].full() == (0, 255)
    entered = next(operator for operator in graph.operators if graph.image in operator.inputs)
    result = int(entered.outputs[0])
    low, high = observations[result].full()
    assert (low, high) != (0, 255) and max(abs(low), abs(high)) < 20


def test_equal_biases_and_kernels_that_something_else_reads_become_two():
    content = lowered(tokens_model(dense, dense))
    model = read(content)
    first, second, _ = Graph(content).of_kind("FULLY_CONNECTED")
    operators = model.subgraphs[0].operators
    numbers = [
        i for i, operator in enumerate(operators) if list(operator.inputs) in (list(first.inputs), list(second.inputs))
    ]
    operators[numbers[1]].inputs = [
        *second.inputs[:2],
        first.inputs[2],
    ]  # one tensor for both biases, as the converter does
    shared = write(model)
    dense_layers = Graph(prepared(shared)).of_kind("FULLY_CONNECTED")[:2]
    graph = Graph(prepared(shared))
    biases = [int(operator.inputs[2]) for operator in dense_layers]
    assert len({graph.subgraph.tensors[bias].buffer for bias in biases}) == 2
    images = pixels(SHAPE, 4)
    np.testing.assert_array_equal(Runner(prepared(shared))(images), Runner(shared)(images))
    assert prepared(content) is content
    # A constant that was moved to the right is not there twice.
    turned = lowered(tokens_model(dense, LearnedQuery))
    model = read(prepared(turned))
    held = {tensor.buffer for tensor in model.subgraphs[0].tensors}
    sizes = [len(model.buffers[index].data) for index in held if model.buffers[index].data is not None]
    assert sizes.count(2 * 12 * 4) == 1
    np.testing.assert_allclose(Runner(prepared(turned))(images), Runner(turned)(images), atol=1e-5)


def test_layers_read_one_kernel_where_theirs_are_the_same_constant():
    """Kernels that are computed are none: they have no bytes, and so the same."""
    tensor, operator = hostile_tflite.tensor, hostile_tflite.operator
    rows = np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32)
    tensors = [tensor("images", (1, 2, 2, 1)), tensor("shape", (2,), hostile_tflite.INT, 1)]
    tensors += [tensor("constant", (2, 2), buffer=2), tensor("constant again", (2, 2), buffer=2)]
    tensors += [tensor(name, (2, 2)) for name in ("rows", "sigmoid", "tanh", "a", "b", "c", "d")]
    operators = [operator(0, (0, 1), (4,)), operator(1, (4,), (5,)), operator(2, (4,), (6,))]
    kernels = (2, 5, 3, 6)
    operators += [operator(3, (4 if i == 0 else 6 + i, kernel, -1), (7 + i,)) for i, kernel in enumerate(kernels)]
    graph = hostile_tflite.schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[10], operators=operators)
    constants = [np.array([2, 2], np.int32), rows]
    content = write(hostile_tflite.model(("RESHAPE", "LOGISTIC", "TANH", "FULLY_CONNECTED"), [graph], constants))
    changed = Graph(prepared(content))
    names = [changed.name(int(dense.inputs[1])) for dense in changed.of_kind("FULLY_CONNECTED")]
    assert names == ["constant", "sigmoid", "constant", "tanh"]
    image = pixels((2, 2, 1), 1) / 255
    x = image.reshape(2, 2)
    expected = x @ rows.T @ (1 / (1 + np.exp(-x))).T @ rows.T @ np.tanh(x).T
    for each in (content, changed.content):
        np.testing.assert_allclose(Runner(each).in_order(image)[0].reshape(2, 2), expected, atol=1e-5)


@functools.cache
def tied_model():
    image = keras.Input(SHAPE)
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 2, strides=2)(image))
    dense = layers.Dense(12, use_bias=False)
    for _ in range(3):
        x = layers.LayerNormalization()(x + dense(ops.tanh(x)))
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    randomize(model)
    return model


@pytest.mark.parametrize("mode", LEAST_DB)
def test_tied_kernels_stay_tied(mode):
    model = tied_model()
    images = pixels(SHAPE, 16)
    content = prepared(lowered(model))
    graph = Graph(content)
    tied = [operator for operator in graph.of_kind("FULLY_CONNECTED") if graph.width(operator.outputs[0]) == 12]
    (kernel,) = {int(operator.inputs[1]) for operator in tied}
    rows = [all_tensors(content, image, int(operator.inputs[0])) for image in images for operator in tied]
    expected = sum(x.T @ x for x in rows)
    entering = observe(Graph(content), images).entering[kernel]
    np.testing.assert_allclose(entering.products, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert entering.rows == sum(map(len, rows))
    file = quantized(lowered(model), mode, images)
    assert snr_db(model, file) >= LEAST_DB[mode] - 5
    file = Graph(file)
    kernels = [
        int(file.subgraph.tensors[operator.inputs[1]].buffer)
        for operator in file.of_kind("FULLY_CONNECTED")
        if file.width(operator.outputs[0]) == 12
    ]
    assert len(kernels) == 3 and len(set(kernels)) == 1


def all_tensors(content, image, index):
    from keras_vit_plugin.export.tflite.runner import computed_tensors

    (tensor,) = computed_tensors(content, image[None])
    return tensor(index).reshape(-1, 12)


def test_an_offset_of_all_logits_changes_no_noise():
    content, images = lowered(tokens_model(dense)), pixels(SHAPE, 16)
    graph = Graph(content)
    bias = int(graph.of_kind("FULLY_CONNECTED")[-1].inputs[2])
    shifted = with_kernels(content, {bias: graph.constant(bias) + np.float32(100)})
    assert Runner(shifted)(images).min() > 90
    noises = [MixedInt8(file, images, "speed").noises for file in (content, shifted)]
    assert noises[0] and set(noises[0]) == set(noises[1])
    for key, noise in noises[0].items():
        assert noises[1][key] == pytest.approx(noise, rel=0.01)


ANSWERS = {
    "features": (lambda x: x, (Answer("features", "features"),)),
    "vector": (lambda x: ops.mean(x, 1), (Answer("vector", "embedding"),)),
    "one number": (lambda x: ops.mean(x, (1, 2))[:, None], (Answer("age", "regression"),)),
    "both": (
        lambda x: {"a": ops.mean(x, 1), "b": 1000 * x},
        (Answer("a", "classes"), Answer("b", "features")),
    ),
}


@functools.cache
def lowered_answers(kind):
    image = keras.Input(SHAPE)
    x = layers.Dense(12)(layers.Reshape((16, 12))(layers.Conv2D(12, 2, strides=2)(image)))
    trunk = keras.Model(image, layers.Dense(6)(ops.tanh(x)))
    randomize(trunk)
    function, _ = ANSWERS[kind]

    def outputs(images):
        result = function(trunk(tf.cast(images, tf.float32) / 127.5 - 1.0))
        return result if isinstance(result, dict) else {"logits": result}

    signature = tf.TensorSpec((1, *SHAPE), "uint8", name="images")
    return add_missing_biases(convert(outputs, signature))


@pytest.mark.parametrize("mode", LEAST_DB)
@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.sampled(6)
def test_outputs_of_any_rank_and_number(kind, mode):
    content, (_, answers) = lowered_answers(kind), ANSWERS[kind]
    images = pixels(SHAPE, 16)
    file = quantized(content, mode, images, answers=answers)
    reference, found = all_outputs(content, images), all_outputs(file, images)
    assert [values.shape for values in found] == [values.shape for values in reference]
    assert len(found) == len(answers)
    for answer, wanted, got in zip(answers, reference, found):
        assert -10 * np.log10(answer.noise(wanted, got)) >= LEAST_DB[mode] - 5


@pytest.mark.parametrize("stored", [True, False])
def test_int4_takes_a_product_of_activations_beside_a_dense_layer_and_not_alone(stored):
    kernel = tf.Variable(np.random.default_rng(0).normal(0, 0.1, (256, 5)).astype(np.float32))

    def outputs(images):
        x = tf.reshape(tf.cast(images, tf.float32) / 127.5 - 1.0, (16, 12))
        products = tf.reshape(tf.matmul(x, x, transpose_b=True), (1, 256))
        return {"logits": tf.matmul(products, kernel) if stored else products}

    content = add_missing_biases(convert(outputs, tf.TensorSpec((1, *SHAPE), "uint8", name="images")))
    kernels = [Graph(content).constant(int(op.inputs[1])) for op in Graph(content).of_kind("FULLY_CONNECTED")]
    assert [held is not None for held in kernels] == [False] + [True] * stored
    if stored:
        assert len(MixedInt4(content, pixels(SHAPE, 2)).four) == 1
    else:
        with pytest.raises(ValueError, match="stores the weights of dense layers in 4 bits and this model has none"):
            quantized(content, "int4", pixels(SHAPE, 8))


def test_int4_stores_what_is_worth_it_in_eight_bits_and_the_rest_in_four(monkeypatch):
    content = lowered(tokens_model(dense))
    engine = MixedInt4(content, pixels(SHAPE, 2))
    head = max(engine.four)
    monkeypatch.setattr(engine, "_worth_eight_bits", lambda *budget: {head})
    file = Graph(engine.within(15.0, 0.1))
    types = {engine.graph.name(tensor): "INT8" if tensor == head else "INT4" for tensor in engine.four}
    assert len(types) == 2
    assert {file.name(int(op.inputs[1])): file.dtype(op.inputs[1]) for op in file.of_kind("FULLY_CONNECTED")} == types


def test_int4_gives_eight_bits_where_noise_is_largest_for_its_size_until_the_rest_is_small_enough(monkeypatch):
    """A budget in dB is a share of the signal: 10 dB are a tenth, 20 dB a hundredth."""
    monkeypatch.setattr(int4, "tuned_gains", lambda content, kernels, *_: kernels)
    engine = MixedInt4(lowered(tokens_model(dense)), pixels(SHAPE, 8))
    noises, sizes = engine.noises, {tensor: kernel.size for tensor, kernel in engine.four.items()}
    first, second = sorted(noises, key=lambda tensor: -noises[tensor] / sizes[tensor])
    enough, with_first = -10 * np.log10(sum(noises.values())), -10 * np.log10(noises[second])
    assert with_first > enough + 0.1 and enough > 5

    def in_eight(snr_db, extra_size=1.0):
        """The layers that a file keeps in 8 bits."""
        file = Graph(engine.within(snr_db, extra_size))
        kernels = [int(layer.inputs[1]) for layer in file.of_kind("FULLY_CONNECTED")]
        return {name for name, kind in ((file.name(each), file.dtype(each)) for each in kernels) if kind == "INT8"}

    one, other = engine.graph.name(first), engine.graph.name(second)
    assert in_eight(enough - 0.05) == set()
    assert in_eight(enough + 0.05) == in_eight(with_first - 0.05) == {one}
    assert in_eight(with_first + 0.05) == in_eight(200.0) == {one, other}
    shares = {tensor: size / sum(sizes.values()) for tensor, size in sizes.items()}
    smaller, larger = sorted(shares, key=shares.get)
    assert in_eight(200.0, shares[smaller] - 1e-3) == set()
    assert in_eight(200.0, shares[smaller] + 1e-3) == {engine.graph.name(smaller)}
    assert in_eight(200.0, shares[larger] + 1e-3) == {one}  # and no room for the other


@pytest.mark.parametrize(
    "name, kind", [("softmax", "SOFTMAX"), ("tanh", "TANH"), ("gelu", "GELU"), ("sigmoid", "LOGISTIC")]
)
def test_what_a_table_is_looked_up_for_is_known(name, kind):
    image = keras.Input(SHAPE)
    graph = Graph(lowered(keras.Model(image, layers.Activation(name)(layers.Dense(4)(image)))))
    (operator,) = graph.of_kind(kind)
    assert integer_only._in_tables(graph) == {int(operator.inputs[0])}


def test_a_model_that_overflows_is_refused_in_a_sentence():
    image = keras.Input(SHAPE)
    x = layers.Dense(4)(layers.Flatten()(image))
    content = lowered(keras.Model(image, ops.log(ops.relu(ops.mean(x, 1, keepdims=True)) - 1e9)), 1.0, 0.0)
    for mode in LEAST_DB:
        with pytest.raises(ValueError, match="gives NaN or infinity on calibration image 0"):
            quantized(content, mode, pixels(SHAPE, 2))


def test_an_operator_that_does_not_load_is_left_alone(monkeypatch):
    content = lowered(tokens_model(dense))
    real = int8._quantize

    def broken(content, graph, ranges, plan):
        """As made, but damaged where the dense layer on tokens is on fixed scales."""
        made = read(real(content, graph, ranges, plan))
        if any(graph.kind(op) == "FULLY_CONNECTED" and graph.rows(op.outputs[0]) > 1 for op in plan.get(FIXED, [])):
            made.subgraphs[0].operators[0].inputs = [99]
        return write(made)

    def refusing(file, images):
        if not file_is_whole(file):
            raise InvalidModelFile("no tensor 99")
        return all_outputs(file, images)

    monkeypatch.setattr(int8, "all_outputs", refusing)
    monkeypatch.setattr(int8, "_quantize", broken)
    engine = MixedInt8(content, pixels(SHAPE, 8), "speed")
    assert file_is_whole(engine.within(18.0))


def test_what_the_runtime_refuses_in_dynamic_stays_in_float(monkeypatch):
    def refusing(content):
        file = Graph(content)
        for number, operator in enumerate(file.operators):
            if is_on_tokens(file, operator) and file.dtype(operator.inputs[1]) == "INT8":
                return f"operator {number} (FULLY_CONNECTED) failed to prepare"
        return ""

    def is_on_tokens(file, operator):
        return file.kind(operator) == "FULLY_CONNECTED" and file.rows(operator.outputs[0]) > 1

    monkeypatch.setattr(loadable, "refusal", refusing)
    file = Graph(quantized(lowered(tokens_model(dense)), "dynamic", pixels(SHAPE, 4)))
    layers_of = file.of_kind("FULLY_CONNECTED")
    assert [(is_on_tokens(file, layer), file.dtype(layer.inputs[1])) for layer in layers_of] == [
        (True, "FLOAT32"),
        (False, "INT8"),
    ]


def file_is_whole(content):
    return all(99 not in operator.inputs for operator in read(content).subgraphs[0].operators)


def test_an_operator_that_loads_and_does_not_run_is_named():
    image = keras.Input(SHAPE)
    model = keras.Model(image, layers.Dense(5)(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image))))
    content = quantized(lowered(model), "int16x8", pixels(SHAPE, 16))
    assert load_error(content) == ""
    tree = read(content)
    largest = next(op for op in tree.subgraphs[0].operators if op_name(tree, op) == "REDUCE_MAX")
    tree.subgraphs[0].tensors[largest.outputs[0]].quantization.scale = [1.5]
    assert "(REDUCE_MAX) failed to invoke" in load_error(write(tree))
    with pytest.raises(InvalidModelFile, match="cannot run this file"):
        Runner(write(tree))(pixels(SHAPE, 1))


@pytest.mark.parametrize("mode", ["int8-full", "int16x8"])
@pytest.mark.parametrize("convolution", [False, True])
def test_a_pooled_maximum_may_be_an_output_too(convolution, mode):
    integers = {"int8-full": "int8", "int16x8": "int16"}[mode]
    image = keras.Input(SHAPE)
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image) if convolution else image)
    model = keras.Model(image, [x, layers.Dense(5)(x)])
    randomize(model)
    keras_model, images = ImageModel(model, 1 / 255, 0.0), pixels(SHAPE, 16)
    content = add_missing_biases(lower_keras(keras_model, input_dtype="uint8"))
    for output_dtype in ("float32", integers):
        file = quantized(content, mode, images, output_dtype=output_dtype, answers=keras_model.answers)
        tree = read(file)
        graph = tree.subgraphs[0]
        assert {tensor_type(graph.tensors[index]).lower() for index in graph.outputs} == {output_dtype}
        named = {entry.tensorIndex for entry in tree.signatureDefs[0].outputs}
        assert named == set(map(int, graph.outputs))
        for expected, found in zip(keras_model(images), Runner(file).in_order(images)):
            assert found.shape == expected.shape
            assert np.square(found - expected).mean() < 0.01 * np.square(expected).mean()


@pytest.mark.parametrize("mode", ["int8-full", "int16x8"])
@pytest.mark.parametrize("last", [lambda x: x, layers.Reshape((5, 1)), lambda x: x - ops.softmax(x)])
def test_answers_have_headroom(mode, last, monkeypatch):
    """Other images give more than those that were seen; clipped there, the surest answers would be the most wrong."""

    def narrowed(content, ranges, images, answers):  # as if less moved the answers least
        return {tensor: (low / 2, high / 2) for tensor, (low, high) in ranges.items()}

    monkeypatch.setattr(integer_only, "scaled_ranges", narrowed)
    image = keras.Input(SHAPE)
    logits = layers.Dense(5)(layers.Flatten()(layers.Conv2D(12, 2, strides=2)(image)))
    model = keras.Model(image, last(logits))
    randomize(model)
    images = pixels(SHAPE, 16)
    answers = (Answer("output", "classes" if model.output.shape[-1] == 5 else "features"),)
    content = quantized(lowered(model), mode, images, answers=answers)
    expected = np.asarray(model(images * np.float32(HALVES[0]) + np.float32(HALVES[1])))
    graph = Graph(content)
    output = next(operator.inputs[0] for operator in graph.operators if graph.kind(operator) == "DEQUANTIZE")
    scale = graph.subgraph.tensors[int(output)].quantization
    limits = np.iinfo("int8" if mode == "int8-full" else "int16")
    low, high = ((limit - scale.zeroPoint[0]) * scale.scale[0] for limit in (limits.min, limits.max))
    assert low <= 1.2 * expected.min() and high >= 1.2 * expected.max()
