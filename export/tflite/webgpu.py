"""Running a file on a GPU by the WebGPU accelerator that ai-edge-litert ships, where this machine has both."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import InvalidModelFile
from .flatbuffer import write
from .foreign_runner import ForeignInterpreter
from .runner import Runner

PROGRAM = Path(__file__).with_name("webgpu_interpreter.py")
RUNTIME = "LiteRT's WebGPU accelerator"
NO_GPU = "No adapters found"  # as Dawn says it
SPARE_SECONDS = 60  # that an answer may take beside
SECONDS_PER_MEGABYTE = 10  # for each of the file's; DeiT-tiny in 12 MB takes 3 s an image where a CPU plays the GPU
GPU_IMAGES = 4  # that a file is run on; some GPUs answer right the first time only
ROUNDING = 0.01  # what half precision may change in a number of 0..1


@dataclass(frozen=True)
class GpuReport:
    """A file on the GPU of this machine against its Keras model.

    Attributes:
        adapter: the GPU, in words; empty where the file was not run on one.
        reason: why it was not; empty where it was.
        images: how many it was run on.
        snr_db: `{output: signal-to-noise ratio}`, as in `ParityReport`.
    """

    adapter: str = ""
    reason: str = ""
    images: int = 0
    snr_db: dict[str, float] = field(default_factory=dict)

    def in_words(self):
        """`{what: figure}`, for people."""
        if not self.adapter:
            return {"on a GPU": f"not run: {self.reason}"}
        figures = ", ".join(f"{name} {snr_db:.1f} dB" for name, snr_db in self.snr_db.items())
        return {"on a GPU": f"{figures} on {self.images} image(s), {self.adapter}"}


def gpu_runner(content):
    """A `Runner` of a file on the GPU, in a process of its own, which a driver may end or hold up.

    Args:
        content: bytes of the file.

    Raises:
        InvalidModelFile: the accelerator does not run all of it, its process ended, or it took too long.
    """
    seconds = SPARE_SECONDS + SECONDS_PER_MEGABYTE * len(content) // 10**6
    # of memory there is no limit: a driver maps what it likes
    command, module = [sys.executable, "-P"], str(PROGRAM)
    return Runner(content, interpreter=ForeignInterpreter(content, command, module, RUNTIME, memory=0, seconds=seconds))


def find_gpu():
    """Looks for a GPU that computes a file of one operator right.

    Returns:
        `(the GPU in words, "")`, or `("", why there is none)`.
    """
    values = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    try:
        runner = gpu_runner(_logistic())
        computed = runner(values)
    except InvalidModelFile as error:
        no_gpu = NO_GPU in str(error)
        return "", f"{RUNTIME} finds no GPU" if no_gpu else str(error).replace("this file", "a sigmoid")
    if not runner.interpreter.device:
        return "", f"{RUNTIME} does not name its GPU"
    if not np.allclose(computed, 1 / (1 + np.exp(-values)), atol=ROUNDING):
        return "", f"{runner.interpreter.device} computes one sigmoid wrong"
    return runner.interpreter.device, ""


def _logistic():
    """The bytes of a file with the sigmoid of four numbers."""
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.BuiltinOperator.LOGISTIC
    graph = schema.SubGraphT(
        tensors=[schema.TensorT(name=name, shape=[1, 1, 1, 4], buffer=0) for name in (b"images", b"values")],
        inputs=[0],
        outputs=[1],
        operators=[schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])],
    )
    code = schema.OperatorCodeT(builtinCode=kind, version=1)
    return write(schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()]))
