"""What a finished file must keep of its model to be written."""

import numpy as np
import pytest

from keras_vit_plugin.export import MODES, Tolerance
from keras_vit_plugin.export.image_sets import Images
from keras_vit_plugin.export.job import Job
from keras_vit_plugin.export.make import Made
from keras_vit_plugin.export.quantization.modes.auto.constraints import Constraints
from keras_vit_plugin.export.request import request_of
from keras_vit_plugin.export.verdict import wanted_tolerance

INT8, FLOAT32 = MODES["int8"].tolerance, MODES["float32"].tolerance


def wanted(mode, verified_on, tolerance=None, promised=None, searched=False, images=128):
    """The tolerance of a file of a mode, by itself or chosen in a search that was to keep an agreement."""
    photos = np.zeros((images, 2, 2, 1), np.uint8)
    request = request_of("m.tflite", "auto" if searched else mode, calibration=photos, tolerance=tolerance)
    constraints = Constraints(min_agreement=promised) if searched else None
    job = Job(request, None, None, None, None, Images(photos, None, None, photos, None, verified_on), constraints)
    return wanted_tolerance(job, Made(b"", MODES[mode](), b"", tried=("a candidate",) if searched else ()))


@pytest.mark.parametrize("verified_on", ["verification", "held-out"])
@pytest.mark.parametrize("images", [8, 128])
def test_a_file_is_to_keep_what_its_mode_can_or_what_was_asked_for(verified_on, images):
    usual = INT8.on(images)
    assert wanted("int8", verified_on, images=images) == usual
    assert wanted("float32", verified_on, images=images) == FLOAT32.on(images)
    for asked in (Tolerance(0.5), Tolerance(None, 3), Tolerance(min_snr_db=30)):
        assert wanted("int8", verified_on, asked, images=images) == asked.filled(usual)


def test_of_synthetic_images_the_classes_of_a_quantized_file_do_not_count():
    assert wanted("int8", "synthetic") == Tolerance(None, INT8.min_snr_db)
    assert wanted("float32", "synthetic") == FLOAT32
    assert wanted("int8", "synthetic", Tolerance(0.5)) == Tolerance(0.5, INT8.min_snr_db)


def test_what_a_search_promised_is_kept_on_images_of_the_callers_own():
    """Which nothing was chosen by; of the others the search is as certain as it says."""
    for promised, agreement in ((0.99, 0.99), (0.5, INT8.min_agreement), (None, INT8.min_agreement)):
        given = {"promised": promised, "searched": True}
        assert wanted("int8", "verification", **given) == Tolerance(agreement, INT8.min_snr_db)
        assert wanted("int8", "held-out", **given) == INT8
        assert wanted("int8", "synthetic", **given) == Tolerance(None, INT8.min_snr_db)
        assert wanted("int8", "verification", Tolerance(min_snr_db=30), **given) == Tolerance(agreement, 30)
        for said in (Tolerance(0.7), Tolerance(None)):  # the caller's word is the last
            assert wanted("int8", "verification", said, **given) == said.filled(INT8)
