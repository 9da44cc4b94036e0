"""`export_tflite`: every mode against the Keras model, and every refusal before any file exists."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import functional_model, pixels, randomize
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.export import (
    MODES,
    Int4,
    ParityError,
    Runner,
    Tolerance,
    export_tflite,
    float_files,
    inspect,
    verify,
)
from keras_vit_plugin.export.quantization.modes.integer_only import IntegerOnly
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.presets.digits import load_digits_split

# The least SNR in dB of each mode on the tiny models with random weights, some dB below what was measured.
TINY_SNR = {"float32": 100, "float16": 45, "dynamic": 25, "int8": 18, "int8-full": 10, "int16x8": 18, "int4": 5}


@pytest.mark.parametrize("mode", TINY_SNR)
@pytest.mark.sampled(7)
def test_every_mode_gives_the_keras_models_answers(tiny_model, mode, tmp_path):
    images = pixels(tiny_model.image_shape, 64)  # a quarter is held out
    report = export_tflite(
        tiny_model, tmp_path / "m.tflite", quantize=mode, calibration=images, tolerance=Tolerance(0, TINY_SNR[mode])
    )
    fresh = pixels(tiny_model.image_shape, 32, seed=7)
    parity = verify(tiny_model, tmp_path / "m.tflite", fresh)
    assert parity.snr_db >= TINY_SNR[mode] - 1
    assert report.road == "spec"
    assert (tmp_path / "m.tflite").stat().st_size == report.size_bytes
    assert list(tmp_path.iterdir()) == [tmp_path / "m.tflite"]
    assert report.file.flex_ops == 0
    assert report.file.inputs[0]["dtype"] == "uint8" and report.file.outputs[0]["dtype"] == "float32"
    assert (report.file.inputs[0]["scale"], report.file.inputs[0]["zero_point"]) == (1.0, 0)  # values are the pixels
    if not issubclass(MODES[mode], IntegerOnly):
        assert report.file.nodes_outside_delegate == {}


@pytest.mark.parametrize("mode, steps_in", [("int8-full", 1), ("int16x8", 2)])
@pytest.mark.long
def test_integer_modes_are_integer_between_input_and_output(mode, steps_in, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (x_train, _), (x_test, y_test) = load_digits_split()
    report = export_tflite(model, tmp_path / "m.tflite", quantize=mode, calibration=x_train[:100])
    assert report.file.float_tensors == 0
    assert "CAST" not in report.file.ops
    assert report.file.ops["QUANTIZE"] == steps_in and report.file.ops["DEQUANTIZE"] == 1
    parity = verify(model, tmp_path / "m.tflite", x_test, y_test)
    assert parity.top1_agreement >= 0.98
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - 0.01


@pytest.mark.parametrize("mode, output", [("int8-full", "int8"), ("int16x8", "int16")])
@pytest.mark.long
def test_integer_modes_take_and_give_integers(mode, output, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (x_train, _), (x_test, _) = load_digits_split()
    files = {}
    for name, dtypes in (("usual", {}), ("integer", {"input_dtype": "int8", "output_dtype": output})):
        path = tmp_path / f"{name}.tflite"
        report = export_tflite(model, path, quantize=mode, calibration=x_train[:100], **dtypes)
        files[name] = Runner(path.read_bytes())
    assert report.file.inputs[0]["dtype"] == "int8" and report.file.outputs[0]["dtype"] == output
    assert (report.file.inputs[0]["scale"], report.file.inputs[0]["zero_point"]) == (1.0, -128)
    assert "DEQUANTIZE" not in report.file.ops
    assert files["integer"].interpreter.get_signature_list() == files["usual"].interpreter.get_signature_list()
    np.testing.assert_allclose(files["integer"](x_test[:50]), files["usual"](x_test[:50]), rtol=1e-6)


def test_int8_full_runs_its_matmuls_in_the_delegate(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    images = load_digits_split()[0][0][:100]
    report = export_tflite(model, tmp_path / "m.tflite", quantize="int8-full", calibration=images)
    assert set(report.file.nodes_outside_delegate) <= {"RSQRT", "EXP", "GELU", "ADD", "QUANTIZE"}
    graph = Graph((tmp_path / "m.tflite").read_bytes())
    assert {graph.dtype(int(exponential.inputs[0])) for exponential in graph.of_kind("EXP")} == {"INT8"}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        assert list(graph.subgraph.tensors[matmul.inputs[1]].quantization.zeroPoint) == [0]


@pytest.mark.long
def test_int4_has_weights_of_4_bits(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (x_train, _), (x_test, y_test) = load_digits_split()
    sizes = {}
    for mode in ("dynamic", "int4"):
        report = export_tflite(model, tmp_path / f"{mode}.tflite", quantize=mode, calibration=x_train[:100])
        sizes[mode] = report.size_bytes
    graph = Graph((tmp_path / "int4.tflite").read_bytes())
    kinds = [graph.dtype(int(dense.inputs[1])) for dense in graph.of_kind("FULLY_CONNECTED")]
    assert set(kinds) <= {"INT4", "INT8"} and kinds.count("INT4") > len(kinds) / 2
    assert sizes["int4"] < 0.8 * sizes["dynamic"]
    parity = verify(model, tmp_path / "int4.tflite", x_test, y_test)
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - 0.02


@pytest.mark.long
def test_int4_in_blocks_has_a_scale_for_each(tmp_path):
    from ai_edge_litert.schema_py_generated import QuantizationDetails

    model = kv.build("vit_digits", weights="pretrained")
    (x_train, _), (x_test, _) = load_digits_split()
    blocks, snr_db = {}, {}
    for block_size in (None, 32):
        path = tmp_path / f"{block_size}.tflite"
        export_tflite(model, path, quantize=Int4(block_size=block_size), calibration=x_train)
        graph = Graph(path.read_bytes())
        sides = [graph.subgraph.tensors[dense.inputs[1]].quantization for dense in graph.of_kind("FULLY_CONNECTED")]
        blocks[block_size] = [
            side.details.blockSize for side in sides if side.detailsType == QuantizationDetails.BlockwiseQuantization
        ]
        snr_db[block_size] = verify(model, path, x_test).snr_db
    assert not blocks[None] and len(blocks[32]) >= 4 and set(blocks[32]) == {32}
    assert snr_db[32] > snr_db[None] - 1.5  # which layers keep 8 bits differs too


@pytest.mark.long
def test_files_shrink_with_the_mode(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    images = load_digits_split()[0][0][:100]
    sizes = {
        mode: export_tflite(model, tmp_path / f"{mode}.tflite", quantize=mode, calibration=images).size_bytes
        for mode in ("float32", "float16", "dynamic", "int8-full")
    }
    assert sizes["float16"] < 0.65 * sizes["float32"]
    assert sizes["dynamic"] < 0.45 * sizes["float32"]
    assert sizes["int8-full"] < 0.5 * sizes["float32"]


@pytest.mark.parametrize("mode", TINY_SNR)
@pytest.mark.sampled(3)
def test_any_keras_model_with_these_layers_exports(mode, tmp_path):
    model = functional_model()
    randomize(model)
    images = pixels((16, 16, 3), 48)
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize=mode,
        calibration=images,
        mean=0,
        std=1 / 255,  # the model takes 0..255
        tolerance=Tolerance(0, TINY_SNR[mode] - 5),
    )
    assert report.road == "generic" and "Functional" in report.road_reason
    assert report.file.flex_ops == 0
    if mode == "int8-full":
        assert report.file.float_tensors == 0


def test_a_lora_model_exports_merged(tmp_path):
    model = kv.build("vit_test")
    model.backbone.enable_lora(2)
    randomize(model)
    assert export_tflite(model, tmp_path / "m.tflite").parity.snr_db > 100


def test_a_half_precision_model_exports(tmp_path):
    model = kv.build("vit_test", dtype="mixed_float16")
    randomize(model)
    assert export_tflite(model, tmp_path / "m.tflite").parity.snr_db > 30


def test_labels_and_preprocessing_travel_in_the_file(tmp_path):
    model = kv.build("deit_distilled_test")
    export_tflite(model, tmp_path / "m.tflite", labels=["ä", "b", "c", "d", "e"])
    metadata = inspect(tmp_path / "m.tflite").metadata
    assert metadata["labels"] == ["ä", "b", "c", "d", "e"]
    assert metadata["preprocessing"]["size"] == [16, 16]
    assert metadata["mode"] == "float32" and metadata["keras_vit_plugin"] == kv.__version__


@pytest.mark.long
def test_the_same_export_twice_gives_the_same_bytes(tmp_path):
    model = kv.build("vit_test")
    images = pixels(model.image_shape, 8)
    wide = Tolerance(0, 0)
    for name in ("a", "b"):
        export_tflite(model, tmp_path / f"{name}.tflite", quantize="int8-full", calibration=images, tolerance=wide)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


@pytest.mark.parametrize("kind", ["array", "generator", "dataset", "labelled dataset", "folder"])
@pytest.mark.sampled(3)
def test_calibration_from_anywhere(kind, tmp_path):
    import tensorflow as tf

    model = kv.build("vit_test")
    images = pixels(model.image_shape, 6)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).resize((40, 30)).save(tmp_path / "photos" / f"{i}.png")
    dataset = tf.data.Dataset.from_tensor_slices(images)
    source = {
        "array": images.astype("float64"),
        "generator": (image for image in images),
        "dataset": dataset.batch(4),
        "labelled dataset": tf.data.Dataset.zip((dataset, dataset.map(lambda _: 0))),
        "folder": str(tmp_path / "photos"),
    }[kind]
    wide = Tolerance(0, 0)
    report = export_tflite(model, tmp_path / "m.tflite", quantize="int8-full", calibration=source, tolerance=wide)
    assert report.parity.images == 2 and report.verified_on == "held-out"


def test_a_file_beyond_tolerance_is_not_written_and_the_old_one_stays(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"precious")
    model = kv.build("vit_test")
    with pytest.raises(ParityError, match="too far from the Keras model.*wanted 250 dB.*Nothing was written") as error:
        export_tflite(model, path, quantize="dynamic", tolerance=Tolerance(0.5, 250))
    assert error.value.report.parity.snr_db < 250
    assert error.value.report.path is None
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_wrong_graph_is_caught_by_the_parity_gate(tmp_path, monkeypatch):
    """A rewrite that changes the function must not get past `export_tflite`."""

    def reverse_positions(spec, images, **options):
        rewritten, outcomes = apply_passes(spec, images, **options)
        return replace(rewritten, positions=rewritten.positions[::-1]), outcomes

    monkeypatch.setattr(float_files, "apply_passes", reverse_positions)
    model = kv.build("vit_test")
    randomize(model)
    with pytest.raises(ParityError):
        export_tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_float32_input_takes_the_same_pixels(tmp_path):
    model = kv.build("vit_test")
    images = pixels(model.image_shape)
    export_tflite(model, tmp_path / "a.tflite")
    export_tflite(model, tmp_path / "b.tflite", input_dtype="float32", batch_size=2)
    a, b = (Runner((tmp_path / name).read_bytes())(images) for name in ("a.tflite", "b.tflite"))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", TINY_SNR)
@pytest.mark.sampled(3)
def test_batches(mode, tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    images = pixels(model.image_shape, 50)
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize=mode,
        calibration=images,
        batch_size=4,
        tolerance=Tolerance(0, TINY_SNR[mode]),
    )
    assert report.file.inputs[0]["shape"] == [4, 16, 16, 3]


def test_a_kerashub_model_exports_with_its_own_preprocessing(tmp_path):
    import keras_hub

    backbone = keras_hub.models.ViTBackbone((16, 16, 3), 4, 1, 2, 8, 16)
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 255, crop_to_aspect_ratio=False)
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    model = keras_hub.models.ViTImageClassifier(backbone, 3, preprocessor)
    report = export_tflite(model, tmp_path / "m.tflite")
    assert report.road == "generic"
    assert report.file.metadata["preprocessing"]["rule"] == "stretch"
    converter.image_size = (32, 32)
    with pytest.raises(ValueError, match="takes images of .16, 16., its image converter resizes to .32, 32."):
        export_tflite(model, tmp_path / "n.tflite")
