"""Does the file give the Keras model's answers? Parity and accuracy on the same images."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from keras_vit_plugin.files import read_file
from keras_vit_plugin.image_model.answers import CLASSES, LINEAR, LOGITS, MULTI_LABEL, Answer
from keras_vit_plugin.image_model.decibels import as_db, snr_db
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.gather import labelled_batches, spread
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.progress import track

from ..quantization.modes import mode_from_dict, tolerance_of_other_file
from ..quantization.tolerance import USUAL, Tolerance
from ..targets import TARGETS
from ..tflite.errors import InvalidModelFile
from ..tflite.flatbuffer import naming, read
from ..tflite.foreign_runner import guarded_runner
from ..tflite.metadata import answers_of, read_metadata
from ..tflite.operators import tensor_type
from ..tflite.runner import Runner
from ..tflite.webgpu import GPU_IMAGES, GpuReport, find_gpu, gpu_runner
from .comparison import Comparison

LEAST_IMAGES_TO_DOUBT = 20  # of which a model that is right as often as by chance is doubted
AT_ONCE = 64  # images, or a batch of the file where that is more


@dataclass(frozen=True)
class ParityReport:
    """One output of a `.tflite` against its Keras model on the same images.

    Attributes:
        images: how many.
        agreement: share of images, 0..1, with the same decision: the class with the highest score, yes or no, or, of
            several labels, the yes or no of the label that agrees least; None where the output decides nothing.
        snr_db: `10 log10(signal / noise)`, within +-300. The noise is the mean square of the error. The signal is the
            mean square of what carries the answer: class scores less their mean over the classes, all else less its
            mean over the images. The error of logits leaves out their mean over the classes too, which softmax
            ignores. Of several numbers it is that of the worst.
        max_abs_error: the largest error, in the output's own units.
        top1_accuracy_model, top1_accuracy_tflite: share of images whose decision is the label; None without labels.
        top1_by_chance: what the model would have of it if its decisions, as often each, had nothing to do with the
            labels (Cohen 1960); None without labels.
        name, task: of the output, as in `Answer`.
        relative_error: root mean square error as a share of the spread of the answers, which `snr_db` says in decibels.
        mean_abs_error: of a regression, in its own units.
        all_labels_agreement: share of images on which every label's yes or no is the same.
        cosine: mean cosine similarity of the vectors, of an embedding or of features.
        same_nearest: share of images, 0..1, whose nearest other image by the embedding is the same.
        others: the further outputs, one `ParityReport` each.
        gpu: what the GPU of this machine makes of a file for GPUs; None of other files.
    """

    images: int
    agreement: float | None
    snr_db: float
    max_abs_error: float
    top1_accuracy_model: float | None = None
    top1_accuracy_tflite: float | None = None
    top1_by_chance: float | None = None
    name: str = LOGITS.name
    task: str = CLASSES
    relative_error: float | None = None
    mean_abs_error: float | None = None
    all_labels_agreement: float | None = None
    cosine: float | None = None
    same_nearest: float | None = None
    others: tuple["ParityReport", ...] = ()
    gpu: GpuReport | None = None

    @property
    def top1_agreement(self):
        """`agreement`, as it is called of classes."""
        return self.agreement

    @property
    def model_guesses(self):
        """Whether the Keras model is right no more often than by chance, as far as so many images can tell."""
        chance = self.top1_by_chance
        if chance is None or self.images < LEAST_IMAGES_TO_DOUBT:
            return False
        return self.top1_accuracy_model <= chance + 2 * (chance * (1 - chance) / self.images) ** 0.5 and chance < 1

    def to_dict(self):
        return asdict(self)

    def in_words(self):
        """`{what: figure}` for people, the further outputs by their names."""
        words = {}
        if self.agreement is not None:
            of = {CLASSES: "same class", MULTI_LABEL: "same yes or no, worst label"}.get(self.task, "same yes or no")
            words[of] = f"{self.agreement:.1%} of {self.images} images"
        if self.all_labels_agreement is not None:
            words["all labels the same"] = f"{self.all_labels_agreement:.1%}"
        words["SNR"] = f"{self.snr_db:.1f} dB"
        if self.agreement is None:
            words["SNR"] += f" on {self.images} images"
            words["error relative to the spread"] = f"{self.relative_error:.2%}"
        if self.mean_abs_error is not None:
            words["mean error"] = f"{self.mean_abs_error:.3g}"
        words["largest error"] = f"{self.max_abs_error:.3g}"
        if self.cosine is not None:
            words["cosine similarity"] = f"{self.cosine:.5f}"
        if self.same_nearest is not None:
            words["same nearest image"] = f"{self.same_nearest:.1%}"
        if self.top1_accuracy_model is not None:
            words["top-1, Keras model"] = f"{self.top1_accuracy_model:.1%}"
            if self.model_guesses:
                chance = f"no more than by chance ({self.top1_by_chance:.1%})"
                words["top-1, Keras model"] += f", {chance}: check `pixels` (--pixels) and the order of the classes"
            words["top-1, file"] = f"{self.top1_accuracy_tflite:.1%}"
        if self.others:
            words = {f"{self.name}: {what}": figure for what, figure in words.items()}
            for other in self.others:
                words |= {f"{other.name}: {what}": figure for what, figure in other.in_words().items()}
        return words if self.gpu is None else words | self.gpu.in_words()


class ParityError(RuntimeError):
    """A file is too far from its Keras model. `report` holds the measurements; no file was written."""

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report


def keras_logits(model, images, scale, offset):
    """The Keras model's first output in float32 for raw pixels `(N, H, W, C)`."""
    return ImageModel(model, scale, offset)(images)[0]


def tflite_logits(content, images, num_threads=None):
    """The file's first output in float32 for raw pixels `(N, H, W, C)`."""
    return _run_by_batch(Runner(content, num_threads), images)


def _run_by_batch(runner, images):
    starts = range(0, len(images), runner.batch_size)
    return np.concatenate(
        [runner(images[start : start + runner.batch_size]) for start in track(starts, "Running the file")]
    )


def compare(reference, outputs, labels=None, answer=LOGITS):
    """A `ParityReport` of one output.

    Args:
        reference: the Keras model's, `(N, ...)`.
        outputs: the file's, of the same shape.
        labels: class indices `(N,)`, for an answer of classes; 0 and 1 for a binary one.
        answer: what the output means.

    Raises:
        ValueError: the shapes differ, or the reference holds NaN or infinity.
    """
    comparison = Comparison(answer)
    comparison.add(reference, outputs, labels)
    return _report_of([comparison])


def compare_all(references, outputs, labels, answers):
    """The `ParityReport` of the first output with those of the others in it; sequences of equal length."""
    comparisons = [Comparison(answer) for answer in answers]
    _add_all(comparisons, references, outputs, labels)
    return _report_of(comparisons)


def gpu_report(content, images, references, answers, others=None):
    """Runs a file for GPUs on the GPU of this machine, where LiteRT's WebGPU accelerator finds one.

    Args:
        content: bytes of the file.
        images: raw pixels 0..255 `(N, H, W, C)`, of which `GPU_IMAGES` are run.
        references: the Keras model's outputs `(N, ...)`, one for each answer.
        answers: the `Answer`s of the file.
        others: `{name: (N, ...)}` of the outputs besides.

    Returns:
        A `GpuReport`.

    Raises:
        InvalidModelFile: there is a GPU, and it does not run the file.
    """
    adapter, reason = find_gpu()
    if not adapter:
        return GpuReport(reason=reason)
    count = max(2, min(len(images), GPU_IMAGES))
    outputs = gpu_runner(content).outputs(_chosen(images, count))
    snr = {}
    for name, answer, reference in zip(names_in_file(list(outputs), answers), answers, references):
        snr[answer.name] = compare(_chosen(reference, count), outputs[name], answer=answer).snr_db
    for name, values in (others or {}).items():
        snr[name] = snr_db(_chosen(values, count), outputs[name])
    return GpuReport(adapter, images=count, snr_db=snr)


def _chosen(values, count):
    """So many of some values, evenly spaced; the only one as often."""
    return np.repeat(values, count, 0) if len(values) == 1 else spread(values, count)


def _add_all(comparisons, references, outputs, labels):
    for comparison, reference, output in zip(comparisons, references, outputs):
        comparison.add(reference, output, labels if len(comparisons) == 1 else None)


def _report_of(comparisons):
    first, *others = [
        ParityReport(
            snr_db=as_db(comparison.noise),
            relative_error=float(min(np.sqrt(comparison.noise), np.finfo(np.float32).max)),
            **comparison.figures(),
        )
        for comparison in comparisons
    ]
    return replace(first, others=tuple(others))


def as_file_gives(references, answers, file_answers):
    """The Keras model's outputs in the form in which a file gives them: probabilities of logits where it has a softmax
    of its own."""
    return tuple(
        answer.probabilities(reference) if answer.activation == LINEAR != given.activation else reference
        for reference, answer, given in zip(references, answers, file_answers)
    )


def verify(
    model,
    file,
    images,
    labels=None,
    mean=None,
    std=None,
    num_threads=None,
    *,
    pixels=None,
    file_pixels=None,
    task=None,
    image_shape=None,
):
    """Runs the same images through a Keras model and a `.tflite` and compares the answers.

    Args:
        model: the Keras model, on the TensorFlow backend.
        file: path or bytes of the `.tflite`. One without this package's metadata is given what the model is given.
        images: an image folder (with `labels.csv` or one sub-folder per class where labels are known), or raw pixels
            0..255 `(N, H, W, C)`, or as for `export_tflite`. Of a folder's photos few are in memory at a time.
        labels: class indices `(N,)` for an array of images.
        mean, std, pixels, task, image_shape: as for `export_tflite`, for a model that does not say them itself.
        num_threads: threads of the TFLite interpreter; None is one per core.
        file_pixels: for a file without this package's metadata, `"0..1"`, `"-1..1"` or `"0..255"`: the range of pixels
            that it takes, where that is not the model's.

    Returns:
        A `ParityReport`; of a file for GPUs with what the GPU of this machine makes of it, where there is one.

    Raises:
        ValueError: images, labels or file do not fit the model, or the interpreter or the GPU does not run the file.
    """
    content = file if isinstance(file, (bytes, bytearray)) else read_file(file)
    with naming(file):
        tree = read(content)
        metadata = read_metadata(tree)
        for_gpu = metadata is not None and target_of_file(metadata).half_precision
        runner = guarded_runner(content, num_threads)
    preprocessing = preprocessing_of(model, image_shape=image_shape)
    if metadata is not None and metadata.preprocessing.image_shape == preprocessing.image_shape:
        preprocessing = metadata.preprocessing  # as it is used on the device
    if runner.image_shape != preprocessing.image_shape:
        raise ValueError(f"The file takes images of {runner.image_shape}, the model of {preprocessing.image_shape}.")
    scale, offset = pixel_normalization(model, preprocessing.channels, mean, std, pixels)
    keras_model = ImageModel(model, scale, offset, task or _known_task(metadata), image_shape)
    if labels is not None and not keras_model.num_classes:
        tasks = ", ".join(f"{answer.name} ({answer.task})" for answer in keras_model.answers)
        raise ValueError(f"`labels` is for a model with one output that decides something; this one gives {tasks}.")
    given = None
    if metadata is None:
        given = (scale, offset)
        if file_pixels is not None:
            given = pixel_normalization(model, preprocessing.channels, pixels=file_pixels)
    elif file_pixels is not None:
        raise ValueError("`file_pixels` is for a file without this package's metadata; this one takes raw pixels.")
    with naming(file):
        names = names_in_file(list(runner.details), keras_model.answers)
    if metadata is None:
        answers = answers_of(tree, keras_model.answers, [int(runner.details[name]["index"]) for name in names])
    else:
        answers = _answers_as_told(metadata, keras_model.answers, task)
    comparisons = [Comparison(answer) for answer in answers]
    class_names = (metadata.labels if metadata else None) or ()
    at_once = -(-AT_ONCE // runner.batch_size) * runner.batch_size
    gpu = None
    for raw, classes in labelled_batches(images, labels, preprocessing, class_names, keras_model.num_classes, at_once):
        with naming(file):
            outputs = outputs_of(runner, raw, keras_model.answers, given)
        references = as_file_gives(keras_model(raw), keras_model.answers, answers)
        _add_all(comparisons, references, outputs, classes)
        if for_gpu and gpu is None:
            with naming(file):
                gpu = gpu_report(content, raw, references, answers)
    return replace(_report_of(comparisons), gpu=gpu)


def _answers_as_told(metadata, model_answers, task):
    """The `Answer`s of a file by its metadata; `task` counts for more of the outputs that it names."""
    if task is None:
        return metadata.answers
    named = task if isinstance(task, dict) and len(metadata.answers) > 1 else None
    return tuple(
        stored
        if named is not None and answer.name not in named
        else Answer(stored.name, answer.task, stored.activation if answer.has_decisions else LINEAR)
        for stored, answer in zip(metadata.answers, model_answers)
    )


def wanted_of(file, parity, min_agreement=None, min_snr_db=None):
    """The `Tolerance` that a file is to keep by its own mode, or by what is given.

    A file of another program is taken for `"float16"` where it holds no integer weights, and for `"int8"` otherwise.

    Args:
        file: path or bytes of the `.tflite`.
        parity: its `ParityReport`.
        min_agreement, min_snr_db: instead of the mode's own.
    """
    content = file if isinstance(file, (bytes, bytearray)) else read_file(file)
    with naming(file):
        tree = read(content)
        metadata = read_metadata(tree)
        if metadata is not None:
            usual = mode_of_file(metadata).tolerance
        else:
            has_integers = any(tensor_type(tensor) == "INT8" for tensor in tree.subgraphs[0].tensors)
            usual = tolerance_of_other_file(has_integers)
    usual = usual.on(parity.images)
    if parity.agreement is None and not any(other.agreement is not None for other in parity.others):
        if min_agreement is not None:
            raise ValueError(
                f"`min_agreement` is for outputs that decide something, this one gives {parity.task}; got "
                f"min_agreement={min_agreement}."
            )
        usual = Tolerance(None, usual.min_snr_db)
    return tolerance_of(min_agreement, min_snr_db).filled(usual)


def mode_of_file(metadata):
    """The `Mode` of a file, by its `Metadata`.

    Raises:
        InvalidModelFile: the metadata names no mode, one that no file is of, or options that it does not have.
    """
    try:
        mode = mode_from_dict(metadata.config)
    except (TypeError, ValueError) as error:  # also of an option of another type than its own
        raise InvalidModelFile(f"its metadata is wrong: {error!s:.200}") from error
    if mode.chooses:
        raise InvalidModelFile(f"its metadata is wrong: quantize={mode.name!r} is no mode of a file, it chooses one")
    return mode


def target_of_file(metadata):
    """The `Target` of a file, by its `Metadata`.

    Raises:
        InvalidModelFile: the metadata names none.
    """
    if metadata.target not in TARGETS:
        names = ", ".join(TARGETS)
        raise InvalidModelFile(f"its metadata is wrong: `target` must be one of {names}, got {metadata.target!s:.50}")
    return TARGETS[metadata.target]


def tolerance_of(min_agreement=None, min_snr_db=None):
    """A `Tolerance` of what a command was given, the usual one where it was given None."""
    return Tolerance(USUAL if min_agreement is None else min_agreement, USUAL if min_snr_db is None else min_snr_db)


def outputs_of(runner, images, answers, given=None):
    """A file's outputs `(N, ...)` float32, one for each answer, by name or, where it has other names, by order.

    Args:
        runner: a `Runner`, or another with its methods.
        images: raw pixels 0..255 `(N, H, W, C)`.
        answers: the `Answer`s wanted.
        given: `(scale, offset)` of what the file is given instead of raw pixels; None for one that takes those.

    Raises:
        ValueError: the file has fewer outputs.
    """
    parts = []
    for start in track(range(0, len(images), runner.batch_size), "Running the file"):
        batch = images[start : start + runner.batch_size]
        if given is not None:
            batch = (batch.astype(np.float32) * np.float32(given[0]) + np.float32(given[1])).astype(np.float32)
        parts.append(runner.outputs(batch))
    wanted = names_in_file(list(parts[0]), answers)
    return tuple(np.concatenate([part[name] for part in parts]).astype(np.float32) for name in wanted)


def names_in_file(names, answers):
    """The names that a file's outputs have, of all of its `names`, one for each answer.

    Raises:
        ValueError: the file has fewer outputs.
    """
    wanted = [answer.name for answer in answers]
    if set(wanted) <= set(names):
        return wanted
    if len(names) < len(wanted):
        raise ValueError(f"The model has {len(wanted)} outputs ({', '.join(wanted)}), the file {', '.join(names)}.")
    return names[: len(wanted)]


def _known_task(metadata):
    """`task` for an `ImageModel` from a file's metadata."""
    if metadata is None or len(metadata.answers) != 1:
        return None
    return metadata.answers[0].task
