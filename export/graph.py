"""Who makes and who reads each tensor of a float `.tflite`."""

import numpy as np

from .flatbuffer import op_name, read

MOVES = ("RESHAPE", "TRANSPOSE", "SLICE", "SPACE_TO_DEPTH")  # they copy values and change none


class Graph:
    """The first subgraph of a file with its producers and consumers.

    Tensors are indices; `name` gives what ai-edge-quantizer calls them.
    """

    def __init__(self, content):
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

    def rows(self, tensor):
        """How many vectors along its last axis a tensor holds."""
        return int(np.prod(self.subgraph.tensors[tensor].shape[:-1]))

    def constant(self, tensor):
        """The float32 values of a constant, or None for a tensor computed at run time."""
        tensor = self.subgraph.tensors[tensor]
        data = self.model.buffers[tensor.buffer].data
        return None if data is None else np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)

    def output_name(self, operator):
        return self.name(operator.outputs[0])

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
