"""What each runtime can run."""

from dataclasses import dataclass, field

from ..tflite.errors import UnsupportedByTarget
from ..tflite.op_versions import FIRST_RUNTIME
from ..tflite.runtime_versions import _first_runtime, _number
from .xnnpack import DEFAULT_CPU

INTEGERS_ON_GPU = "GPUs compute in float and would only unpack it; take 'float16'"


@dataclass(frozen=True)
class Target:
    """A runtime, and what was measured of it.

    Attributes:
        runtime: its name.
        version: the TensorFlow Lite version it corresponds to.
        refused: `{mode: why, and what to take instead}`.
        input_dtypes: those it takes images in, the usual one first.
        integer_dense: whether its delegate runs dense layers in int8. Where it does not, `dynamic` and `int8` hold
            weights in int8 that become float when the file is loaded.
        gelu: `"op"`, or where its delegate does not run that, which of `lower.GELU_FORMS` it is written in.
        gpu: whether it is a GPU: its graph keeps `gpu_rules`, and is checked in half precision.
        labels_inside: whether it reads the class names from TFLite metadata and gives probabilities out.
        cpu: a key of `op_costs.COSTS`: the CPUs that `int8` is made for where the caller names none.
        at_hand: whether ai-edge-litert, which this package runs files on, has its kernels.
    """

    runtime: str
    version: str
    refused: dict[str, str] = field(default_factory=dict)
    input_dtypes: tuple[str, ...] = ("uint8", "float32", "int8")
    integer_dense: bool = True
    gelu: str = "op"
    gpu: bool = False
    labels_inside: bool = False
    cpu: str = DEFAULT_CPU
    at_hand: bool = True


TARGETS = {
    "litert": Target("ai-edge-litert 2.x", "2.21"),
    "tflite-runtime": Target(
        "tflite-runtime 2.14.0",
        "2.14.0",
        refused={
            "int16x8": "it does not quantize pixels to 16 bits; take 'int8-full' for integers, 'int8' for accuracy",
            "int4": "it has no dense layers with weights of 4 bits; take 'int8', its smallest file",
        },
        integer_dense=False,
        gelu="float32",
        at_hand=False,
    ),
    "gpu": Target(
        "the GPU delegates of LiteRT",
        "2.21",
        refused=dict.fromkeys(("dynamic", "int8", "int8-full", "int16x8", "int4", "auto"), INTEGERS_ON_GPU)
        | {"float32": "GPUs compute in half precision; take 'float16', which is made for that"},
        input_dtypes=("float32",),
        gelu="float16",
        gpu=True,
    ),
    "mediapipe": Target(
        "MediaPipe's ImageClassifier",
        "2.21",
        input_dtypes=("uint8", "float32"),
        labels_inside=True,
    ),
}


def check_target(op_versions, target, hybrid_ops=(), gpu_problems=(), load_error=None):
    """Raises `UnsupportedByTarget`, naming every op that the target cannot run, or is not known to.

    Args:
        op_versions: `{op name: highest version}` of a file; flex and custom ops by their own name.
        target: a key of `TARGETS`.
        hybrid_ops: names of the ops that quantize float activations on the fly.
        gpu_problems: what a GPU would not run, in words.
        load_error: what the target's runtime said when it was given the file, `""` where it took it: that decides. None
            where it was not tried, and the table of op versions decides.
    """
    runtime = TARGETS[target]
    problems = list(gpu_problems) if runtime.gpu else []
    if not runtime.integer_dense:
        # Per-channel ones load and answer wrong on tflite-runtime 2.14.
        problems += [f"{op}: quantizes its input on the fly, which answers wrong there" for op in hybrid_ops]
    if load_error != "":
        for op, version in op_versions.items():
            first = _first_runtime(op, version)
            if op not in FIRST_RUNTIME:
                problems.append(f"{op}: a flex or custom op, or one that is unknown")
            elif first is None:
                problems.append(f"{op} version {version}: unknown which runtime has it")
            elif _number(first) > _number(runtime.version):
                problems.append(f"{op} version {version}: needs runtime {first}")
    if load_error:
        problems.append(load_error)
    if problems:
        raise UnsupportedByTarget(f"{runtime.runtime} cannot run: " + "; ".join(problems))
