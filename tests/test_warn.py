"""Where a warning of the package points: at the caller's own line."""

import warnings

import numpy as np
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance
from keras_vit_plugin.warn import warn


def test_a_warning_points_at_the_callers_line(tmp_path):
    model = kv.build("vit_test")
    images = np.tile(pixels(model.image_shape, 4), (2, 1, 1, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kv.export.export_tflite(
            model, tmp_path / "m.tflite", "dynamic", calibration=images, tolerance=Tolerance(0, -99), narrow_range=True
        )
        warn("from outside")
    ours = [each for each in caught if "repeats are left out" in str(each.message) or "outside" in str(each.message)]
    assert len(ours) == 2 and {each.filename for each in ours} == {__file__}
