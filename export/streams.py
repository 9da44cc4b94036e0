"""Where the error enters: the file's residual stream after each block against the model's."""

import numpy as np

from . import flatbuffer
from .lower import stream_name
from .verify import snr_db


def snr_per_block(content, streams, images):
    """Signal-to-noise ratio of the tokens that leave each block, in dB.

    Args:
        content: bytes of a file that `lower` made from a `ViTSpec`, quantized or not.
        streams: what `ViTSpec.streams` gives for the images: the Keras model's stream in another basis, in float64.
        images: raw pixels 0..255, `(N, H, W, C)`.

    Returns:
        A list with one number per block.
    """
    from ai_edge_litert.interpreter import Interpreter

    names = [stream_name(i) for i in range(len(streams))]
    interpreter = Interpreter(model_content=_with_outputs(content, names), num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    details = interpreter.get_output_details()[-len(names) :]
    size = int(entry["shape"][0])
    batches = -(-len(images) // size)
    filled = np.resize(images, (batches * size, *images.shape[1:]))  # the last batch, with the first images
    outputs = [[] for _ in names]
    for batch in np.split(filled, batches):
        interpreter.set_tensor(entry["index"], batch.astype(entry["dtype"]))
        interpreter.invoke()
        for values, detail in zip(outputs, details):
            tensor = interpreter.get_tensor(detail["index"]).astype(np.float64)
            scale, zero_point = detail["quantization"]
            values.append((tensor - zero_point) * scale if scale else tensor)
    return [
        snr_db(expected, np.concatenate(values).reshape(-1, *expected.shape[1:])[: len(expected)])
        for expected, values in zip(streams, outputs)
    ]


def _with_outputs(content, names):
    """The file with these tensors as further outputs."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    indices = {tensor.name.decode().split(";")[0]: index for index, tensor in enumerate(graph.tensors)}
    graph.outputs = [*graph.outputs, *(indices[name] for name in names)]
    model.signatureDefs = []  # they would have to name every output
    return flatbuffer.write(model)
