"""Small `.tflite` files, made of the schema's tables alone: whole ones to change, and some that end an interpreter."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_vit_plugin.export.tflite.flatbuffer import read

FLOAT, INT, BOOL = schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.BOOL
OPERATORS = schema.BuiltinOperator


def tensor(name, shape, type=FLOAT, buffer=0):
    return schema.TensorT(name=name.encode(), shape=list(shape), type=type, buffer=buffer)


def operator(code, inputs, outputs, kind="NONE", **options):
    """An operator of the index `code` with the options `kind`."""
    made = schema.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=list(outputs))
    if options:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.builtinOptions = getattr(schema, f"{kind}T")(**options)
    return made


def model(codes, graphs, constants=()):
    """An object tree of operator codes by name, graphs, and constants for the buffers from 1 on."""
    return schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(builtinCode=getattr(OPERATORS, code), version=1) for code in codes],
        subgraphs=graphs,
        buffers=[
            schema.BufferT(),
            *(schema.BufferT(data=np.ascontiguousarray(each).view(np.uint8).ravel()) for each in constants),
        ],
        description=b"made by a test",
    )


def packed(tree):
    """The bytes of an object tree as it is: `flatbuffer.write` would put some of it in order."""
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def classifier():
    """The object tree of a softmax over the 4 pixels of a grey image of 2 x 2."""
    graph = schema.SubGraphT(
        tensors=[tensor("images", (1, 2, 2, 1)), tensor("sides", (2,), INT, 1), tensor("flat", (1, 4))]
        + [tensor("probabilities", (1, 4))],
        inputs=[0],
        outputs=[3],
        operators=[operator(0, (0, 1), (2,)), operator(1, (2,), (3,), "SoftmaxOptions", beta=1.0)],
    )
    tree = model(("RESHAPE", "SOFTMAX"), [graph], [np.array([1, 4], np.int32)])
    return read(packed(tree))


def filling(*sides):
    """Bytes of a file that says of a tensor that it holds a number, and fills it with numbers of these sides."""
    tree = classifier()
    tree.operatorCodes.append(schema.OperatorCodeT(builtinCode=OPERATORS.FILL, version=1))
    tree.buffers += [schema.BufferT(data=np.array(each).view(np.uint8)) for each in (np.int32(sides), np.float32([7]))]
    graph, first = tree.subgraphs[0], len(tree.subgraphs[0].tensors)
    sides_at, value_at = len(tree.buffers) - 2, len(tree.buffers) - 1
    graph.tensors += [tensor("sides of filled", (len(sides),), INT, sides_at), tensor("value", (), FLOAT, value_at)]
    graph.tensors.append(tensor("filled", (1,)))
    graph.operators.insert(0, operator(2, (first, first + 1), (first + 2,)))
    graph.outputs = [*graph.outputs, first + 2]
    return packed(tree)


def looping(body_calls_itself=False):
    """Bytes of a file with a loop that never ends, or one whose body is itself."""
    tree = classifier()
    tree.operatorCodes.append(schema.OperatorCodeT(builtinCode=OPERATORS.WHILE, version=1))
    tree.buffers.append(schema.BufferT(data=np.array([True]).view(np.uint8)))
    graph = tree.subgraphs[0]
    graph.tensors.append(tensor("looped", (1, 2, 2, 1)))
    looped = len(graph.tensors) - 1
    loop = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
    graph.operators.insert(0, operator(2, (0,), (looped,), "WhileOptions", **loop))
    graph.operators[1].inputs = [looped, 1]
    always = schema.SubGraphT(
        tensors=[tensor("x", (1, 2, 2, 1)), tensor("yes", (1,), BOOL, len(tree.buffers) - 1)],
        inputs=[0], outputs=[1], operators=[],
    )  # fmt: skip
    body = schema.SubGraphT(
        tensors=[tensor("x", (1, 2, 2, 1)), tensor("y", (1, 2, 2, 1))], inputs=[0], outputs=[0], operators=[]
    )
    if body_calls_itself:
        body.operators, body.outputs = [operator(2, (0,), (1,), "WhileOptions", **loop)], [1]
    tree.subgraphs += [always, body]
    return packed(tree)
