"""Noise of operators by gradients against noise that is measured, and what is done where they disagree."""

import numpy as np
import pytest
from quantized import float_file

import keras_vit_plugin as kv
from keras_vit_plugin.export import Int4, Int8
from keras_vit_plugin.export.quantization.modes import int8
from keras_vit_plugin.export.quantization.modes.int4 import MixedInt4
from keras_vit_plugin.export.quantization.modes.int8 import MixedInt8
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.presets.digits import load_digits_split


@pytest.fixture(scope="module")
def digits():
    """The shipped model, and its calibration images."""
    model, ((x_train, _), _) = kv.build("vit_digits", weights="pretrained"), load_digits_split()
    return ImageModel(model, *pixel_normalization(model, 1)), x_train[:64]


@pytest.fixture(scope="module")
def engines(digits):
    """The `int8` of the digits, its operators measured, and estimated."""
    model, images = digits
    content = float_file(model, Int8(), images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "MOST_MEASURED_WORK", np.inf)
        measured = MixedInt8(content, images, "speed")
        patch.setattr(int8, "MOST_MEASURED_WORK", 0)
        return measured, MixedInt8(content, images, "speed")


def check_alike(estimated, measured):
    """Fails unless the sums agree within a half, and the loudest within three times."""
    estimated, measured = (np.array(list(noises)) for noises in (estimated, measured))
    assert 0.5 <= estimated.sum() / measured.sum() <= 1.5
    loud = measured >= measured.sum() / len(measured)
    assert loud.any() and ((estimated / measured)[loud] > 1 / 3).all() and ((estimated / measured)[loud] < 3).all()


def test_int8_by_gradients_is_int8_as_measured(engines):
    measured, estimated = engines
    assert estimated.estimated and not measured.estimated
    fastest = [(i, levels[0][0]) for i, levels in enumerate(measured.levels)]
    check_alike((estimated.noises[place] for place in fastest), (measured.noises[place] for place in fastest))
    # What is slower than the fastest is estimated too, and quantizing on the fly measured here.
    others = [(i, level) for i, level in estimated.noises if level == int8.ON_THE_FLY]
    check_alike((estimated.noises[place] for place in others), (measured._noise(*place) for place in others))


def test_for_accuracy_every_operator_is_measured(digits, monkeypatch):
    monkeypatch.setattr(int8, "MOST_MEASURED_WORK", 0)
    monkeypatch.setattr(int8, "estimated_noises", lambda *_: pytest.fail("estimated"))
    model, images = digits
    mode = Int8(prefer="accuracy")
    assert not MixedInt8(float_file(model, mode, images), images, "accuracy").estimated


def test_a_file_is_planned_by_estimates_where_they_hold(engines):
    measured, estimated = engines
    for snr_db in (18.0, 33.0):
        outputs = [int8.all_outputs(engine.within(snr_db), engine.measured_images) for engine in engines]
        noises = [int8.mean_noise(estimated.answers, estimated.outputs, each) for each in outputs]
        assert abs(10 * np.log10(noises[1] / noises[0])) < 1.5
    assert estimated.estimated


def test_estimates_that_a_file_belies_are_measured_after_all(engines, digits, monkeypatch):
    measured, _ = engines
    monkeypatch.setattr(int8, "MOST_MEASURED_WORK", 0)
    monkeypatch.setattr(
        int8, "estimated_noises", lambda graph, images, answers, changes, *_: dict.fromkeys(changes, 0.0)
    )
    model, images = digits
    misled = MixedInt8(float_file(model, Int8(), images), images, "speed")
    assert misled.within(40.0) == measured.within(40.0) and not misled.estimated


def test_a_plan_that_does_not_run_is_measured_after_all(engines, digits, monkeypatch):
    measured, _ = engines
    monkeypatch.setattr(int8, "MOST_MEASURED_WORK", 0)
    model, images = digits
    engine, planned = MixedInt8(float_file(model, Int8(), images), images, "speed"), MixedInt8._planned
    refused = iter([True])

    def refusing(self, plan):
        if next(refused, False):
            raise int8.InvalidModelFile("a kernel refuses it")
        return planned(self, plan)

    monkeypatch.setattr(MixedInt8, "_planned", refusing)
    assert engine.within(33.0) == measured.within(33.0) and not engine.estimated


def test_int4_by_gradients_is_int4_as_measured(digits):
    model, images = digits
    engine = MixedInt4(float_file(model, Int4(), images), images)
    check_alike(engine._estimated().values(), engine._measured().values())
