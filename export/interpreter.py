"""Running a `.tflite` on images, whatever the dtypes of its input and output."""

import importlib
import operator
import os
import warnings

import numpy as np

from .flatbuffer import InvalidModelFile, check_whole

# The package of each runtime, the module to import, and where its class is in it.
RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter"),
    ("tensorflow", "tensorflow", "lite.Interpreter"),
)


def interpreter_class():
    """The `Interpreter` of the first runtime that can be imported.

    Raises:
        ImportError: there is none; says why, and what to install.
    """
    broken = []
    for package, module, name in RUNTIMES:
        try:
            found = operator.attrgetter(name)(importlib.import_module(module))
            if package == "tflite-runtime" and not np.__version__.startswith("1."):
                raise ImportError(f"it needs NumPy 1 and this is {np.__version__}")
        except Exception as error:  # a library of other binaries raises what it likes
            if not (isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]):
                broken.append(f"{package} is installed but cannot be used: {error}. ")
            continue
        for reason in broken:
            warnings.warn(f"{reason}Taking {package}.", stacklevel=3)
        return found
    raise ImportError(f"No TFLite interpreter can be imported. {''.join(broken)}Try: pip install ai-edge-litert")


class Runner:
    """A TFLite classifier as a function from pixels to logits, its first output.

    Args:
        content: bytes of the file.
        num_threads: threads of the interpreter; None is one per core.

    Raises:
        InvalidModelFile: the file is damaged, the interpreter cannot load it, or it does not have one input of images.
        ImportError: no interpreter is installed.
    """

    def __init__(self, content, num_threads=None):
        check_whole(content)
        try:
            threads = num_threads or os.cpu_count()
            self.interpreter = interpreter_class()(model_content=bytes(content), num_threads=threads)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InvalidModelFile(f"the interpreter cannot load this file: {error}") from error
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise InvalidModelFile(f"expected one input and an output, the file has {len(inputs)} and {len(outputs)}.")
        self.input, self.output = inputs[0], outputs[0]
        if len(self.input["shape"]) != 4:
            shape = list(map(int, self.input["shape"]))
            raise InvalidModelFile(f"expected an input (batch, height, width, channels), got {shape}.")

    @property
    def batch_size(self):
        """How many images a call of the interpreter takes."""
        return int(self.input["shape"][0])

    @property
    def image_shape(self):
        """`(height, width, channels)` of the input."""
        return tuple(int(side) for side in self.input["shape"][1:])

    def __call__(self, images):
        """Logits `(B, classes)` float32 of images of pixels 0..255, `(B, H, W, C)`; any B."""
        return np.concatenate([self._dequantized(self._output(self.output["index"], n)) for n in self._batches(images)])

    def outputs(self, images):
        """All outputs of the file's signature by name, as they come, for images as above."""
        indices = self.interpreter._get_full_signature_list()["serving_default"]["outputs"]
        batches = [{name: self._output(index, n) for name, index in indices.items()} for n in self._batches(images)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in indices}

    def _batches(self, images):
        """Runs one batch after the other, and yields how many images of it are no padding."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            padding = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), batch.dtype)
            self.interpreter.set_tensor(self.input["index"], self._quantized(np.concatenate([batch, padding])))
            self.interpreter.invoke()
            yield len(batch)

    def _output(self, index, count):
        return self.interpreter.get_tensor(index)[:count]

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
