"""What each runtime can run. Op versions are known here and nowhere else."""

from dataclasses import dataclass

# The runtime that first ran version 1, 2, ... of an op, for the ops that occur in Vision Transformers.
# Source: TensorFlow, tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc (2.21).
FIRST_RUNTIME = {
    "ADD": ("1.5", "1.14", "2.4", "2.6", "2.13"),
    "BATCH_MATMUL": ("2.3", "2.3", "2.4", "2.5"),
    "BROADCAST_TO": ("2.5", "2.5", "2.5"),
    "CAST": ("1.5", "2.7", "2.8", "2.9", "2.12", "2.15", "2.17", "2.21"),
    "CONCATENATION": ("1.5", "1.14", "2.3", "2.14", "2.21"),
    "CONV_2D": ("1.5", "1.14", "1.14", "2.3", "2.4", "2.9", "2.11", "2.15"),
    "DEPTHWISE_CONV_2D": ("1.5", "1.12", "1.14", "2.2", "2.3", "2.3", "2.11"),
    "DEQUANTIZE": ("1.13", "1.14", "1.15", "2.2", "2.7", "2.18", "2.21"),
    "DIV": ("1.6", "2.3"),
    "EXP": ("1.7", "2.12"),
    "EXPAND_DIMS": ("1.10",),
    "FULLY_CONNECTED": (
        *("1.5", "1.10", "1.14", "1.14", "2.0", "2.1", "2.3", "2.3", "2.3", "2.11", "2.15", "2.17", "2.18", "2.21"),
    ),
    "GATHER": ("1.6", "1.14", "1.15", "2.4", "2.5", "2.13", "2.15"),
    "GELU": ("2.9", "2.9"),
    "LOGISTIC": ("1.14", "1.14", "2.3"),
    "MEAN": ("1.6", "1.14", "2.4"),
    "MUL": ("1.5", "1.14", "1.15", "2.3", "2.6", "2.11", "2.13"),
    "PACK": ("1.11", "1.14", "2.3", "2.13"),
    "PAD": ("1.5", "1.14", "2.4", "2.6", "2.20"),
    "QUANTIZE": ("1.14", "1.15", "2.7", "2.21", "2.21"),
    "REDUCE_MAX": ("1.11", "1.14", "2.5"),
    "RESHAPE": ("1.5",),
    "RSQRT": ("1.10", "2.5", "2.15"),
    "SLICE": ("1.14", "1.14", "1.14", "2.4", "2.5", "2.14", "2.21"),
    "SOFTMAX": ("1.5", "1.14", "2.3"),
    "SPLIT": ("1.5", "1.14", "1.14", "2.3"),
    "SQRT": ("1.10", "2.21"),
    "SQUARED_DIFFERENCE": ("1.13", "2.5"),
    "SQUEEZE": ("1.6", "2.5"),
    "STRIDED_SLICE": ("1.6", "1.14", "2.1", "2.2", "2.5", "2.6", "2.14", "2.14"),
    "SUB": ("1.6", "1.14", "2.3", "2.4", "2.4"),
    "SUM": ("1.10", "1.15"),
    "TANH": ("1.14", "1.14", "2.3"),
    "TILE": ("1.10", "2.2", "2.8"),
    "TRANSPOSE": ("1.6", "1.14", "1.15", "2.3", "2.4", "2.12", "2.14"),
}


@dataclass(frozen=True)
class Target:
    """A runtime: the TensorFlow Lite version it corresponds to, and the modes that are right on it."""

    runtime: str
    version: str
    modes: tuple[str, ...]


TARGETS = {
    "litert": Target("ai-edge-litert 2.x", "2.21", ("float32", "float16", "dynamic", "int8-full")),
}


class UnsupportedByTarget(ValueError):
    """The graph holds an op that the target cannot run."""


def check_target(op_versions, target):
    """Raises `UnsupportedByTarget`, naming every op that the target cannot run.

    Args:
        op_versions: `{op name: highest version}` of a file; flex and custom ops by their own name.
        target: a key of `TARGETS`.
    """
    runtime = TARGETS[target]
    problems = []
    for op, version in op_versions.items():
        if op.startswith(("Flex", "CUSTOM")):
            problems.append(f"{op}: no runtime without the flex delegate or a custom kernel runs it")
        elif op in FIRST_RUNTIME:
            first = _first_runtime(op, version)
            if first is None or _number(first) > _number(runtime.version):
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
