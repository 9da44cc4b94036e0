"""The tables of modes and targets: names, aliases, options, and that each entry is complete."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from keras_vit_plugin.export import MODES, TARGETS, Auto, Int4, Int8, Mode, Tolerance, mode_of
from keras_vit_plugin.export.finish import CONFIG_LENGTH
from keras_vit_plugin.export.quantization.modes import ALIASES, mode_from_dict
from keras_vit_plugin.export.tflite.capabilities import Capability
from keras_vit_plugin.export.tflite.graph_form import Extremes, GraphForm

EXTREME = Extremes(1.0, 1.0, 1e-6)


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_complete(name):
    mode = MODES[name]()
    assert mode.name == name and isinstance(mode, Mode) and mode.__doc__
    assert mode.summary and mode.advice is not None and isinstance(mode.tolerance, Tolerance)
    assert 0 < mode.tolerance.min_agreement <= 1 and mode.tolerance.min_snr_db > 0
    assert mode.needs and mode.needs <= set(Capability)
    assert {"uint8"} <= set(mode.input_dtypes) and mode.output_dtypes[0] == "float32"
    assert isinstance(mode.form(lambda: EXTREME, frozenset(Capability)), GraphForm)
    assert mode.chooses == hasattr(mode, "candidates")
    assert mode.chooses or type(mode).prepare is not Mode.prepare
    assert any(not target.refusal(mode) for target in TARGETS.values())
    with pytest.raises(FrozenInstanceError):
        mode.anything = 1


@pytest.mark.parametrize("name", MODES)
def test_a_file_keeps_a_mode_with_its_options(name):
    mode = MODES[name]()
    assert mode_from_dict(json.loads(json.dumps(mode.to_dict()))) == mode
    assert set(mode.budget) <= {field.name for field in fields(mode)}


def test_what_a_search_chooses_fits_into_the_room_that_a_file_leaves_for_it():
    for prefer in ("speed", "size"):
        for mode in Auto(prefer=prefer, cpu="arm-dotprod").candidates(frozenset(Capability)):
            assert len(json.dumps(mode.to_dict())) < CONFIG_LENGTH - 20


@pytest.mark.parametrize(
    "typed, name",
    [
        *(("8", "int8"), (8, "int8"), ("16", "float16"), (16, "float16"), ("fp16", "float16"), ("FP32", "float32")),
        *(("w8a8", "int8-full"), ("w8a16", "int16x8"), ("w8a32", "dynamic"), ("W4A8", "int4"), ("Int8", "int8")),
    ],
)
def test_words_that_people_type_elsewhere(typed, name):
    assert mode_of(typed) == MODES[name]()


def test_no_alias_is_two_modes_or_the_name_of_one():
    every = [alias for mode in MODES.values() for alias in mode.aliases]
    assert len(set(every)) == len(every) == len(ALIASES) and not set(every) & set(MODES)


def test_a_mode_is_taken_as_it_is():
    assert mode_of(Int4(block_size=64)) == mode_of(Int4, block_size=64) == mode_of("int4", block_size=64)
    assert mode_of("int8", prefer=None, snr_db=None) == Int8()
    with pytest.raises(
        ValueError, match="`quantize` holds the options of the mode already; got prefer='speed' besides"
    ):
        mode_of(Int8(), prefer="speed")


@pytest.mark.parametrize(
    "given, options, said",
    [
        ("int-8", {}, "`quantize` must be one of float32, .*got quantize='int-8'. The closest are: int8, "),
        (None, {}, "`quantize` must be one of .*; got quantize=None"),
        ("int8", {"block_size": 32}, "`block_size` goes with quantize='int4', got block_size=32 with quantize='int8'"),
        ("int4", {"prefer": "speed"}, "`prefer` goes with quantize='int8' or quantize='auto', got prefer='speed' with"),
        ("int8", {"min_agreement": 0.9}, r"with quantize='int8': pass tolerance=Tolerance\(min_agreement=...\)"),
        (Int8, {"block_size": 32}, "`block_size` goes with quantize='int4', got block_size=32 with quantize='int8'"),
        ("int8", {"color": 1}, "quantize='int8' has no option `color`; its options: prefer, snr_db, cpu. Got color=1"),
        ("int8", {"prefer": "size"}, "`prefer` of int8 must be one of speed, accuracy; got prefer='size'"),
        ("int8", {"snr_db": -1}, "`snr_db` of int8 must be a number above 0; got snr_db=-1"),
        ("int4", {"block_size": 33}, "`block_size` of int4 must be one of 32, 64, 128, 256; got block_size=33"),
        ("int4", {"extra_size": "x"}, "`extra_size` of int4 must be a number above 0; got extra_size='x'"),
        ("auto", {"cpu": "arm64"}, "`cpu` of auto must be one of .*; got cpu='arm64'. Did you mean 'arm'?"),
        ("auto", {"min_agreement": 2}, "`min_agreement` must be in 0..1, got 2"),
    ],
)
def test_what_is_wrong_is_named(given, options, said):
    with pytest.raises(ValueError, match=said):
        mode_of(given, **options)


@pytest.mark.parametrize(
    "values", [{}, {"mode": "int9"}, {"mode": "int8", "color": 1}, {"mode": "int8", "prefer": "size"}, None, "int8"]
)
def test_metadata_of_no_mode_is_refused(values):
    with pytest.raises(ValueError):
        mode_from_dict(values)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_complete(name):
    target = TARGETS[name]
    assert target.name == name and target.runtime and target.version and target.input_dtypes
    assert not target.has & set(target.lacks)
    for capability in set(Capability) - target.has - {Capability.FAST_INTEGER_DENSE}:
        assert target.lacks[capability]
    refused = {mode: target.refusal(MODES[mode]()) for mode in MODES}
    assert any(refused.values()) or target.has == set(Capability)
