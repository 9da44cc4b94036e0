"""Where a file's error comes from: op by op, what its own rounding does to the logits."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from keras_vit_plugin.files import read_file
from keras_vit_plugin.image_model.check import check_model, weights_hash
from keras_vit_plugin.image_model.decibels import as_db
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.gather import fingerprint, gather_images
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.images.synthetic import synthetic_images
from keras_vit_plugin.progress import track

from ..float_files import FloatFiles
from ..image_sets import gather_calibration
from ..quantization.modes import MODES
from ..quantization.steps.sensitivity import LogitGradients, has_derivatives, output_scales
from ..spec.errors import UnsupportedTopology
from ..spec.readers.own_models import from_keras
from ..tflite.errors import InvalidModelFile
from ..tflite.execute import run_operator
from ..tflite.flatbuffer import naming, read
from ..tflite.foreign_runner import check_runs
from ..tflite.graph import MOVES, Graph
from ..tflite.metadata import read_metadata
from ..tflite.runner import computed_tensors
from ..tflite.tensor_names import EMBEDDING, stream_name
from .verify import mode_of_file, target_of_file

DEBUGGED_IMAGES = 8
CLIPPING, ROUNDING, INSIDE = "clipping", "rounding", "inside"


@dataclass(frozen=True)
class OpError:
    """One operator of the file against the same operator of the float file that it was quantized from.

    Attributes:
        name: of its output in the file.
        kind: such as `"FULLY_CONNECTED"`.
        place: `"embedding"`, `"block 3"` (from 1, as in the report and in `explain`) or `"head"`.
        dtype: of its output in the file.
        snr_db: signal-to-noise ratio of its output against Keras, all errors before it included; of the model's answer
            as `Answer.noise` takes it.
        noise: noise in the model's answer (`Answer.noise`) that its own error causes, to first order: that of rounding
            its weights and its output, given the inputs that it has in the file.
        low, high: the range that its output can hold, or held where it is float.
        clipped: share of its output's values that lie outside its integer range, by more than half a step.
        cause: what most of `noise` comes from: `"clipping"` or `"rounding"` of its output, or `"inside"`: its weights,
            inputs rounded on the fly, or its kernel's arithmetic.
    """

    name: str
    kind: str
    place: str
    dtype: str
    snr_db: float
    noise: float
    low: float
    high: float
    clipped: float
    cause: str


@dataclass(frozen=True)
class DebugReport:
    """`ops` in the file's order; `logits_snr_db` as measured, and `mode` as the file says."""

    mode: str
    images: int
    logits_snr_db: float
    ops: tuple[OpError, ...]

    def to_dict(self):
        return asdict(self)

    @property
    def noise(self):
        """The sum over all operators."""
        return sum(op.noise for op in self.ops) or 1e-30

    def worst(self, count=3):
        """The operators whose own errors move the logits most."""
        return sorted(self.ops, key=lambda op: -op.noise)[:count]

    def by(self, attribute):
        """`{place or kind: its OpErrors}`."""
        groups = {}
        for op in self.ops:
            groups.setdefault(getattr(op, attribute), []).append(op)
        return groups


def debug(model, tflite, calibration=None, images=None, mean=None, std=None, pixels=None):
    """Compares every operator of a file that `export_tflite` made with its Keras model.

    Args:
        model: the Keras model.
        tflite: path of the file.
        calibration: what was given as `calibration` to `export_tflite`, needed where something was: the float file
            that the file was quantized from depends on it.
        images: what to measure on, as for `calibration`, 8 of them; None takes the calibration images or synthetic
            ones.
        mean, std, pixels: as for `export_tflite`.

    Returns:
        A `DebugReport`.

    Raises:
        ValueError: the file is not of this package, this model or this calibration, or its graph is not one that the
            package rewrites.
    """
    content = read_file(tflite)
    with naming(tflite):
        made = read_metadata(read(content))
        check_runs(content)
        mode, target = (None, None) if made is None else (mode_of_file(made), target_of_file(made))
    if made is None:
        raise ValueError(f"{str(tflite)!r} was not made by this package: there is no float file to compare it with.")
    check_model(model)
    if made.weights_sha256 != weights_hash(model):
        raise ValueError(f"{str(tflite)!r} was made from other weights than those of `model`.")
    preprocessing = made.preprocessing
    tasks = {answer.name: answer.task for answer in made.answers}
    task = next(iter(tasks.values())) if len(tasks) == 1 else tasks
    keras_model = ImageModel(model, *pixel_normalization(model, preprocessing.channels, mean, std, pixels), task)
    try:
        from_keras(model, keras_model.scale, keras_model.offset)
    except UnsupportedTopology as reason:
        raise ValueError(
            f"`model` has no blocks that are known: {reason}. `verify` (keras-vit verify) compares its file as a whole."
        ) from reason
    calibration = _calibration(calibration, preprocessing, made, tflite)
    if images is not None:
        images = gather_images(images, preprocessing, "images", DEBUGGED_IMAGES)
    elif calibration is not None:
        images = gather_images(calibration, preprocessing, "calibration", DEBUGGED_IMAGES)
    else:
        images = synthetic_images(preprocessing.image_shape, DEBUGGED_IMAGES)

    file = Graph(content)
    batch_size = int(file.subgraph.tensors[file.image].shape[0])
    outputs = made.outputs[len(made.answers) :]
    files = FloatFiles(keras_model, calibration, target, batch_size, outputs=outputs)
    lowered = files.lowered(mode)
    twin = Graph(lowered)
    if not has_derivatives(twin):
        raise ValueError("`model` has operators that have no derivative here.")
    return _report(lowered, twin, file, content, images, mode.name, keras_model.answers[0])


def _calibration(source, preprocessing, made, tflite):
    """The images that a file was calibrated on, or None."""
    if made.calibration_sha256 is None:
        return None
    if source is None:
        raise ValueError(f"{str(tflite)!r} was calibrated: `calibration` must be what it was calibrated on.")
    asked = MODES.get(made.calibrated_for)
    if asked is None:
        raise InvalidModelFile(f"{tflite}: its metadata is wrong: no mode is called {made.calibrated_for!s:.50}")
    images, *_ = gather_calibration(source, preprocessing, asked(), made.held_out)
    if fingerprint(images) == made.calibration_sha256:
        return images
    raise ValueError(f"`calibration` is not what {str(tflite)!r} was calibrated on.")


def _report(lowered, twin, file, content, images, mode, answer):
    indices = {tensor.name.decode(): index for index, tensor in enumerate(file.subgraph.tensors)}
    # What the rest of the file reads where a value is there in float and rounded.
    same = {
        tensor: indices.get(f"{twin.name(tensor)}_quantized", indices.get(twin.name(tensor)))
        for tensor in twin.producer
    }
    places = _places(twin)
    compared = [
        operator
        for operator in twin.operators
        if twin.kind(operator) not in (*MOVES, "CAST") and same[int(operator.outputs[0])] is not None
    ]
    sums = {id(operator): _Sums() for operator in compared}
    logits, outputs, computed_outputs = int(twin.subgraph.outputs[0]), [], []
    scales = output_scales(lowered, images, (answer,))
    generator, logit_gradients = np.random.default_rng(0), LogitGradients(twin, (answer,), scales)
    batch_size = int(file.subgraph.tensors[file.image].shape[0])
    calls = computed_tensors(content, np.repeat(images, batch_size, axis=0))
    for image, tensor in zip(track(images, "Comparing"), calls):
        batch = np.broadcast_to(image, twin.subgraph.tensors[twin.image].shape)
        values, gradients = logit_gradients(batch, generator)

        held = {}  # by the file, in the twin's tensors
        for operator in twin.operators:
            index = int(operator.outputs[0])
            if same[index] is not None:
                held[index] = _dequantized(tensor(same[index]), *_grid(file, same[index])).reshape(
                    twin.subgraph.tensors[index].shape
                )
        held[twin.image] = batch.astype(np.float32)
        for operator in twin.operators:  # what the file does not hold follows from what it does
            if int(operator.outputs[0]) not in held:
                held[int(operator.outputs[0])] = run_operator(twin, operator, held).numpy()
        for operator in compared:
            index = int(operator.outputs[0])
            sums[id(operator)].add(
                wanted=values[index],
                exact=np.ravel(run_operator(twin, operator, held)),
                got=held[index].ravel(),
                gradient=gradients[index],
                grid=_grid(file, same[index]),
                limits=_limits(file, same[index]),
            )
        for array, found in ((values, outputs), (held, computed_outputs)):
            found.append(np.reshape(array[logits], twin.shape(logits))[:1])
    logits_snr_db = as_db(answer.noise(np.concatenate(outputs), np.concatenate(computed_outputs)))
    ops = [
        sums[id(operator)].result(
            name=file.name(same[int(operator.outputs[0])]),
            kind=twin.kind(operator),
            place=places[int(operator.outputs[0])],
            dtype=file.dtype(same[int(operator.outputs[0])]).lower(),
            images=len(images),
        )
        for operator in compared
    ]
    ops = [
        replace(op, snr_db=logits_snr_db) if int(operator.outputs[0]) == logits else op
        for op, operator in zip(ops, compared)
    ]
    return DebugReport(mode, len(images), logits_snr_db, tuple(ops))


class _Sums:
    """What is added up over images for one operator."""

    def __init__(self):
        self.signal = self.error = self.clipped = self.count = 0.0
        self.low, self.high = np.inf, -np.inf
        self.noise = 0.0
        self.causes = dict.fromkeys((CLIPPING, ROUNDING, INSIDE), 0.0)

    def add(self, wanted, exact, got, gradient, grid, limits):
        scale, zero_point = grid
        clipped = rounded = exact
        if limits is not None:
            self.low, self.high = ((limits - zero_point) * scale).tolist()
            clipped = np.clip(exact, self.low, self.high)
            rounded = (np.clip(np.round(exact / scale) + zero_point, *limits) - zero_point) * scale
            self.clipped += np.count_nonzero(np.abs(clipped - exact) > scale / 2)
        else:
            self.low, self.high = min(self.low, float(got.min())), max(self.high, float(got.max()))
        self.count += got.size
        self.signal += np.square(wanted).sum()
        self.error += np.square(got - wanted).sum()
        self.noise += np.square(gradient @ (got - exact)).mean()
        for cause, part in zip(self.causes, (clipped - exact, rounded - clipped, got - rounded)):
            self.causes[cause] += np.square(gradient @ part).mean()

    def result(self, name, kind, place, dtype, images):
        return OpError(
            name=name,
            kind=kind,
            place=place,
            dtype=dtype,
            snr_db=_db(self.signal, self.error),
            noise=float(self.noise / images),
            low=self.low,
            high=self.high,
            clipped=self.clipped / self.count,
            cause=max(self.causes, key=self.causes.get),
        )


def _places(graph):
    """`{tensor: where in the model}`."""
    streams = {stream_name(i): i for i in range(len(graph.operators))}
    blocks = sum(graph.name(tensor).split(";")[0] in streams for tensor in graph.producer)
    has_embedding = any(graph.name(tensor) == EMBEDDING for tensor in graph.producer)
    places, place = {}, "embedding" if has_embedding else "block 1"
    for operator in graph.operators:
        tensor = int(operator.outputs[0])
        name = graph.name(tensor).split(";")[0]
        places[tensor] = place
        if name == EMBEDDING:
            place = "block 1"
        elif name in streams:
            place = f"block {streams[name] + 2}" if streams[name] + 1 < blocks else "head"
    return places


def _grid(graph, tensor):
    """Scale and zero point of a tensor, `(1, 0)` where it is float."""
    quantization = graph.subgraph.tensors[tensor].quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return np.float32(1), np.float32(0)
    return np.float32(quantization.scale[0]), np.float32(quantization.zeroPoint[0])


def _limits(graph, tensor):
    """The smallest and largest integer of a tensor's type, or None where it is float."""
    dtype = graph.dtype(tensor)
    if dtype not in ("INT8", "UINT8", "INT16"):
        return None
    limits = np.iinfo(dtype.lower())
    return np.array([limits.min, limits.max], np.float32)


def _dequantized(values, scale, zero_point):
    return (values.astype(np.float32) - zero_point) * scale


def _db(power, error):
    return float(10 * np.log10(max(power, 1e-30) / max(error, 1e-30)))


def advice(op, mode):
    """What to try against an operator's error, in a sentence."""
    known = MODES.get(mode)
    milder = known.advice if known and known.advice else "another mode"
    if op.cause == CLIPPING:
        return (
            f"{op.clipped:.2%} of its values are outside {op.low:.3g}..{op.high:.3g}: calibrate on more images, "
            f"and more like these; else {milder}."
        )
    if op.cause == ROUNDING:
        step = (op.high - op.low) / (65535 if op.dtype == "int16" else 255)
        return f"One scale for all its values makes steps of {step:.3g} in {op.low:.3g}..{op.high:.3g}: {milder}."
    if op.kind == "FULLY_CONNECTED":
        return f"Its weights, or its inputs as it rounds them itself, lose too much: {milder}."
    return f"Its integer kernel loses too much: {milder}."
