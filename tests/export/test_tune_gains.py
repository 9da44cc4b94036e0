"""Gains: less error on images never seen, and weights that stay on their grid."""

import hostile_tflite
import numpy as np
import pytest

import keras_vit_plugin as kv
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.quantization.steps import tune_gains
from keras_vit_plugin.export.quantization.steps.calibration import observe
from keras_vit_plugin.export.quantization.steps.round_weights import rounded_kernels, with_kernels
from keras_vit_plugin.export.quantization.steps.tune_gains import CROPS_PER_STEP, _crops, tuned_gains
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.tflite import execute
from keras_vit_plugin.export.tflite.flatbuffer import write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.export.tflite.tensor_names import stream_name
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.presets.digits import load_digits_split

pytestmark = pytest.mark.usefixtures("all_tuning_steps")


@pytest.fixture(scope="module", params=[1, 3])
def rounded(request):
    """A float file, its kernels in 4 bits, and images to calibrate on and to judge on."""
    (x_train, _), (x_test, _) = load_digits_split()
    model = kv.build("vit_digits", weights="pretrained")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 1)), x_train[:64])
    content = add_missing_biases(lower(spec, batch_size=request.param))
    return (
        content,
        rounded_kernels(Graph(content), observe(Graph(content), x_train[:64]).entering, bits=4),
        x_train,
        x_test,
    )


def test_crops_are_parts_of_the_images():
    images = np.full((3, 16, 16, 1), 200, np.uint8)
    images[:, :, :8] = 100
    crops = np.concatenate([_crops(images, np.random.default_rng(seed)).numpy() for seed in range(8)])
    assert crops.shape[1:] == (16, 16, 1) and (crops == np.round(crops)).all()
    assert crops.min() >= 100 and crops.max() <= 200  # nothing from beyond an edge
    darker_left = crops[:, :, :4].mean((1, 2, 3)) < crops[:, :, -4:].mean((1, 2, 3))
    lighter_left = crops[:, :, :4].mean((1, 2, 3)) > crops[:, :, -4:].mean((1, 2, 3))
    assert darker_left.any() and lighter_left.any()  # some are mirrored


@pytest.mark.sampled(1)
def test_the_error_on_fresh_images_falls_and_weights_stay_on_their_grid(rounded):
    content, kernels, x_train, x_test = rounded
    tuned = tuned_gains(content, kernels, x_train[:200])

    def snr(changed):
        return snr_db(Runner(content)(x_test), Runner(with_kernels(content, changed))(x_test))

    assert snr(tuned) > snr(kernels) + 0.5
    biases = {int(dense.inputs[2]) for dense in Graph(content).of_kind("FULLY_CONNECTED")}
    assert set(tuned) == set(kernels) | biases
    for tensor, kernel in kernels.items():
        steps = np.abs(tuned[tensor]).max(1, keepdims=True) / 7
        np.testing.assert_allclose(np.round(tuned[tensor] / steps), tuned[tensor] / steps, atol=1e-3)
        np.testing.assert_array_equal(tuned[tensor] == 0, kernel == 0)


def squared(kernel):
    """Bytes of a file that takes 2 x 2 pixels through a dense layer and multiplies the result by itself."""
    shape, tensor, operator = (1, 2, 2), hostile_tflite.tensor, hostile_tflite.operator
    constants = [np.array(shape, np.int32), kernel, np.zeros(2, np.float32), np.array([1, 4], np.int32)]
    tensors = [tensor("images", (1, 2, 2, 1)), tensor("shape", (3,), hostile_tflite.INT, 1), tensor("rows", shape)]
    tensors += [tensor("kernel", (2, 2), buffer=2), tensor("bias", (2,), buffer=3), tensor("dense", shape)]
    tensors += [tensor("product", shape), tensor("flat", (2,), hostile_tflite.INT, 4), tensor("logits", (1, 4))]
    operators = [
        operator(0, (0, 1), (2,)),
        operator(1, (2, 3, 4), (5,), "FullyConnectedOptions", keepNumDims=True),
        operator(2, (5, 5), (6,), "BatchMatMulOptions", adjY=True),
        operator(0, (6, 7), (8,)),
    ]
    graph = hostile_tflite.schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[8], operators=operators)
    return write(hostile_tflite.model(("RESHAPE", "FULLY_CONNECTED", "BATCH_MATMUL"), [graph], constants))


@pytest.mark.parametrize("wanted, steps", [(0.5, 2), (2, 2), (4.9, 4), (7, 7), (99, 7)])
def test_there_are_as_many_steps_as_the_work_of_one_allows(wanted, steps, monkeypatch):
    """The dense layer and the product have 8 multiplications each, and a step takes an image four times."""
    monkeypatch.setattr(tune_gains, "STEPS", (2, 7))
    monkeypatch.setattr(tune_gains, "TUNED_WORK", wanted * 4 * CROPS_PER_STEP * (8 + 8))
    drawn = []
    monkeypatch.setattr(tune_gains, "_crops", lambda *given: drawn.append(given) or _crops(*given))
    kernel = np.array([[1.0, 0.2], [-0.5, 1.0]], np.float32)
    images = np.random.default_rng(0).integers(0, 9, (4, 2, 2, 1), np.uint8)
    tuned_gains(squared(kernel), {3: kernel}, images)
    assert len(drawn) == steps


def with_stream(batch_size, kernels):
    """Bytes of a file of two dense layers on four pixels, of which the first gives the stream."""
    tensor, operator = hostile_tflite.tensor, hostile_tflite.operator
    constants = [np.array([batch_size, 4], np.int32), kernels[0], np.zeros(3, np.float32), kernels[1]]
    tensors = [tensor("images", (batch_size, 2, 2, 1)), tensor("shape", (2,), hostile_tflite.INT, 1)]
    tensors += [tensor("pixels", (batch_size, 4)), tensor("kernel", (3, 4), buffer=2), tensor("bias", (3,), buffer=3)]
    tensors += [tensor(stream_name(0), (batch_size, 3)), tensor("head", (5, 3), buffer=4)]
    tensors += [tensor("head bias", (5,), buffer=5), tensor("logits", (batch_size, 5))]
    dense = [
        operator(1, read, given, "FullyConnectedOptions") for read, given in (((2, 3, 4), (5,)), ((5, 6, 7), (8,)))
    ]
    operators = [operator(0, (0, 1), (2,)), *dense]
    graph = hostile_tflite.schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[8], operators=operators)
    constants.append(np.zeros(5, np.float32))
    return write(hostile_tflite.model(("RESHAPE", "FULLY_CONNECTED"), [graph], constants))


def test_the_error_of_the_answers_counts_by_image_beside_that_of_the_stream(monkeypatch):
    """So a file for more images at once gets the same gains and biases."""
    monkeypatch.setattr(tune_gains, "STEPS", (6, 6))
    generator = np.random.default_rng(0)
    kernels = [generator.normal(0, 0.1, shape).astype(np.float32) for shape in ((3, 4), (5, 3))]
    rounded = {tensor: np.round(kernel * 10) / 10 for tensor, kernel in zip((3, 6), kernels)}
    images = generator.integers(0, 256, (8, 2, 2, 1), np.uint8)
    one, several = (tuned_gains(with_stream(batch_size, kernels), rounded, images) for batch_size in (1, 3))
    assert one.keys() == several.keys() == {3, 4, 6, 7}
    for tensor, values in one.items():
        np.testing.assert_allclose(several[tensor], values, rtol=0, atol=5e-7)
    assert np.abs(one[3] - rounded[3]).max() > 1e-4 and np.abs(one[4]).max() > 1e-4


def test_kernels_of_a_graph_without_derivatives_stay_as_they_are(rounded, monkeypatch):
    content, kernels, x_train, _ = rounded
    known = execute.operations()
    monkeypatch.setattr(execute, "operations", lambda: {"ADD": known["ADD"]})
    assert tuned_gains(content, kernels, x_train[:20]) is kernels
