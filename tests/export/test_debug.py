"""The debugger finds an error that was put into a file, and its shares add up to the error measured."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance, advice, debug, export_tflite
from keras_vit_plugin.export.tflite.flatbuffer import read, with_checksum, write
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.verification import debug_picture
from keras_vit_plugin.export.verification.debug import DebugReport
from keras_vit_plugin.export.verification.debug_picture import draw
from keras_vit_plugin.export.verification.op_error import OpError
from keras_vit_plugin.presets.digits import load_digits_split

MODES = ["dynamic", "int8", "int8-full", "int16x8", "int4"]


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, _) = load_digits_split()
    return kv.build("vit_digits", weights="pretrained"), x_train[:240], x_test


@pytest.fixture(scope="module")
def file_of(digits, tmp_path_factory):
    """`file_of(mode, target)`: a file of the digits model, exported once."""
    model, calibration, _ = digits
    folder = tmp_path_factory.mktemp("files")

    def export(mode, target="litert"):
        path = folder / f"{mode}-{target}.tflite"
        if not path.exists():
            export_tflite(model, path, quantize=mode, target=target, calibration=calibration)
        return path

    return export


@pytest.mark.parametrize(
    "mode, target", [*((mode, "litert") for mode in MODES), ("float32", "tflite-runtime"), ("int8", "tflite-runtime")]
)
@pytest.mark.sampled(1)
def test_the_shares_add_up_to_the_measured_error(digits, mode, target, file_of):
    model, calibration, x_test = digits
    report = debug(model, file_of(mode, target), calibration, images=x_test)
    assert report.mode == mode
    # To first order, the errors taken as independent, of eight images: within 4 dB of what is measured.
    assert -10 * np.log10(report.noise) == pytest.approx(report.logits_snr_db, abs=4)
    assert ["embedding", *(f"block {i}" for i in (1, 2, 3, 4)), "head"] == list(report.by("place"))
    assert report.ops[-1].snr_db == pytest.approx(report.logits_snr_db, abs=0.1)
    assert all(0 <= op.clipped <= 1 and op.low <= op.high for op in report.ops)
    for op in report.worst():
        assert len(advice(op, mode)) > 30


def test_a_float_file_has_next_to_no_error(digits, tmp_path):
    model, _, x_test = digits
    export_tflite(model, tmp_path / "m.tflite")
    report = debug(model, tmp_path / "m.tflite", images=x_test)
    assert report.logits_snr_db > 90 and min(op.snr_db for op in report.ops) > 90


def damaged(content, change):
    """The file with something changed in one operator, which `change(graph)` does; the name of what it gives."""
    graph = Graph(content)
    name = change(graph)
    return write(graph.model), name


def narrow_range(graph):
    """A GELU whose output holds a tenth of what it should."""
    gelu = graph.of_kind("GELU")[1]
    tensor = graph.subgraph.tensors[gelu.outputs[0]]
    tensor.quantization.scale = [tensor.quantization.scale[0] / 10]
    return graph.output_name(gelu)


def spoiled_weights(graph):
    """A dense layer of the third block with noise in its weights."""
    dense = [op for op in graph.of_kind("FULLY_CONNECTED") if graph.width(op.inputs[1]) > graph.width(op.outputs[0])][2]
    buffer = graph.model.buffers[graph.subgraph.tensors[dense.inputs[1]].buffer]
    noise = np.random.default_rng(0).integers(-40, 41, len(buffer.data))
    buffer.data = np.clip(np.asarray(buffer.data).view(np.int8) + noise, -127, 127).astype(np.int8).view(np.uint8)
    return graph.output_name(dense)


@pytest.mark.parametrize("change, cause", [(narrow_range, "clipping"), (spoiled_weights, "inside")])
@pytest.mark.sampled(1)
def test_the_worst_op_is_the_one_that_was_damaged(digits, change, cause, file_of, tmp_path):
    model, calibration, x_test = digits
    path = tmp_path / "m.tflite"
    content, name = damaged(file_of("int8-full").read_bytes(), change)
    path.write_bytes(content)
    worst = debug(model, path, calibration, images=x_test).worst(1)[0]
    assert worst.name == name and worst.cause == cause
    assert (worst.clipped > 0.01) == (cause == "clipping")


@pytest.mark.sampled(1)
def test_a_larger_batch_and_a_float_input(tiny_model, tmp_path):
    images, fresh = pixels(tiny_model.image_shape, 20), pixels(tiny_model.image_shape, 8, seed=1)
    path = tmp_path / "m.tflite"
    arguments = {"batch_size": 3, "input_dtype": "float32", "tolerance": Tolerance(0, 0)}
    made = export_tflite(tiny_model, path, quantize="int8", calibration=images, verification=fresh, **arguments)
    height, width, _ = tiny_model.image_shape
    assert made.input == f"float32 RGB pixels 0..255, [3, {height}, {width}, 3]"
    assert debug(tiny_model, path, images, images=fresh).logits_snr_db == pytest.approx(made.parity.snr_db, abs=0.5)


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.sampled(1)
def test_one_number_is_measured_by_what_differs_between_images(task, tmp_path):
    """Over its one class the mean of a lone logit is itself: less that, nothing is left to compare."""
    digits = kv.build("vit_digits", weights="pretrained")
    model = kv.ViTImageClassifier(digits.backbone, 1, digits.preprocessor)
    randomize(model)
    (images, _), (fresh, _) = load_digits_split()
    path = tmp_path / "m.tflite"
    arguments = {"calibration": images[:64], "verification": fresh[:8], "task": task, "tolerance": Tolerance(None, 0)}
    made = export_tflite(model, path, quantize="dynamic", **arguments)
    report = debug(model, path, images[:64], images=fresh[:8])
    assert report.logits_snr_db == pytest.approx(made.parity.snr_db, abs=0.5)
    assert report.ops[-1].snr_db == report.logits_snr_db
    assert -10 * np.log10(report.noise) == pytest.approx(report.logits_snr_db, abs=4)


@pytest.mark.parametrize(
    "mode, target, outputs",
    [("dynamic", "litert", ("embedding", "attention")), ("float16", "gpu", ()), ("dynamic", "mediapipe", ())],
)
@pytest.mark.sampled(1)
def test_files_with_more_outputs_and_for_other_runtimes(mode, target, outputs, tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    images, fresh = pixels(model.image_shape, 16), pixels(model.image_shape, 8, seed=1)
    path = tmp_path / "m.tflite"
    arguments = {
        "verification": fresh,
        "target": target,
        "outputs": outputs,
        "labels": list("abcde"),
        "tolerance": Tolerance(0, 0),
    }
    made = export_tflite(model, path, quantize=mode, calibration=images, **arguments)
    report = debug(model, path, images, images=fresh)
    if target != "mediapipe":  # there the file gives probabilities, and parity is of those
        assert report.logits_snr_db == pytest.approx(made.parity.snr_db, abs=1.5)
    assert -10 * np.log10(report.noise) == pytest.approx(report.logits_snr_db, abs=4)


def test_the_picture_shares_the_error_out_among_kinds_and_places(monkeypatch, tmp_path):
    """Eight kinds: six have a bar of their own in each of two places, and the two of least noise share one."""
    figures = []
    monkeypatch.setattr(debug_picture, "as_picture", lambda figure: bytes(figures.append(figure) or 0))
    made = OpError("", "", "", "int8", 20.0, 0.0, -1.0, 1.0, 0.25, "rounding")
    ops = [
        replace(made, kind=f"KIND {kind}", place=place, noise=noise, snr_db=30.0 - kind)
        for kind in range(8)
        for place, noise in (("block 1", kind + 1.0), ("head", 2.0 * kind))
    ]
    draw(DebugReport("int8", 4, 21.5, tuple(ops)), tmp_path / "m.png")
    curve, shares, clipped = figures[0].axes
    assert curve.lines[0].get_ydata().tolist() == [23.0, 23.0] and "21.5 dB on 4 images" in curve.get_title()
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in shares.containers}
    total = sum(op.noise for op in ops)
    assert list(heights) == [f"KIND {kind}" for kind in range(7, 1, -1)] + ["others"]
    assert heights["KIND 7"] == pytest.approx([100 * 8 / total, 100 * 14 / total])
    assert heights["others"] == pytest.approx([100 * 3 / total, 100 * 2 / total])
    assert sum(map(sum, heights.values())) == pytest.approx(100)
    tops = [bar.get_y() + bar.get_height() for bar in shares.containers[-1]]
    assert tops == pytest.approx([100 * 36 / total, 100 * 56 / total])
    assert [bar.get_height() for bar in clipped.containers[0]] == [25.0, 25.0]
    labels = [axis.get_ylabel() for axis in (curve, shares, clipped)]
    assert [label.rpartition(", ")[2] for label in labels] == ["dB", "%", "% of values"]


def test_the_worst_are_three_unless_another_number_is_asked_for_the_worst_first():
    made = OpError("", "ADD", "head", "int8", 20.0, 0.0, -1.0, 1.0, 0.0, "rounding")
    report = DebugReport("int8", 4, 21.5, tuple(replace(made, noise=noise) for noise in (0.2, 0.5, 0.1, 0.4, 0.3)))
    assert [op.noise for op in report.worst()] == [0.5, 0.4, 0.3]
    assert [op.noise for op in report.worst(1)] == [0.5]
    assert [op.noise for op in report.worst(9)] == [0.5, 0.4, 0.3, 0.2, 0.1]


def test_every_mode_has_a_milder_one_to_try():
    op = OpError("", "MUL", "head", "int8", 20.0, 1.0, -1.0, 1.0, 0.0, "rounding")
    advised = {mode: advice(op, mode).rpartition(": ")[2] for mode in MODES if mode != "float32"}
    assert len(set(advised.values())) == len(advised) and "another mode" not in "".join(advised.values())


def test_the_picture_leaves_out_what_is_nothing(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(debug_picture, "as_picture", lambda figure: bytes(figures.append(figure) or 0))
    made = OpError("", "ADD", "head", "int8", 20.0, 1.0, -1.0, 1.0, 0.0, "rounding")
    draw(DebugReport("int8", 4, 21.5, (made, replace(made, kind="EXP", noise=1e-4))), tmp_path / "m.png")
    _, shares = figures[0].axes  # nothing is clipped
    assert [bars.get_label() for bars in shares.containers] == ["ADD"]


@pytest.mark.long
def test_the_picture_is_drawn(digits, file_of, tmp_path):
    from PIL import Image

    model, calibration, _ = digits
    draw(debug(model, file_of("int8"), calibration), tmp_path / "m.png")
    picture = np.asarray(Image.open(tmp_path / "m.png").convert("L"))
    assert picture.shape[0] > 800 and picture.std() > 10


@pytest.mark.long
def test_files_that_cannot_be_compared_are_refused(digits, file_of, tmp_path):
    model, calibration, x_test = digits
    path = tmp_path / "m.tflite"
    path.write_bytes(file_of("int8").read_bytes())
    for calibrated in (path, file_of("dynamic")):
        with pytest.raises(ValueError, match="`calibration` must be what it was calibrated on"):
            debug(model, calibrated)
    with pytest.raises(ValueError, match="`calibration` is not what .* was calibrated on"):
        debug(model, path, x_test)
    with pytest.raises(ValueError, match="made from other weights"):
        debug(kv.build("vit_digits"), path, calibration)
    content = read(path.read_bytes())
    content.subgraphs[0].tensors[content.subgraphs[0].operators[-1].outputs[0]].type = schema.TensorType.BOOL
    path.write_bytes(with_checksum(write(content)))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):  # no interpreter loads it
        debug(model, path, calibration)
    content = read(file_of("int8").read_bytes())
    content.metadata = []
    path.write_bytes(write(content))
    with pytest.raises(ValueError, match="was not made by this package: there is no float file"):
        debug(model, path, calibration)
