"""Files for GPUs: what they may hold, and what half precision makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import functional_model, pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import TARGETS, ParityError, Tolerance, UnsupportedByTarget, export_tflite, verdict
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.rewrites import apply_passes, scale_stream
from keras_vit_plugin.export.rewrites.stream import map_writers
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.targets import gpu as gpu_rules
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.export.verification.half_precision import half_precision_outputs
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.presets.digits import load_digits_split


def test_what_is_known_by_its_name_is_an_operator_of_the_schema():
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names = {*gpu_rules.OPS.split(), *gpu_rules.SLICES, *gpu_rules.PAIRS}
    assert [name for name in names if not hasattr(BuiltinOperator, name)] == []


@pytest.mark.sampled(2)
def test_files_of_every_family_keep_the_rules(tiny_model, tmp_path):
    images = pixels(tiny_model.image_shape, 16)
    report = export_tflite(
        tiny_model,
        tmp_path / "m.tflite",
        quantize="float16",
        target="gpu",
        calibration=images,
        outputs=("embedding", "attention"),
    )
    assert TARGETS["gpu"].problems(read((tmp_path / "m.tflite").read_bytes())) == []
    assert report.file.inputs[0]["dtype"] == "float32" and report.file.max_rank <= 4
    assert report.parity.snr_db > 50 and report.others_snr_db["logits in half precision"] > 40
    assert set(report.others_snr_db) == {"embedding", "attention", "logits in half precision"}


@pytest.mark.long
def test_trained_weights_keep_their_answers_in_half_precision(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    images, _ = load_digits_split()[1]
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, quantize="float16", target="gpu", verification=images)
    assert report.parity.top1_agreement == 1.0 and report.parity.snr_db > 55
    (logits,) = half_precision_outputs(path.read_bytes(), images[:40])
    assert snr_db(model.predict(images[:40], verbose=0), logits) > 40


def problems_of(function, *shape):
    signature = tf.TensorSpec(shape, tf.float32)
    module = tf.Module()
    concrete = tf.function(function, input_signature=[signature]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    return TARGETS["gpu"].problems(read(converter.convert()))


@pytest.mark.parametrize(
    "function, shape, problem",
    [
        (lambda x: tf.reshape(x, (1, 2, 2, 2, 2)) * 2.0, (1, 16), "RESHAPE: a tensor of rank 5, they take up to 4"),
        (lambda x: tf.exp(x), (2, 3), "EXP: a batch of other than 1"),
        (lambda x: tf.matmul(x, x, transpose_b=True), (1, 2, 3, 4), "BATCH_MATMUL: adj flags, which they ignore"),
        (lambda x: x[0, 1:], (1, 3, 4), "STRIDED_SLICE: shrink_axis_mask, new_axis_mask or ellipsis_mask"),
        (lambda x: tf.slice(x, (0, 1), (1, 2)), (1, 4), "SLICE: rank below 3"),
        (lambda x: tf.concat([tf.zeros((1, 1, 4)), tf.exp(x)], 1), (1, 3, 4), "CONCATENATION: a constant part"),
        (lambda x: tf.nn.gelu(x, approximate=False), (1, 4), "GELU: not an op of GPUs"),
        (lambda x: x * np.arange(6, dtype="f4").reshape(2, 3), (1, 4, 2, 3), "MUL: operands of different ranks"),
        (lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32), (1, 4), "CAST: not an op of GPUs"),
    ],
)
def test_what_gpus_do_not_run_is_named(function, shape, problem):
    assert problem in problems_of(function, *shape)


def test_a_graph_that_gpus_run_has_no_problems():
    weights = tf.constant(np.ones((4, 3), np.float32))
    assert problems_of(lambda x: tf.nn.softmax(tf.matmul(x, weights)) + 1.0, 1, 2, 4) == []


def test_a_model_on_the_generic_road_is_refused_with_what_gpus_lack(tmp_path):
    with pytest.raises(UnsupportedByTarget, match="GPU delegates of LiteRT cannot run: .*GELU: not an op of GPUs"):
        export_tflite(functional_model(), tmp_path / "m.tflite", quantize="float16", target="gpu", mean=0, std=1)
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"quantize": "int8"}, "does not run quantize='int8': GPUs compute in float .*that it runs: float16.$"),
        ({"quantize": "float32"}, "GPUs compute in half precision. Take one that it runs: float16.$"),
        ({"quantize": "auto"}, "does not run quantize='auto'"),
        ({"input_dtype": "uint8"}, "takes `input_dtype` float32, got input_dtype='uint8'"),
        ({"batch_size": 2}, "one image per call, got batch_size=2"),
        ({"outputs": ("features",)}, "must be of embedding, attention; got outputs=.'features',."),
    ],
)
def test_unfit_arguments_are_refused(arguments, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        export_tflite(
            kv.build("vit_test"), tmp_path / "m.tflite", **{"quantize": "float16", "target": "gpu", **arguments}
        )


@pytest.fixture
def long_tokens():
    """A spec whose tokens are too long for sums of squares in float16, and images."""
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 4)
    spec, _ = apply_passes(from_keras(model, 1 / 255, 0.0))
    long = map_writers(spec, 300 * np.eye(spec.width))
    return replace(long, norm=replace(long.norm, epsilon=0.0)), images


def half_precision_snr_db(spec, images):
    content = add_missing_biases(lower(spec, input_dtype="float32", form=TARGETS["gpu"].form))
    (logits,) = half_precision_outputs(content, images)
    return snr_db(spec.forward(images), np.nan_to_num(logits))


def test_a_scaled_stream_survives_half_precision(long_tokens):
    spec, images = long_tokens
    assert half_precision_snr_db(spec, images) < 10
    assert half_precision_snr_db(scale_stream(spec, images), images) > 40


def test_half_precision_is_judged_by_what_an_output_means(monkeypatch):
    ages = np.linspace(0, 1, 8)[:, None]
    halved = ages + 0.01 * np.array([1, -1] * 4)[:, None]
    monkeypatch.setattr(verdict, "half_precision_outputs", lambda content, images: [halved])
    oracle = verdict.Oracle(pixels((4, 4, 3), 8), {}, [])
    others = verdict._others_snr_db(b"", oracle, [ages], (Answer("age", "regression"),), half_precision=True)
    assert others == {"age in half precision": pytest.approx(10 * np.log10(ages.var() / 0.01**2))}


def test_a_file_that_half_precision_spoils_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "half_precision_outputs", lambda content, images: [np.ones((len(images), 5))])
    with pytest.raises(ParityError, match="Besides: logits in half precision at .* dB. Nothing was written"):
        export_tflite(kv.build("vit_test"), tmp_path / "m.tflite", quantize="float16", target="gpu")
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_whose_half_precision_cannot_be_checked_is_not_written(tmp_path):
    import keras

    images = keras.Input((8, 8, 3))
    x = keras.ops.floor(4 * keras.layers.Conv2D(4, 3)(images))  # GPUs run it, and nothing here does
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    options = {"quantize": "float16", "target": "gpu", "mean": 0.5, "std": 0.5, "tolerance": Tolerance(0, -300)}
    with pytest.raises(UnsupportedByTarget, match="half precision .* cannot be checked: FLOOR .* cannot be computed"):
        export_tflite(model, tmp_path / "m.tflite", **options)
    assert not (tmp_path / "m.tflite").exists()
