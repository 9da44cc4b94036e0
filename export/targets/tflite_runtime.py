"""`tflite-runtime`: 2.14.0, the last of that package."""

from dataclasses import dataclass

from ..tflite.capabilities import Capability
from ..tflite.foreign_runner import check_runtime_python, foreign_load_error, foreign_runner
from ..tflite.graph_form import GraphForm
from ..tflite.operators import hybrid_ops
from .target import Target


@dataclass(frozen=True)
class TfliteRuntime(Target):
    """A runtime that needs NumPy 1, and therefore a Python of its own."""

    def check_arguments(self, runtime_python=None):
        if runtime_python is not None:
            check_runtime_python(runtime_python)

    def load_error(self, content, runtime_python=None):
        return None if runtime_python is None else foreign_load_error(content, runtime_python)

    def problems(self, model):
        # Per-channel ones load and answer wrong.
        return [f"{op}: quantizes its input on the fly, which answers wrong there" for op in hybrid_ops(model)]

    def open(self, content, runtime_python=None):
        if runtime_python is None:
            return super().open(content)
        return foreign_runner(content, runtime_python), f"tflite-runtime {check_runtime_python(runtime_python)}"


TFLITE_RUNTIME = TfliteRuntime(
    name="tflite-runtime",
    runtime="tflite-runtime 2.14.0",
    version="2.14.0",
    has=frozenset({Capability.FLOAT32, Capability.FLOAT16_WEIGHTS, Capability.INTEGERS}),
    lacks={
        Capability.INT16_ACTIVATIONS: "it does not quantize pixels to 16 bits",
        Capability.INT4_WEIGHTS: "it has no dense layers with weights of 4 bits",
    },
    takes_python=True,
    form=GraphForm(gelu="float32"),  # its delegate does not run the op
)
