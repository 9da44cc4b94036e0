"""What the converter, the quantizer and the interpreter refuse is told in a sentence that names the op."""

import keras
import pytest
import tensorflow as tf
from conftest import pixels
from keras import layers

from keras_vit_plugin.export import Tolerance, UnsupportedByTarget, export_tflite
from keras_vit_plugin.export.lowering.convert import _lacking
from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.quantization.modes import int8
from keras_vit_plugin.export.quantization.modes.int8 import MixedInt8
from keras_vit_plugin.export.quantization.quantizer import NotQuantizable, refusing_in_a_sentence
from keras_vit_plugin.export.quantization.steps.levels import FLOAT
from keras_vit_plugin.export.tflite import loadable
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.runner import reason_of
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.image_model.image_model import ImageModel

SHAPE = (8, 8, 3)
FUNCTIONS = {
    "FFT": lambda x: tf.abs(tf.signal.fft(tf.cast(x, tf.complex64))),  # the converter forgets half of it
    "float64": lambda x: tf.cast(tf.cast(x, tf.float64) * 2.0, tf.float32),
    "int8": lambda x: tf.cast(tf.cast(x, tf.int8) * tf.constant(2, tf.int8), tf.float32),
    "complex": lambda x: tf.math.real(tf.complex(x, x) * tf.complex(x, x)),
}


class Computed(layers.Layer):
    """One of these functions."""

    def __init__(self, name):
        super().__init__(name=name)
        self.function = FUNCTIONS[name]

    def call(self, x):
        return self.function(x)


def model_of(*between):
    return keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(16), *between, layers.Dense(5)])


@pytest.mark.parametrize(
    "name, match",
    [
        ("FFT", r"does not run at '.*FFT': .* operator \d+ \(RESHAPE\) failed to prepare: .*Build it of other layers"),
        ("float64", "which lack: Mul of float64. Compute in float32 there, or build it of other layers"),
        ("int8", "which lack: Mul of int8. Compute in float32 there"),
        ("complex", "which lack: Complex. Build it of other layers"),
    ],
)
@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_functions_that_the_runtime_lacks(name, match, mode, tmp_path):
    options = {"mean": 0, "std": 1, "calibration": pixels(SHAPE, 16), "tolerance": Tolerance(0, -300)}
    with pytest.raises(UnsupportedByTarget, match=match):
        export_tflite(model_of(Computed(name)), tmp_path / "m.tflite", mode, **options)
    assert not (tmp_path / "m.tflite").exists()


class Calls(layers.Layer):
    """Adds how often it was called."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x):
        self.count.assign(self.count + 1.0)
        return x + self.count


class CallsInALoop(Calls):
    def call(self, x):
        def step(number, total):
            self.count.assign_add(1.0)
            return number + 1, total + self.count

        return x + tf.while_loop(lambda number, _: number < 3, step, (0, 0.0))[1]


@pytest.mark.parametrize("layer", [Calls, CallsInALoop])
def test_a_model_with_a_state_is_refused(layer, tmp_path):
    with pytest.raises(UnsupportedByTarget, match="of an image depends on the images before it"):
        export_tflite(model_of(layer()), tmp_path / "m.tflite", pixels="0..1", tolerance=Tolerance(0, -300))


def test_a_converter_that_names_no_op_is_quoted_without_its_graph():
    text = "Could not translate MLIR to FlatBuffer.<unknown>:0: error: loc(callsite(fused[\n<unknown>:0: note"
    assert _lacking(text) == (
        "The model does not convert to TFLite: Could not translate MLIR to FlatBuffer. Build it of other layers."
    )
    assert "does not say why" in _lacking("")


@pytest.mark.parametrize(
    "text, reason",
    [
        (
            "tensorflow/tflite/kernels/reduce.cc:1 a != b (1 != 2)\nNode number 7 (MEAN) failed to prepare.",
            "operator 7 (MEAN) failed to prepare: a != b (1 != 2)",
        ),
        ("Node number 3 (ADD) failed to invoke.", "operator 3 (ADD) failed to invoke"),
        (
            "failed to delegate SPLIT node #5Node number 240 (TfLiteXNNPackDelegate) failed to prepare.",
            "operator 5 (SPLIT) failed to prepare: failed to delegate SPLIT node #5",
        ),
        ("Model provided has model identifier 'x'", "Model provided has model identifier 'x'"),
    ],
)
def test_an_interpreter_names_an_operator(text, reason):
    assert reason_of(ValueError(text)) == reason


@pytest.mark.parametrize(
    "raised, match",
    [
        (
            ValueError("Failed for tensor: x. Error: TFLOperationName.SUM(index: 1) not found. Check if"),
            "does not take SUM in this mode: Failed for tensor: x. Take a mode that computes in float",
        ),
        (KeyError("key"), "does not take this model in this mode: 'key'. Take"),
    ],
)
def test_what_the_quantizer_raises_is_a_sentence(raised, match):
    with pytest.raises(NotQuantizable, match=match), refusing_in_a_sentence():
        raise raised


def test_an_operator_that_the_quantizer_does_not_take_is_left_alone(monkeypatch):
    keras.utils.set_random_seed(0)
    content = add_missing_biases(lower_keras(ImageModel(model_of(), 1 / 255, 0.0)))
    real = int8._quantize

    def refusing(content, graph, ranges, plan):
        if any(operators for level, operators in plan.items() if level != FLOAT):
            raise NotQuantizable("no")
        return real(content, graph, ranges, plan)

    monkeypatch.setattr(int8, "_quantize", refusing)
    engine = MixedInt8(content, pixels(SHAPE, 8), "speed")
    assert {level for levels in engine.levels for level, _ in levels} == {FLOAT}
    assert engine.within(0.0)


def test_an_operator_that_is_refused_in_float_too_is_named(monkeypatch):
    content = lower_keras(ImageModel(model_of(), 1 / 255, 0.0))
    graph, tries = Graph(content), []
    (first, *_), refused = graph.operators, "operator 0 (CAST) failed to prepare: a != b"
    monkeypatch.setattr(loadable, "refusal", lambda content: refused)

    def quantized(left_in_float):
        tries.append(list(left_in_float))
        return content

    with pytest.raises(
        ValueError, match=r"does not run this model .*: operator 0 \(CAST\) .*Take a mode that computes in float"
    ):
        loadable.loadable(quantized, graph)
    assert tries == [[], [first]]
