"""What each runtime can run. Op versions are known here and nowhere else."""

from dataclasses import dataclass, field

# The runtime that first ran version 1, 2, ... of an op, for the ops that image models are made of.
# Source: TensorFlow, tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc (2.21).
FIRST_RUNTIME = {
    op: tuple(runtimes.split())
    for op, runtimes in {
        "ABS": "1.13 2.4 2.5 2.6 2.12",
        "ADD": "1.5 1.14 2.4 2.6 2.13",
        "ADD_N": "1.14",
        "ARG_MAX": "1.9 1.14 2.9",
        "ARG_MIN": "1.9 1.14 2.9",
        "AVERAGE_POOL_2D": "1.5 1.14 2.3",
        "BATCH_MATMUL": "2.3 2.3 2.4 2.5",
        "BATCH_TO_SPACE_ND": "1.6 1.14 2.3 2.12",
        "BROADCAST_TO": "2.5 2.5 2.5",
        "CAST": "1.5 2.7 2.8 2.9 2.12 2.15 2.17 2.21",
        "CEIL": "1.14",
        "CONCATENATION": "1.5 1.14 2.3 2.14 2.21",
        "CONV_2D": "1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15",
        "COS": "1.14",
        "CUMSUM": "2.4",
        "DEPTHWISE_CONV_2D": "1.5 1.12 1.14 2.2 2.3 2.3 2.11",
        "DEPTH_TO_SPACE": "2.1 2.5",
        "DEQUANTIZE": "1.13 1.14 1.15 2.2 2.7 2.18 2.21",
        "DIV": "1.6 2.3",
        "ELU": "1.14",
        "EQUAL": "1.14 1.14 2.3 2.13 2.21",
        "EXP": "1.7 2.12",
        "EXPAND_DIMS": "1.10",
        "FILL": "1.13 2.3 2.5 2.12",
        "FLOOR": "1.9",
        "FLOOR_DIV": "1.14 1.14 2.13",
        "FLOOR_MOD": "1.13 2.13",
        "FULLY_CONNECTED": "1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18 2.21",
        "GATHER": "1.6 1.14 1.15 2.4 2.5 2.13 2.15",
        "GATHER_ND": "1.14 2.3 2.5 2.13 2.16",
        "GELU": "2.9 2.9",
        "GREATER": "1.14 1.14",
        "GREATER_EQUAL": "1.14 1.14 2.13",
        "HARD_SWISH": "1.15",
        "L2_NORMALIZATION": "1.5 1.14",
        "LEAKY_RELU": "1.13 2.3",
        "LESS": "1.14 1.14 2.13",
        "LESS_EQUAL": "1.14 1.14",
        "LOG": "1.14 2.15",
        "LOGICAL_AND": "1.11",
        "LOGICAL_NOT": "1.11",
        "LOGICAL_OR": "1.11",
        "LOGISTIC": "1.14 1.14 2.3",
        "LOG_SOFTMAX": "1.14 1.14",
        "MAXIMUM": "1.14 1.14 2.3 2.3",
        "MAX_POOL_2D": "1.5 1.14 2.3",
        "MEAN": "1.6 1.14 2.4",
        "MINIMUM": "1.14 1.14 2.3 2.3",
        "MIRROR_PAD": "1.13 2.3 2.12",
        "MUL": "1.5 1.14 1.15 2.3 2.6 2.11 2.13",
        "NEG": "1.9",
        "NOT_EQUAL": "1.14 1.14 2.3 2.21",
        "ONE_HOT": "1.11",
        "PACK": "1.11 1.14 2.3 2.13",
        "PAD": "1.5 1.14 2.4 2.6 2.20",
        "PADV2": "1.9 1.14 2.4 2.6 2.20",
        "POW": "1.10",
        "PRELU": "1.8",
        "QUANTIZE": "1.14 1.15 2.7 2.21 2.21",
        "RANGE": "1.13 2.14",
        "REDUCE_ALL": "2.6",
        "REDUCE_ANY": "1.11",
        "REDUCE_MAX": "1.11 1.14 2.5",
        "REDUCE_MIN": "1.11 1.14 2.5",
        "REDUCE_PROD": "1.11 2.6",
        "RELU": "1.5 2.1 2.5",
        "RELU6": "1.5 1.14 2.5",
        "RELU_0_TO_1": "2.10",
        "RELU_N1_TO_1": "1.5",
        "RESHAPE": "1.5",
        "RESIZE_BILINEAR": "1.7 1.14 2.2 2.5",
        "RESIZE_NEAREST_NEIGHBOR": "1.13 1.14 2.3 2.4",
        "REVERSE_V2": "1.14 2.2 2.5",
        "ROUND": "1.14",
        "RSQRT": "1.10 2.5 2.15",
        "SELECT": "1.14 1.14 2.12 2.12",
        "SELECT_V2": "2.2 2.12",
        "SHAPE": "1.10",
        "SIGN": "2.11 2.12",
        "SIN": "1.9",
        "SLICE": "1.14 1.14 1.14 2.4 2.5 2.14 2.21",
        "SOFTMAX": "1.5 1.14 2.3",
        "SPACE_TO_BATCH_ND": "1.6 1.14 2.3 2.12",
        "SPACE_TO_DEPTH": "1.5 1.14",
        "SPLIT": "1.5 1.14 1.14 2.3",
        "SPLIT_V": "1.13 2.3",
        "SQRT": "1.10 2.21",
        "SQUARE": "1.12",
        "SQUARED_DIFFERENCE": "1.13 2.5",
        "SQUEEZE": "1.6 2.5",
        "STRIDED_SLICE": "1.6 1.14 2.1 2.2 2.5 2.6 2.14 2.14",
        "SUB": "1.6 1.14 2.3 2.4 2.4",
        "SUM": "1.10 1.15",
        "TANH": "1.14 1.14 2.3",
        "TILE": "1.10 2.2 2.8",
        "TOPK_V2": "1.7 1.14 2.13",
        "TRANSPOSE": "1.6 1.14 1.15 2.3 2.4 2.12 2.14",
        "TRANSPOSE_CONV": "1.9 2.2 2.3 2.13 2.15",
        "UNPACK": "1.11 1.14 2.2 2.3",
        "ZEROS_LIKE": "1.12",
    }.items()
}


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
    """

    runtime: str
    version: str
    refused: dict[str, str] = field(default_factory=dict)
    input_dtypes: tuple[str, ...] = ("uint8", "float32", "int8")
    integer_dense: bool = True
    gelu: str = "op"
    gpu: bool = False
    labels_inside: bool = False


TARGETS = {
    "litert": Target("ai-edge-litert 2.x", "2.21"),
    "tflite-runtime": Target(
        "tflite-runtime 2.14.0",
        "2.14",
        refused={
            "int16x8": "it does not quantize pixels to 16 bits; take 'int8-full' for integers, 'int8' for accuracy",
            "int4": "it has no dense layers with weights of 4 bits; take 'int8', its smallest file",
        },
        integer_dense=False,
        gelu="float32",
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


class UnsupportedByTarget(ValueError):
    """The graph holds an op that the target cannot run."""


def check_target(op_versions, target, hybrid_ops=(), gpu_problems=()):
    """Raises `UnsupportedByTarget`, naming every op that the target cannot run.

    Args:
        op_versions: `{op name: highest version}` of a file; flex and custom ops by their own name.
        target: a key of `TARGETS`.
        hybrid_ops: names of the ops that quantize float activations on the fly.
        gpu_problems: what a GPU would not run, in words.
    """
    runtime = TARGETS[target]
    problems = list(gpu_problems) if runtime.gpu else []
    if not runtime.integer_dense:
        # Per-channel ones load and answer wrong on tflite-runtime 2.14.
        problems += [f"{op}: quantizes its input on the fly, which answers wrong there" for op in hybrid_ops]
    for op, version in op_versions.items():
        first = _first_runtime(op, version)
        if op not in FIRST_RUNTIME:
            problems.append(f"{op}: a flex or custom op, or one this package does not know")
        elif first is None or _number(first) > _number(runtime.version):
            problems.append(f"{op} version {version}: needs runtime {first or 'newer than any known'}")
    if problems:
        raise UnsupportedByTarget(f"{runtime.runtime} cannot run: " + "; ".join(problems))


def min_runtime(op_versions):
    """The oldest TensorFlow Lite release whose kernels have all these op versions, or None where an op is unknown."""
    firsts = [_first_runtime(op, version) for op, version in op_versions.items()]
    return None if None in firsts else max(firsts, key=_number, default=None)


def _first_runtime(op, version):
    runtimes = FIRST_RUNTIME.get(op, ())
    return runtimes[version - 1] if version <= len(runtimes) else None


def _number(version):
    return tuple(map(int, version.split(".")))
