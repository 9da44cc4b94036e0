"""`int8-full` and `int16x8` hold integers alone, or name what they would leave in float."""

import numpy as np
import pytest
from conftest import functional_model, pixels

from keras_vit_plugin.export import Runner, Tolerance, export_tflite
from keras_vit_plugin.export.lowering.generic import lower_keras
from keras_vit_plugin.export.quantization.steps.integer_kernels import float_ops, with_integer_kernels
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.image_model.image_model import ImageModel


def convolutional(activation, *layers):
    import keras

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation=activation),
            *layers,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


def exported(model, mode, path, std=0.5):
    images = pixels(model.input_shape[1:], 16)
    options = {"mean": 0 if std != 0.5 else 0.5, "std": std, "calibration": images, "tolerance": Tolerance(0, 5)}
    return export_tflite(model, path, quantize=mode, **options)


@pytest.mark.parametrize("mode, activation, op", [("int8-full", "elu", "ELU"), ("int16x8", "hard_swish", "HARD_SWISH")])
def test_a_mode_of_integers_names_what_it_would_leave_in_float(mode, activation, op, tmp_path):
    with pytest.raises(
        ValueError, match=rf"quantize='{mode}' promises integers .* in float: {op} \(1\). Take quantize="
    ):
        exported(convolutional(activation), mode, tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def float_tensors(path):
    """The names of float tensors in a file that are no output, by an interpreter of its own."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    outputs = {int(detail["index"]) for detail in interpreter.get_output_details()}
    details = [detail for detail in interpreter.get_tensor_details() if detail["index"] not in outputs]
    return [detail["name"] for detail in details if np.dtype(detail["dtype"]).kind == "f"]


def test_layer_normalization_is_in_integers(tmp_path):
    import keras

    model = convolutional("gelu", keras.layers.LayerNormalization())
    report = exported(model, "int8-full", tmp_path / "m.tflite")
    assert float_tensors(tmp_path / "m.tflite") == [] and report.parity.snr_db > 15
    report = exported(functional_model(), "int16x8", tmp_path / "m.tflite", std=1)
    assert float_tensors(tmp_path / "m.tflite") == [] and report.parity.snr_db > 25


@pytest.mark.parametrize("bits, gone", [(8, {"NEG"}), (16, {"NEG", "SQUARED_DIFFERENCE"})])
def test_other_kernels_give_the_same_answers(bits, gone):
    import keras

    model, images = convolutional("gelu", keras.layers.LayerNormalization()), pixels((8, 8, 3), 4)
    content = lower_keras(ImageModel(model, 1 / 127.5, -1.0))
    changed = with_integer_kernels(content, bits)
    assert snr_db(Runner(content)(images), Runner(changed)(images)) > 100
    before, after = float_ops(read(content)), float_ops(read(changed))
    assert gone <= before.keys() and gone.isdisjoint(after)


def test_float_ops_are_those_between_the_ends(tmp_path):
    exported(convolutional("relu"), "int8-full", tmp_path / "m.tflite")
    assert float_ops(read((tmp_path / "m.tflite").read_bytes())) == {}
    exported(convolutional("relu"), "float32", tmp_path / "m.tflite")
    assert {"CONV_2D", "MEAN", "FULLY_CONNECTED"} <= float_ops(read((tmp_path / "m.tflite").read_bytes())).keys()
