"""`dynamic`: weights in int8 per channel, activations quantized on the fly."""

from dataclasses import dataclass

from ...tflite.capabilities import Capability
from ...tflite.graph import Graph
from ...tflite.loadable import loadable
from ..mode import Mode, Whole
from ..quantizer import Quantizer, Rule, dynamic, int8_weights, rule_for
from ..steps.calibration import observe
from ..steps.prepare import prepared
from ..steps.round_weights import rounded_kernels, with_kernels
from ..tolerance import Tolerance

LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class Dynamic(Mode):
    """Weights in int8 per channel, activations quantized on the fly.

    For a runtime without fast integer dense layers the weights become float when the file is loaded.
    """

    name = "dynamic"
    aliases = ("w8", "w8a32", "dynamic-range")
    summary = "int8 weights, activations quantized on the fly"
    advice = '"int8" with prefer="accuracy", which measures what each layer loses, or "float16"'
    needs = frozenset({Capability.INTEGERS})
    tolerance = Tolerance(0.95, 18.0)
    needs_calibration = False
    more_outputs = True

    def prepare(self, content, setting):
        whole = quantized_on_the_fly if Capability.FAST_INTEGER_DENSE in setting.has else with_int8_weights
        return Whole(whole(content, setting.images))


def quantized_on_the_fly(content, images):
    """A float file with its weights in int8, whose layers quantize what enters them; in float what is refused so."""
    content = rounded(content, images)
    graph = Graph(content)

    def quantized(left_in_float):
        rules = [Rule("*", dynamic()), *(rule_for(graph, operator) for operator in left_in_float)]
        return Quantizer(content).quantized(rules)

    return loadable(quantized, graph)


def with_int8_weights(content, images):
    """A float file with its weights in int8 per channel, dequantized when the file is loaded."""
    return Quantizer(rounded(content, images)).quantized([Rule(kind, int8_weights()) for kind in LAYERS])


def rounded(content, images):
    """A float file whose dense kernels are on the grid that int8 per channel has, rounded by what enters them.

    Args:
        content: bytes of the file.
        images: raw pixels 0..255, `(N, H, W, C)`; None leaves the kernels as they are.
    """
    content = prepared(content)
    if images is None:
        return content
    graph = Graph(content)
    return with_kernels(content, rounded_kernels(graph, observe(graph, images, ()).entering))
