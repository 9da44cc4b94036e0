"""Files of every mode in OpenVINO, whose reader of `.tflite` is not TensorFlow's."""

import numpy as np
import pytest
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance, export_tflite
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.image_model.decibels import snr_db

MODES = ("float32", "float16", "dynamic", "int8", "int8-full", "int16x8", "int4")
OWN_ROUNDING_DB = 36  # about what OpenVINO keeps of the int16 file: it rounds activations in its own way
pytestmark = pytest.mark.usefixtures("every_core")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`{mode: path}` of one tiny model, images, and the model's logits."""
    import keras

    keras.utils.set_random_seed(1)
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 8)
    folder = tmp_path_factory.mktemp("files")
    for mode in MODES:
        path = folder / f"{mode}.tflite"
        export_tflite(model, path, quantize=mode, calibration=images, tolerance=Tolerance(0, -300))
    return {mode: folder / f"{mode}.tflite" for mode in MODES}, images, np.asarray(model(images / 127.5 - 1.0))


def agreement_db(reference, answers):
    """SNR in dB of logits without their mean, which softmax ignores."""
    return snr_db(reference - reference.mean(1, keepdims=True), answers - answers.mean(1, keepdims=True))


def openvino_logits(path, images):
    """In float32; its int8 kernels saturate on CPUs without VNNI (14 dB), which says nothing of the file."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    return np.concatenate([compiled([image[None]])[0] for image in images])


def litert_logits(path, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    entry, leaving = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    logits = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        logits.append(interpreter.get_tensor(leaving["index"]))
    return np.concatenate(logits)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.long
def test_every_op_has_the_code_that_old_readers_look_at(mode, files):
    codes = read(files[0][mode].read_bytes()).operatorCodes
    assert [code.deprecatedBuiltinCode for code in codes] == [min(code.builtinCode, 127) for code in codes]


@pytest.mark.parametrize("mode", MODES)
def test_openvino_answers_as_litert_does(mode, files):
    """The float files equally; the quantized ones, whose activations each rounds in its own way, as near to Keras."""
    paths, images, expected = files
    here, there = litert_logits(paths[mode], images), openvino_logits(paths[mode], images)
    if mode in ("float32", "float16"):
        assert agreement_db(here, there) > 100
    else:
        assert agreement_db(expected, there) > min(agreement_db(expected, here), OWN_ROUNDING_DB) - 3
