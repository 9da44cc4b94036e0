"""The float graphs: what is in them, and that they compute what the oracle computes."""

import keras
import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin import layers
from keras_vit_plugin.explain import attention_maps, token_attention
from keras_vit_plugin.export import Runner, inspect
from keras_vit_plugin.export.lowering.gelu_forms import GELU_FORMS
from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.functions import gelu
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.graph_form import LARGEST_UNIT_SCORE, GraphForm
from keras_vit_plugin.export.tflite.operators import op_name
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.preprocessing import pixel_normalization

SHAPE_ARITHMETIC = {"SHAPE", "PACK", "STRIDED_SLICE", "BROADCAST_TO", "BROADCAST_ARGS", "FILL", "REDUCE_PROD", "GATHER"}


def snr_db(reference, output):
    return 10 * np.log10(np.mean(reference**2) / np.mean((output - reference) ** 2))


@pytest.mark.parametrize(
    "batch_size, dtype, weights",
    [(1, "uint8", "softmax"), (1, "uint8", "unit"), (3, "float32", "unit"), (2, "uint8", "integer_unit")],
)
@pytest.mark.sampled(5)
def test_the_lowered_spec_computes_what_the_oracle_computes(tiny_model, batch_size, dtype, weights):
    images = pixels(tiny_model.image_shape, 4)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    assert spec.extremes(images)[0] < LARGEST_UNIT_SCORE
    content = lower(spec, batch_size, dtype, GraphForm(attention=weights))
    runner = Runner(content)
    assert tuple(runner.input["shape"]) == (batch_size, *tiny_model.image_shape)
    assert runner.input["dtype"] == np.dtype(dtype)
    assert runner.interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
    assert snr_db(spec.forward(images), runner(images)) > 100
    report = inspect(content)
    assert not SHAPE_ARITHMETIC & set(report.ops)
    assert report.max_rank <= 4 and report.flex_ops == 0
    assert report.delegate_partitions == 1 and set(report.nodes_outside_delegate) <= {"CAST"}
    graph = Graph(content)
    assert not any(op.builtinOptions.adjX or op.builtinOptions.adjY for op in graph.of_kind("BATCH_MATMUL"))


@pytest.mark.parametrize("form, least_snr_db", [("float32", 95), ("float16", 65)])
@pytest.mark.sampled(4)
def test_gelu_without_its_op(tiny_model, form, least_snr_db):
    images = pixels(tiny_model.image_shape, 4)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    content = lower(spec, form=GraphForm(gelu=form))
    assert snr_db(spec.forward(images), Runner(content)(images)) > least_snr_db
    assert "GELU" not in inspect(content).ops


@pytest.mark.parametrize("form, error", [("float32", 1.2e-6), ("float16", 2.6e-5)])
def test_the_polynomial_is_gelu_everywhere(form, error):
    coefficients, limit = GELU_FORMS[form]
    x = np.concatenate([np.linspace(-8, 8, 4001), [-1e4, -50, 50, 1e4]])
    square = np.minimum(x * x, limit)
    computed = x * 0.5 * (1 + np.tanh(x * np.polynomial.polynomial.polyval(square, coefficients) / 2))
    np.testing.assert_allclose(computed, gelu(x), atol=error)


def test_the_coefficients_for_half_precision_are_no_subnormal_numbers():
    assert min(map(abs, GELU_FORMS["float16"][0])) > np.finfo(np.float16).tiny


@pytest.mark.parametrize("batch_size, for_gpu", [(1, False), (3, False), (1, True)])
@pytest.mark.sampled(5)
def test_embedding_and_attention_are_those_of_the_keras_model(tiny_model, batch_size, for_gpu):
    images = pixels(tiny_model.image_shape, 4)
    scale, offset = pixel_normalization(tiny_model, 3)
    original = from_keras(tiny_model, scale, offset, embedding=True)
    spec, _ = apply_passes(original, images)
    content = lower(spec, batch_size, form=GraphForm(batch_axis=for_gpu), attention_map=True)
    runner = Runner(content)
    outputs = runner.outputs(images)
    np.testing.assert_array_equal(outputs["logits"], runner(images))

    inputs = images * np.float32(scale) + np.float32(offset)
    np.testing.assert_allclose(outputs["embedding"], features(tiny_model, inputs), atol=2e-5)
    for image, grid, expected in zip(inputs, outputs["attention"], original.attention_map(images)):
        weights = attention_maps(tiny_model, image)[-1].mean(0)
        tokens = original.pooled_tokens
        if tokens in (None, 1) and (tokens == 1 or not len(original.prefix)):
            np.testing.assert_allclose(grid, token_attention(tiny_model, weights), atol=1e-5)
        np.testing.assert_allclose(grid, expected, atol=1e-5)


def features(model, inputs):
    """What the head of a Keras model reads."""
    head = model.head if isinstance(model, kv.SimpleViT) else model.heads[0]
    read = []
    call = head.call
    head.call = lambda x, **options: read.append(np.asarray(x)) or call(x, **options)
    model(inputs)
    head.call = call
    return read[0]


@pytest.mark.sampled(2)
def test_the_layers_lower_cleanly_through_the_plain_converter(tiny_model):
    content = lower_keras(ImageModel(tiny_model))
    report = inspect(content)
    assert not (SHAPE_ARITHMETIC - {"STRIDED_SLICE"} | {"NEG"}) & set(report.ops)
    assert report.max_rank <= 4 and report.flex_ops == 0
    for operator in read(content).subgraphs[0].operators:
        if op_name(read(content), operator) == "STRIDED_SLICE":
            assert operator.builtinOptions.shrinkAxisMask == 0


def test_every_dense_and_convolution_gets_a_bias():
    images = keras.Input((8, 8, 3))
    x = layers.PatchEmbedding(4, 8, use_bias=False)(images)
    x = layers.MultiHeadSelfAttention(2, use_bias=False)(x)
    x = keras.layers.Dense(3, use_bias=False)(layers.MeanPooling()(x))
    model = keras.Model(images, x)
    plain = lower_keras(ImageModel(model, 1 / 255, 0.0))
    content = add_missing_biases(plain)

    def without_bias(file):
        tree = read(file)
        operators = [op for op in tree.subgraphs[0].operators if op_name(tree, op) in ("CONV_2D", "FULLY_CONNECTED")]
        return [op for op in operators if len(op.inputs) < 3 or op.inputs[2] < 0]

    assert without_bias(plain)  # the converter leaves them out
    assert not without_bias(content)
    np.testing.assert_array_equal(Runner(content)(pixels((8, 8, 3))), Runner(plain)(pixels((8, 8, 3))))


def test_batches_that_do_not_fill_up_are_padded():
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    images = pixels(model.image_shape, 5)
    np.testing.assert_allclose(Runner(lower(spec, 3))(images), Runner(lower(spec, 1))(images), rtol=1e-4, atol=1e-5)


@pytest.mark.sampled(2)
def test_an_epsilon_may_be_left_out(tiny_model):
    images = pixels(tiny_model.image_shape, 4)
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)), images)
    least = spec.extremes(images)[1]
    kept, left_out = (add_missing_biases(lower(spec, form=GraphForm(norm_epsilon=keep))) for keep in (True, False))
    norms, epsilon = len(spec.norms()), max(norm.epsilon for norm in spec.norms())
    assert len(Graph(kept).of_kind("ADD")) == len(Graph(left_out).of_kind("ADD")) + norms
    # To first order a norm changes by half the share that epsilon has in what it is added to.
    assert snr_db(spec.forward(images), Runner(left_out)(images)) > -20 * np.log10(norms * epsilon / least)
