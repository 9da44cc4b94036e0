"""The parts of the benchmark that need no peer installed."""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY, pixels, randomize

import keras_vit_plugin as kv


@pytest.fixture(scope="module")
def roads_and_compare():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import compare
    import roads

    yield roads, compare
    sys.path.remove(str(REPOSITORY / "benchmarks"))


def test_the_kerashub_model_has_the_same_function(roads_and_compare):
    roads, _ = roads_and_compare
    model = kv.build("vit_test")
    randomize(model)
    x = (pixels(model.image_shape) / 255).astype("float32")
    np.testing.assert_allclose(roads.kerashub_twin(model)(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_our_files_are_judged_and_timed_in_every_mode(roads_and_compare, dense_digits, tmp_path):
    roads, compare = roads_and_compare
    from keras_vit_plugin.export.verify import keras_logits
    from keras_vit_plugin.presets.digits import load_digits_split

    (x_train, _), (x_test, y_test) = load_digits_split()
    candidates = list(roads.ours(dense_digits, tmp_path, x_train))
    assert [candidate.mode for candidate in candidates][-4:] == ["int16x8", "int4", "auto, 99 %", "auto, 99 %, size"]
    reference = keras_logits(dense_digits, x_test[:40], 1.0, 0.0)
    for candidate in candidates:
        assert compare.judge(candidate, x_test[:40], y_test[:40], reference).agreement >= 0.9
    medians = compare.time_interleaved(candidates, x_test[0], 1, 3)
    assert len(medians) == len(candidates) and min(medians) > 0


def test_the_table_holds_the_ratios(roads_and_compare):
    _, compare = roads_and_compare
    common = {"agreement": 0.99, "snr_db": 20.0, "top1": 0.8, "size_bytes": 6_300_000}
    rows = [
        {"road": road, "mode": mode, "threads": threads, "median_ms": milliseconds, **common}
        for threads in compare.THREADS
        for road, mode, milliseconds in (("(a) A", "float32", 20.0), ("(d) D", "int8", 10.0), ("(e) E", "int8", 5.0))
    ]
    table = compare.as_markdown(rows, 500, 60)
    assert table.count("| (e) E | int8 | 5.00 | 0.25 | 0.50 | 99.0% | 20.0 | 80.0% | 6.3 |") == 2


def test_the_arm_table_holds_the_ratios(roads_and_compare):
    _, compare = roads_and_compare
    rows = [
        {"road": road, "mode": mode, "cpu": cpu, "instructions": count * scale}
        for cpu, scale in (("cortex-a72", 2_000_000), ("cortex-a76", 1_000_000))
        for road, mode, count in (("(a) A", "float32", 400), ("(a) A", "dynamic", 200), ("(e) E", "int8", 120))
    ]
    assert "| (e) E | int8 | 240 | 0.60 | 120 | 0.60 |" in compare.arm_as_markdown(rows)
    assert compare.arm_as_markdown([]) == ""
