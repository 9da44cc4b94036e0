"""Running a `.tflite` on images, whatever the dtypes of its input and output."""

import importlib
import operator
import os
import re
import warnings

import numpy as np

from keras_vit_plugin.files import read_file
from keras_vit_plugin.warn import warn

from .errors import InvalidModelFile
from .flatbuffer import check_file

# The package of each runtime, the module to import, and where its class is in it.
RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter"),
    ("tensorflow", "tensorflow", "lite.Interpreter"),
)


MOST_THREADS = 256
# How an interpreter names the operator that it refuses, and how a delegate does that begins the same message.
NODE = re.compile(r"Node number (\d+) \((\w+)\) failed to (prepare|invoke)")
DELEGATED = re.compile(r"failed to delegate (\w+) node #(\d+)")
SOURCE_FILE = re.compile(r"\S*tflite/\S+\s*")


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
            warn(f"{reason}Taking {package}.")
        return found
    raise ImportError(f"No TFLite interpreter can be imported. {''.join(broken)}Try: pip install ai-edge-litert")


def open_interpreter(content, num_threads=1, preserve_all_tensors=False):
    """The interpreter of a file, its tensors allocated: the one place of this package that opens one.

    Args:
        content: bytes of the file.
        num_threads: of the interpreter; None is one per core that this process may use.
        preserve_all_tensors: whether tensors between input and output can be read.

    Raises:
        InvalidModelFile: the file is damaged, or the interpreter cannot load it.
        ValueError: `num_threads` is no positive integer.
        ImportError: no interpreter is installed.
    """
    threads = threads_of(num_threads)
    check_file(content)
    opened = interpreter_class()
    options = {"experimental_preserve_all_tensors": True} if preserve_all_tensors else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*preserve_all_tensors.*", UserWarning)  # it says that it is for this
            interpreter = opened(model_content=bytes(content), num_threads=threads, **options)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InvalidModelFile(f"the interpreter cannot load this file: {reason_of(error)}") from error
    return interpreter


def interpreter_module():
    """The name of the module that `Interpreter` is imported from.

    Raises:
        ImportError: as for `interpreter_class`.
    """
    return interpreter_class().__module__


def reason_of(error):
    """An interpreter's error in one line, `operator NUMBER (KIND) failed to prepare: DETAIL` where it names one."""
    text = SOURCE_FILE.sub("", " ".join(str(error).split())).strip(" .")
    node = NODE.search(text)
    if node is None:
        return text
    number, kind, step = node.groups()
    detail = text[: node.start()].strip(" .")
    if delegated := DELEGATED.search(detail):
        kind, number = delegated.groups()
    return f"operator {number} ({kind}) failed to {step}" + (f": {detail}" if detail else "")


def threads_of(num_threads):
    """As many threads as are asked for, None for one per core that this process may run on.

    Raises:
        ValueError: it is no integer from 1 to 256.
    """
    if num_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not hasattr(num_threads, "__index__") or not 1 <= num_threads <= MOST_THREADS:
        raise ValueError(f"`num_threads` must be 1 to {MOST_THREADS} or None, got num_threads={num_threads!r}.")
    return int(num_threads)


def load_error(content):
    """Why the interpreter cannot load a file, or not run it on zeros, in its own words; `""` where it can."""
    try:
        interpreter = open_interpreter(content)
        for entry in interpreter.get_input_details():
            interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
        _invoke(interpreter)
    except InvalidModelFile as error:
        return str(error)
    return ""


def _invoke(interpreter):
    """Runs an interpreter once.

    Raises:
        InvalidModelFile: an operator refuses what it is given.
    """
    try:
        interpreter.invoke()
    except InvalidModelFile:  # of one in another process, which says what went wrong
        raise
    except (ValueError, RuntimeError) as error:
        raise InvalidModelFile(f"the interpreter cannot run this file: {reason_of(error)}") from error


class Runner:
    """A `.tflite` as a function from pixels to its outputs.

    Args:
        content: bytes of the file, or its path.
        num_threads: threads of the interpreter; None is one per core that this process may use.
        interpreter: an open interpreter of the file, or what behaves like one; None opens one here.

    Attributes:
        details: `{name: what the interpreter says}` of every output.

    Raises:
        InvalidModelFile: the file is damaged, the interpreter cannot load or run it, or it does not have one input of
            images.
        FileNotFoundError: there is no file at the path.
        ImportError: no interpreter is installed.
    """

    def __init__(self, content, num_threads=None, interpreter=None):
        if isinstance(content, (str, os.PathLike)):
            content = read_file(content)
        self.interpreter = interpreter or open_interpreter(content, num_threads)
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise InvalidModelFile(f"expected one input and an output, the file has {len(inputs)} and {len(outputs)}.")
        for detail in (*inputs, *outputs):
            if np.dtype(detail["dtype"]).kind not in "biuf":
                raise InvalidModelFile(f"expected numbers, {detail['name']!r} holds {np.dtype(detail['dtype']).name}.")
        self.input, self.output = inputs[0], outputs[0]
        if len(self.input["shape"]) != 4:
            shape = list(map(int, self.input["shape"]))
            raise InvalidModelFile(f"expected an input (batch, height, width, channels), got {shape}.")
        signature = self.interpreter._get_full_signature_list().get("serving_default")
        if signature:  # which has them in the order of text
            named = dict(sorted(signature["outputs"].items(), key=lambda item: _natural(item[0])))
        else:
            named = {detail["name"]: detail["index"] for detail in outputs}
        details = {int(detail["index"]): detail for detail in outputs}
        if not details.keys() >= set(map(int, named.values())):
            raise InvalidModelFile("the signature names tensors that are no outputs of the graph.")
        self.details = {name: details[int(index)] for name, index in named.items()}

    @property
    def batch_size(self):
        """How many images a call of the interpreter takes."""
        return int(self.input["shape"][0])

    @property
    def image_shape(self):
        """`(height, width, channels)` of the input."""
        return tuple(int(side) for side in self.input["shape"][1:])

    def __call__(self, images):
        """The first output, float32 `(B, ...)`, of images of pixels 0..255, `(B, H, W, C)`; any B."""
        return self._run(images, {"first": self.output})["first"]

    def outputs(self, images):
        """All outputs by their names in the signature, or those of their tensors, for images as above.

        Returns:
            `{name: float32 (B, ...)}`; what is quantized is dequantized by its own scale.
        """
        return self._run(images, self.details)

    def in_order(self, images):
        """As `outputs`, a list in the order of the graph's outputs."""
        details = dict(enumerate(self.interpreter.get_output_details()))
        return list(self._run(images, details).values())

    def _run(self, images, details):
        collected = {name: [] for name in details}
        for batch, count in _batches(images, self.batch_size):
            set_pixels(self.interpreter, self.input, batch)
            _invoke(self.interpreter)
            for name, detail in details.items():
                collected[name].append(self._values(detail)[:count])
        return {name: np.concatenate(values) for name, values in collected.items()}

    def _values(self, detail):
        """An output of one call, float32 `(batch_size, ...)`; rows of all images in one axis are told apart."""
        values = self.interpreter.get_tensor(detail["index"])
        told = list(map(int, detail["shape"]))
        if list(values.shape) != told:
            raise InvalidModelFile(f"its output {detail['name']!r} is {list(values.shape)}, not {told} as it says.")
        values = np.atleast_1d(values)
        rows, shape = divmod(len(values), self.batch_size), list(values.shape)
        if rows[1]:
            raise InvalidModelFile(f"expected outputs of {self.batch_size} images, {detail['name']!r} is {shape}.")
        if rows[0] != 1:
            values = values.reshape(self.batch_size, rows[0], *values.shape[1:])
        scale, zero_point = detail["quantization"]
        values = np.asarray(values, np.float32)
        return (values - zero_point) * np.float32(scale) if scale else values


def _natural(name):
    """A key by which `output_10` comes after `output_9`."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", name)]


def set_pixels(interpreter, entry, pixels):
    """Gives an interpreter the images of one call.

    Args:
        interpreter: an open interpreter.
        entry: what it says of its input; a quantized one gets pixels by its own scale, as int8 gets pixels less 128.
        pixels: 0..255, of the input's shape.
    """
    dtype = np.dtype(entry["dtype"])
    if dtype.kind in "iu":
        scale, zero_point = entry["quantization"]
        limits = np.iinfo(dtype)
        pixels = np.clip(np.round(pixels / (scale or 1.0)) + zero_point, limits.min, limits.max)
    interpreter.set_tensor(entry["index"], pixels.astype(dtype))


def _batches(images, size):
    """Yields images in batches of `size`, the last one filled up with zeros, and how many of each are images."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
        yield np.concatenate([batch, padding]), len(batch)


def computed_tensors(content, images):
    """Runs a file batch by batch and yields, for each, the function from a tensor's index to its values.

    Args:
        content: bytes of a file with one input of images.
        images: raw pixels 0..255, `(N, H, W, C)`; the last batch is filled up with the first images.
    """
    interpreter = open_interpreter(content, preserve_all_tensors=True)
    entry = interpreter.get_input_details()[0]
    size = int(entry["shape"][0])
    batches = -(-len(images) // size)
    for batch in np.split(np.resize(images, (batches * size, *images.shape[1:])), batches):
        set_pixels(interpreter, entry, batch)
        _invoke(interpreter)
        yield interpreter.get_tensor
