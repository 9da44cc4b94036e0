"""The `int8` mode: dense layers and attention matmuls in int8, float where the CPU has no integer kernel.

XNNPACK runs an int8 BATCH_MATMUL only where the right-hand side has zero point 0, and a dense layer in int8 in two
ways: with fixed scales, or quantizing each token on the fly, which is more accurate and often slower. Every op starts
on what is fastest. Its noise in the answers is measured alone, the noises add up, and ops step back, to on the fly or
to float, where that saves the most noise for the time it costs, until the sum is within the budget.
"""

from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.progress import track

from ...spec.functions import gelu
from ...targets.xnnpack import COSTS, DEFAULT_CPU
from ...tflite.errors import InvalidModelFile
from ...tflite.flatbuffer import trust
from ...tflite.graph import Graph
from ..quantizer import NotQuantizable, Quantizer, dynamic, float16_weights, rule_for, static
from ..steps.calibration import UNUSABLE, all_outputs, mean_noise, measured_images, observe, quantizer_ranges
from ..steps.correct_biases import corrected_biases
from ..steps.prepare import prepared
from ..steps.round_weights import rounded_kernels, with_kernels

PREFERENCES = ("speed", "accuracy")
SNR_DB = {"speed": 18.0, "accuracy": 29.5}  # of the logits, by the sum of what each op costs
FEW_ROWS = 16  # a dense layer on fewer rows gains nothing by fixed scales
FIXED, ON_THE_FLY, FLOAT = "fixed scales", "on the fly", "float"
DENSE = ("FULLY_CONNECTED", "CONV_2D")
READERS = {"GELU": gelu}


def quantize_mixed_int8(content, images, prefer, answers=(LOGITS,), cpu=DEFAULT_CPU):
    """Quantizes a float file to `int8`.

    Args:
        content: bytes of the float file.
        images: calibration images, raw pixels 0..255, `(N, H, W, C)`.
        prefer: `"speed"`, or `"accuracy"`, which has the smaller budget of noise and may keep dense layers in float,
            with float16 weights.
        answers: what the outputs of the file are, in their order.
        cpu: a key of `op_costs.COSTS`, whose costs decide which operators step back.

    Returns:
        The file as bytes.
    """
    return MixedInt8(content, images, prefer, answers, cpu).within(SNR_DB[prefer])


class MixedInt8:
    """A float file with all that is measured once to quantize it to `int8` within any budget of noise.

    Args:
        content, images, prefer, answers, cpu: as for `quantize_mixed_int8`.
    """

    def __init__(self, content, images, prefer, answers=(LOGITS,), cpu=DEFAULT_CPU):
        self.content, self.images, self.answers = prepared(content), images, answers
        content, self.graph = self.content, Graph(self.content)
        calibration = observe(content, images)
        self.ranges = _ranges(self.graph, calibration.observations)
        self.kernels = rounded_kernels(self.graph, calibration.entering)
        del calibration  # its products are as large as the model
        self.quantizer_ranges = quantizer_ranges(self.graph, self.ranges)
        self.rounded = with_kernels(content, self.kernels)
        self.quantizer = Quantizer(self.rounded)
        self.measured_images = measured_images(self.graph, images)
        self.outputs = all_outputs(content, self.measured_images)
        self.rounded_outputs = all_outputs(self.rounded, self.measured_images)
        self.rounding_noise = mean_noise(answers, self.outputs, self.rounded_outputs)
        self.operators = self.graph.of_kind(*DENSE, "BATCH_MATMUL")
        # Of each operator the levels it may run on and their times, the fastest first.
        self.levels = [list(_levels(self.graph, operator, prefer, COSTS[cpu]).items()) for operator in self.operators]
        self.noises = {}  # of (number of the operator, level)
        for i in track(range(len(self.operators)), "Measuring int8"):
            if self._noise(i, self.levels[i][0][0]) == UNUSABLE:
                usable = [(level, time) for level, time in self.levels[i] if self._noise(i, level) < UNUSABLE]
                self.levels[i] = usable or [(FLOAT, 0.0)]

    def within(self, snr_db):
        """The file, as bytes, whose operators' noises add up to this signal-to-noise ratio of the answers, in dB."""
        plan = self._plan(10 ** (-snr_db / 10))
        in_float = {int(operator.inputs[1]) for operator in plan[FLOAT]}
        kernels = {tensor: kernel for tensor, kernel in self.kernels.items() if tensor not in in_float}
        content = with_kernels(self.content, kernels)
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
        """Which operators run how, `{FIXED | ON_THE_FLY | FLOAT: operators}`, with at most this noise in all."""
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
        return plan


def _levels(graph, operator, prefer, costs):
    """How an operator may run, fastest first, with its cost, `{level: multiply-accumulates on fixed scales}`."""
    work, rows = graph.multiplications(operator), graph.rows(operator.outputs[0])
    if _bounds_the_scores(graph, operator):
        return {FIXED: costs.fixed_matmul * work}
    if graph.kind(operator) == "BATCH_MATMUL":
        return _ascending({FIXED: costs.fixed_matmul * work, FLOAT: costs.float_matmul * work})
    entering, leaving = graph.source(int(operator.inputs[0])), int(operator.outputs[0])
    values_in, values_out = work / graph.width(leaving), rows * graph.width(leaving)
    moves = graph.moves_after(leaving)
    reader = _only_reader(graph, int(moves[-1].outputs[0]) if moves else leaving)
    times = {FIXED: work, ON_THE_FLY: costs.on_the_fly * work, FLOAT: costs.floating * work}
    times[ON_THE_FLY] += costs.quantized * values_in
    times[ON_THE_FLY if reader in ("BATCH_MATMUL", "GELU") else FIXED] += costs.converted * values_out
    if reader == "GELU":
        times[ON_THE_FLY] += costs.float_gelu * values_out
    if entering is not None and graph.kind(entering) == "GELU":
        times[ON_THE_FLY] += costs.float_gelu * values_in
    else:
        times[FIXED] += costs.converted * values_in
    if rows < FEW_ROWS:
        del times[FIXED]
    if prefer == "speed":
        del times[FLOAT]
    return _ascending(times)


def _ascending(times):
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _bounds_the_scores(graph, matmul):
    """Whether `exp` takes its output as it is: only fixed scales keep it from overflowing on images never seen."""
    return any(graph.kind(reader) == "EXP" for reader in graph.consumers.get(int(matmul.outputs[0]), ()))


def _ranges(graph, observations):
    """Per tensor the range to quantize it with, `{tensor: (low, high)}`.

    The least rounding and clipping error, measured behind the one function that reads the tensor, but nothing clipped
    of keys and values, nor of queries and scores that softmax reads, where the largest decide everything. The range of
    a matmul's right-hand side is also made to have zero point 0.
    """
    ranges = {
        tensor: observations[tensor].least_error(READERS.get(_only_reader(graph, tensor)))
        for tensor in track(
            [tensor for tensor in _quantized_tensors(graph) if tensor in observations], "Choosing ranges"
        )
    }
    for dense in graph.of_kind("FULLY_CONNECTED"):
        if graph.rows(dense.outputs[0]) >= FEW_ROWS:
            entering = int(dense.inputs[0])
            same = [int(move.inputs[0]) for move in graph.moves_before(entering)]
            ranges |= {source: ranges[entering] for source in same if source in observations}
    for matmul in graph.of_kind("BATCH_MATMUL"):
        left, right, output = int(matmul.inputs[0]), int(matmul.inputs[1]), int(matmul.outputs[0])
        unclipped = (left, right, output) if _only_reader(graph, output) == "SOFTMAX" else (right,)
        ranges |= {tensor: observations[tensor].full() for tensor in unclipped if tensor in observations}
        if right in ranges:
            largest = max(map(abs, ranges[right])) or 1.0
            ranges[right] = (-largest * 128 / 127, largest)
        for tensor in (left, right):
            same = [int(move.inputs[0]) for move in graph.moves_before(tensor)]
            ranges |= {source: ranges[tensor] for source in same if source in observations}
        ranges |= {int(move.outputs[0]): ranges[output] for move in graph.moves_after(output)}
    return ranges


def _quantized_tensors(graph):
    """What enters and leaves the operators that may be quantized, and the operators that move its values."""
    tensors = set()
    for operator in graph.of_kind(*DENSE, "BATCH_MATMUL"):
        for tensor in operator.inputs[:2]:
            tensors |= {int(tensor), *(int(move.inputs[0]) for move in graph.moves_before(int(tensor)))}
        for tensor in operator.outputs:
            tensors |= {int(tensor), *(int(move.outputs[0]) for move in graph.moves_after(int(tensor)))}
    return sorted(tensors)


def _only_reader(graph, tensor):
    """The kind of the one operator that reads a tensor, or None where there are several or none."""
    readers = graph.consumers.get(tensor, ())
    return graph.kind(readers[0]) if len(readers) == 1 else None


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
