"""The `int8` mode: dense layers and attention matmuls in int8, float where the CPU has no integer kernel.

XNNPACK runs an int8 BATCH_MATMUL only where the right-hand side has zero point 0, and a dense layer in int8 in two
ways: with fixed scales, or quantizing each token on the fly, which is more accurate and often slower. Every op starts
on what is fastest. Its noise in the answers, alone, is estimated or measured, the noises add up, and ops step back, to
on the fly or to float, where that saves the most noise for the time it costs, until the sum is within the budget.
"""

import functools
from dataclasses import dataclass

from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.progress import track

from ...tflite.capabilities import Capability
from ...tflite.errors import InvalidModelFile
from ...tflite.flatbuffer import trust
from ...tflite.graph import DENSE, Graph
from ...tflite.graph_form import LARGEST_UNIT_SCORE, GraphForm
from ...tflite.xnnpack import COSTS, DEFAULT_CPU
from ..mode import Mode, Whole, check_choice, check_cpu, check_number
from ..quantizer import NotQuantizable, Quantizer, dynamic, float16_weights, rule_for, static
from ..steps.calibration import UNUSABLE, all_outputs, mean_noise, measured_images, observe, quantizer_ranges
from ..steps.correct_biases import corrected_biases
from ..steps.levels import FIXED, FLOAT, ON_THE_FLY, int8_levels
from ..steps.operator_noise import estimated_noises, on_level
from ..steps.prepare import prepared
from ..steps.ranges import int8_ranges, quantized_tensors
from ..steps.round_weights import rounded_kernels, with_kernels
from ..steps.sensitivity import has_derivatives
from ..tolerance import Tolerance
from .dynamic import with_int8_weights

# Signal-to-noise ratio of the answers in dB, by the sum of the noises of the operators, for each preference.
SNR_DB = {"speed": 18.0, "accuracy": 29.5}
# Multiply-accumulates that measuring every operator may take; above that their noises are estimated, for speed. For
# accuracy estimates are too coarse: a plan takes those that came out too small, and DeiT-tiny lost 2.5 dB.
MOST_MEASURED_WORK = 1e11
# The noise of a file over the sum of its operators' estimated noises, above which they are measured after all: errors
# of several operators agree at times, and gradients know small errors only.
TRUSTED = 2.0


@dataclass(frozen=True)
class Int8(Mode):
    """Dense layers and attention matmuls in int8, the rest in float.

    Args:
        prefer: `"speed"`, or `"accuracy"`, which is slower and closer to the model: it may keep dense layers in float,
            with float16 weights.
        snr_db: signal-to-noise ratio of the answers, in dB, that the noises of the operators, each alone, may add up
            to; None is the preference's.
        cpu: the CPUs that the file is for, a key of `xnnpack.COSTS`: what an operator costs there decides which of them
            leave int8 first; a file runs on all. None is the target's.
    """

    prefer: str = "speed"
    snr_db: float | None = None
    cpu: str | None = None

    name = "int8"
    aliases = ("8", "i8", "w8a8-mixed")
    summary = "dense layers and attention matmuls in int8, the rest in float"
    advice = 'prefer="accuracy"'
    needs = frozenset({Capability.INTEGERS})
    tolerance = Tolerance(0.95, 14.0)
    more_outputs = True

    def __post_init__(self):
        check_choice("prefer", self.prefer, SNR_DB, self.name)
        check_number("snr_db", self.snr_db, self.name)
        check_cpu(self.cpu, self.name)

    def form(self, extremes, has):
        if Capability.FAST_INTEGER_DENSE not in has:
            return GraphForm()
        found = extremes()
        unit = self.prefer == "speed" and found.score <= LARGEST_UNIT_SCORE
        return GraphForm(attention="unit" if unit else "softmax", norm_epsilon=found.epsilon_counts)

    def prepare(self, content, setting):
        if Capability.FAST_INTEGER_DENSE not in setting.has:
            return Whole(with_int8_weights(content, setting.images))
        return MixedInt8(content, setting.images, self.prefer, setting.answers, self.cpu or setting.cpu)

    def __str__(self):
        return self.name if self.snr_db is None else f"{self.name}, budget {self.snr_db:g} dB"

    @property
    def budget(self):
        return {"snr_db": SNR_DB[self.prefer] if self.snr_db is None else self.snr_db}


class MixedInt8:
    """A float file with all that is measured once to quantize it to `int8` within any budget of noise.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        prefer: as for `Int8`.
        answers: what the outputs of the file are, in their order.
        cpu: a key of `xnnpack.COSTS`.
    """

    def __init__(self, content, images, prefer, answers=(LOGITS,), cpu=DEFAULT_CPU):
        self.content, self.images, self.answers = prepared(content), images, answers
        content, self.graph = self.content, Graph(self.content)
        calibration = observe(self.graph, images, quantized_tensors(self.graph))
        self.ranges = int8_ranges(self.graph, calibration.observations)
        self.kernels = rounded_kernels(self.graph, calibration.entering)
        del calibration  # its products are as large as the model
        self.quantizer_ranges = quantizer_ranges(self.graph, self.ranges)
        self.rounded = with_kernels(content, self.kernels)
        self.measured_images = measured_images(self.graph, images)
        self.outputs = all_outputs(content, self.measured_images)
        self.rounded_outputs = all_outputs(self.rounded, self.measured_images)
        self.rounding_noise = mean_noise(answers, self.outputs, self.rounded_outputs)
        self.operators = self.graph.of_kind(*DENSE, "BATCH_MATMUL")
        # Of each operator the levels it may run on and their times, the fastest first.
        self.levels = [
            list(int8_levels(self.graph, operator, prefer, COSTS[cpu]).items()) for operator in self.operators
        ]
        self.noises = {}  # of (number of the operator, level)
        much = self._measuring_work() > MOST_MEASURED_WORK
        self.estimated = prefer == "speed" and much and has_derivatives(self.graph)
        if self.estimated:
            self._estimate()
        else:
            self._measure()

    @functools.cached_property
    def quantizer(self):
        """The `Quantizer` that operators are measured with."""
        return Quantizer(self.rounded)

    def _measuring_work(self):
        """How many multiply-accumulates it takes to measure every operator."""
        work = sum(self.graph.multiplications(operator) for operator in self.operators)
        return work * len(self.measured_images) * len(self.operators)

    def _estimate(self):
        """Finds the noise of each operator on each level by gradients."""
        changes = {
            (i, level): [(operator, on_level(self.graph, operator, level, self.ranges))]
            for i, operator in enumerate(self.operators)
            for level, _ in self.levels[i]
            if level != FLOAT
        }
        self.noises = estimated_noises(self.graph, self.images, self.answers, changes, self.kernels)

    def _measure(self):
        """Measures the noise of each operator on its fastest level, and leaves out the levels that do not run."""
        self.noises, self.estimated = {}, False
        for i in track(range(len(self.operators)), "Measuring int8"):
            if self._noise(i, self.levels[i][0][0]) == UNUSABLE:
                usable = [(level, time) for level, time in self.levels[i] if self._noise(i, level) < UNUSABLE]
                self.levels[i] = usable or [(FLOAT, 0.0)]

    def file(self, mode):
        """The file of an `Int8`, as bytes."""
        return self.within(mode.budget["snr_db"])

    def within(self, snr_db):
        """The file, as bytes, whose operators' noises add up to this signal-to-noise ratio of the answers, in dB."""
        budget = 10 ** (-snr_db / 10)
        plan, noise = self._plan(budget)
        if self.estimated:
            try:
                file = self._planned(plan)
                found = mean_noise(self.answers, self.outputs, all_outputs(file, self.measured_images))
            except (InvalidModelFile, NotQuantizable):
                found = UNUSABLE
            if found <= TRUSTED * (noise + self.rounding_noise):
                return file
            self._measure()
            plan, _ = self._plan(budget)
        return self._planned(plan)

    def _planned(self, plan):
        """The file of a plan, as bytes."""
        in_float = {int(operator.inputs[1]) for operator in plan[FLOAT]}
        kernels = {tensor: kernel for tensor, kernel in self.kernels.items() if tensor not in in_float}
        content = with_kernels(self.content, kernels) if in_float & self.kernels.keys() else self.rounded
        dense = [operator for operator in plan[FIXED] if int(operator.inputs[1]) in kernels]
        content = with_kernels(content, corrected_biases(self.graph, content, dense, self.ranges, self.images))
        return _quantize(Quantizer(content), self.graph, self.quantizer_ranges, plan)

    def _noise(self, i, level):
        """What operator `i` on a level, alone, adds to the noise of the outputs."""
        if level == FLOAT:
            self.noises[i, level] = 0.0
        if (i, level) not in self.noises:
            plan = {level: [self.operators[i]]}
            try:
                file = _quantize(self.quantizer, self.graph, self.quantizer_ranges, plan)
                outputs = all_outputs(file, self.measured_images)
                self.noises[i, level] = mean_noise(self.answers, self.rounded_outputs, outputs)
            except (InvalidModelFile, NotQuantizable):  # its kernel refuses its tensors, or the quantizer does
                self.noises[i, level] = UNUSABLE
        return self.noises[i, level]

    def _plan(self, budget):
        """`({FIXED | ON_THE_FLY | FLOAT: operators}, noise)`: which operators run how, with at most this noise in all.

        The noise is that of the operators, without that of the rounded weights.
        """
        left = [list(levels) for levels in self.levels]
        noises = [self._noise(i, levels[0][0]) for i, levels in enumerate(left)]
        while self.rounding_noise + sum(noises) > budget:
            # A step that is not measured yet may save all the noise; it is measured when nothing else could be worth
            # more.
            worth = [
                ((noises[i] - self.noises.get((i, level), 0.0)) / max(time - levels[0][1], 1.0), i, step)
                for i, levels in enumerate(left)
                for step, (level, time) in enumerate(levels[1:], 1)
            ]
            best, i, step = max(worth, default=(0, 0, 0))
            if best <= 0:
                break
            level = left[i][step][0]
            if (i, level) in self.noises:
                noises[i], left[i] = self.noises[i, level], left[i][step:]
            else:
                self._noise(i, level)
        plan = {FIXED: [], ON_THE_FLY: [], FLOAT: []}
        for operator, levels in zip(self.operators, left):
            plan[levels[0][0]].append(operator)
        return plan, sum(noises)


def _quantize(quantizer, graph, ranges, plan):
    """A file with the operators of the plan quantized as it says; those it does not name stay in float32.

    Args:
        quantizer: the `Quantizer` of the float file.
        graph: the `Graph` of the float file.
        ranges: of `quantizer_ranges`.
        plan: `{level: operators}`.
    """
    fixed = plan.get(FIXED, [])
    moves = []
    for operator in fixed:
        entering = operator.inputs[:2] if graph.kind(operator) == "BATCH_MATMUL" else operator.inputs[:1]
        moves += [move for tensor in entering for move in graph.moves_before(int(tensor))]
        if graph.kind(operator) == "BATCH_MATMUL":
            moves += graph.moves_after(int(operator.outputs[0]))
    float_dense = [operator for operator in plan.get(FLOAT, []) if graph.kind(operator) != "BATCH_MATMUL"]
    dense = [operator for operator in fixed if graph.kind(operator) != "BATCH_MATMUL"]
    matmuls = [operator for operator in fixed if graph.kind(operator) == "BATCH_MATMUL"]
    rules = [
        rule_for(graph, operator, config)
        for operators, config in (
            (plan.get(ON_THE_FLY, []), dynamic()),
            (float_dense, float16_weights()),
            ([*dense, *moves], static()),
            (matmuls, static(per_tensor=True)),
        )
        for operator in operators
    ]
    content = quantizer.quantized(rules, ranges if fixed else None)
    trust(content)
    return content
