"""Keras model -> spec -> rewrites -> float file -> quantized file -> verified -> written."""

import time
from typing import Unpack

from keras_vit_plugin.files import write_atomically
from keras_vit_plugin.image_model.check import weights_hash
from keras_vit_plugin.images.gather import fingerprint
from keras_vit_plugin.images.normalization import pixel_words, two_lines
from keras_vit_plugin.images.preprocessing import says_how_to_resize
from keras_vit_plugin.version import VERSION

from .finish import Finish
from .float_files import FloatFiles
from .job import job_of
from .make import made
from .page import as_page
from .report import ExportReport, changed_answers
from .request import Options, rejected_path, request_of
from .tflite.inspect import inspect
from .tflite.metadata import Metadata
from .tflite.stored_metadata import check_same_but_metadata
from .verdict import oracle_of, verdict_of
from .verification.parity import ParityError


def export_tflite(
    model,
    path,
    quantize="float32",
    target="litert",
    calibration=None,
    labels=None,
    *,
    verification=None,
    tolerance=None,
    report=None,
    outputs=(),
    task=None,
    **options: Unpack[Options],
):
    """Converts a Keras model of images to a `.tflite`, compares it with the model, and writes it if it held.

    The file has one signature, `serving_default`: `images`, raw pixels `(batch_size, H, W, C)`, to the model's outputs
    and the `outputs` asked for. A single output is called `logits`, `probabilities` where the model ends in a softmax
    or sigmoid, `values` of a regression, `embedding` or `features`; several have their Keras names. Normalization is
    folded in; resizing is the caller's. What is written is verified last, as the target opens it.

    Args:
        model: a built Keras model with one input of images, on the TensorFlow backend. This package's classifiers are
            rewritten and lowered to a faster graph; any other is converted as it is, in float32 whatever its policy.
        path: where to write, ending in `.tflite`.
        quantize: a `Mode` with its options, such as `Int8(prefer="accuracy")`, or the name of one with the usual ones:
            `"float32"`, `"float16"` (weights), `"dynamic"` (int8 weights, activations quantized on the fly), `"int8"`
            (dense layers and attention matmuls in int8, the rest in float: the fastest on a CPU), `"int8-full"` (every
            tensor between input and output in int8), `"int16x8"` (the same with activations in int16, for integer
            hardware that needs accuracy), `"int4"` (weights mostly in 4 bits: the smallest) or `"auto"`: of `"int4"`,
            `"dynamic"`, `"int8"`, `"float16"` and `"float32"`, with more or fewer operators or layers left out, the
            cheapest that keeps what is asked for.
        target: the runtime that the file is for: `"litert"` (ai-edge-litert 2.x), or `"tflite-runtime"` (2.14.0, the
            last of that package), where GELU is written in ops that its delegate runs, and `"dynamic"` and `"int8"`
            hold weights in int8 and compute in float, since its delegate has no integer kernels; `"gpu"`, for
            `"float16"`, in the ops and shapes that GPUs run, and within the range of half precision; or `"mediapipe"`,
            for its ImageClassifier: with TFLite metadata, labels, and probabilities out (needs the package mediapipe).
        calibration: images to measure activations on, needed for `"int4"` and every mode with int8 or int16
            activations; `"dynamic"` rounds its weights better with them: an image folder, raw pixels 0..255
            `(N, H, W, C)`, an iterable of images or batches, or a `tf.data.Dataset`. 64 are used, 256 for `"int4"`;
            equal ones count once.
        labels: class names of the first output, stored in the file: a sequence in index order, `{index: name}`,
            `{name: index}`, the path of a text file with one a line, or of a folder with a sub-folder per class.
        mean, std: for pixels scaled to 0..1, per channel or one number; only for a model that does not say them.
        pixels: instead of those, the range of the model's input: `"0..1"`, `"-1..1"` or `"0..255"`.
        resize, interpolation: how photos of an image folder become images of the model's size, on the device too:
            `"cover"`, `"pad"` or `"stretch"`, and `"bilinear"`, `"bicubic"`, `"lanczos3"` or `"nearest"`. None takes
            the rule of the model's image converter, or else stretches, bilinear, as Keras's
            `image_dataset_from_directory`.
        image_shape: `(height, width, channels)`, for a model that does not say it: one whose input has open sides, or a
            subclassed one that did not record what it was built with.
        input_dtype: `"uint8"` or `"float32"`, both for pixels of 0..255; or, where every tensor is integer,
            `"int8"` for pixels less 128. None is `"uint8"`, and `"float32"` for GPUs, which take nothing else.
        output_dtype: `"float32"`; or, where every tensor is integer, that of the activations, `"int8"` or `"int16"`,
            for logits as they are quantized.
        batch_size: images per call.
        outputs: what the file gives besides `logits`: `"embedding"`, the features before the head `(batch_size, D)`,
            and `"attention"`, `(batch_size, rows, columns)`: how much of each patch the answer draws on in the last
            block. For this package's classifiers in `OUTPUT_MODES`; each is compared with the model's.
        task: what the outputs mean: `"classes"`, `"binary"`, `"multi-label"`, `"regression"`, `"embedding"` or
            `"features"`, or `{output name: task}`. None asks the model: its last activation, the loss it was compiled
            with, the shape. It decides how the file is compared with the model.
        verification: images to compare on, as for `calibration`; those that are calibrated on are left out. None
            holds out some of the calibration images, which nothing is fitted on, or takes synthetic ones where there
            are none.
        tolerance: a `Tolerance`; None takes the mode's own (`Mode.tolerance`), as does a part of it that is not given.
            Every output must keep it.
        report: where to write the report as a page, ending in `.html`; it needs matplotlib. It is written even where
            the file is too far from the model to be.
        debug_passes: whether the model is computed after every rewrite, in float64: an error names the one that changed
            it. It takes seconds a rewrite.
        keep_rejected: whether a file that is too far from the model is kept as `NAME.rejected.tflite`, to be looked at
            with `debug` and `verify`.
        runtime_python: for `"tflite-runtime"`: path of a Python that has it; the file is verified there.
        narrow_range: whether all images to come have as little contrast as the calibration's. Otherwise calibration
            images whose pixels cover less than a quarter of 0..255 are refused, and so is a calibrated file that is far
            from the model on contrast-stretched or synthetic images.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: an argument, the model or an image is unfit; raised before any long work.
        TypeError: there is no such argument.
        ImportError: `report` is asked for and matplotlib is not installed.
        ParityError: the file is further from the model than the tolerance, or nothing keeps what `"auto"` was asked
            for: its `report` is that of the best. Nothing is written.
        UnsupportedByTarget: the target cannot run an op of the graph. Nothing is written.
    """
    started = time.perf_counter()
    request = request_of(
        path,
        quantize,
        target,
        outputs,
        calibration=calibration,
        labels=labels,
        verification=verification,
        tolerance=tolerance,
        report=report,
        task=task,
        **options,
    )
    job = job_of(model, request)
    files = FloatFiles(
        job.keras_model,
        job.images.calibration,
        request.target,
        request.batch_size,
        request.float_input,
        request.outputs,
        request.debug_passes,
    )
    oracle = oracle_of(job, files)
    finish = finish_of(job)
    quantized = made(job, files, finish)
    finish = finish.of_mode(quantized.mode)
    finished = finish(quantized.content)
    verdict = verdict_of(job, oracle, quantized, finished, finish, debuggable=files.road == "spec")
    content = finish(quantized.content, verdict.parity, verdict.verified_by, verdict.refusal)
    if not verdict.refusal:
        check_same_but_metadata(content, finished)
    seconds = time.perf_counter() - started
    found = report_of(job, files, quantized, finish, verdict, content, seconds)
    page = None if report is None else as_page(found, job.images.verification, job.labels)
    if not verdict.refusal:
        write_atomically(path, content)
    elif request.keep_rejected:
        write_atomically(rejected_path(path), content)
    if page is not None:
        write_atomically(report, page.encode(errors="backslashreplace"))
    if verdict.refusal:
        raise ParityError(verdict.refusal, found)
    return found


def finish_of(job):
    """The `Finish` of a `Job`, with all that is known before the file is verified."""
    request, images = job.request, job.images
    metadata = Metadata(
        version=VERSION,
        config=request.mode.to_dict(),
        target=request.target.name,
        outputs=request.outputs,
        answers=job.answers,
        labels=job.labels,
        preprocessing=job.preprocessing,
        parity={},
        verified_on=images.verified_on,
        verified_by="",
        weights_sha256=weights_hash(job.model),
        calibration_sha256=None if images.calibration is None else fingerprint(images.calibration),
        calibrated_for=request.mode.name,
        held_out=images.most_held_out,
    )
    return Finish(metadata, request.target, job.model.name)


def report_of(job, files, made, finish, verdict, content, seconds):
    """The `ExportReport` of a `Job`."""
    request, model, preprocessing = job.request, job.model, job.preprocessing
    told = {"mean": request.mean, "std": request.std, "pixels": request.pixels}
    return ExportReport(
        path=None if verdict.refusal else str(request.path),
        mode=made.mode.name,
        config=made.mode.to_dict(),
        target=request.target.name,
        road=files.road,
        road_reason=files.road_reason,
        rewrites={name: bool(change) for name, change in files.changes.items()},
        changes=files.changes,
        reasons=files.reasons,
        size_bytes=len(content),
        parity=verdict.parity,
        verified_on=job.images.verified_on,
        verified_by=verdict.verified_by,
        answers=finish.answers,
        block_snr_db=verdict.block_snr_db,
        shifts=verdict.shifts,
        ranges=verdict.ranges,
        others_snr_db=verdict.others_snr_db,
        changed_answers=changed_answers(verdict.reference, verdict.outputs, finish.answers[0]),
        guessed=tuple(answer.name for answer, said in zip(finish.answers, job.keras_model.told) if not said),
        input=_input_description(preprocessing, request.input_dtype, request.batch_size),
        photos=_photos_in_words(preprocessing, model, request.resize),
        pixels=pixel_words(model, preprocessing.channels, **told),
        keras_lines=two_lines(preprocessing, model, **told),
        file=inspect(content),
        seconds=seconds,
        choice=made.choice,
        tried=made.tried,
    )


def _input_description(preprocessing, input_dtype, batch_size):
    height, width = preprocessing.size
    pixels = "pixels less 128, -128..127" if input_dtype == "int8" else "pixels 0..255"
    return f"{input_dtype} {preprocessing.colour} {pixels}, [{batch_size}, {height}, {width}, {preprocessing.channels}]"


def _photos_in_words(preprocessing, model, resize):
    if resize is not None or says_how_to_resize(model):
        return preprocessing.words
    return f"{preprocessing.words}; stretched as Keras does, since the model does not say it: `resize` (--resize)"
