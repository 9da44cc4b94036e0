"""What a target changes in a file, and what it refuses."""

import pytest

import keras_vit_plugin as kv
from keras_vit_plugin.export import UnsupportedByTarget, export_tflite
from keras_vit_plugin.export.flatbuffer import hybrid_ops, read
from keras_vit_plugin.export.targets import check_target, min_runtime
from keras_vit_plugin.presets.digits import load_digits_split


def test_the_target_table_refuses_what_the_runtime_lacks():
    check_target({"ADD": 1, "AVERAGE_POOL_2D": 2}, "litert")
    for op in ("FlexErf", "MyCustomOp"):
        with pytest.raises(UnsupportedByTarget, match=f"{op}: a flex or custom op"):
            check_target({"ADD": 1, op: 1}, "litert")
    with pytest.raises(UnsupportedByTarget, match="ADD version 9: needs runtime newer"):
        check_target({"ADD": 9}, "litert")
    with pytest.raises(UnsupportedByTarget, match="FULLY_CONNECTED version 12: needs runtime 2.17"):
        check_target({"FULLY_CONNECTED": 12}, "tflite-runtime")
    check_target({"FULLY_CONNECTED": 1}, "litert", ["FULLY_CONNECTED"])
    with pytest.raises(UnsupportedByTarget, match="FULLY_CONNECTED: quantizes its input on the fly, which answers"):
        check_target({"FULLY_CONNECTED": 1}, "tflite-runtime", ["FULLY_CONNECTED"])
    assert min_runtime({"ADD": 1, "GELU": 1, "MEAN": 3}) == "2.9"
    assert min_runtime({"ADD": 1, "UNHEARD_OF": 1}) is None


@pytest.mark.parametrize("mode", ["dynamic", "int8"])
def test_weights_in_int8_and_all_arithmetic_in_float_where_the_runtime_has_no_integer_dense(mode, tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    (calibration, _), (images, _) = load_digits_split()
    path, other = tmp_path / "m.tflite", tmp_path / "litert.tflite"
    options = {"quantize": mode, "calibration": calibration, "verification": images}
    report = export_tflite(model, path, target="tflite-runtime", **options)
    tree, litert = read(path.read_bytes()), export_tflite(model, other, **options)
    assert hybrid_ops(tree) == [] and hybrid_ops(read(other.read_bytes())) == ["FULLY_CONNECTED"]
    assert "GELU" not in report.file.ops and "GELU" in litert.file.ops
    assert report.size_bytes < 1.2 * litert.size_bytes
    assert report.parity.top1_agreement == 1.0 and report.parity.snr_db > 35


def test_auto_for_a_runtime_without_integer_dense(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize="auto",
        target="tflite-runtime",
        calibration=load_digits_split()[0][0][:150],
        max_size=10**9,  # every candidate is tried
    )
    assert [candidate.mode for candidate in report.tried] == ["float16", "dynamic", "float32"]
    assert report.mode == "float32"
