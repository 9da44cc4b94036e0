"""A function of TensorFlow as a float32 `.tflite`, and why it has none, in a sentence."""

import re

from keras_vit_plugin.progress import stage
from keras_vit_plugin.quiet import quiet_python, quiet_stderr

from ..tflite.errors import UnsupportedByTarget
from .saved_model import saved_model

# Types in which few ops have a builtin, by what the converter calls them.
ODD_TYPES = {
    "f64": "float64",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "i16": "int16",
    "i64": "int64",
    "ui8": "uint8",
    "ui16": "uint16",
    "ui32": "uint32",
    "ui64": "uint64",
}


def convert(function, signature):
    """Traces `function` with a static signature and converts it.

    Raises:
        UnsupportedByTarget: an op has no TFLite builtin, or the function uses what cannot be saved with it.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    module = tf.Module()
    module.function = tf.function(function, input_signature=[signature], autograph=False)
    concrete = module.function.get_concrete_function()
    variables = concrete.graph.variables
    handles = {id(variable.handle) for variable in variables}
    if any(tensor.dtype == tf.resource and id(tensor) not in handles for tensor in concrete.captured_inputs):
        raise UnsupportedByTarget(
            "The model uses a resource of TensorFlow that is no variable, such as a lookup table. Build it of other "
            "layers."
        )
    # All that the graph reads: a model tracks neither a global variable nor a tf.Variable that is its attribute.
    module.variables_to_track = list(variables)
    with stage("Converting to TFLite"), quiet_stderr(), quiet_python(), saved_model(module, concrete) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except (ConverterError, ValueError, RuntimeError) as error:
            raise UnsupportedByTarget(_lacking(str(error))) from error


def _lacking(text):
    """What a converter's error says, in a sentence: which ops have no builtin, and of which type where that is why."""
    ops = sorted(set(re.findall(r"(?:tf|flex)\.([A-Z]\w+)|Flex(\w+)", text)))
    names = dict.fromkeys(first or second for first, second in ops)
    types = {}
    for name, operands in re.findall(r'"tf\.(\w+)"\([^\n]*?\) \{[^\n]*?\} : \(([^\n]*?)\) ->', text):
        types.setdefault(name, set()).update(re.findall(r"tensor<(?:[\d?]+x)*(\w+)>", operands))
    odd = {
        name: ODD_TYPES[kinds.pop()] for name, kinds in types.items() if len(kinds) == 1 and kinds <= ODD_TYPES.keys()
    }
    if not names:
        return f"The model does not convert to TFLite: {_first_words(text)}. Build it of other layers."
    if any("Random" in name for name in names):
        return (
            f"The model draws random numbers when it answers; TFLite builtin ops lack: {', '.join(names)}. "
            "Leave that out in inference: `if training:`."
        )
    named = ", ".join(f"{name} of {odd[name]}" if name in odd else name for name in names)
    advice = "Compute in float32 there, or build" if odd else "Build"
    return f"The model does not convert to TFLite builtin ops, which lack: {named}. {advice} it of other layers."


def _first_words(text):
    """What a converter's error begins with; the rest is its graph, and places in it."""
    lines = [re.split(r"<unknown>|loc\(", line)[0].strip(" .:") for line in text.splitlines()]
    return next(filter(None, lines), "the converter does not say why")[:300]
