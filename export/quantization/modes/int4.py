"""The `int4` mode: weights of 4 bits, activations quantized on the fly; the layers that lose most keep 8 bits.

Every dense layer is rounded to 4 bits alone, and the error it makes in the logits is measured. The errors add up;
layers go back to 8 bits where that saves the most error for its bytes, until the sum is within the budget or the bytes
are spent. Then gains and biases are tuned.
"""

from dataclasses import dataclass

from keras_vit_plugin.image_model.answers import LOGITS
from keras_vit_plugin.images.gather import MORE_CALIBRATION_IMAGES
from keras_vit_plugin.progress import track

from ...tflite.capabilities import Capability
from ...tflite.graph import Graph
from ...tflite.surgery import float16_constants
from ..mode import Mode, check_choice, check_number
from ..quantizer import Quantizer, dynamic, rule_for
from ..steps.calibration import all_outputs, mean_noise, measured_images
from ..steps.operator_noise import estimated_noises, with_kernel
from ..steps.prepare import prepared
from ..steps.round_weights import number_of_blocks, rounded_kernels, with_kernels
from ..steps.sensitivity import has_derivatives, sensitive_entering
from ..steps.tune_gains import tuned_gains
from ..tolerance import Tolerance

BLOCK_SIZES = (32, 64, 128, 256)
LARGE_CONSTANT = 1000  # values; in float16 from here on


@dataclass(frozen=True)
class Int4(Mode):
    """Weights mostly in 4 bits, activations quantized on the fly.

    Args:
        block_size: one of `BLOCK_SIZES`: so many inputs share a scale, in layers whose inputs it divides: more accurate
            and larger. None gives each output channel one scale.
        snr_db: signal-to-noise ratio of the answers, in dB, from which on no more layers go back to 8 bits.
        extra_size: most weights in 8 bits, as a share of all.
    """

    block_size: int | None = None
    snr_db: float = 15.0
    extra_size: float = 0.165

    name = "int4"
    aliases = ("4", "w4", "w4a8", "w4a32")
    summary = "weights mostly in 4 bits, activations quantized on the fly: the smallest"
    advice = 'more layers in 8 bits: quantize="auto", or "dynamic"'
    needs = frozenset({Capability.INTEGERS, Capability.INT4_WEIGHTS})
    tolerance = Tolerance(0.88, 8.0)
    calibration_images = MORE_CALIBRATION_IMAGES

    def __post_init__(self):
        if self.block_size is not None:
            check_choice("block_size", self.block_size, BLOCK_SIZES, self.name)
        check_number("snr_db", self.snr_db, self.name)
        check_number("extra_size", self.extra_size, self.name)

    def prepare(self, content, setting):
        return MixedInt4(content, setting.images, self.block_size, setting.answers)

    def __str__(self):
        usual = type(self)(self.block_size)
        return self.name if self == usual else f"{self.name}, {self.extra_size:.0%} in 8 bits"

    @property
    def budget(self):
        return {"snr_db": self.snr_db, "extra_size": self.extra_size}


class MixedInt4:
    """A float file with all that is measured once to quantize it to `int4`, with more or fewer layers in 8 bits."""

    def __init__(self, content, images, block_size=None, answers=(LOGITS,)):
        content = prepared(content)
        self.content, self.images, self.block_size, self.answers = content, images, block_size, answers
        self.graph = Graph(content)
        if not any(
            self.graph.constant(int(dense.inputs[1])) is not None for dense in self.graph.of_kind("FULLY_CONNECTED")
        ):
            raise ValueError(
                "quantize='int4' stores the weights of dense layers in 4 bits and this model has none: take 'dynamic' "
                "or 'int8'."
            )
        entering = sensitive_entering(content, images, answers)
        self.four = rounded_kernels(self.graph, entering, 4, block_size)
        self.eight = rounded_kernels(self.graph, entering, 8)
        del entering  # its products are as large as the model
        self.noises = self._estimated() if has_derivatives(self.graph) else self._measured()

    def _estimated(self):
        """The noise of each kernel in 4 bits, by gradients."""
        changes = {tensor: [] for tensor in self.four}
        for dense in self.graph.of_kind("FULLY_CONNECTED"):
            tensor = int(dense.inputs[1])
            if tensor in self.four:
                changes[tensor].append((dense, with_kernel(self.graph, dense, self.four[tensor])))
        return estimated_noises(self.graph, self.images, self.answers, changes)

    def _measured(self):
        """The noise of each kernel in 4 bits, by a file with that kernel."""
        images = measured_images(self.graph, self.images)
        outputs = all_outputs(self.content, images)
        return {
            tensor: mean_noise(self.answers, outputs, all_outputs(with_kernels(self.content, {tensor: kernel}), images))
            for tensor, kernel in track(self.four.items(), "Measuring int4")
        }

    def file(self, mode):
        """The file of an `Int4`, as bytes."""
        return self.within(**mode.budget)

    def within(self, snr_db, extra_size):
        """The file, as bytes.

        Args:
            snr_db: signal-to-noise ratio of the logits, in dB, from which on no more layers go back to 8 bits.
            extra_size: most weights in 8 bits, as a share of all.
        """
        kept = self._worth_eight_bits(snr_db, extra_size)
        kernels = self.four | {tensor: self.eight[tensor] for tensor in kept}
        content = with_kernels(self.content, tuned_gains(self.content, kernels, self.images, self.answers))
        rules = []
        for dense in self.graph.of_kind("FULLY_CONNECTED"):
            in_eight = int(dense.inputs[1]) in kept
            rules.append(rule_for(self.graph, dense, dynamic(8) if in_eight else dynamic(4, self._block(dense))))
        quantized = Quantizer(content).quantized(rules)
        return float16_constants(quantized, LARGE_CONSTANT)  # the positions

    def _block(self, dense):
        """The block size of a layer, None where it does not divide its inputs."""
        has_blocks = number_of_blocks(self.graph.width(dense.inputs[1]), self.block_size) > 1
        return self.block_size if has_blocks else None

    def _worth_eight_bits(self, snr_db, extra_size):
        """The kernels that keep 8 bits."""
        four, noises = self.four, self.noises
        left, spare, kept = sum(noises.values()), extra_size * sum(kernel.size for kernel in four.values()), set()
        for tensor in sorted(noises, key=lambda tensor: -noises[tensor] / four[tensor].size):
            if left <= 10 ** (-snr_db / 10):
                break
            if four[tensor].size <= spare:
                kept.add(tensor)
                spare, left = spare - four[tensor].size, left - noises[tensor]
        return kept
