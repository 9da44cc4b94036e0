"""Where the error enters: the file's residual stream after each block against the model's."""

import numpy as np

from keras_vit_plugin.image_model.decibels import snr_db

from ..tflite.flatbuffer import read, write
from ..tflite.runner import Runner
from ..tflite.tensor_names import stream_name


def snr_per_block(content, streams, images):
    """Signal-to-noise ratio of the tokens that leave each block, in dB.

    Args:
        content: bytes of a file that `lower` made from a `ViTSpec`, quantized or not.
        streams: what `ViTSpec.streams` gives for the images: the Keras model's stream in another basis, in float64.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        A list with one number per block.
    """
    changed, names = _with_outputs(content, [stream_name(i) for i in range(len(streams))])
    outputs = Runner(changed, num_threads=1).outputs(images)
    return [
        snr_db(expected, outputs[name].reshape(len(images), *expected.shape[1:]).astype(np.float64))
        for expected, name in zip(streams, names)
    ]


def _with_outputs(content, streams):
    """The file with these tensors as outputs, and their whole names."""
    model = read(content)
    graph = model.subgraphs[0]
    indices = {tensor.name.decode().split(";")[0]: index for index, tensor in enumerate(graph.tensors)}
    outputs = [indices[stream] for stream in streams]
    graph.outputs = [*graph.outputs, *outputs]
    model.signatureDefs = []  # they would have to name every output
    return write(model), [graph.tensors[index].name.decode() for index in outputs]
