"""Does the file give the Keras model's answers? Parity and accuracy on the same images."""

from dataclasses import replace

from keras_vit_plugin.files import read_file
from keras_vit_plugin.image_model.answers import LINEAR, Answer
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.images.gather import labelled_batches
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of

from ..quantization.modes import tolerance_of_other_file
from ..quantization.tolerance import USUAL, Tolerance
from ..tflite.flatbuffer import naming_the_file, read
from ..tflite.foreign_runner import guarded_runner
from ..tflite.metadata import answers_of, read_metadata
from ..tflite.operators import tensor_type
from .comparison import Comparison
from .gpu_parity import gpu_report
from .named import mode_of_file, target_of_file
from .outputs import as_file_gives, names_in_file, outputs_of
from .parity import add_all, report_of

AT_ONCE = 64  # images, or a batch of the file where that is more


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
    with naming_the_file(file):
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
    with naming_the_file(file):
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
        with naming_the_file(file):
            outputs = outputs_of(runner, raw, keras_model.answers, given)
        references = as_file_gives(keras_model(raw), keras_model.answers, answers)
        add_all(comparisons, references, outputs, classes)
        if for_gpu and gpu is None:
            with naming_the_file(file):
                gpu = gpu_report(content, raw, references, answers)
    return replace(report_of(comparisons), gpu=gpu)


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
    with naming_the_file(file):
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


def tolerance_of(min_agreement=None, min_snr_db=None):
    """A `Tolerance` of what a command was given, the usual one where it was given None."""
    return Tolerance(USUAL if min_agreement is None else min_agreement, USUAL if min_snr_db is None else min_snr_db)


def _known_task(metadata):
    """`task` for an `ImageModel` from a file's metadata."""
    if metadata is None or len(metadata.answers) != 1:
        return None
    return metadata.answers[0].task
