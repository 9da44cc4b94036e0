"""What an export tells: the curve over the blocks, the answers that changed, the page."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import ParityError, Tolerance, export_tflite, page
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.report import changed_answers
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.verification.snr_per_block import snr_per_block
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.plot_style import LIGHT
from keras_vit_plugin.presets.digits import load_digits_split


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, y_test) = load_digits_split()
    return kv.build("vit_digits", weights="pretrained"), x_train[:120], x_test, y_test


@pytest.mark.parametrize("batch_size", [1, 3, 8])  # of 4 images
@pytest.mark.sampled(5)
def test_a_float_file_has_the_oracles_stream_after_every_block(tiny_model, batch_size):
    spec, _ = apply_passes(from_keras(tiny_model, *pixel_normalization(tiny_model, 3)))
    images = pixels(tiny_model.image_shape, 4)
    curve = snr_per_block(lower(spec, batch_size), spec.streams(images), images)
    assert len(curve) == len(spec.blocks) and min(curve) > 100


def test_the_curve_shows_the_block_where_the_error_enters():
    model = kv.build("vit_digits", weights="pretrained")
    images = load_digits_split()[1][0][:8]
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 1)))
    third = spec.blocks[2]
    attention, mlp = third.residuals
    kernel = mlp.body.output.kernel
    noisy = replace(
        mlp.body.output, kernel=kernel + np.random.default_rng(0).normal(0, 0.1 * kernel.std(), kernel.shape)
    )
    wrong = replace(
        spec,
        blocks=(
            *spec.blocks[:2],
            replace(third, residuals=(attention, replace(mlp, body=replace(mlp.body, output=noisy)))),
            *spec.blocks[3:],
        ),
    )
    curve = snr_per_block(lower(wrong), spec.streams(images), images)
    assert min(curve[:2]) > 100 and max(curve[2:]) < 50


def test_the_curve_is_drawn_with_the_error_of_the_answers_beside_it(monkeypatch):
    figures = []
    monkeypatch.setattr(page, "as_picture", figures.append)
    page._draw_blocks((40.0, 35.5, 33.0), 31.0, LIGHT)
    (axis,) = figures[0].axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert drawn == {"tokens after the block": [40.0, 35.5, 33.0], "logits": [31.0, 31.0]}
    assert [list(axis.lines[0].get_xdata()), list(axis.get_xticks())] == [[1, 2, 3]] * 2


def test_changed_answers_name_image_classes_and_probabilities():
    reference = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.05, 0.9, 0.05]]))
    outputs = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.4, 0.5], [0.8, 0.1, 0.1]]))
    first, second = changed_answers(reference, outputs)
    assert (first.image, first.model_class, first.file_class) == (2, 1, 0)  # the model was surest of it
    assert first.model_probability == pytest.approx(0.9) and first.file_probability == pytest.approx(0.8)
    assert second.image == 1


@pytest.mark.long
def test_every_mode_has_a_curve(digits, tmp_path):
    model, calibration, x_test, _ = digits
    curves = {}
    for mode in ("float32", "float16", "dynamic", "int8", "int8-full"):
        report = export_tflite(
            model, tmp_path / "m.tflite", quantize=mode, calibration=calibration, verification=x_test
        )
        curves[mode] = report.block_snr_db
        assert len(report.block_snr_db) == 4
        assert len(report.changed_answers) == round((1 - report.parity.top1_agreement) * len(x_test))
    assert min(curves["float32"]) > 100 > min(curves["float16"]) > max(curves["dynamic"])
    assert min(curves["dynamic"]) > min(curves["int8-full"]) > 15


def test_the_page_shows_figures_curve_ops_and_changed_images(digits, tmp_path):
    model, calibration, x_test, _ = digits
    labels = [f"<{digit}>" for digit in range(10)]
    path = tmp_path / "report.html"
    # Noise: the sure way to answers that changed.
    noise = pixels(model.image_shape, 60, seed=3)
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize="int8-full",
        calibration=calibration,
        verification=noise,
        labels=labels,
        tolerance=Tolerance(0, 0),
        report=path,
    )
    page = path.read_text()
    assert f"{report.size_bytes / 1e6:.2f} MB" in page and f"{report.parity.snr_db:.1f} dB" in page
    assert "&lt;" in page and "<9>" not in page
    shown = re.findall(r'<img alt="image (\d+)" src="data:image/png', page)
    assert shown == [str(answer.image) for answer in report.changed_answers[:5]] and shown
    assert page.count('class="plot"') == 1
    assert "outside the delegate" in page and "rotate_stream" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing beside it


def test_a_file_that_failed_still_gets_its_page(digits, tmp_path):
    model, calibration, *_ = digits
    with pytest.raises(ParityError):
        export_tflite(
            model,
            tmp_path / "m.tflite",
            quantize="dynamic",
            calibration=calibration,
            tolerance=Tolerance(0, 250),
            report=tmp_path / "report.html",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "no file was written" in (tmp_path / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_refused_before_any_work(digits, tmp_path):
    model = digits[0]
    with pytest.raises(ValueError, match="html"):
        export_tflite(model, tmp_path / "m.tflite", report=tmp_path / "report.txt")
    assert not list(tmp_path.iterdir())


def test_a_labelled_verification_folder_gives_accuracies(digits, tmp_path):
    from PIL import Image

    model, _, x_test, y_test = digits
    rows = ["file,label"]
    for i in range(20):
        Image.fromarray(x_test[i, ..., 0]).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{y_test[i]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    report = export_tflite(model, tmp_path / "m.tflite", verification=tmp_path)
    assert (
        report.parity.top1_accuracy_model
        == report.parity.top1_accuracy_tflite
        == np.mean([model(x_test[:20] / 127.5 - 1.0).numpy().argmax(1) == y_test[:20]])
    )


def test_images_that_cannot_be_drawn_are_numbered(tmp_path):
    """A page that fails must not fail behind a file that is written."""
    import keras

    images = keras.Input((8, 8, 6))
    x = keras.layers.Conv2D(8, 3)(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    page = tmp_path / "r.html"
    arguments = {"calibration": pixels((8, 8, 6), 32), "tolerance": Tolerance(0, -50), "report": page}
    arguments["verification"] = np.full((2, 8, 8, 6), 127, np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None, None]
    head = model.layers[-1]
    kernel = np.array(head.kernel)
    kernel[:, 1:] = kernel[:, :1] + np.random.default_rng(0).normal(0, 1e-4, (len(kernel), 3))  # all but equal classes
    head.kernel.assign(kernel)
    report = export_tflite(model, tmp_path / "m.tflite", "int8-full", **arguments)
    assert report.changed_answers and "<p>image " in page.read_text()


@pytest.mark.parametrize(
    "verified_on, task, section",
    [
        ("verification", "classes", "None: the file calls every image what the model calls it."),
        ("held-out", "multi-label", "None: the file calls every image what the model calls it."),
        ("verification", "regression", ""),
        ("synthetic", "classes", ""),
    ],
)
def test_that_no_answer_changed_is_told_of_photos_and_of_decisions_alone(verified_on, task, section):
    report = SimpleNamespace(verified_on=verified_on, changed_answers=(), answers=(Answer("logits", task),))
    shown = page._changed_section(report, np.zeros((2, 4, 4, 3), np.uint8), None)
    assert bool(shown) == bool(section) and section in shown


def test_bars_of_ops_are_as_long_as_their_counts():
    file = SimpleNamespace(
        ops={"ADD": 30, "MUL": 15, "EXP": 1}, nodes_outside_delegate={"EXP": 1}, delegate_partitions=2
    )
    section = page._ops_section(file)
    assert [int(width) for width in re.findall(r"width:(\d+)px", section)] == [240, 120, 8]
    assert "1 outside the delegate" in section
