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
from ..tflite.flatbuffer import naming_the_file, read
from ..tflite.foreign_runner import check_runs
from ..tflite.graph import MOVES, Graph
from ..tflite.metadata import read_metadata
from ..tflite.runner import computed_tensors
from .error_sums import ErrorSums, dequantized, grid_of, limits_of, places_of
from .named import mode_of_file, target_of_file
from .op_error import OpError

DEBUGGED_IMAGES = 8


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
    with naming_the_file(tflite):
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
    float_file = Graph(lowered)
    if not has_derivatives(float_file):
        raise ValueError("`model` has operators that have no derivative here.")
    return _report(lowered, float_file, file, content, images, mode.name, keras_model.answers[0])


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


def _report(lowered, float_file, file, content, images, mode, answer):
    indices = {tensor.name.decode(): index for index, tensor in enumerate(file.subgraph.tensors)}
    # What the rest of the file reads where a value is there in float and rounded.
    same = {
        tensor: indices.get(f"{float_file.name(tensor)}_quantized", indices.get(float_file.name(tensor)))
        for tensor in float_file.producer
    }
    places = places_of(float_file)
    compared = [
        operator
        for operator in float_file.operators
        if float_file.kind(operator) not in (*MOVES, "CAST") and same[int(operator.outputs[0])] is not None
    ]
    sums = {id(operator): ErrorSums() for operator in compared}
    logits, outputs, computed_outputs = int(float_file.subgraph.outputs[0]), [], []
    scales = output_scales(lowered, images, (answer,))
    generator, logit_gradients = np.random.default_rng(0), LogitGradients(float_file, (answer,), scales)
    batch_size = int(file.subgraph.tensors[file.image].shape[0])
    calls = computed_tensors(content, np.repeat(images, batch_size, axis=0))
    for image, tensor in zip(track(images, "Comparing"), calls):
        batch = np.broadcast_to(image, float_file.subgraph.tensors[float_file.image].shape)
        values, gradients = logit_gradients(batch, generator)

        held = {}  # by the file, in the float_file's tensors
        for operator in float_file.operators:
            index = int(operator.outputs[0])
            if same[index] is not None:
                held[index] = dequantized(tensor(same[index]), *grid_of(file, same[index])).reshape(
                    float_file.subgraph.tensors[index].shape
                )
        held[float_file.image] = batch.astype(np.float32)
        for operator in float_file.operators:  # what the file does not hold follows from what it does
            if int(operator.outputs[0]) not in held:
                held[int(operator.outputs[0])] = run_operator(float_file, operator, held).numpy()
        for operator in compared:
            index = int(operator.outputs[0])
            sums[id(operator)].add(
                wanted=values[index],
                exact=np.ravel(run_operator(float_file, operator, held)),
                got=held[index].ravel(),
                gradient=gradients[index],
                grid=grid_of(file, same[index]),
                limits=limits_of(file, same[index]),
            )
        for array, found in ((values, outputs), (held, computed_outputs)):
            found.append(np.reshape(array[logits], float_file.shape(logits))[:1])
    logits_snr_db = as_db(answer.noise(np.concatenate(outputs), np.concatenate(computed_outputs)))
    ops = [
        sums[id(operator)].result(
            name=file.name(same[int(operator.outputs[0])]),
            kind=float_file.kind(operator),
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
