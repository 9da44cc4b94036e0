"""Any Keras model as a float32 `.tflite`, its graph as Keras emits it."""

import numpy as np

from keras_vit_plugin.image_model.image_model import computing_in_float32
from keras_vit_plugin.images.synthetic import synthetic_images

from ..tflite.errors import UnsupportedByTarget
from ..tflite.flatbuffer import read
from ..tflite.graph import Graph
from ..tflite.loadable import refusal, refused_operator
from ..tflite.operators import op_name
from ..tflite.runner import Runner
from ..tflite.surgery import outputs_in_order
from .convert import convert


def lower_keras(model, batch_size=1, input_dtype="uint8"):
    """Lowers any Keras model on the TensorFlow backend to a float32 TFLite file, its graph as Keras emits it.

    Args:
        model: an `ImageModel`.
        batch_size: images per call.
        input_dtype: `"uint8"` or `"float32"`, both for pixels of 0..255.

    Returns:
        The file as bytes; its outputs have the names and the order of the model's answers.

    Raises:
        UnsupportedByTarget: an op has no TFLite builtin, the interpreter refuses one, or the model keeps a state.
    """
    import tensorflow as tf

    signature = tf.TensorSpec((batch_size, *model.image_shape), input_dtype, name="images")
    with computing_in_float32(model.model):
        content = convert(model.traced, signature)
    _check_runs(content)
    names = [answer.name for answer in model.answers]
    return content if len(names) == 1 else outputs_in_order(content, names)


def _remembers(content):
    """Whether what a file says of an image changes behind another one."""
    model = read(content)
    if not any(op_name(model, operator) == "CALL_ONCE" for operator in model.subgraphs[0].operators):
        return False  # without variables there is nothing to remember by
    runner = Runner(content)
    first, second = np.split(synthetic_images(runner.image_shape, 2 * runner.batch_size), 2)
    answers, _, again = (runner.in_order(images) for images in (first, second, first))
    return not all(map(np.array_equal, answers, again))


def _check_runs(content):
    """Raises `UnsupportedByTarget` where the interpreter refuses what the converter made, or where it has a state."""
    if reason := refusal(content):
        graph = Graph(content)
        operator = refused_operator(reason, graph)
        named = "" if operator is None else f" at {graph.output_name(operator).split(';')[0]!r}"
        raise UnsupportedByTarget(
            f"The model converts to a file that does not run{named}: {reason}. Build it of other layers."
        )
    if _remembers(content):
        raise UnsupportedByTarget(
            "The model changes a variable when it is called: what it says of an image depends on the images before it. "
            "Leave that out in inference: `if training:`."
        )
