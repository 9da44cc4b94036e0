"""`gpu`: the GPU delegates of LiteRT, and what a graph must be for them to run all of it."""

from dataclasses import dataclass

from ..tflite.capabilities import Capability
from ..tflite.graph_form import GraphForm
from ..tflite.operators import op_name, tensor_type
from .target import Target

LARGEST_RANK = 4
# Source: LiteRT, tflite/tools/versioning/gpu_compatibility.cc and tflite/delegates/gpu/common/model_builder.cc.
OPS = (
    "ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV "
    "ELU EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN "
    "MINIMUM MUL NEG PAD POW PRELU REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR RSQRT SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE "
    "STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV"
)
SLICES = ("SLICE", "STRIDED_SLICE", "PAD")
PAIRS = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE")


def gpu_problems(model):
    """What keeps a GPU from running a file, in words; empty where nothing does.

    Args:
        model: the schema's object tree.
    """
    graph = model.subgraphs[0]
    constants = _constants(model)
    problems = {}  # an ordered set
    for operator in graph.operators:
        name = op_name(model, operator)
        indices = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
        if set(indices) <= constants:
            continue  # weights that are unpacked when the file is loaded
        if name not in OPS.split():
            problems[f"{name}: not an op of GPUs"] = None
            continue
        computed = [graph.tensors[index] for index in indices if index not in constants]
        entering = [int(index) for index in operator.inputs if index >= 0]
        ranks = [len(graph.tensors[index].shape) for index in entering[:2]]
        rank = max(len(graph.tensors[index].shape) for index in indices)
        options = operator.builtinOptions
        wrong = {
            f"a tensor of rank {rank}, they take up to {LARGEST_RANK}": rank > LARGEST_RANK,
            "a tensor that is not float": any(not tensor_type(tensor).startswith("FLOAT") for tensor in computed),
            "a batch of other than 1": any(len(tensor.shape) > 1 and tensor.shape[0] != 1 for tensor in computed),
            "adj flags, which they ignore": name == "BATCH_MATMUL" and (options.adjX or options.adjY),
            "weights that are computed": name == "FULLY_CONNECTED" and entering[1] not in constants,
            "shrink_axis_mask, new_axis_mask or ellipsis_mask": name == "STRIDED_SLICE"
            and (options.shrinkAxisMask or options.newAxisMask or options.ellipsisMask),
            "rank below 3": name in SLICES and ranks[0] < 3,
            "operands of different ranks": name in PAIRS
            and ranks[0] != ranks[1]
            and min(ranks) > 1
            and sorted(ranks) != [3, 4],
            "a constant part": name == "CONCATENATION" and not constants.isdisjoint(entering),
            "beta other than 1": name == "SOFTMAX" and options.beta != 1,
        }
        problems |= dict.fromkeys(f"{name}: {problem}" for problem, found in wrong.items() if found)
    return list(problems)


def _constants(model):
    """The tensors that are known when the file is loaded."""
    graph = model.subgraphs[0]
    constants = {
        index
        for index, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None and len(model.buffers[tensor.buffer].data)
    }
    for operator in graph.operators:
        if op_name(model, operator) == "DEQUANTIZE" and int(operator.inputs[0]) in constants:
            constants.add(int(operator.outputs[0]))
    return constants


@dataclass(frozen=True)
class Gpu(Target):
    """A runtime whose graphs keep the rules of this module."""

    def problems(self, model):
        return gpu_problems(model)


INTEGERS = (
    Capability.INTEGERS,
    Capability.INT16_ACTIVATIONS,
    Capability.INT4_WEIGHTS,
    Capability.FAST_INTEGER_DENSE,
)
GPU = Gpu(
    name="gpu",
    runtime="the GPU delegates of LiteRT",
    version="2.21",
    has=frozenset({Capability.FLOAT16_WEIGHTS}),
    lacks={
        Capability.FLOAT32: "GPUs compute in half precision",
        **dict.fromkeys(INTEGERS, "GPUs compute in float and would only unpack integers"),
    },
    input_dtypes=("float32",),
    form=GraphForm(gelu="float16", batch_axis=True),
    rewrites=("scale_stream",),
    largest_batch=1,
    half_precision=True,
)
