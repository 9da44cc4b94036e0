"""`quantize="auto"`: which file is chosen, what is promised of it, and what happens where none is good enough."""

import numpy as np
import pytest
from conftest import pixels, randomize

import keras_vit_plugin as kv
from keras_vit_plugin.export import Auto, ParityError, Tolerance, export_tflite, inspect, mode_of, verify
from keras_vit_plugin.export.image_sets import gather_calibration
from keras_vit_plugin.export.quantization.modes.auto.auto import MOST_CANDIDATES
from keras_vit_plugin.export.quantization.modes.auto.constraints import Constraints
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.presets.digits import load_digits_split


@pytest.fixture(scope="module")
def digits(dense_digits):
    (x_train, _), (x_test, y_test) = load_digits_split()
    return dense_digits, x_train, x_test, y_test


@pytest.mark.parametrize("order, cheapest", [("speed", "int8"), ("size", "int4")])
@pytest.mark.sampled(1)
def test_the_cheapest_file_that_keeps_the_constraints_is_written(digits, order, cheapest, tmp_path):
    model, calibration, x_test, y_test = digits
    path = tmp_path / "m.tflite"
    report = export_tflite(
        model,
        path,
        quantize=Auto(prefer=order, min_agreement=0.97),
        calibration=calibration,
        verification=x_test,
        report=tmp_path / "report.html",
    )
    fitting = [candidate for candidate in report.tried if candidate.fits]
    assert report.tried[0].name == "float16" and all(candidate.fits for candidate in report.tried[:-1])
    assert len(report.tried) <= MOST_CANDIDATES and not any(each.name == "float32" for each in report.tried)
    chosen = fitting[-1]
    assert report.mode == chosen.config.name == cheapest and chosen.name in report.choice
    assert report.config == chosen.config.to_dict()
    assert chosen.agreement_kept == pytest.approx(0.97) and "at least 97.0% of the answers with 90%" in report.choice
    assert verify(model, path, x_test).top1_agreement >= 0.97
    metadata = inspect(path).metadata
    assert metadata["mode"] == chosen.config.name and metadata["config"] == report.config
    page = (tmp_path / "report.html").read_text()
    assert report.choice in page and all(f"<td>{candidate.name}<td>" in page for candidate in report.tried)


@pytest.mark.long
def test_stricter_constraints_take_fewer_steps_down(tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    path = tmp_path / "m.tflite"
    noise = pixels(model.image_shape, 200)  # images that the model is not sure of
    lax, strict = (
        export_tflite(model, path, quantize=Auto(min_agreement=agreement, max_relative_error=error), calibration=noise)
        for agreement, error in ((0.5, 0.3), (0.99, 0.01))
    )
    assert len(strict.tried) < len(lax.tried)
    assert strict.size_bytes > lax.size_bytes
    assert strict.parity.snr_db > lax.parity.snr_db
    assert "`min_agreement` itself is not promised: 136 held-out images are too few (230 are needed" in strict.choice
    assert "not promised" not in lax.choice


@pytest.mark.long
def test_the_most_accurate_file_of_a_size(digits, tmp_path):
    model, calibration, *_ = digits
    path = tmp_path / "m.tflite"
    largest = export_tflite(model, path, quantize="float16", calibration=calibration).size_bytes - 1
    report = export_tflite(model, path, quantize=Auto(max_size=largest), calibration=calibration)
    assert path.stat().st_size <= largest
    small = [candidate for candidate in report.tried if candidate.size_bytes <= largest]
    assert len(small) < len(report.tried)
    assert report.mode in {
        candidate.config.name for candidate in small if candidate.snr_db == max(c.snr_db for c in small)
    }


def test_no_file_where_nothing_is_good_enough_and_the_best_is_named(digits, tmp_path):
    model, calibration, *_ = digits
    path = tmp_path / "m.tflite"
    with pytest.raises(
        ParityError, match=r"None of \d+ files keeps at least 99.0% .* at most 0.01 MB. The best is"
    ) as e:
        export_tflite(model, path, quantize=Auto(min_agreement=0.99, max_size=10_000), calibration=calibration)
    assert e.value.report.parity.images > 0
    # It is too large, not too far from the model.
    assert "Nothing was written" in str(e.value) and "too far" not in str(e.value)
    assert not list(tmp_path.iterdir())


def test_what_is_rejected_says_why_and_where_it_is(digits, tmp_path):
    model, calibration, *_ = digits
    options = {"calibration": calibration, "keep_rejected": True}
    with pytest.raises(ParityError, match=r"at most 0.001 MB.*It is kept as .*m.rejected.tflite") as refused:
        export_tflite(model, tmp_path / "m.tflite", quantize=Auto(max_size=1000), **options)
    assert "Nothing was written" not in str(refused.value)
    assert inspect(tmp_path / "m.rejected.tflite").metadata["rejected"] == str(refused.value)


@pytest.mark.parametrize("tolerance", [None, Tolerance(), Tolerance(min_snr_db=1)])
@pytest.mark.long
def test_the_constraints_are_kept_on_verification_images_too(tolerance, tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    pool = pixels(model.image_shape, 3000)
    second, first = np.sort(keras_logits(model, pool, *pixel_normalization(model, 3)), 1)[:, -2:].T
    order = np.argsort(first - second)  # it decides nothing on the first, and surely on the last
    with pytest.raises(ParityError, match=r"of 200 verification images \(wanted 99.9%\)"):
        export_tflite(
            model,
            tmp_path / "m.tflite",
            quantize=Auto(min_agreement=0.999),
            calibration=pool[order[-80:]],
            verification=pool[order[:200]],
            tolerance=tolerance,
        )


def test_accuracy_is_judged_on_labelled_folders(digits, tmp_path):
    from PIL import Image

    model, calibration, *_ = digits
    (x_train, y_train), _ = load_digits_split()
    folder = tmp_path / "digits"
    for i, (image, label) in enumerate(zip(x_train[:300], y_train)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / str(label) / f"{i}.png")
    report = export_tflite(model, tmp_path / "m.tflite", quantize=Auto(max_top1_drop=2.0), calibration=folder)
    chosen = [candidate for candidate in report.tried if candidate.fits][-1]
    assert report.mode == chosen.config.name and chosen.top1_drop_kept == 2.0
    assert "top-1 but for 2.0 points with 90% certainty" in report.choice
    assert report.parity.images == 236 and report.parity.top1_accuracy_model > 0.9
    with pytest.raises(ValueError, match="max_top1_drop.*needs labels"):
        export_tflite(model, tmp_path / "n.tflite", quantize=Auto(max_top1_drop=1.0), calibration=calibration)


@pytest.mark.parametrize(
    "quantize, options, match",
    [
        ("auto", {"min_agreement": 99}, "`min_agreement` must be in 0..1, got 99"),
        ("auto", {"max_top1_drop": -1}, "`max_top1_drop` must be in points of percent, 0..100, got -1"),
        ("auto", {"max_size": 0}, "`max_size` must be a positive number of bytes, got 0"),
        ("auto", {"prefer": "accuracy"}, "`prefer` of auto must be one of speed, size; got prefer='accuracy'"),
        ("int8", {"max_size": 100}, "`max_size` goes with quantize='auto', got max_size=100 with quantize='int8'"),
    ],
)
def test_unfit_constraints_are_refused(quantize, options, match):
    with pytest.raises(ValueError, match=match):
        mode_of(quantize, **options)


def test_unfit_arguments_are_refused(digits, tmp_path):
    model, calibration, *_ = digits
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="quantize='auto' needs `calibration`"):
        export_tflite(model, path, quantize="auto", calibration=None)
    option = r"`max_size` is an option of the mode: quantize=Auto\(max_size=100\)"
    for quantize in ("int8", "auto"):
        with pytest.raises(TypeError, match=option):
            export_tflite(model, path, quantize=quantize, calibration=calibration, max_size=100)


def test_judging_images_are_others_than_those_calibrated_on(digits, tmp_path):
    model, *_ = digits
    images = np.random.default_rng(0).integers(0, 256, (400, *preprocessing_of(model).image_shape), np.uint8)
    for count, sizes in ((400, (64, 256)), (70, (35, 35)), (2, (1, 1))):
        calibrating, judging, answers = gather_calibration(images[:count], preprocessing_of(model), Auto(), 256)
        assert (len(calibrating), len(judging)) == sizes and answers is None
        assert not {image.tobytes() for image in calibrating} & {image.tobytes() for image in judging}
    with pytest.raises(ValueError, match="`calibration` holds 1 image: quantize='auto' calibrates on some"):
        export_tflite(model, tmp_path / "m.tflite", quantize="auto", calibration=images[:1])


@pytest.mark.parametrize(
    "constraints, images",
    [
        (Constraints(0.99), 1000),
        (Constraints(0.9), 256),
        (Constraints(1.0), 1024),
        (Constraints(0.9, 2.0), 500),
        (Constraints(), 256),
    ],
)
def test_stricter_constraints_are_judged_on_more_images(constraints, images):
    assert constraints.images_wanted == images


def test_constraints_read_as_a_sentence():
    constraints = Constraints(min_agreement=0.99, max_size=5_000_000)
    assert str(constraints) == "at least 99.0% of the answers and at most 5.00 MB"
