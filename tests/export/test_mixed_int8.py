"""The `int8` mode: what is integer, what stays in float, and the ranges."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import pixels, randomize
from quantized import float_file

import keras_vit_plugin as kv
from keras_vit_plugin.export import Int8, Int8Full, export_tflite, verify
from keras_vit_plugin.export.float_files import FloatFiles
from keras_vit_plugin.export.lowering.vision_transformer import lower
from keras_vit_plugin.export.quantization.modes import int8
from keras_vit_plugin.export.quantization.steps.calibration import ERROR_POWER, Observation, observe, rounded
from keras_vit_plugin.export.quantization.steps.levels import FEW_ROWS, FIXED, FLOAT, ON_THE_FLY, int8_levels
from keras_vit_plugin.export.quantization.steps.ranges import int8_ranges, quantized_tensors
from keras_vit_plugin.export.rewrites import apply_passes
from keras_vit_plugin.export.spec.functions import gelu
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.targets import TARGETS
from keras_vit_plugin.export.tflite.capabilities import Capability
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.graph_form import LARGEST_UNIT_SCORE, Extremes, GraphForm
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.export.tflite.xnnpack import COSTS
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.presets.digits import load_digits_split


def integer_matmuls(content):
    """The BATCH_MATMULs of a file whose right-hand side is quantized, as quantization parameters of that side."""
    graph = Graph(content)
    sides = [graph.subgraph.tensors[matmul.inputs[1]].quantization for matmul in graph.of_kind("BATCH_MATMUL")]
    return [side for side in sides if side is not None and side.scale is not None]


@pytest.fixture(scope="module")
def digits():
    """The shipped model, its calibration images, and the held-out ones with their labels."""
    (x_train, _), held_out = load_digits_split()
    return kv.build("vit_digits", weights="pretrained"), x_train[:96], *held_out


@pytest.fixture(scope="module")
def accurate_graph(digits):
    """The float graph of an int8 file for accuracy."""
    model, calibration, *_ = digits
    keras_model = ImageModel(model, *pixel_normalization(model, 1))
    return Graph(float_file(keras_model, Int8(prefer="accuracy"), calibration))


@pytest.mark.parametrize("prefer", ["speed", "accuracy"])
@pytest.mark.long
def test_one_partition_with_symmetric_right_sides(prefer, digits, tmp_path):
    model, calibration, x_test, y_test = digits
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, quantize=Int8(prefer=prefer), calibration=calibration)
    assert report.file.delegate_partitions == 1
    assert report.file.nodes_outside_delegate == {}
    assert all(list(side.zeroPoint) == [0] for side in integer_matmuls(path.read_bytes()))
    parity = verify(model, path, x_test, y_test)
    assert parity.top1_agreement >= 0.98
    assert parity.snr_db >= int8.SNR_DB[prefer] - 2  # the noise of single ops, added up, foretells it


@pytest.mark.long
def test_a_smaller_budget_of_noise_is_kept_by_fewer_integer_ops(digits):
    model, calibration, x_test, _ = digits
    pixels_to_input = pixel_normalization(model, 1)
    content = float_file(ImageModel(model, *pixels_to_input), Int8(prefer="accuracy"), calibration)
    prepared = int8.MixedInt8(content, calibration, "accuracy")
    integers, measured = [], []
    for wanted in (0.0, 25.0, 33.0, 200.0):
        content = prepared.within(wanted)
        dense = [op for op in Graph(content).of_kind("FULLY_CONNECTED") if Graph(content).dtype(op.inputs[1]) == "INT8"]
        integers.append((len(dense), len(integer_matmuls(content))))
        measured.append(snr_db(keras_logits(model, x_test, *pixels_to_input), Runner(content)(x_test)))
    # All but the head, whose ten outputs take less time in float than quantizing its inputs on the fly.
    assert integers[0] == (len(Graph(content).of_kind("FULLY_CONNECTED")) - 1, 8)
    assert integers[-1] == (0, 0)
    assert integers == sorted(integers, reverse=True) and measured == sorted(measured)
    assert measured[1] >= 24 and measured[2] >= 32


@pytest.mark.long
def test_scores_that_exp_takes_unchecked_are_bounded_by_fixed_scales(digits, tmp_path):
    model, calibration, *_ = digits
    mode = Int8(snr_db=200.0)  # everything that may step back does
    report = export_tflite(model, tmp_path / "m.tflite", quantize=mode, calibration=calibration)
    assert "SOFTMAX" not in report.file.ops and report.file.ops["EXP"] == 4
    graph = Graph((tmp_path / "m.tflite").read_bytes())
    for exponential in graph.of_kind("EXP"):
        dequantize = graph.producer[int(exponential.inputs[0])]
        scores = graph.subgraph.tensors[dequantize.inputs[0]]
        assert scores.quantization.scale[0] * (127 - scores.quantization.zeroPoint[0]) < 44
    report = export_tflite(model, tmp_path / "m.tflite", Int8(prefer="accuracy"), calibration=calibration)
    assert report.file.ops["SOFTMAX"] == 4 and "EXP" not in report.file.ops


def test_where_noise_is_saved_for_the_least_time_is_stepped_back_first():
    engine = object.__new__(int8.MixedInt8)
    engine.operators, engine.rounding_noise = ["quick in float", "slow in float"], 0.1
    engine.levels = [[(FIXED, 10.0), (FLOAT, time)] for time in (20.0, 1000.0)]
    engine.noises = {(0, FIXED): 1.0, (1, FIXED): 1.2}
    in_float = [engine._plan(budget)[0][FLOAT] for budget in (3.0, 2.0, 1.0, 0.0)]
    assert in_float == [[], ["quick in float"], engine.operators, engine.operators]


@pytest.mark.parametrize("prefer", ["speed", "accuracy"])
def test_a_budget_is_a_signal_to_noise_ratio_in_decibels(prefer):
    """Its noise is a share of the signal: 20 dB are a hundredth, 30 dB a thousandth."""
    model = kv.build("simple_vit_test")
    randomize(model)
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    prepared = int8.MixedInt8(add_missing_biases(lower(spec)), pixels(model.image_shape, 8), prefer)
    fastest = [(i, levels[0][0]) for i, levels in enumerate(prepared.levels)]
    noise = prepared.rounding_noise + sum(prepared.noises[operator] for operator in fastest)
    kept = -10 * np.log10(noise)
    assert kept > 20 and prepared.noises[fastest[4]] > 0
    file = prepared.within(-300.0)
    assert prepared.within(kept - 0.05) == file != prepared.within(kept + 0.05)


def test_what_only_moves_the_values_of_a_product_is_in_integers_on_both_of_its_sides_and_behind_it():
    model = kv.build("simple_vit_test")
    randomize(model)
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    prepared = int8.MixedInt8(add_missing_biases(lower(spec)), pixels(model.image_shape, 8), "accuracy")

    def moves(graph):
        """Of each product: the operators that move its left side, its right side and its result."""
        return [
            [*(graph.moves_before(int(side)) for side in product.inputs), graph.moves_after(int(product.outputs[0]))]
            for product in graph.of_kind("BATCH_MATMUL")
        ]

    in_float, file = prepared.graph, Graph(prepared.within(-300.0))
    kinds = [[list(map(in_float.kind, each)) for each in sides] for sides in moves(in_float)]
    assert [[list(map(file.kind, each)) for each in sides] for sides in moves(file)] == kinds
    assert all(right for _, right, _ in kinds) and any(left for left, *_ in kinds) and any(after for *_, after in kinds)
    moved = [move for sides in moves(file) for each in sides for move in each]
    assert {file.dtype(int(tensor)) for move in moved for tensor in (move.inputs[0], move.outputs[0])} == {"INT8"}


def test_int8_for_speed_leaves_out_what_small_scores_do_without(digits):
    model, calibration, *_ = digits
    files = FloatFiles(ImageModel(model, *pixel_normalization(model, 1)), calibration, TARGETS["litert"])
    graphs = {mode: Graph(files.lowered(mode)) for mode in (Int8(), Int8(prefer="accuracy"), Int8Full())}
    ops = {mode: set(map(graph.kind, graph.operators)) for mode, graph in graphs.items()}
    assert "SOFTMAX" not in ops[Int8()] and "REDUCE_MAX" not in ops[Int8()] and "EXP" in ops[Int8()]
    assert "SOFTMAX" in ops[Int8(prefer="accuracy")] and {"EXP", "REDUCE_MAX"} <= ops[Int8Full()]


@pytest.mark.parametrize(
    "mode, small, large", [(Int8(), "unit", "softmax"), (Int8Full(), "integer_unit", "integer_unit")]
)
def test_the_form_follows_from_the_scores_and_the_target(mode, small, large):
    every = frozenset(Capability)
    for score, attention in ((LARGEST_UNIT_SCORE, small), (LARGEST_UNIT_SCORE + 0.1, large)):
        assert mode.form(lambda: Extremes(score, 1.0, 1e-6), every).attention == attention
    assert mode.form(lambda: Extremes(1.0, 1.0, 1e-6), every).norm_epsilon is False
    assert mode.form(lambda: Extremes(1.0, 1e-2, 1e-6), every).norm_epsilon is True
    in_float = TARGETS["tflite-runtime"].has  # which computes int8 in float
    expected = GraphForm() if mode == Int8() else mode.form(lambda: Extremes(1.0, 1.0, 1e-6), every)
    assert mode.form(lambda: Extremes(1.0, 1.0, 1e-6), in_float) == expected


def test_what_a_class_of_cpu_is_slow_at_leaves_int8_first(accurate_graph):
    graph = accurate_graph
    mixtures = [op for op in graph.of_kind("BATCH_MATMUL") if graph.kind(graph.source(int(op.inputs[0]))) == "SOFTMAX"]
    assert len(mixtures) == 4
    for cpu, first in {"x86-vnni": "fixed scales", "arm-dotprod": "fixed scales", "arm": "float"}.items():
        levels = [list(int8_levels(graph, op, "speed", COSTS[cpu]).items()) for op in mixtures]
        assert {names[0][0] for names in levels} == {first}
    for costs in COSTS.values():
        assert costs.floating >= costs.on_the_fly and costs.float_matmul >= 1  # or nothing would be quantized there
        for operator in graph.of_kind("FULLY_CONNECTED", "BATCH_MATMUL"):
            times = list(int8_levels(graph, operator, "accuracy", costs).values())
            assert times == sorted(times) and times[0] > 0


def test_a_dense_layer_pays_for_each_value_that_goes_to_float_or_back(accurate_graph):
    graph, checked = accurate_graph, set()
    dearer = replace(COSTS["arm"], converted=COSTS["arm"].converted + 1)
    for layer in graph.of_kind("FULLY_CONNECTED"):
        if graph.rows(layer.outputs[0]) < FEW_ROWS:
            continue
        before, after = (int8_levels(graph, layer, "accuracy", costs) for costs in (COSTS["arm"], dearer))
        source = graph.source(int(layer.inputs[0]))
        behind_gelu = source is not None and graph.kind(source) == "GELU"  # which is in int8 too
        sizes = [np.prod(graph.shape(int(index))) for index in (layer.inputs[0], layer.outputs[0])]
        paid = {level: after[level] - time for level, time in before.items()}
        assert sum(paid.values()) == pytest.approx(sizes[1] + (0 if behind_gelu else sizes[0]))
        assert paid[FLOAT] == pytest.approx(0)
        checked.add(behind_gelu)
    assert checked == {True, False}


def test_each_cost_is_paid_for_what_it_is_of(accurate_graph):
    graph, checked, costs = accurate_graph, set(), COSTS["x86-vnni"]

    def paid(operator, cost):
        """`{level: what it costs more where this costs one more}`."""
        dearer = replace(costs, **{cost: getattr(costs, cost) + 1})
        before, after = (int8_levels(graph, operator, "accuracy", each) for each in (costs, dearer))
        more = {level: after[level] - time for level, time in before.items()}
        return {level: amount for level, amount in more.items() if amount > 1e-6}

    for matmul in graph.of_kind("BATCH_MATMUL"):
        work = np.prod(graph.shape(int(matmul.outputs[0]))) * graph.width(matmul.inputs[0])
        assert paid(matmul, "fixed_matmul") == {FIXED: pytest.approx(work)}
        assert paid(matmul, "float_matmul") == {FLOAT: pytest.approx(work)}
        for cost in ("on_the_fly", "floating", "quantized", "converted", "float_gelu"):
            assert paid(matmul, cost) == {}
    for layer in graph.of_kind("FULLY_CONNECTED"):
        entering, leaving = (int(index) for index in (layer.inputs[0], layer.outputs[0]))
        values_in, values_out = (np.prod(graph.shape(index)) for index in (entering, leaving))
        source = graph.source(entering)
        behind, before = source is not None and graph.kind(source) == "GELU", graph.only_reader(leaving) == "GELU"
        assert paid(layer, "on_the_fly") == {ON_THE_FLY: pytest.approx(values_out * graph.width(entering))}
        assert paid(layer, "floating") == {FLOAT: pytest.approx(values_out * graph.width(entering))}
        assert paid(layer, "quantized") == {ON_THE_FLY: pytest.approx(values_in)}
        tables = behind * values_in + before * values_out
        assert paid(layer, "float_gelu") == ({ON_THE_FLY: pytest.approx(tables)} if tables else {})
        assert paid(layer, "fixed_matmul") == paid(layer, "float_matmul") == {}
        checked.add((behind, before))
    assert checked == {(False, False), (False, True), (True, False)}


@pytest.mark.long
def test_a_file_is_made_for_the_cpus_that_are_named(digits, tmp_path):
    model, calibration, *_ = digits
    matmuls = {}
    for cpu in ("x86-vnni", "arm"):
        path = tmp_path / f"{cpu}.tflite"
        export_tflite(model, path, quantize=Int8(prefer="accuracy", cpu=cpu), calibration=calibration)
        matmuls[cpu] = len(integer_matmuls(path.read_bytes()))
    assert matmuls["arm"] == 0 < matmuls["x86-vnni"]


def test_cpu_is_checked():
    message = "`cpu` of int8 must be one of x86-vnni, x86-avx2, arm, arm-dotprod; got cpu='arm64'. Did you mean 'arm'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        Int8(cpu="arm64")


def test_prefer_is_checked():
    with pytest.raises(ValueError, match="`prefer` of int8 must be one of speed, accuracy; got prefer='size'"):
        Int8(prefer="size")


def test_a_range_of_255_steps_holds_whole_numbers():
    values = np.array([-3.0, 0.0, 0.4, 1.0, 254.6, 300.0])
    np.testing.assert_array_equal(rounded(values, 0.0, 255.0), [0, 0, 0, 1, 255, 255])
    np.testing.assert_array_equal(rounded(values, -3.0, 252.0), [-3, 0, 0, 1, 252, 252])


def test_the_ranges_of_an_observation():
    values = np.random.default_rng(0).normal(0, 1, 20000)
    seen = Observation(np.array([-30.0, -4.0]), np.array([4.0, 30.0]), values)  # two extremes no sample holds
    assert seen.full() == (-30, 30)
    low, high = seen.least_error()

    def error(low, high):
        steps = np.clip(np.round((values - low) / (high - low) * 255), 0, 255)
        return np.mean(np.abs(low + steps * (high - low) / 255 - values) ** ERROR_POWER)

    assert -10 < low < -3 and 3 < high < 10
    assert error(low, high) < 0.1 * error(*seen.full())
    assert Observation(np.zeros(1), np.zeros(1), np.zeros(5)).least_error() == (0, 0)


def test_a_range_is_measured_where_the_tensor_is_read():
    values = np.random.default_rng(0).normal(0, 3, 20000)
    seen = Observation(np.array([-12.0]), np.array([12.0]), values)
    low, high = seen.least_error(gelu)
    assert low > 0.6 * seen.least_error()[0]  # GELU is flat on the left: clipping there costs nothing
    assert high > 0.9 * seen.least_error()[1]
    # Errors of large values that are divided by ten count a tenth.
    weights = np.where(np.abs(values) > 3, 0.01, 1.0)
    weighed = Observation(seen.smallest, seen.largest, values, weights).least_error()
    assert weighed[1] - weighed[0] < 0.8 * (seen.least_error()[1] - seen.least_error()[0])


def test_ranges_are_chosen_behind_what_alone_reads_the_tensor(accurate_graph, digits):
    graph = accurate_graph
    observations = observe(graph, digits[1][:16], quantized_tensors(graph)).observations
    ranges, clipped, unclipped = int8_ranges(graph, observations), 0, 0
    assert ranges.keys() == observations.keys() & set(quantized_tensors(graph))
    for dense in graph.of_kind("FULLY_CONNECTED"):
        tensor = int(dense.outputs[0])
        if graph.only_reader(tensor) == "GELU":
            assert ranges[tensor] == observations[tensor].least_error(gelu)
            clipped += ranges[tensor][0] > observations[tensor].least_error()[0]
    assert clipped >= 2  # where GELU is flat
    for matmul in graph.of_kind("BATCH_MATMUL"):
        right = int(matmul.inputs[1])
        largest = max(map(abs, observations[right].full()))
        assert ranges[right] == (pytest.approx(-largest * 128 / 127), pytest.approx(largest))
    for softmax in graph.of_kind("SOFTMAX"):
        scores = int(softmax.inputs[0])
        query = int(graph.producer[scores].inputs[0])
        assert ranges[scores] == observations[scores].full() and ranges[query] == observations[query].full()
        unclipped += observations[scores].full() != observations[scores].least_error()
    assert unclipped  # or the least error would have said the same


def test_observed_extremes_are_those_of_the_oracle():
    model = kv.build("vit_test")
    spec, _ = apply_passes(from_keras(model, *pixel_normalization(model, 3)))
    content = add_missing_biases(lower(spec))
    images = pixels(model.image_shape, 5)
    graph = Graph(content)
    observations = observe(Graph(content), images).observations
    logits = observations[int(graph.subgraph.outputs[0])]
    expected = spec.forward(images)
    np.testing.assert_allclose(logits.smallest, expected.min(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits.largest, expected.max(1), rtol=1e-4, atol=1e-5)
    assert observations[graph.image].full() == (0, 255)
    assert snr_db(keras_logits(model, images, *pixel_normalization(model, 3)), Runner(content)(images)) > 80
