"""A calibrated file is asked about images unlike those that it was calibrated and verified on."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from PIL import Image

from keras_vit_plugin.cli import main
from keras_vit_plugin.export import ParityError, Tolerance, export_tflite
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.verification.distribution_shift import contrast_stretched, shift_reports, shifted_too_far
from keras_vit_plugin.export.verification.range_use import activation_ranges, range_use
from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.images import synthetic
from keras_vit_plugin.images.gather import check_calibration
from keras_vit_plugin.images.synthetic import synthetic_images

SIZE = (8, 8, 1)


def grey_noise(count, spread, seed=0):
    """Grey images, normal around 128."""
    noise = np.random.default_rng(seed).normal(128, spread, (count, *SIZE))
    return np.clip(np.round(noise), 0, 255).astype(np.uint8)


@pytest.fixture
def network():
    """A small network whose activations grow with the contrast of its images."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(SIZE),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(5),
        ]
    )


def own_snr_db(path, model, images):
    """By an interpreter of the test's own."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    entry, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(out["index"])[0])
    wanted = np.asarray(model(images.astype(np.float32)), np.float64)
    error = np.array(answers) - wanted
    centred = wanted - wanted.mean(1, keepdims=True)
    error = error - error.mean(1, keepdims=True)
    return 10 * np.log10(np.square(centred).mean() / np.square(error).mean())


@pytest.mark.parametrize("mode", ["int8", "int8-full", "int16x8", "int4"])
def test_images_of_little_contrast_are_no_calibration(network, mode, tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"`calibration` holds pixels from 11\d to 13\d alone.*narrow_range=True"):
        export_tflite(network, path, mode, calibration=grey_noise(64, 3))
    assert not path.exists()


def test_little_contrast_is_less_than_a_quarter_of_the_range():
    pixels = np.tile(np.repeat(np.array([90, 154], np.uint8), SIZE[1] // 2)[:, None], (16, SIZE[0], 1, SIZE[2]))
    check_calibration(pixels)
    with pytest.raises(ValueError, match="pixels from 91 to 154 alone"):
        check_calibration(np.maximum(pixels, 91))


def test_the_command_has_the_way_out(network, tmp_path):
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(grey_noise(24, 3)):
        Image.fromarray(image[..., 0]).save(tmp_path / f"photos/{number}.png")
    network.save(tmp_path / "m.keras")
    arguments = [tmp_path / "m.keras", tmp_path / "m.tflite", "--quantize", "int8-full", "--task", "classes"]
    arguments = ["export", *map(str, arguments), "--calibration", str(tmp_path / "photos")]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1 and "--narrow-range" in refused.output and not (tmp_path / "m.tflite").exists()
    written = CliRunner().invoke(main, [*arguments, "--narrow-range"])
    assert written.exit_code == 0, written.output
    assert "SNR, synthetic images" in written.output and "values outside their ranges" in written.output


def test_a_file_that_holds_for_dull_images_alone_is_refused(network, tmp_path):
    images = grey_noise(64, 12)  # of just so much contrast that the pixels alone are no reason
    path = tmp_path / "m.tflite"
    with pytest.raises(ParityError, match=r"dB on contrast-stretched images .*outside the calibrated ranges") as error:
        export_tflite(network, path, "int16x8", calibration=images, task="classes", keep_rejected=True)
    assert error.value.report.parity.snr_db > 30 and not path.exists()
    rejected = tmp_path / "m.rejected.tflite"
    contrast = np.random.default_rng(1).integers(0, 2, (32, *SIZE)).astype(np.uint8) * 255
    assert own_snr_db(rejected, network, images) > 30 > 19 > own_snr_db(rejected, network, contrast)


def test_the_report_says_how_a_file_does_on_other_images(network, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, *SIZE)).astype(np.uint8)
    report = export_tflite(network, tmp_path / "m.tflite", "int8-full", calibration=images, task="classes")
    stretched, synthetic = report.shifts
    assert (stretched.kind, synthetic.kind) == ("contrast-stretched", "synthetic")
    assert stretched.snr_db == pytest.approx(report.parity.snr_db, abs=2)  # noise covers the range already
    own = own_snr_db(tmp_path / "m.tflite", network, synthetic_images(SIZE, synthetic.images))
    assert synthetic.snr_db == pytest.approx(own, abs=0.1)
    assert 0 <= report.ranges.share < 0.05 and synthetic.ranges.excess > report.ranges.excess
    words = report.in_words()
    assert words["SNR, synthetic images"] == f"{synthetic.snr_db:.1f} dB"
    assert f"{report.ranges.excess:.0%} of a range" in words["values outside their ranges"]


def test_a_tolerance_of_ones_own_counts_for_other_images_too(network, tmp_path):
    options = {"calibration": grey_noise(64, 12), "task": "classes"}
    report = export_tflite(network, tmp_path / "m.tflite", "int16x8", tolerance=Tolerance(None, 0), **options)
    assert min(each.snr_db for each in report.shifts) < 19
    report = export_tflite(network, tmp_path / "m.tflite", "int16x8", narrow_range=True, **options)
    assert min(each.snr_db for each in report.shifts) < 19


def test_nothing_is_asked_of_files_that_were_not_calibrated(network, tmp_path):
    report = export_tflite(network, tmp_path / "m.tflite", "dynamic", task="classes")
    assert report.shifts == () and report.ranges is None and "SNR, synthetic images" not in report.in_words()
    assert "on 24 synthetic images alone (photos: `verification`" in report.in_words()["verified"]


@pytest.mark.parametrize("mode", ["float32", "float16"])
def test_a_float_file_has_no_ranges_to_leave(mode, network, tmp_path):
    report = export_tflite(network, tmp_path / "m.tflite", mode, calibration=grey_noise(64, 12), task="classes")
    assert report.shifts == () and report.ranges is None


def test_images_are_stretched_each_by_its_own_contrast():
    images = np.stack([np.full(SIZE, 7), np.arange(64).reshape(SIZE) + 100]).astype(np.uint8)
    stretched = contrast_stretched(images)
    assert stretched.dtype == np.uint8 and (stretched[0] == 0).all()
    assert stretched[1].ravel().tolist() == np.round(np.arange(64) / 63 * 255).astype(int).tolist()


def test_values_are_counted_that_lie_outside_of_the_ranges(network, tmp_path):
    images = grey_noise(64, 40)
    export_tflite(network, tmp_path / "f.tflite", task="classes", input_dtype="float32")
    float_content = (tmp_path / "f.tflite").read_bytes()
    export_tflite(
        network, tmp_path / "m.tflite", "int8-full", calibration=images, task="classes", tolerance=Tolerance(None, 0)
    )
    content = (tmp_path / "m.tflite").read_bytes()
    bright = np.random.default_rng(1).integers(0, 2, (20, *SIZE)).astype(np.uint8) * 255
    file, float_file = Graph(content), Graph(float_content)
    used = range_use(file, float_file, bright)
    ranges = activation_ranges(file)
    hidden = np.asarray(network.layers[2](np.asarray(bright.reshape(20, -1) / 127.5 - 1, np.float32)))
    logits = np.asarray(network.layers[3](hidden))
    excess = []
    limits = {low / (high - low) > -0.01: (low, high) for low, high in ranges.values() if high < 100}
    for values, from_zero in ((hidden, True), (logits, False)):
        low, high = limits[from_zero]
        excess.append(max(low - values.min(), values.max() - high) / (high - low))
    assert used.excess == pytest.approx(max(excess), rel=0.02) and 0.01 < used.share < 0.9 and used.tensor
    inside = range_use(file, float_file, np.full((4, *SIZE), 128, np.uint8))
    assert (inside.share, inside.excess, inside.tensor) == (0, 0, "")
    assert range_use(float_file, float_file, bright) is None


def test_images_that_the_model_has_no_answer_for_are_left_out():
    images = grey_noise(8, 40)

    def reference_of(pixels):
        sums = pixels.reshape(len(pixels), -1).sum(1, keepdims=True) * np.arange(3.0)
        return [np.where(sums > 64 * 128, np.nan, sums)]

    half = shift_reports(images, [LOGITS], reference_of(images // 4), reference_of, reference_of, **files())
    measured = [each for each in half if each.images]
    assert measured and all(each.images < 12 and each.snr_db == 300 for each in measured)
    assert all(each.images + each.unanswered in (8, 12) for each in half)
    assert f"300.0 dB (the model gives NaN or infinity on {measured[0].unanswered} of " in measured[0].words
    nothing = shift_reports(
        images,
        [LOGITS],
        reference_of(images // 4),
        lambda pixels: [np.full((len(pixels), 3), np.nan)],
        reference_of,
        **files(),
    )
    assert [each.words for each in nothing] == [
        f"not measured: the model gives NaN or infinity on {count} of {count}" for count in (8, 12)
    ]
    assert shifted_too_far(nothing, 14) == ""


def test_a_model_without_answers_on_synthetic_images_is_told_the_way_out(tmp_path):
    images = keras.Input(SIZE)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(3)(keras.ops.sqrt(flat - 0.1)))
    with pytest.raises(ValueError, match=r"on the synthetic images .* pass images in `verification`"):
        export_tflite(model, tmp_path / "m.tflite", task="classes")
    bright = grey_noise(8, 10) + 60
    assert export_tflite(model, tmp_path / "m.tflite", task="classes", verification=bright).parity.images == 8


def files():
    """The bytes of a float file, in the place of both."""
    import tempfile
    from pathlib import Path

    images = keras.Input(SIZE)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    with tempfile.TemporaryDirectory() as folder:
        export_tflite(model, Path(folder, "m.tflite"), pixels="0..1", task="classes")
        content = Path(folder, "m.tflite").read_bytes()
    return {"file": Graph(content), "float_file": Graph(content)}


def test_discs_are_as_smooth_down_as_across():
    images = [synthetic._discs((64, 64, 1), np.random.default_rng(seed)).astype(int) for seed in range(8)]
    for axis in (0, 1):
        assert all(0.85 < np.mean(np.diff(image, axis=axis) == 0) < 0.99 for image in images)


def test_synthetic_images_are_of_three_kinds_and_use_the_range():
    images = synthetic_images((24, 32, 3), 9)
    assert images.shape == (9, 24, 32, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 9 and images.min() < 20 and images.max() > 235
    assert (synthetic_images((24, 32, 3), 9) == images).all()
    equal = (np.diff(images.astype(int), axis=2) == 0).mean((1, 2, 3))
    assert max(equal[0::3]) < 0.4 < min(equal[1::3])  # smooth ones, and ones with edges
    assert ((images[2::3] < 10) | (images[2::3] > 245)).mean() > 0.6  # black and white ones
