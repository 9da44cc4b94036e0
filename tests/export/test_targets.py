"""What a target changes in a file, and what it refuses."""

from dataclasses import dataclass, fields
from runpy import run_path

import hostile_tflite
import pytest
from conftest import REPOSITORY

import keras_vit_plugin as kv
from keras_vit_plugin.export import MODES, TARGETS, Auto, UnsupportedByTarget, export_tflite
from keras_vit_plugin.export.lowering.gelu_forms import GELU_FORMS
from keras_vit_plugin.export.targets.target import Target
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.graph_form import USUAL_FORM
from keras_vit_plugin.export.tflite.op_versions import FIRST_RUNTIME
from keras_vit_plugin.export.tflite.operators import hybrid_ops, op_versions
from keras_vit_plugin.export.tflite.runtime_versions import min_runtime
from keras_vit_plugin.presets.digits import load_digits_split


@dataclass(frozen=True)
class Saying(Target):
    """A target that is given what its runtime says of a file; None where it is not at hand."""

    said: str | None = None

    def load_error(self, content, runtime_python=None):
        return self.said


def saying(name, said):
    """A target of the table whose runtime says this of every file."""
    target = TARGETS[name]
    return Saying(**{field.name: getattr(target, field.name) for field in fields(target)}, said=said)


def graph_of(versions, weights=hostile_tflite.FLOAT):
    """The object tree of a graph with these ops, `{name: version}`, custom ones by their own name.

    Args:
        weights: the type of what their second input holds; the first is float.
    """
    schema = hostile_tflite.schema
    codes = []
    for name, version in versions.items():
        builtin = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        custom = name.encode() if builtin == schema.BuiltinOperator.CUSTOM else None
        codes.append(schema.OperatorCodeT(builtinCode=builtin, customCode=custom, version=version))
    tensors = [hostile_tflite.tensor("x", (1, 4)), hostile_tflite.tensor("weights", (4, 4), weights)]
    tensors += [hostile_tflite.tensor(name, (1, 4)) for name in versions]
    operators = [hostile_tflite.operator(code, (0, 1), (2 + code,)) for code in range(len(codes))]
    graph = schema.SubGraphT(tensors=tensors, inputs=[0, 1], outputs=[2], operators=operators)
    tree = hostile_tflite.model((), [graph])
    tree.operatorCodes = codes
    return tree


def test_the_target_table_refuses_what_the_runtime_lacks():
    litert, old = saying("litert", None), TARGETS["tflite-runtime"]
    assert op_versions(graph_of({"ADD": 1, "FlexErf": 1})) == {"ADD": 1, "FlexErf": 1}
    litert.check(b"", graph_of({"ADD": 1, "AVERAGE_POOL_2D": 2}))
    for op in ("FlexErf", "MyCustomOp"):
        with pytest.raises(UnsupportedByTarget, match=f"{op}: a flex or custom op"):
            litert.check(b"", graph_of({"ADD": 1, op: 1}))
    with pytest.raises(UnsupportedByTarget, match="ADD version 9: unknown which runtime has it"):
        litert.check(b"", graph_of({"ADD": 9}))
    with pytest.raises(UnsupportedByTarget, match="FULLY_CONNECTED version 12: needs runtime 2.17"):
        old.check(b"", graph_of({"FULLY_CONNECTED": 12}))
    with pytest.raises(UnsupportedByTarget, match="TRANSPOSE version 7: needs runtime 2.14.4"):
        old.check(b"", graph_of({"TRANSPOSE": 7}))
    hybrid = graph_of({"FULLY_CONNECTED": 1}, hostile_tflite.schema.TensorType.INT8)
    assert hybrid_ops(hybrid) == ["FULLY_CONNECTED"]
    litert.check(b"", hybrid)
    with pytest.raises(UnsupportedByTarget, match="FULLY_CONNECTED: quantizes its input on the fly, which answers"):
        old.check(b"", hybrid)
    assert min_runtime({"ADD": 1, "GELU": 1, "MEAN": 3}) == "2.9"
    assert min_runtime({"ADD": 1, "UNHEARD_OF": 1}) is None
    assert min_runtime({"ADD": 9}) is min_runtime({"BROADCAST_TO": 1}) is min_runtime({"ADD": 0}) is None


def test_every_target_writes_gelu_in_a_form_that_there_is():
    assert {target.form.filled(USUAL_FORM).gelu for target in TARGETS.values()} == {"op", *GELU_FORMS}


def test_what_the_runtime_says_of_a_file_decides():
    saying("litert", "").check(b"", graph_of({"ADD": 9, "UNHEARD_OF": 1}))
    with pytest.raises(UnsupportedByTarget, match="UNHEARD_OF: a flex or custom op, or one that is unknown; it fell"):
        saying("litert", "it fell over").check(b"", graph_of({"ADD": 1, "UNHEARD_OF": 1}))
    with pytest.raises(UnsupportedByTarget, match="ai-edge-litert 2.x cannot run: it fell over$"):
        saying("litert", "it fell over").check(b"", graph_of({"ADD": 1}))


def test_litert_is_asked_and_an_old_runtime_where_it_is_at_hand():
    good, bad = hostile_tflite.packed(hostile_tflite.classifier()), hostile_tflite.packed(graph_of({"UNHEARD_OF": 1}))
    for target in (TARGETS["litert"], TARGETS["gpu"], TARGETS["mediapipe"]):
        assert target.load_error(good) == "" and "UNHEARD_OF" in target.load_error(bad)
    assert TARGETS["tflite-runtime"].load_error(bad) is None


def test_a_mode_is_refused_by_what_the_runtime_lacks_of_it():
    refused = {name: {mode for mode in MODES if target.refusal(MODES[mode])} for name, target in TARGETS.items()}
    assert refused == {
        "litert": set(),
        "tflite-runtime": {"int16x8", "int4"},
        "gpu": set(MODES) - {"float16"},
        "mediapipe": set(),
    }
    assert "16 bits" in TARGETS["tflite-runtime"].refusal(MODES["int16x8"])
    assert "4 bits" in TARGETS["tflite-runtime"].refusal(MODES["int4"])
    assert "half precision" in TARGETS["gpu"].refusal(MODES["float32"])
    for mode in ("dynamic", "int8", "int8-full", "int16x8", "int4"):
        assert "compute in float" in TARGETS["gpu"].refusal(MODES[mode])


def test_the_table_has_the_builtins_of_the_runtime_and_is_what_its_script_makes():
    from ai_edge_litert import schema_py_generated as schema

    builtins = {name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    not_ops = {"CALL", "CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CONCAT_EMBEDDINGS"}
    unknown = {name for name in builtins - FIRST_RUNTIME.keys() - not_ops if not name.startswith("STABLEHLO")}
    assert unknown == set() and FIRST_RUNTIME.keys() <= builtins
    assert FIRST_RUNTIME["DYNAMIC_UPDATE_SLICE"][:3] == ("2.9", "2.17", "2.19")
    for firsts in FIRST_RUNTIME.values():
        numbers = [tuple(map(int, first.split("."))) for first in firsts if first != "-"]
        assert numbers == sorted(numbers) and all((1, 5) <= number[:2] <= (2, 24) for number in numbers)
    source = """
        {{BuiltinOperator_TILE, 1}, "1.10.1"}, {{BuiltinOperator_BROADCAST_TO, 2}, "2.5.0"},
        {{BuiltinOperator_BROADCAST_TO, 3},
         "2.5.0"},
    """
    namespace = {}
    exec(run_path(REPOSITORY / "benchmarks" / "make_op_versions.py")["table_of"](source, "v0"), namespace)
    assert namespace["FIRST_RUNTIME"] == {"BROADCAST_TO": ("-", "2.5", "2.5"), "TILE": ("1.10.1",)}


def slice_update_model():
    """A Keras model that is lowered to DYNAMIC_UPDATE_SLICE, as KerasHub's Swin is."""
    import keras

    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(images)
    x = keras.ops.slice_update(x * 0.5, (0, 2, 2, 0), x[:, :3, :3, :])
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))


def test_an_op_is_judged_by_the_runtime_and_not_by_a_list(tmp_path):
    model, options = slice_update_model(), {"mean": 0, "std": 1}
    report = export_tflite(model, tmp_path / "m.tflite", **options)
    assert report.file.ops["DYNAMIC_UPDATE_SLICE"] == 1 and report.file.min_runtime == "2.9"
    assert report.parity.snr_db > 100
    assert export_tflite(model, tmp_path / "m.tflite", target="tflite-runtime", **options).parity.snr_db > 80


@pytest.mark.parametrize("mode", ["dynamic", "int8"])
@pytest.mark.long
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


@pytest.mark.long
def test_auto_for_a_runtime_without_integer_dense(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize=Auto(max_size=10**9),  # every candidate is tried
        target="tflite-runtime",
        calibration=load_digits_split()[0][0][:150],
    )
    assert [candidate.config.name for candidate in report.tried] == ["float16", "dynamic", "float32"]
    assert report.mode == "float32"
