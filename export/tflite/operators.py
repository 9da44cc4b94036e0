"""The operators and tensor types of a `.tflite`'s object tree by their names."""

from collections import Counter

from .consistency import builtin_names, type_names


def op_name(model, operator):
    """The builtin name of an operator, or the custom code of a custom or flex one."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = builtin_names()[code.builtinCode]
    return code.customCode.decode() if name == "CUSTOM" else name


def op_versions(model):
    """`{op name: highest version}` over the ops that the graphs use."""
    versions = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = op_name(model, operator)
            versions[name] = max(versions[name], model.operatorCodes[operator.opcodeIndex].version)
    return dict(versions)


def hybrid_ops(model):
    """The names of ops whose input is float and whose weights are integer."""
    found = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = op_name(model, operator)
            if name in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
                entering, weights = (tensor_type(graph.tensors[index]) for index in operator.inputs[:2])
                if entering == "FLOAT32" and weights in ("INT8", "INT4"):
                    found.add(name)
    return sorted(found)


def tensor_type(tensor):
    """The name of a tensor's type, such as `"INT8"`."""
    return type_names()[tensor.type]


def operator_code(model, name):
    """The index of a builtin operator's code, added where the file has none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if builtin_names()[code.builtinCode] == name:
            return index
    value = getattr(schema.BuiltinOperator, name)
    model.operatorCodes.append(schema.OperatorCodeT(builtinCode=value, version=1))
    return len(model.operatorCodes) - 1
