"""Who makes and who reads each tensor of a float `.tflite`."""

import numpy as np

from .flatbuffer import read
from .operators import op_name, tensor_type

DENSE = ("FULLY_CONNECTED", "CONV_2D")
MOVES = ("RESHAPE", "TRANSPOSE", "SLICE", "SPACE_TO_DEPTH")  # they copy values and change none
REORDERINGS = ("RESHAPE", "TRANSPOSE", "SPACE_TO_DEPTH")  # of those, the ones that leave no value out
CONSTANTS = {  # the types whose values NumPy reads as they are stored
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT32": np.uint32,
    "BOOL": np.bool_,
}


class Graph:
    """The first subgraph of a file with its producers and consumers.

    Tensors are indices; `name` gives what litert-quantizer calls them.

    Args:
        content: bytes of the file.
    """

    def __init__(self, content):
        self.content = content
        self.model = read(content)
        self.subgraph = self.model.subgraphs[0]
        self.operators = self.subgraph.operators
        self.producer = {int(index): operator for operator in self.operators for index in operator.outputs}
        self.consumers = {}
        for operator in self.operators:
            for index in operator.inputs:
                self.consumers.setdefault(int(index), []).append(operator)

    @property
    def image(self):
        """The input tensor."""
        return int(self.subgraph.inputs[0])

    def kind(self, operator):
        return op_name(self.model, operator)

    def of_kind(self, *kinds):
        return [operator for operator in self.operators if self.kind(operator) in kinds]

    def name(self, tensor):
        return self.subgraph.tensors[tensor].name.decode()

    def rank(self, tensor):
        return len(self.subgraph.tensors[tensor].shape)

    def dtype(self, tensor):
        """The name of a tensor's type, such as `"INT8"`."""
        return tensor_type(self.subgraph.tensors[tensor])

    def width(self, tensor):
        """The length of a tensor's last axis."""
        return int(self.subgraph.tensors[tensor].shape[-1])

    def rows(self, tensor):
        """How many vectors along its last axis a tensor holds."""
        return int(np.prod(self.subgraph.tensors[tensor].shape[:-1]))

    def multiplications(self, operator):
        """How many multiply-accumulates a dense layer, convolution or matmul does."""
        sides = self.subgraph.tensors[operator.inputs[1]].shape
        if self.kind(operator) != "BATCH_MATMUL":
            return self.rows(operator.outputs[0]) * int(np.prod(sides))
        depth = self.subgraph.tensors[operator.inputs[0]].shape[-1]
        return int(np.prod(self.subgraph.tensors[operator.outputs[0]].shape)) * int(depth)

    def shape(self, tensor):
        """Its sides, `()` of a single number."""
        shape = self.subgraph.tensors[tensor].shape
        return () if shape is None else tuple(map(int, shape))

    def constant(self, tensor):
        """The values of a constant, or None for a tensor computed at run time.

        Raises:
            ValueError: values of this type are not whole bytes, such as INT4.
        """
        data = self.model.buffers[self.subgraph.tensors[tensor].buffer].data
        if data is None:
            return None
        if self.dtype(tensor) not in CONSTANTS:
            raise ValueError(
                f"The constant {self.name(tensor)!r} has the type {self.dtype(tensor)}, not one of numbers."
            )
        return np.frombuffer(bytes(data), CONSTANTS[self.dtype(tensor)]).reshape(self.shape(tensor))

    def output_name(self, operator):
        """What its first output is called, empty of an operator that gives nothing, such as ASSIGN_VARIABLE."""
        return self.name(operator.outputs[0]) if len(operator.outputs) else ""

    def is_read(self, tensor):
        """Whether something reads a tensor, or it is an output; an interpreter holds no values of any other.

        A loop also gives what it never changes, and a split the parts that nothing takes.
        """
        return tensor in self.consumers or tensor in map(int, self.subgraph.outputs)

    def only_reader(self, tensor):
        """The kind of the one operator that reads a tensor, or None where there are several or none."""
        readers = self.consumers.get(tensor, ())
        return self.kind(readers[0]) if len(readers) == 1 else None

    def factor(self, tensor):
        """What each value of a tensor is multiplied by, where a product of the same shape is all that reads the tensor.

        None where something else reads it, or the factor is a constant.
        """
        readers = self.consumers.get(tensor, ())
        if len(readers) != 1 or self.kind(readers[0]) != "MUL":
            return None
        shapes = [list(self.subgraph.tensors[index].shape) for index in (tensor, readers[0].outputs[0])]
        others = [int(other) for other in readers[0].inputs if other != tensor and int(other) in self.producer]
        return others[0] if others and shapes[0] == shapes[1] else None

    def source(self, tensor):
        """The operator that computes a tensor's values, behind those that only move them; None for an input."""
        moves = self.moves_before(tensor)
        return self.producer.get(int(moves[-1].inputs[0]) if moves else tensor)

    def origin(self, tensor):
        """The tensor whose values a tensor has, all of them and in another order: itself, or what it is moved from."""
        while tensor in self.producer and self.kind(self.producer[tensor]) in REORDERINGS:
            tensor = int(self.producer[tensor].inputs[0])
        return tensor

    def moves_before(self, tensor):
        """The operators that only move a tensor's values, from the tensor back to where they are computed."""
        moves = []
        while tensor in self.producer and self.kind(self.producer[tensor]) in MOVES:
            moves.append(self.producer[tensor])
            tensor = int(moves[-1].inputs[0])
        return moves

    def moves_after(self, tensor):
        """The operators that only move a tensor's values, up to the first that computes or branches."""
        moves = []
        while len(self.consumers.get(tensor, ())) == 1 and self.kind(self.consumers[tensor][0]) in MOVES:
            moves.append(self.consumers[tensor][0])
            tensor = int(moves[-1].outputs[0])
        return moves
