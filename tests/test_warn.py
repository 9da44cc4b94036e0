"""Where a warning of the package points: at the caller's own line."""

import warnings

import numpy as np

import keras_vit_plugin as kv
from keras_vit_plugin.warn import warn


def test_a_warning_points_at_the_callers_line(tmp_path):
    images = np.zeros((8, 32, 32, 3), np.uint8)
    images[4:] = np.arange(256, dtype=np.uint8)[None, :96].reshape(1, 32, 3)  # repeats of one image
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            kv.export.export_tflite(kv.build("vit_test"), tmp_path / "m.tflite", "dynamic", calibration=images)
        except ValueError:
            pass
        warn("from outside")
    ours = [each for each in caught if "distinct" in str(each.message) or "outside" in str(each.message)]
    assert len(ours) == 2 and {each.filename for each in ours} == {__file__}
