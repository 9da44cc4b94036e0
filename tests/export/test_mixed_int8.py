"""The `int8` mode: what is integer, what stays in float, and the ranges."""

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance, export_tflite, mixed_int8, verify
from keras_vit_plugin.export.calibrate import ERROR_POWER, Observation, observe
from keras_vit_plugin.export.flatbuffer import add_missing_biases
from keras_vit_plugin.export.graph import Graph
from keras_vit_plugin.export.lower import lower
from keras_vit_plugin.export.preprocessing import pixel_normalization
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec import from_keras
from keras_vit_plugin.presets.digits import load_digits_split


def integer_matmuls(content):
    """The BATCH_MATMULs of a file whose right-hand side is quantized, as quantization parameters of that side."""
    graph = Graph(content)
    sides = [graph.subgraph.tensors[matmul.inputs[1]].quantization for matmul in graph.of_kind("BATCH_MATMUL")]
    return [side for side in sides if side is not None and side.scale is not None]


@pytest.mark.parametrize("prefer", ["speed", "accuracy"])
def test_matmuls_are_integer_with_a_symmetric_right_side_in_one_partition(prefer, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (x_train, _), (x_test, y_test) = load_digits_split()
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, quantize="int8", prefer=prefer, calibration=x_train)
    assert report.file.delegate_partitions == 1
    assert set(report.file.nodes_outside_delegate) <= {"CAST"}
    integer = integer_matmuls(path.read_bytes())
    assert len(integer) >= 4  # of 8, in four blocks
    assert all(list(side.zeroPoint) == [0] for side in integer)
    parity = verify(model, path, x_test, y_test)
    assert parity.top1_agreement >= 0.98 and parity.snr_db >= 20


def test_matmuls_that_int8_would_spoil_stay_in_float(tmp_path, monkeypatch):
    model = kv.build("vit_digits", weights="pretrained")
    images = load_digits_split()[0][0]
    counts = []
    for demanded in (0.0, 50.0):
        monkeypatch.setattr(mixed_int8, "MATMUL_SNR_DB", {"speed": demanded})
        export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=images)
        counts.append(len(integer_matmuls((tmp_path / "m.tflite").read_bytes())))
    assert counts[0] == 8 > counts[1]


def test_prefer_is_checked(tmp_path):
    with pytest.raises(ValueError, match="`prefer` must be one of speed, accuracy; got prefer='size'"):
        export_tflite(kv.build("vit_test"), tmp_path / "m.tflite", prefer="size")


def test_the_ranges_of_an_observation():
    values = np.random.default_rng(0).normal(0, 1, 20000)
    seen = Observation(np.array([-30.0, -4.0]), np.array([4.0, 30.0]), values)  # two extremes no sample holds
    assert seen.full() == (-30, 30)
    low, high = seen.least_error()

    def error(low, high):
        steps = np.clip(np.round((values - low) / (high - low) * 255), 0, 255)
        return np.mean(np.abs(low + steps * (high - low) / 255 - values) ** ERROR_POWER)

    assert -10 < low < -3 and 3 < high < 10
    assert error(low, high) < 0.1 * error(*seen.full())
    assert Observation(np.zeros(1), np.zeros(1), np.zeros(5)).least_error() == (0, 0)


def test_observed_extremes_are_those_of_the_oracle():
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    content = add_missing_biases(lower(spec))
    images = pixels(model.image_shape, 5)
    graph = Graph(content)
    logits = observe(content, images)[int(graph.subgraph.outputs[0])]
    expected = spec.forward(images)
    np.testing.assert_allclose(logits.smallest, expected.min(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits.largest, expected.max(1), rtol=1e-4, atol=1e-5)
    assert observe(content, images)[graph.image].full() == (0, 255)
    wide = Tolerance(0, 0)
    assert wide.holds(verify(model, content, images))
