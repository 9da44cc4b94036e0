"""Running a `.tflite` on images, whatever the dtypes of its input and output."""

import os
import warnings

import numpy as np


class Runner:
    """A TFLite classifier as a function from pixels to logits.

    Args:
        content: bytes of the file.
        num_threads: threads of the interpreter; None is one per core.

    Raises:
        ValueError: the interpreter cannot load the file, or it does not have one input of images and one output.
    """

    def __init__(self, content, num_threads=None):
        from ai_edge_litert.interpreter import Interpreter

        try:
            threads = num_threads or os.cpu_count()
            self.interpreter = Interpreter(model_content=bytes(content), num_threads=threads)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"The interpreter cannot load this file: {error}") from error
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(f"Expected one input and one output, the file has {len(inputs)} and {len(outputs)}.")
        self.input, self.output = inputs[0], outputs[0]
        if len(self.input["shape"]) != 4:
            raise ValueError(f"Expected an input (batch, height, width, channels), got {list(self.input['shape'])}.")

    @property
    def image_shape(self):
        """`(height, width, channels)` of the input."""
        return tuple(int(side) for side in self.input["shape"][1:])

    def __call__(self, images):
        """Logits `(B, classes)` float32 of images of pixels 0..255, `(B, H, W, C)`; any B."""
        size = int(self.input["shape"][0])
        batches = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
            self.interpreter.set_tensor(self.input["index"], self._quantized(np.concatenate([batch, padding])))
            self.interpreter.invoke()
            batches.append(self._dequantized(self.interpreter.get_tensor(self.output["index"]))[: len(batch)])
        return np.concatenate(batches)

    def _quantized(self, pixels):
        scale, zero_point = self.input["quantization"]
        dtype = self.input["dtype"]
        if not scale:
            return pixels.astype(dtype)
        limits = np.iinfo(dtype)
        return np.clip(np.round(pixels / scale) + zero_point, limits.min, limits.max).astype(dtype)

    def _dequantized(self, logits):
        scale, zero_point = self.output["quantization"]
        if not scale:
            return np.asarray(logits, np.float32)
        return (logits.astype(np.float32) - zero_point) * np.float32(scale)


def computed_tensors(content, images):
    """Runs a file batch by batch and yields, for each, the function from a tensor's index to its values.

    Args:
        content: bytes of a file whose input is not quantized.
        images: raw pixels 0..255, `(N, H, W, C)`; the last batch is filled up with the first images.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that keeping all tensors is for debugging
        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.AUTO,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    size = int(entry["shape"][0])
    batches = -(-len(images) // size)
    for batch in np.split(np.resize(images, (batches * size, *images.shape[1:])), batches):
        interpreter.set_tensor(entry["index"], batch.astype(entry["dtype"]))
        interpreter.invoke()
        yield interpreter.get_tensor
