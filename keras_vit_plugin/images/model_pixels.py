"""What a Keras model's first layers say about the pixels that it takes."""

import functools

import numpy as np

SCALING = {"Rescaling", "Normalization", "Lambda", "Add", "Subtract", "Multiply", "Divide", "TrueDivide"}
MOVING = {"Resizing", "CenterCrop", "Cropping2D", "Cast", "GetItem", "Stack"}  # the last two turn RGB into BGR
INERT = {"InputLayer", "Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"}  # when predicting
LARGEST = 10  # what networks are fed stays below this,
LEAST_SPAN = 0.4  # and black and white are this far apart
PROBES = (0, 128, 255)


def pixels_of_first_layers(model):
    """`(range, words)`: the pixels that a model takes, by the scaling that it begins with.

    The first layers are run on images of one colour each. A range is taken where they make values of it that networks
    are fed: all within +-10, black and white 0.4 apart or more; or where they subtract a mean that only it can have.

    Args:
        model: a functional or sequential Keras model with one input `(batch, height, width, channels)`.

    Returns:
        `range` is `"0..255"`, `"0..1"`, `"-1..1"`, or None where it fits none of them or more than one; `words` names
        the layers, and is empty where the model begins with no scaling.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or None in inputs[0].shape[1:]:
        return None, ""
    colours = np.stack([np.full(inputs[0].shape[1:], value, np.float32) for value in PROBES])
    values, words = colours, []
    for operation, call in _first_steps(model):
        try:
            result = np.asarray(call(values))
        except Exception:  # an operation of the user's own may do anything
            break
        if result.ndim != 4 or len(result) != len(PROBES) or not _is_affine(result):
            break
        values = result
        if _scales(operation):
            words.append(_in_words(operation))
    if not words:
        return None, ""
    black, _, white = np.median(values.astype(np.float64), (1, 2))  # (channels,)
    return _range_taken((white - black) / 255, black), " and ".join(words)


def _first_steps(model):
    """Yields `(operation, call)` from the input on, as long as pixels stay pixels; returns whether all of it was so."""
    import keras

    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            if not (yield from _step(layer, layer)):
                return False
        return True
    nodes = [node for nodes in getattr(model, "_nodes_by_depth", {}).values() for node in nodes]
    if not nodes or len(model.inputs) != 1:
        return False
    tensor = model.inputs[0]
    while not any(tensor is output for output in model.outputs):
        path = _next_nodes(nodes, tensor)
        if not path or not (yield from _step(path[-1].operation, functools.partial(_run, path, tensor))):
            return False
        tensor = path[-1].outputs[0]
    return True


def _next_nodes(nodes, tensor):
    """The one node that reads a tensor; or, where its channels are taken apart and stacked, all that do it."""

    def readers(tensor):
        return [node for node in nodes if any(each is tensor for each in node.input_tensors)]

    def named(node, name):
        return type(node.operation).__name__ == name

    first = readers(tensor)
    if len(first) == 1 and len(first[0].input_tensors) == len(first[0].outputs) == 1:
        return first
    stacks = [node for part in first if named(part, "GetItem") for node in readers(part.outputs[0])]
    together = len(stacks) == len(first) > 1 and all(node is stacks[0] for node in stacks) and named(stacks[0], "Stack")
    return [*first, stacks[0]] if together and len(stacks[0].input_tensors) == len(first) else []


def _step(operation, call):
    import keras

    if isinstance(operation, keras.Model):
        return (yield from _first_steps(operation))
    name = type(operation).__name__
    if name in INERT or name.startswith("Random"):  # augmentation
        return True
    if name in MOVING or _scales(operation):
        yield operation, call
        return True
    return False


def _run(path, tensor, values):
    known = {id(tensor): values}
    for node in path:
        positional, named = node.arguments.fill_in(known)
        known[id(node.outputs[0])] = node.operation(*positional, **named)
    return known[id(path[-1].outputs[0])]


def _scales(operation):
    return type(operation).__name__ in SCALING or hasattr(operation, "resizing")  # KerasHub's image converters


def _is_affine(values):
    black, grey, white = values.astype(np.float64)
    expected = black + (white - black) * PROBES[1] / 255
    return bool(
        np.isfinite(values).all() and np.abs(grey - expected).max() <= 0.01 * np.abs(white - black).max() + 1e-6
    )


def _range_taken(slope, black):
    """The range of pixels that `x * slope + black`, per channel, is meant for; None where that is not clear."""

    def suits(low, high):
        ends = black + np.outer((low, high), slope)
        return (np.abs(ends) <= LARGEST).all() and (np.ptp(ends, 0) >= LEAST_SPAN).all()

    if suits(0, 255):
        return "0..255"
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = -black / slope  # what becomes 0
    if ((mean >= 10) & (mean <= 245)).all():
        return "0..255"
    if not suits(0, 1):
        return None
    if ((mean >= 0.1) & (mean <= 0.9)).all():
        return "0..1"
    if ((mean >= -1.05) & (mean <= -0.1)).all():
        return "-1..1"
    return None


def _in_words(operation):
    name = type(operation).__name__
    if not hasattr(operation, "scale") or operation.scale is None:
        return name
    offset = getattr(operation, "offset", None)
    parts = [_number(operation.scale), *([] if offset is None or not np.any(offset) else [_number(offset)])]
    return f"{name}({', '.join(parts)})"


def _number(value):
    values = np.asarray(value, np.float64).ravel()
    if len(values) > 1:
        return f"[{', '.join(map(_number, values))}]"
    inverse = 1 / values[0] if values[0] else 0
    if inverse > 1 and abs(inverse - round(2 * inverse) / 2) < 1e-4:
        return f"1/{round(2 * inverse) / 2:g}"
    return f"{values[0]:.4g}"
