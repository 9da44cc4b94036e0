"""A vision transformer on a device. Copy this file and a .tflite there; it needs an interpreter, NumPy and Pillow.

pip install ai-edge-litert numpy pillow         # 32-bit ARM: tflite-runtime "numpy<2" pillow, Python 3.11 or older

python vit.py classify m.tflite photo.jpg ...   # what each photo is: classes, yes or no, labels, or numbers
python vit.py folder m.tflite photos            # a table of a folder's photos, and the accuracy if labels are there
python vit.py camera m.tflite -                 # of every frame: rpicam-vid --codec mjpeg -t 0 -o - | python vit.py ...
python vit.py embed m.tflite photos index.npz   # a vector per photo of a folder
python vit.py search m.tflite index.npz p.jpg   # the most similar photos of that folder
python vit.py benchmark m.tflite                # milliseconds per thread count
"""

import argparse
import contextlib
import csv
import hashlib
import importlib
import importlib.metadata
import io
import json
import operator
import os
import platform
import re
import signal
import sys
import time
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

TOP = 5
MOST_THREADS = 256
LONGEST_NOTE = 1000  # characters
# Bytes that running a file may take: some, and more by its size.
SPARE_MEMORY, MEMORY_PER_BYTE = 1 << 30, 8
OUT_OF_MEMORY = 3  # exit code of a fork
SCHEMA = 3  # of the metadata: the newest that is known here
OF_OTHERS = "of a file that keras-vit did not make: --pixels=0..1, --pixels=-1..1 or --pixels=0..255, which it takes"
UNSAID = {"rule": "stretch", "interpolation": "bilinear"}  # how a photo is resized that no file says: as Keras does
RANGES = {"0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0), "0..255": (1.0, 0.0)}  # scale, offset of raw pixels
PASSED_ON = ("DELEGATE", "DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST")  # operators that keep what scores mean
SMALLEST = 4096  # bytes of a model that the exporter did not make: a shorter file was cut, or is none
LONGEST_METADATA = 1 << 22  # bytes
RUNTIMES = (  # package, module, where the class is in it
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter"),
    ("tensorflow", "tensorflow", "lite.Interpreter"),
)
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")

# ---- The model ----


def load_runtime():
    """The `Interpreter` class of the first runtime that works here, and the name of its package."""
    broken = []
    for package, module, name in RUNTIMES:
        try:
            interpreter = operator.attrgetter(name)(importlib.import_module(module))
            if package == "tflite-runtime" and not np.__version__.startswith("1."):
                raise ImportError(f'it needs NumPy 1 and this is {np.__version__}: pip install "numpy<2"')
        except Exception as error:  # a library of other binaries raises what it likes
            if not (isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]):
                broken.append(f"{package} is installed but cannot be used: {error}.")
            continue
        for reason in broken:
            note(f"{reason} Taking {package}.")
        return interpreter, package
    raise ImportError(" ".join(["There is no TFLite interpreter here.", *broken, what_to_install()]))


def usable_cores():
    """How many cores this process may use: more threads would wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def what_to_install():
    python = f"Python {platform.python_version()} on {platform.machine()}"
    if platform.machine() not in ("armv6l", "armv7l", "armv8l"):
        return f"For {python}: pip install ai-edge-litert"
    if sys.version_info < (3, 12):
        return f'For {python}: pip install tflite-runtime "numpy<2"'
    return f"Nothing is made for {python}: take Python 3.11 with tflite-runtime and NumPy 1, or a 64-bit system."


def read_metadata(path):
    """What the exporter stored in the file: class names, how to resize, what the outputs mean. Others have but a hash.

    A damaged file is refused: it can make an interpreter crash. The exporter stored the SHA-256 of the file, taken with
    zeros in the place where that is written.
    """
    if not os.path.isfile(path):  # reading a pipe would wait
        raise ValueError(f"{path}: {not_a_file(path)}")
    content = Path(path).read_bytes()
    start, stored = content.find(b'{"keras_vit_plugin":'), re.search(rb'"content_sha256": "(.{64})"', content)
    if content[4:8] != b"TFL3" or start < 0 and len(content) < SMALLEST:
        raise ValueError(f"{path} is no TFLite model: too short ({len(content)} bytes), or without the identifier TFL3")
    if start < 0 and not stored:
        return {"weights_sha256": hashlib.sha256(content).hexdigest()}
    digest, view = hashlib.sha256(), memoryview(content)
    if stored:
        for part in (view[: stored.start(1)], b"0" * 64, view[stored.end(1) :]):
            digest.update(part)
    if start < 0 or not stored or digest.hexdigest().encode() != stored.group(1):
        raise ValueError(f"{path} is damaged: it is not what was exported; copy or export it again")
    try:
        stored = json.JSONDecoder().raw_decode(content[start : start + LONGEST_METADATA].decode("ascii", "ignore"))[0]
        newer = stored.get("schema", 1) > SCHEMA
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata are not what keras-vit writes: {error}") from error
    if newer:
        made_by = f"keras-vit-plugin {stored['keras_vit_plugin']}"
        raise ValueError(f"{path} was made by {made_by}, which is newer than this vit.py: take the one of that version")
    return stored


def meaning_by_graph(kind, shape, made_here):
    """The `task` and `activation` of scores whose file does not say them.

    Args:
        kind: of the operator that computes them.
        shape: of the output.
        made_here: whether an older version of the exporter made the file, which knew classes only.
    """
    if len(shape) == 1:
        sigmoid = kind == "LOGISTIC"
        return {"task": "binary" if sigmoid else "regression", "activation": "sigmoid" if sigmoid else "linear"}
    if len(shape) != 2:
        return {"task": "features", "activation": "linear"}
    if kind == "SOFTMAX":
        return {"task": "classes", "activation": "softmax"}
    if kind == "LOGISTIC":
        return {"task": "binary" if shape[1] == 1 else "multi-label", "activation": "sigmoid"}
    if shape[1] == 1:
        return {"task": "regression", "activation": "linear"}
    known = made_here or kind == "FULLY_CONNECTED"
    return {"task": "classes" if known else "embedding", "activation": "linear"}


def names_of(task, labels, columns):
    """What the classes, labels or numbers are called, in index order; of a binary answer its no and its yes."""
    if task == "binary":
        labels = labels or ["no", "yes"]
        return labels if len(labels) == 2 else [f"not {labels[0]}", labels[0]]
    if labels and len(labels) == columns:
        return labels
    return [f"{'number' if task == 'regression' else 'class'} {index}" for index in range(columns)]


def probabilities_of(scores, task, activation):
    """The probability of every name of `names_of`, `(names,)`, of scores as they come out of the file."""
    if activation == "linear" and task == "classes":
        exponentials = np.exp(scores - scores.max())
        scores = exponentials / exponentials.sum()
    elif activation == "linear":
        scores = 0.5 * (1 + np.tanh(scores / 2))  # a sigmoid that does not overflow
    return np.array([1 - scores[0], scores[0]]) if task == "binary" else scores


def not_a_file(path):
    """What is at a path where there is no regular file, in words."""
    if os.path.isdir(path):
        return "it is a folder"
    return "it is a pipe or a device, no regular file" if os.path.exists(path) else "there is no such file"


def open_interpreter(path, interpreter_class, threads):
    """An interpreter of a file, its tensors allocated."""
    interpreter = interpreter_class(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def check_survived(path, interpreter_class, package, threads):
    """Raises `ValueError` where a file ends the process that runs it, or takes much memory.

    Interpreters take on trust what a file says of itself: a fork tries it on zeros, where there are forks.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of this program is running
        child = os.fork()
    most = SPARE_MEMORY + MEMORY_PER_BYTE * os.path.getsize(path)
    if child == 0:
        code = 0
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            limit_memory(most)
            interpreter = open_interpreter(path, interpreter_class, threads)
            for entry in interpreter.get_input_details():
                interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
            interpreter.invoke()
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or not str(error):  # as ai-edge-litert has it
                code = OUT_OF_MEMORY
        finally:  # what else it raises is raised again where the file is opened for good
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise ValueError(f"{path}: {package} does not survive this file ({name}): it is damaged, or made to harm")
    if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        raise ValueError(f"{path}: {package} takes more than {most >> 20} MiB for this file: it is damaged")


def limit_memory(size):
    """Lets this process have so many bytes beside what it has, where the system can say what that is."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as pages:
            data = int(pages.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + size, data + size))


class Model:
    """A .tflite as a function from an image's pixels to its answers.

    Args:
        path: of the file.
        threads: of the interpreter; None is one per core that this process may use.
        pixels: a key of `RANGES`, what a file that the exporter did not make takes; None gives it raw pixels.

    Attributes:
        path: of the file.
        outputs: the interpreter's details of every output, by name.
        task: of the scores, the first of the model's outputs: `"classes"`, `"binary"`, `"multi-label"`,
            `"regression"`, `"embedding"` or `"features"`.
        activation: what they are computed by: `"linear"`, `"softmax"` or `"sigmoid"`.
        labels: what the classes, labels or numbers are called.
    """

    def __init__(self, path, threads=None, pixels=None):
        self.path, self.metadata = path, read_metadata(path)
        self.made_here = "keras_vit_plugin" in self.metadata
        self.scale, self.offset = RANGES[pixels or "0..255"]
        interpreter_class, self.package = load_runtime()
        threads = threads or usable_cores()
        check_survived(path, interpreter_class, self.package, threads)
        try:
            self.interpreter = open_interpreter(path, interpreter_class, threads)
            inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{path}: {self.package} cannot load this file: {error}") from error
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] not in (1, 3):
            shapes = [entry["shape"].tolist() for entry in inputs]
            raise ValueError(f"{path} does not take one image (1, height, width, 1 or 3), but {shapes}")
        self.input, self.outputs = inputs[0], {}
        try:
            for signature in self.interpreter.get_signature_list():
                self.outputs.update(self.interpreter.get_signature_runner(signature).get_output_details())
            self.understand(outputs[0])
        except Exception as error:  # whatever signatures and metadata of others hold
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: its metadata are not what keras-vit writes: {reason}") from error

    def understand(self, output):
        """Takes what the outputs mean and how images are resized from the metadata, or from the graph."""
        self.meanings = self.metadata.get("answers") or [self.meaning_of(output)]
        self.scores = self.meanings[0]["name"]
        self.outputs.setdefault(self.scores, output)
        self.task, self.activation = self.meanings[0]["task"], self.meanings[0]["activation"]
        columns = int(np.prod(self.outputs[self.scores]["shape"][1:]))
        self.labels = names_of(self.task, self.metadata.get("labels"), columns)
        if not all(isinstance(name, str) for name in (*self.labels, self.metadata.get("weights_sha256", ""))):
            raise ValueError("a name or a hash is no text")
        self.to_pixels(Image.new("L", (1, 1)))

    def meaning_of(self, output):
        """What an output means by the graph, where the file does not say it."""
        producers = {
            index: operator
            for operator in self.interpreter._get_ops_details()
            for index in operator["outputs"]
            if operator["op_name"] != "DELEGATE"
        }
        index, kind = output["index"], ""
        while index in producers:
            kind = producers[index]["op_name"]
            if kind not in PASSED_ON:
                break
            index = producers[index]["inputs"][0]
        name = self.metadata.get("outputs", ["scores"])[0]
        return {"name": name, **meaning_by_graph(kind, output["shape"].tolist(), self.made_here)}

    def to_pixels(self, image):
        """An image of Pillow's as the raw pixels that this file takes."""
        return to_pixels(image, self.input["shape"][1:].tolist(), self.metadata.get("preprocessing", UNSAID))

    def answers(self, pixels):
        """All outputs, by name, for the raw pixels of one image."""
        pixels = pixels * self.scale + self.offset
        if self.input["dtype"] != np.float32:
            scale, zero_point = self.input["quantization"]
            limits = np.iinfo(self.input["dtype"])
            pixels = np.clip(np.round(pixels / (scale or 1.0)) + zero_point, limits.min, limits.max)
        batch = np.repeat(pixels[None], self.input["shape"][0], axis=0).astype(self.input["dtype"])
        try:
            self.interpreter.set_tensor(self.input["index"], batch)
            self.interpreter.invoke()
            return {name: self.read_output(entry) for name, entry in self.outputs.items()}
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{self.package} cannot run {self.path}: {error}") from error

    def finite_answer(self, pixels, name):
        """One output for the raw pixels of one image, flat; one of NaN or infinity raises a `ValueError`."""
        values = self.answers(pixels)[name].ravel()
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path} answers with NaN or infinity ({name})")
        return values

    def read_output(self, entry):
        values = self.interpreter.get_tensor(entry["index"])
        if not values.ndim:
            raise ValueError("it gives one number, whatever the number of images")
        values = values[0].astype(np.float64)
        scale, zero_point = entry["quantization"]
        return (values - zero_point) * scale if scale else values

    def says(self, pixels, count=TOP):
        """What an image is.

        Args:
            pixels: raw pixels (height, width, channels).
            count: of classes at most; of labels that are true of it there may be more.

        Returns:
            `{"top": [{"index", "label", "probability"}, ...]}`, the likeliest first; of a regression `{"values":
            [{"label", "value"}, ...]}`.

        Raises:
            ValueError: the answer holds NaN or infinity.
        """
        scores = self.finite_answer(pixels, self.scores)
        if self.task == "regression":
            return {"values": [{"label": name, "value": float(value)} for name, value in zip(self.labels, scores)]}
        probabilities = probabilities_of(scores, self.task, self.activation)
        if self.task == "multi-label":
            count = max(count, int((probabilities >= 0.5).sum()))
        best = probabilities.argsort()[::-1][:count].tolist()
        return {"top": [{"index": i, "label": self.labels[i], "probability": float(probabilities[i])} for i in best]}

    @property
    def vector_name(self):
        """The output that photos are compared by: an embedding where there is one, else the scores."""
        embeddings = [meaning["name"] for meaning in self.meanings if meaning["task"] == "embedding"]
        if embeddings:
            return embeddings[0]
        return "embedding" if "embedding" in self.outputs else self.scores

    def vector(self, pixels):
        """The image as a vector of length 1, of the output `vector_name`; logits of classes less their mean."""
        vector = self.finite_answer(pixels, self.vector_name)
        if self.vectors_are[0] == "centred logits":
            vector = vector - vector.mean()
        return (vector / max(np.linalg.norm(vector), 1e-12)).astype(np.float32)

    @property
    def vectors_are(self):
        """What `vector` gives, and of which weights: vectors of others cannot be compared with it."""
        name, centred = self.vector_name, (self.task, self.activation) == ("classes", "linear")
        kind = "centred logits" if name == self.scores and centred else name
        return kind, self.metadata["weights_sha256"]


# ---- Images ----

# What `open_image` reads. Pillow would start programs of their own for some others.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
ANIMATIONS = ("GIF", "WEBP")
LONGEST_FRAME = 1 << 26  # bytes of a JPEG image in a stream
LARGE = 16_000_000  # pixels; a larger photo is shrunk while it is read,
SPARE = 4  # to at least so many times the sides wanted
THINNEST = 50  # times as long as wide
STRIP = 64  # rows of a shrunk photo that are made at a time
HUNGRY_FORMATS = ("AVIF", "JPEG2000", "WEBP")  # their decoders hold an image several times,
HUNGRY_PIXELS = 40_000_000  # so that larger ones are refused
ORIENTATION = 0x0112  # in EXIF


def read_pixels(path, to_pixels):
    """What `to_pixels` makes of an image file; one that cannot be read raises a `ValueError` that names it."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait
            raise FileNotFoundError(not_a_file(path))
        with open_image(path) as image:
            return to_pixels(image)
    except Exception as error:  # whatever a damaged image makes its decoder do
        raise ValueError(f"{path} is no image that can be read: {str(error) or type(error).__name__}") from error


def open_image(file, formats=FORMATS):
    """Pillow's image of a path or a stream, if it has one of the formats."""
    Image.init()  # or only some formats are known
    try:
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ValueError(f"it is damaged or none of {', '.join(formats)}") from None


def to_pixels(image, shape, preprocessing):
    """Raw pixels (height, width, channels), resized as the file says.

    The first frame counts, upright as EXIF says; transparency is dropped, as in training.
    """
    height, width, channels = shape
    resized_height, resized_width = preprocessing.get("resize") or (height, width)
    method = preprocessing.get("interpolation", "bicubic").upper().replace("LANCZOS3", "LANCZOS")
    rule = preprocessing.get("rule", "cover")
    image = upright(image, "L" if channels == 1 else "RGB", max(resized_height, resized_width))
    if rule == "pad":
        image = ImageOps.pad(image, (resized_width, resized_height), Image.Resampling[method])
    else:
        if rule == "cover":
            scale = max(resized_height / image.height, resized_width / image.width)
            resized_height, resized_width = round(image.height * scale), round(image.width * scale)
        image = image.resize((resized_width, resized_height), Image.Resampling[method])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)), np.uint8).reshape(shape)


def upright(image, mode, side):
    if max(image.size) > THINNEST * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels are more than {THINNEST} times as long as wide")
    if image.format in HUNGRY_FORMATS and image.width * image.height > HUNGRY_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels of {image.format} take too much memory; JPEG does not")
    factor = excess(image, side)
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))  # a JPEG decodes to fewer pixels
    image.load()
    image.info.pop("transparency", None)  # what `convert` would warn about
    small = shrink(image, mode, excess(image, side))
    small.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    ImageOps.exif_transpose(small, in_place=True)
    return small


def excess(image, side):
    """The whole number by which an image may be shrunk before it is resized; 1 where it is not large."""
    return max(1, min(image.size) // (SPARE * side)) if image.width * image.height > LARGE else 1


def shrink(image, mode, factor):
    """The image in a mode, each side divided by `factor`; strip by strip, or memory would hold it twice."""
    if factor == 1:
        return convert(image, mode)
    small = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, STRIP * factor):
        strip = image.crop((0, top, image.width, min(top + STRIP * factor, image.height)))
        small.paste(convert(strip, mode).reduce(factor), (0, top // factor))
    return small


def convert(image, mode):
    if image.mode == "F":
        raise ValueError("its pixels are floats of an unknown range")
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip to white
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def photos_of(folder):
    """`[(path, label or None)]`, from labels.csv (file, label), a sub-folder per class, or just images."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    table = folder / "labels.csv"
    if table.exists():
        return [(folder / file, label) for file, label in listed_in(table)]
    photos = [(path, name) for name in folders_in(folder) for path in images_below(folder / name)]
    photos = photos or [(path, None) for path in sorted(folder.iterdir()) if is_image(path)]
    if not photos:
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return photos


def listed_in(table):
    """`[(file, label)]` of a labels.csv."""
    if not os.path.isfile(table):
        raise ValueError(f"{table}: {not_a_file(table)}")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [((row.get("file") or "").strip(), (row.get("label") or "").strip()) for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8: save it as UTF-8 (in Excel as 'CSV UTF-8')") from error
    except csv.Error as error:
        raise ValueError(f"{table} is no table of files and labels: line {reader.line_num + 1}: {error}") from error
    if not rows or not all(map(all, rows)):
        raise ValueError(f"{table} must have the columns file and label, and both in every row")
    return rows


def folders_in(folder):
    """The names of the sub-folders in the order in which Keras counts them as classes."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return [name for name in names if not name.startswith(".") and name != "__MACOSX"]


def images_below(folder):
    for parent, _, names in sorted(os.walk(folder)):
        if not any(part.startswith(".") or part == "__MACOSX" for part in Path(parent).relative_to(folder).parts):
            yield from (path for path in (Path(parent, name) for name in sorted(names)) if is_image(path))


def is_image(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def classes_of(folder, photos, names):
    """`({path: class index} or None, a sentence or "")` of `photos_of`, as keras-vit reads them.

    `names` are the class names in the file, one alone that of a yes, or how many classes it has. Names decide; else
    sub-folders count by their sorted order, as in Keras's image_dataset_from_directory, and numbers in labels.csv are
    indices.
    """
    count, names = (names, []) if isinstance(names, int) else (len(names), list(names))
    used = sorted({label for _, label in photos})
    listed, said = (Path(folder) / "labels.csv").exists(), ""
    order = used if listed else folders_in(Path(folder))
    whole = {label: label.removesuffix(".0") for label in used if listed}  # as pandas writes integers beside gaps
    numbers = {label: int(text) for label, text in whole.items() if text.isdecimal()}
    if len(names) == 1:  # of a yes, beside which there is a no
        others = sorted(set(order) - set(names) - set(numbers))
        count, names = 2, [*(others or [""]), *names] if len(others) < 2 else []
    index = {name: place for place, name in enumerate(names)}
    strangers = [label for label in used if label not in index and label not in numbers]
    twice = [label for label in used if names.count(label) > 1]
    if twice:
        return None, f"no accuracy: {twice[0]!r} is the name of two classes; write indices into a labels.csv"
    wrong = [label for label in strangers if listed and NUMBER.fullmatch(label)]
    if wrong:
        return None, f"no accuracy: {wrong[0]!r} is no class index: these are the whole numbers 0..{count - 1}"
    if len(numbers) == len(used) and not set(used) <= set(index):
        index = numbers
    elif names and not strangers:
        places = {} if listed or len(order) != count else {name: place for place, name in enumerate(order)}
        other = numbers or places
        differ = [label for label in used if label in index and other.get(label, index[label]) != index[label]]
        if differ:
            said = f"labels are taken as class names: {differ[0]!r} is class {index[differ[0]]}, not {other[differ[0]]}"
        index = {**numbers, **index}
    elif (names and (listed or len(strangers) < len(used))) or numbers:
        return None, f"no accuracy: {(strangers or used)[0]!r} is none of the file's class names"
    elif len(order) != count:
        return None, f"no accuracy: there are {len(order)} labels and {count} classes; write indices into a labels.csv"
    else:
        index = {name: place for place, name in enumerate(order)}
        if listed:
            said = f"names in labels.csv are counted by their sorted order: {used[0]!r} is class 0; else write indices"
        elif names or (all(map(str.isdecimal, order)) and sorted(order, key=int) != order):
            said = f"sub-folders are counted by their sorted order: {used[-1]!r} is class {index[used[-1]]}"
    if max(index[label] for label in used) >= count:
        return None, f"no accuracy: a label is beyond the classes, which are 0..{count - 1}"
    return {path: index[label] for path, label in photos}, said


def jpegs_in(stream):
    """The JPEG images in a stream, one after the other, each as bytes as soon as it is there; the last may be cut."""
    buffer, start = bytearray(), -1
    while chunk := stream.read1(1 << 16):
        buffer += chunk
        while (start := buffer.find(b"\xff\xd8\xff")) >= 0 and (end := end_of_jpeg(buffer, start)):
            yield bytes(buffer[start:end])
            del buffer[:end]
        lost = len(buffer) - 2 if start < 0 else start + 2 if len(buffer) > LONGEST_FRAME else start
        del buffer[: max(0, lost)]
    if start >= 0:
        yield bytes(buffer)


def end_of_jpeg(data, start):
    """Where the JPEG that begins at `start` ends; None where that is not there yet."""
    place = start + 2
    while place + 2 <= len(data):
        if data[place] != 0xFF or data[place + 1] == 0xD8:
            return place  # damaged: here something else begins
        if data[place + 1] == 0xD9:
            return place + 2
        scan = data[place + 1] == 0xDA
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")  # a segment begins with its length
        if scan:  # pixels: they go on to the next marker
            marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, place)
            place = marker.start() if marker else len(data)
    return None


def frames_of(source):
    """The frames of an animation, or of a stream of JPEG images; "-" is the standard input."""
    if source == "-":
        yield from (io.BytesIO(jpeg) for jpeg in jpegs_in(sys.stdin.buffer))
        return
    with open(source, "rb") as stream:
        start = stream.peek(12)
        if start[:3] != b"GIF" and start[8:12] != b"WEBP":
            yield from (io.BytesIO(jpeg) for jpeg in jpegs_in(stream))
            return
        if not stream.seekable():
            raise ValueError(f"{source}: an animation is read from a file, no pipe")
    try:
        with open_image(source, ANIMATIONS) as animation:
            yield from (frame.copy() for frame in ImageSequence.Iterator(animation))
    except Exception as error:  # whatever a damaged image makes its decoder do
        note(f"{source} ends here: {str(error) or type(error).__name__}")


# ---- The commands ----

unreadable = []


def printable(text):
    """A text in one line, without what a terminal would obey: control characters, and what reorders text around it.

    Names of classes, metadata and files are written by others.
    """
    reordering = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    obeyed = ("Cc", "Zl", "Zp")
    return "".join(" " if unicodedata.category(each) in obeyed or each in reordering else each for each in str(text))


def tell(text):
    print(printable(text), flush=True)


def tell_json(value):
    tell(json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f"))  # the one control that `json` leaves


def note(sentence):
    text = str(sentence)
    if len(text) > LONGEST_NOTE:  # what libraries say can quote a file
        text = f"{text[:LONGEST_NOTE]} ..."
    print(printable(f"vit.py: {text}"), file=sys.stderr, flush=True)


def cell(text):
    """A text of others as a cell of a table: no formula to a spreadsheet, but for a number."""
    text = str(text)
    formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not NUMBER.fullmatch(text)
    return printable(f"'{text}" if formula else text)


class Parser(argparse.ArgumentParser):
    """One whose errors, which quote the command line, are no orders to a terminal."""

    def _print_message(self, message, file=None):
        super()._print_message("\n".join(map(printable, message.split("\n"))), file)


def each(photos, model, answer):
    """`(path, answer(pixels))` of one photo after the other; one that gets no answer is named and left out."""
    for path in photos:
        try:
            pixels = read_pixels(path, model.to_pixels)
        except ValueError as error:
            note(error)
            unreadable.append(path)
            continue
        try:
            answered = answer(pixels)
        except ValueError as error:
            note(f"{path}: {error}")
            unreadable.append(path)
            continue
        yield path, answered


def opened(arguments):
    """The model of a command; refused where nothing says what pixels it takes."""
    model = Model(arguments.model, arguments.threads, arguments.pixels)
    if model.made_here and arguments.pixels:
        raise ValueError(f"--pixels is for a file that keras-vit did not make; {arguments.model} takes raw pixels")
    if not model.made_here and not arguments.pixels:
        options = " or ".join(f"--pixels={name}" for name in RANGES)
        raise ValueError(
            f"{arguments.model} was not made by keras-vit and does not say what pixels it takes: {options}"
        )
    return model


def opened_to_tell(arguments):
    """The same, of a command that tells what photos are."""
    model = opened(arguments)
    if model.task in ("embedding", "features"):
        raise ValueError(
            f"{arguments.model} gives an image's {model.task}, not what it shows: `embed` and `search` take such a file"
        )
    return model


def opened_to_compare(arguments):
    """The same, of a command that compares photos."""
    model = opened(arguments)
    if np.prod(model.outputs[model.vector_name]["shape"][1:]) < 2:
        raise ValueError(f"{arguments.model} gives one number ({model.task}): no vector to compare photos by")
    return model


def classify(arguments):
    model = opened_to_tell(arguments)
    for photo, said in each(arguments.photos, model, model.says):
        if arguments.json:
            tell_json({"file": str(photo), **said})
            continue
        tell(photo)
        for answer in said.get("top", ()):
            tell(f"  {answer['probability']:6.1%}  {answer['label']}")
        for number in said.get("values", ()):
            tell(f"  {number['value']:10.5g}  {number['label']}")


def folder(arguments):
    photos = photos_of(arguments.folder)
    model = opened_to_tell(arguments)
    one_answer = model.task in ("classes", "binary")
    labelled, classes, said = photos[0][1] is not None, None, ""
    if labelled and one_answer:
        classes, said = classes_of(arguments.folder, photos, model.metadata.get("labels") or len(model.labels))
    elif labelled:
        said = f"no accuracy: one label for each photo does not judge a file of {model.task} answers"
    table, read, right = csv.writer(sys.stdout, lineterminator="\n"), 0, 0
    table.writerow(["file", *(("label", "probability") if one_answer else map(cell, model.labels))])
    for path, told in each(
        [path for path, _ in photos], model, lambda pixels: model.says(pixels, count=len(model.labels))
    ):
        read += 1
        if one_answer:
            answer = told["top"][0]
            cells = [cell(answer["label"]), f"{answer['probability']:.4f}"]
            right += classes is not None and answer["index"] == classes[path]
        elif model.task == "regression":
            cells = [f"{number['value']:.6g}" for number in told["values"]]
        else:
            in_order = sorted(told["top"], key=operator.itemgetter("index"))
            cells = [f"{answer['probability']:.4f}" for answer in in_order]
        table.writerow([cell(os.path.relpath(path, arguments.folder)), *cells])
    if said:
        note(said)
    if classes is not None and read:
        note(f"accuracy {right / read:.1%}: {right} of the {read} images that could be read")


def in_short(model, said):
    """What a photo is, in one line."""
    if model.task == "regression":
        return ", ".join(f"{number['value']:.5g}  {number['label']}" for number in said["values"])
    count = max(1, sum(answer["probability"] >= 0.5 for answer in said["top"])) if model.task == "multi-label" else 1
    return ", ".join(f"{answer['probability']:6.1%}  {answer['label']}" for answer in said["top"][:count])


def camera(arguments):
    model = opened_to_tell(arguments)
    seen, rate, before = 0, None, time.perf_counter()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service's stop ends it as Ctrl-C does
    try:
        for seen, frame in enumerate(frames_of(arguments.source), 1):
            if (seen - 1) % arguments.every:
                continue
            try:
                pixels = model.to_pixels(frame if isinstance(frame, Image.Image) else open_image(frame, ["JPEG"]))
            except Exception as error:  # whatever a damaged image makes its decoder do
                note(f"frame {seen} cannot be read: {str(error) or type(error).__name__}")
                continue
            try:
                said = in_short(model, model.says(pixels))
            except ValueError as error:
                note(f"frame {seen}: {error}")
                unreadable.append(seen)
                continue
            now = time.perf_counter()
            rate = 1 / (now - before) if rate is None else 0.9 * rate + 0.1 / (now - before)
            before = now
            tell(f"frame {seen}  {rate:5.1f} fps  {said}")
    except KeyboardInterrupt:
        note(f"stopped after {seen} frames")
        return
    if not seen:
        raise ValueError(f"{arguments.source}: no JPEG, GIF or WebP image in it")


def embed(arguments):
    if not arguments.index.endswith(".npz"):
        raise ValueError(f"the index must be called *.npz, got {arguments.index!r}")
    if os.path.exists(arguments.index) and not os.path.isfile(arguments.index):
        raise ValueError(f"{arguments.index}: {not_a_file(arguments.index)}")
    if not os.path.isdir(os.path.dirname(arguments.index) or "."):
        raise ValueError(f"{arguments.index} cannot be written: there is no such folder")
    photos = [path for path, _ in photos_of(arguments.folder)]
    model = opened_to_compare(arguments)
    found = {str(path): vector for path, vector in each(photos, model, model.vector)}
    if not found:
        raise ValueError(f"no image of {arguments.folder} gets a vector")
    files, vectors = list(found), np.stack(list(found.values()))
    content = io.BytesIO()
    np.savez(content, files=files, vectors=vectors, vectors_are=model.vectors_are)
    partial = f"{arguments.index}.{os.getpid()}.partial"
    try:
        Path(partial).write_bytes(content.getvalue())
        os.replace(partial, arguments.index)
    finally:
        Path(partial).unlink(missing_ok=True)
    tell(f"{arguments.index}: {len(files)} images, {model.vectors_are[0]} of {vectors.shape[1]} numbers")


def read_index(path):
    """The files, vectors `(files, numbers)` and `vectors_are` that `embed` wrote."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait
            raise FileNotFoundError(not_a_file(path))
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError("it is compressed, and could become any size")
        with np.load(path) as index:
            files, vectors, (kind, weights) = (index[name] for name in ("files", "vectors", "vectors_are"))
        if vectors.dtype.kind != "f" or files.dtype.kind != "U":
            raise ValueError("its vectors are no numbers, or its files no names")
        if vectors.ndim != 2 or files.shape != vectors.shape[:1] or not np.isfinite(vectors).all():
            raise ValueError("it does not hold one vector per file")
    except Exception as error:  # whatever a damaged archive does
        raise ValueError(f"{path} is no index that can be read: {error}") from error
    return files, vectors, (str(kind), str(weights))


def search(arguments):
    files, vectors, vectors_are = read_index(arguments.index)
    model = opened_to_compare(arguments)
    if vectors_are != model.vectors_are:
        ours, theirs = (f"{kind} of the weights {weights[:8]}" for kind, weights in (model.vectors_are, vectors_are))
        raise ValueError(f"{arguments.index} holds {theirs}; {arguments.model} gives {ours}: embed the folder again")
    for _, vector in each([arguments.photo], model, model.vector):
        if vectors.shape[1:] != vector.shape:
            raise ValueError(f"{arguments.index} holds vectors of {vectors.shape[1]} numbers, not {vector.size}")
        similarities = vectors @ vector
        for nearest in similarities.argsort()[::-1][: arguments.count]:
            tell(f"{similarities[nearest]:7.4f}  {files[nearest]}")


def benchmark(arguments):
    counts = arguments.threads or [count for count in (1, 2, 4) if count <= usable_cores()] or [1]
    models, seconds = {count: Model(arguments.model, count) for count in counts}, {count: [] for count in counts}
    noise = np.random.default_rng(0)
    for model in models.values():
        model.answers(noise.integers(0, 256, model.input["shape"][1:], np.uint8))
    for turn in range(arguments.warm_up + arguments.runs):
        for count, model in models.items():  # in turn, so that what else the machine does falls on all
            start = time.perf_counter()
            model.interpreter.invoke()
            if turn >= arguments.warm_up:
                seconds[count].append(time.perf_counter() - start)
    results = [
        {"threads": count, "median_ms": np.median(taken) * 1e3, "p90_ms": np.quantile(taken, 0.9) * 1e3}
        for count, taken in seconds.items()
    ]
    report = {
        "file": arguments.model,
        "megabytes": os.path.getsize(arguments.model) / 1e6,
        "batch": int(model.input["shape"][0]),
        "runtime": f"{model.package} {importlib.metadata.version(model.package)}",
        "python": f"{platform.python_version()} on {platform.machine()}",
        "runs": arguments.runs,
    }
    if arguments.json:
        tell_json({**report, "results": results})
        return
    for name, value in report.items():
        tell(f"{name:10} {value}")
    for result in results:
        tell("{threads:3} threads: median {median_ms:8.3f} ms, 90 % within {p90_ms:8.3f} ms".format(**result))


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def thread_count(text):
    if positive(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_THREADS}, got {text!r}")
    return int(text)


def not_negative(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def main():
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # for names of files that are no text, or not of the encoding
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(function, *positional):
        added = commands.add_parser(function.__name__)
        added.set_defaults(run=function)
        added.add_argument("model", help="a .tflite")
        for name in positional:
            added.add_argument(name.rstrip("*"), nargs="+" if name.endswith("*") else None)
        timed = function is benchmark
        threads = "+" if timed else None
        added.add_argument(
            "--threads", type=thread_count, nargs=threads, help="of the interpreter; default: every core"
        )
        if not timed:
            added.add_argument("--pixels", choices=RANGES, metavar="RANGE", help=OF_OTHERS)
        return added

    command(classify, "photos*").add_argument("--json", action="store_true", help="one object a line")
    command(folder, "folder")
    command(camera, "source").add_argument("--every", type=positive, default=1, help="take every so many frames")
    command(embed, "folder", "index")
    command(search, "index", "photo").add_argument("--count", type=positive, default=TOP)
    timed = command(benchmark)
    timed.add_argument("--runs", type=positive, default=50)
    timed.add_argument("--warm-up", type=not_negative, default=5)
    timed.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photos are shrunk while they are read
    try:
        arguments.run(arguments)
    except BrokenPipeError:  # as of `python vit.py ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        note(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(bool(unreadable))


if __name__ == "__main__":
    sys.exit(main())
