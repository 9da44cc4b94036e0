"""Does the file give the Keras model's answers? Parity and accuracy on the same images."""

from dataclasses import asdict, dataclass

import numpy as np

from .files import read_file
from .flatbuffer import get_metadata, naming, read
from .images import gather_labelled
from .interpreter import Runner
from .preprocessing import pixel_normalization, preprocessing_of
from .progress import track

KERAS_BATCH = 16
SNR_CEILING_DB = 300.0  # what two equal outputs are given, since JSON has no infinity


@dataclass(frozen=True)
class ParityReport:
    """A `.tflite` against its Keras model on the same images.

    `snr_db` is 10 log10(mean(ref^2) / mean((out - ref)^2)) over all logits, at most 300. The accuracies are None
    where labels are unknown.
    """

    images: int
    top1_agreement: float
    snr_db: float
    max_abs_error: float
    top1_accuracy_model: float | None = None
    top1_accuracy_tflite: float | None = None

    def to_dict(self):
        return asdict(self)


@dataclass(frozen=True)
class Tolerance:
    """The least that a file must reach to be written.

    Args:
        min_agreement: share of images, 0..1, with the Keras model's top-1 answer.
        min_snr_db: signal-to-noise ratio of the logits in dB.
    """

    min_agreement: float
    min_snr_db: float

    def __post_init__(self):
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f"`min_agreement` must be in 0..1, got {self.min_agreement}.")

    def holds(self, parity):
        return parity.top1_agreement >= self.min_agreement and parity.snr_db >= self.min_snr_db


# What each mode must keep when the caller names no tolerance.
TOLERANCES = {
    "float32": Tolerance(1.0, 80.0),
    "float16": Tolerance(0.99, 40.0),
    "dynamic": Tolerance(0.95, 15.0),
    "int8": Tolerance(0.93, 12.0),
    "int8-full": Tolerance(0.90, 8.0),
    "int16x8": Tolerance(0.97, 20.0),
    "int4": Tolerance(0.85, 5.0),
}


class ParityError(RuntimeError):
    """A file is too far from its Keras model. `report` holds the measurements; no file was written."""

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report


def keras_logits(model, images, scale, offset):
    """The Keras model's outputs in float32 for raw pixels `(N, H, W, C)`."""
    import keras

    outputs = []
    for start in track(range(0, len(images), KERAS_BATCH), "Running the Keras model"):
        batch = images[start : start + KERAS_BATCH].astype(np.float32)
        x = (batch * np.float32(scale) + np.float32(offset)).astype(np.float32)
        outputs.append(np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), np.float32))
    return np.concatenate(outputs)


def tflite_logits(content, images, num_threads=None):
    """The file's outputs in float32 for raw pixels `(N, H, W, C)`."""
    runner = Runner(content, num_threads)
    batch = int(runner.input["shape"][0])
    starts = range(0, len(images), batch)
    return np.concatenate([runner(images[start : start + batch]) for start in track(starts, "Running the file")])


def snr_db(reference, output):
    """`10 log10(mean(reference^2) / mean((output - reference)^2))`, within +-300."""
    noise, signal = np.square(output - reference).mean(), np.square(reference).mean()
    if noise == 0:
        return SNR_CEILING_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -SNR_CEILING_DB, SNR_CEILING_DB))


def compare(reference, outputs, labels=None):
    """A `ParityReport` from two arrays of logits `(N, classes)`.

    Raises:
        ValueError: the shapes differ, or the reference holds NaN or infinity.
    """
    if reference.shape != outputs.shape:
        raise ValueError(f"The model gives logits of shape {reference.shape}, the file {outputs.shape}.")
    if not np.isfinite(reference).all():
        raise ValueError("The Keras model gives NaN or infinity on these images.")
    reference, outputs = reference.astype(np.float64), outputs.astype(np.float64)
    error = np.where(np.isfinite(outputs), outputs - reference, np.inf)
    ours, theirs = outputs.argmax(1), reference.argmax(1)
    return ParityReport(
        images=len(reference),
        top1_agreement=float((ours == theirs).mean()),
        snr_db=snr_db(reference, reference + error),
        max_abs_error=float(min(np.abs(error).max(), np.finfo(np.float32).max)),  # JSON has no infinity
        top1_accuracy_model=None if labels is None else float((theirs == labels).mean()),
        top1_accuracy_tflite=None if labels is None else float((ours == labels).mean()),
    )


def verify(model, file, images, labels=None, mean=None, std=None, num_threads=None):
    """Runs the same images through a Keras model and a `.tflite` and compares the answers.

    Args:
        model: the Keras model, on the TensorFlow backend.
        file: path or bytes of the `.tflite`.
        images: an image folder (with `labels.csv` or one sub-folder per class where labels are known), or raw pixels
            0..255 `(N, H, W, C)`.
        labels: class indices `(N,)` for an array of images.
        mean, std: as for `export_tflite`, for a model that does not say them itself.
        num_threads: threads of the TFLite interpreter; None is one per core.

    Returns:
        A `ParityReport`.

    Raises:
        ValueError: images, labels or file do not fit the model.
    """
    content = file if isinstance(file, (bytes, bytearray)) else read_file(file)
    with naming(file):
        metadata = get_metadata(read(content))
        taken = Runner(content).image_shape
    preprocessing = preprocessing_of(model)
    if taken != preprocessing.image_shape:
        raise ValueError(f"The file takes images of {taken}, the model of {preprocessing.image_shape}.")
    scale, offset = pixel_normalization(model, preprocessing.channels, mean, std)
    class_names, num_classes = metadata.get("labels") or (), model.output_shape[-1]
    pixels, labels = gather_labelled(images, labels, preprocessing, class_names, num_classes)
    reference, outputs = keras_logits(model, pixels, scale, offset), tflite_logits(content, pixels, num_threads)
    if metadata.get("outputs", [None])[0] == "probabilities":  # their logarithms are the logits but for one number
        outputs = np.log(np.maximum(outputs, np.finfo(np.float32).tiny))
        outputs += (reference - outputs).mean(1, keepdims=True)
    return compare(reference, outputs, labels)
