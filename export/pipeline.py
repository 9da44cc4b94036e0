"""Keras model -> spec -> rewrites -> float file -> quantized file -> verified -> written."""

import shlex
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_vit_plugin.files import check_apart, check_writable, write_atomically
from keras_vit_plugin.image_model.check import check_model, weights_hash
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.image_model.labels import check_label_per_output, checked_labels
from keras_vit_plugin.images.gather import fingerprint, spread
from keras_vit_plugin.images.preprocessing import (
    pixel_normalization,
    pixel_words,
    preprocessing_of,
    says_how_to_resize,
    two_lines,
)
from keras_vit_plugin.version import VERSION

from .finish import Finish
from .float_files import FloatFiles
from .image_sets import gather_all
from .page import as_page
from .quantization.auto.constraints import checked_wish
from .quantization.auto.search import explanation, search
from .quantization.quantize import quantize as quantize_file
from .report import ExportReport, changed_answers
from .request import check_answers, check_arguments, check_paths, check_verification, checked_outputs, wish_of
from .targets.gpu_rules import gpu_problems
from .targets.mediapipe_metadata import require_mediapipe
from .targets.open_file import target_runner
from .targets.target import TARGETS, check_target
from .tflite.errors import InvalidModelFile, UnsupportedByTarget
from .tflite.flatbuffer import read
from .tflite.foreign_runner import foreign_load_error
from .tflite.inspect import inspect
from .tflite.metadata import Metadata
from .tflite.operators import hybrid_ops, op_versions
from .tflite.runner import Runner, load_error
from .tflite.stored_metadata import check_same_but_metadata
from .verification.distribution_shift import shift_reports, shifted_too_far
from .verification.half_precision import half_precision_outputs
from .verification.range_use import range_use
from .verification.snr_per_block import snr_per_block
from .verification.verify import (
    HALF_SUMS_DB,
    USUAL,
    ParityError,
    as_file_gives,
    compare,
    compare_all,
    gpu_report,
    outputs_of,
    snr_db,
    usual_tolerance,
)

STREAMED_IMAGES = 8
RANGE_IMAGES = 12


def export_tflite(
    model,
    path,
    quantize="float32",
    target="litert",
    calibration=None,
    labels=None,
    *,
    prefer="speed",
    mean=None,
    std=None,
    input_dtype=None,
    output_dtype="float32",
    block_size=None,
    batch_size=1,
    outputs=(),
    task=None,
    pixels=None,
    resize=None,
    interpolation=None,
    image_shape=None,
    verification=None,
    tolerance=None,
    report=None,
    min_agreement=None,
    max_top1_drop=None,
    max_size=None,
    max_relative_error=None,
    keep_rejected=False,
    runtime_python=None,
    narrow_range=False,
    cpu=None,
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
        quantize: `"float32"`, `"float16"` (weights), `"dynamic"` (int8 weights, activations quantized on the fly),
            `"int8"` (dense layers and attention matmuls in int8, the rest in float: the fastest on a CPU),
            `"int8-full"` (every tensor between input and output in int8), `"int16x8"` (the same with activations in
            int16, for integer hardware that needs accuracy), `"int4"` (weights mostly in 4 bits: the smallest) or
            `"auto"`: of `"int4"`, `"dynamic"`, `"int8"`, `"float16"` and `"float32"`, with more or fewer operators or
            layers left out, the cheapest that keeps what is wished for.
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
        prefer: for `"int8"`: `"speed"`, or `"accuracy"`, which is slower and closer to the model; for `"auto"`:
            `"speed"` or `"size"`, what is cheap.
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
        block_size: for `"int4"`: 32, 64, 128 or 256 inputs share a scale, in layers whose inputs it divides: more
            accurate and larger; None gives each output channel one scale.
        batch_size: images per call.
        outputs: what the file gives besides `logits`: `"embedding"`, the features before the head `(batch_size, D)`,
            and `"attention"`, `(batch_size, rows, columns)`: how much of each patch the answer draws on in the last
            block. For this package's classifiers in `OUTPUT_MODES`; each is compared with the model's.
        task: what the outputs mean: `"classes"`, `"binary"`, `"multi-label"`, `"regression"`, `"embedding"` or
            `"features"`, or `{output name: task}`. None asks the model: its last activation, the loss it was compiled
            with, the shape. It decides by what the file is judged.
        verification: images to compare on, as for `calibration`; those that are calibrated on are left out. None
            holds out some of the calibration images, which nothing is fitted on, or takes synthetic ones where there
            are none.
        tolerance: a `Tolerance`; None takes the mode's own (`usual_tolerance`), as does a part of it that is not given.
            Every output must keep it.
        report: where to write the report as a page, ending in `.html`; it needs matplotlib. It is written even where
            the file is too far from the model to be.
        min_agreement: for `"auto"`: the share of images, 0..1, that keep the model's decision, of the worst label or
            output; 0.99 where nothing is wished for. It is proved on held-out calibration images, up to 1,024, with a
            certainty of 90 % for the whole search; where they are too few, the report says what is proved.
        max_top1_drop: for `"auto"`: accuracy that may be lost, in points of percent; the calibration folder needs
            labels.
        max_size: for `"auto"`: bytes. Alone it asks for the most accurate file of that size.
        max_relative_error: for `"auto"`: root mean square error, as a share of the spread of the model's answers; 0.05
            is wished for of outputs that decide nothing.
        keep_rejected: whether a file that is too far from the model is kept as `NAME.rejected.tflite`, to be looked at
            with `debug` and `verify`.
        runtime_python: for `"tflite-runtime"`: path of a Python that has it; the file is verified there.
        narrow_range: whether all images to come have as little contrast as the calibration's. Otherwise calibration
            images whose pixels cover less than a quarter of 0..255 are refused, and so is a calibrated file that is far
            from the model on contrast-stretched or synthetic images.
        cpu: for `"int8"` and `"auto"`: the CPUs that the file is for: `"x86-vnni"` (AVX-512 VNNI), `"x86-avx2"`,
            `"arm-dotprod"` (Cortex-A76 and later) or `"arm"`. What an operator costs there decides which of them leave
            int8 first; a file runs on all. None is the target's.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: an argument, the model or an image is unfit; raised before any long work.
        ImportError: `report` is asked for and matplotlib is not installed.
        ParityError: the file is further from the model than the tolerance, or nothing keeps what `"auto"` was asked
            for: its `report` is that of the best. Nothing is written.
        UnsupportedByTarget: the target cannot run an op of the graph. Nothing is written.
    """
    started = time.perf_counter()
    check_arguments(quantize, target, prefer, input_dtype, output_dtype, block_size, batch_size, tolerance, cpu)
    check_paths(path, report, quantize, calibration, target, runtime_python)
    if keep_rejected:
        check_writable(rejected_path(path), ".tflite")
    check_apart({"path": path, "report": report}, {"labels": labels})
    if input_dtype is None:
        input_dtype = TARGETS[target].input_dtypes[0]
    outputs = checked_outputs(outputs, quantize, target)
    wish = wish_of(quantize, min_agreement, max_top1_drop, max_size, max_relative_error)
    batch_size = int(batch_size)
    check_model(model)
    preprocessing = preprocessing_of(model, resize, interpolation, image_shape)
    scale, offset = pixel_normalization(model, preprocessing.channels, mean, std, pixels)
    keras_model = ImageModel(model, scale, offset, task, image_shape)
    check_answers(keras_model, target, outputs, batch_size, tolerance)
    labels = checked_labels(labels, keras_model)
    if TARGETS[target].labels_inside:
        require_mediapipe()
        check_label_per_output(labels, keras_model, target)
        if labels is None or preprocessing.channels != 3:
            lacking = "`labels`, got none" if labels is None else f"RGB images, got {preprocessing.channels} channel(s)"
            raise ValueError(f"target={target!r} needs {lacking}.")
    wish = None if wish is None else checked_wish(wish, keras_model.answers)
    judged = 0 if wish is None else wish.images_wanted
    images = gather_all(
        calibration,
        verification,
        quantize,
        judged,
        preprocessing,
        labels or (),
        keras_model.num_classes or 0,
        narrow_range,
    )
    check_verification(images.verification, keras_model.answers)
    if wish is not None and wish.max_top1_drop is not None and images.judged_labels is None:
        raise ValueError("`max_top1_drop` needs labels: give a folder with labels.csv, or a sub-folder per class.")

    float_input = "float32" if input_dtype == "float32" else "uint8"
    files = FloatFiles(keras_model, images.calibration, batch_size, float_input, target, outputs, cpu)
    seen = spread(images.verification, STREAMED_IMAGES)
    expected, streams = files.expected(seen), files.streams(seen)
    finish = _finish(model, keras_model, quantize, prefer, target, outputs, labels, preprocessing, images)
    tried, choice = (), ""
    if wish is not None:
        names = [answer.name for answer in keras_model.answers]
        content, chosen, tried = search(
            files,
            images.calibration,
            images.judged,
            dict(zip(names, keras_model(images.judged))),
            images.judged_labels,
            wish,
            prefer,
            answers=keras_model.answers,
            finish=finish,
            run=lambda file, judged: dict(zip(names, outputs_of(Runner(file), judged, keras_model.answers))),
        )
        choice = explanation(chosen, tried, wish, prefer, len(images.judged))
        quantize, prefer = chosen.mode, chosen.prefer
        finish = replace(finish, metadata=replace(finish.metadata, mode=quantize, prefer=prefer))
        float_content = files.lowered(quantize, prefer)
    else:
        float_content = files.lowered(quantize, prefer)
        files.forget()
        integer_dense = files.target.integer_dense
        content = quantize_file(
            float_content,
            quantize,
            images.calibration,
            prefer,
            input_dtype,
            output_dtype,
            block_size,
            integer_dense,
            keras_model.answers,
            files.cpu,
        )
    finished = finish(content)
    tree = read(finished)
    unloadable = load_error(finished) if files.target.at_hand else None
    if runtime_python is not None:
        unloadable = foreign_load_error(finished, runtime_python)
    check_target(op_versions(tree), target, hybrid_ops(tree), gpu_problems(tree), unloadable)

    def reference_of(pixels):
        return as_file_gives(keras_model(pixels), keras_model.answers, finish.answers)

    references = reference_of(images.verification)
    if images.verified_on == "synthetic" and not all(np.isfinite(reference).all() for reference in references):
        raise ValueError(
            "The Keras model gives NaN or infinity on the synthetic images that it is verified on where no others are "
            "given: pass images in `verification` (--verification DIR)."
        )
    try:
        runner, verified_by = target_runner(finished, target, runtime_python)
        computed = outputs_of(runner, images.verification, finish.answers)
        gpu = None
        if files.target.gpu:
            gpu = gpu_report(finished, seen, [spread(each, len(seen)) for each in references], finish.answers, expected)
    except InvalidModelFile as error:
        raise UnsupportedByTarget(f"The {quantize} file does not run there: {error}") from error
    shifts, ranges = (), None
    if images.calibration is not None and quantize not in ("float32", "float16"):
        quick = runner if isinstance(runner, Runner) else Runner(finished)  # others start a process for each call
        ranges = range_use(finished, float_content, spread(images.verification, RANGE_IMAGES))
        shifts = shift_reports(
            images.verification,
            finish.answers,
            references,
            reference_of,
            lambda pixels: outputs_of(quick, pixels, finish.answers),
            finished,
            float_content,
        )
    parity = replace(compare_all(references, computed, images.labels, finish.answers), gpu=gpu)
    others = _others_snr_db(finished, seen, expected, references, finish.answers, files.target.gpu)
    block_snr_db = tuple(snr_per_block(finished, streams, seen)) if streams else ()
    usual = default_tolerance(quantize, images.verified_on, len(images.verification))
    wanted = usual if tolerance is None else tolerance.filled(usual)
    unsaid = tolerance is None or tolerance.min_agreement == USUAL
    if tried and unsaid and images.verified_on == "verification":
        wanted = replace(wanted, min_agreement=max(wanted.min_agreement or 0.0, wish.min_agreement or 0.0))
    too_far = wanted.too_far(others)
    if gpu is not None and gpu.adapter:
        verified_by = f"{verified_by}, and on {gpu.adapter}"
        too_far += [f"{output} on {gpu.adapter}" for output in wanted.too_far(gpu.snr_db, HALF_SUMS_DB)]
    shifted = "" if narrow_range else shifted_too_far(shifts, wanted.min_snr_db)
    holds = wanted.holds(parity) and not too_far and not shifted and (not tried or chosen.fits)
    kept = rejected_path(path) if keep_rejected else None
    message = ""
    if not holds:
        calibrated, debuggable = images.calibration is not None, files.road == "spec"
        message = _refusal(quantize, parity, images.verified_on, wanted, too_far, shifted, debuggable, calibrated, kept)
        if tried and not chosen.fits:
            message = f"{choice} {message}"
    content = finish(content, parity, verified_by, message)
    if holds:
        check_same_but_metadata(content, finished)
    made = ExportReport(
        path=str(path) if holds else None,
        mode=quantize,
        target=target,
        road=files.road,
        road_reason=files.road_reason,
        rewrites={name: bool(change) for name, change in files.changes.items()},
        changes=files.changes,
        reasons=files.reasons,
        size_bytes=len(content),
        parity=parity,
        verified_on=images.verified_on,
        verified_by=verified_by,
        answers=finish.answers,
        block_snr_db=block_snr_db,
        shifts=shifts,
        ranges=ranges,
        others_snr_db=others,
        changed_answers=changed_answers(references[0], computed[0], finish.answers[0]),
        guessed=tuple(answer.name for answer, told in zip(finish.answers, keras_model.told) if not told),
        input=_input_description(preprocessing, input_dtype, batch_size),
        photos=_photos_in_words(preprocessing, model, resize),
        pixels=pixel_words(model, preprocessing.channels, mean, std, pixels),
        keras_lines=two_lines(preprocessing, model, mean, std, pixels),
        file=inspect(content),
        seconds=time.perf_counter() - started,
        choice=choice,
        tried=tried,
    )
    page = None if report is None else as_page(made, images.verification, labels).encode(errors="backslashreplace")
    if holds:
        write_atomically(path, content)
    elif keep_rejected:
        write_atomically(kept, content)
    if report is not None:
        write_atomically(report, page)
    if not holds:
        raise ParityError(message, made)
    return made


def _finish(model, keras_model, mode, prefer, target, outputs, labels, preprocessing, images):
    """The `Finish` of an export, with all that is known before the file is verified."""
    metadata = Metadata(
        version=VERSION,
        mode=mode,
        prefer=prefer,
        target=target,
        outputs=outputs,
        answers=keras_model.answers,
        labels=labels,
        preprocessing=preprocessing,
        parity={},
        verified_on=images.verified_on,
        verified_by="",
        weights_sha256=weights_hash(model),
        calibration_sha256=None if images.calibration is None else fingerprint(images.calibration),
        calibrated_for=mode,
        held_out=images.held_out,
    )
    return Finish(metadata, TARGETS[target].labels_inside, model.name)


def _others_snr_db(content, images, expected, references, answers, gpu):
    """`{what: SNR}` of the outputs besides the model's own, and of the first of those in half precision."""
    computed = Runner(content).outputs(images) if expected else {}
    snr = {name: snr_db(values, computed[name]) for name, values in expected.items()}
    if gpu:
        halves = half_precision_outputs(content, images)
        for answer, reference, values in zip(answers, references, halves):
            values, reference = values.reshape(len(images), *reference.shape[1:]), spread(reference, len(images))
            snr[f"{answer.name} in half precision"] = compare(reference, values, answer=answer).snr_db
    return snr


def default_tolerance(mode, verified_on, images):
    """What a mode must keep on so many images; on synthetic ones only the SNR of a quantized file counts, since their
    classes do not mean anything."""
    tolerance = usual_tolerance(mode, images)
    if verified_on == "synthetic" and mode not in ("float32", "float16"):
        tolerance = replace(tolerance, min_agreement=None)
    return tolerance


def rejected_path(path):
    """Where a file goes that is too far from its model and is to be kept: `m.tflite` becomes `m.rejected.tflite`."""
    return Path(path).with_suffix(".rejected.tflite")


def _input_description(preprocessing, input_dtype, batch_size):
    height, width = preprocessing.size
    pixels = "pixels less 128, -128..127" if input_dtype == "int8" else "pixels 0..255"
    return f"{input_dtype} {preprocessing.colour} {pixels}, [{batch_size}, {height}, {width}, {preprocessing.channels}]"


def _photos_in_words(preprocessing, model, resize):
    if resize is not None or says_how_to_resize(model):
        return preprocessing.words
    return f"{preprocessing.words}; stretched as Keras does, since the model does not say it: `resize` (--resize)"


def _refusal(mode, parity, verified_on, wanted, too_far, shifted, debuggable, calibrated, kept):
    """Why a file is not written, and what may help."""
    if wanted.holds(parity) and not too_far:
        left = _what_is_left(kept, debuggable, calibrated)
        return f"The {mode} file is too far from the Keras model: {shifted} {left}" if shifted else left
    measured = []
    for each in (parity, *parity.others):
        name = f"{each.name}: " if parity.others else ""
        if each.agreement is not None and wanted.min_agreement is not None:
            measured.append(
                f"{name}the same answer on {each.agreement:.1%} of {each.images} {verified_on} images (wanted "
                f"{wanted.min_agreement:.1%})"
            )
            name = ""
        measured.append(f"{name}{each.snr_db:.1f} dB (wanted {wanted.min_snr_db:.0f} dB)")
    besides = f" Besides: {', '.join(too_far)}." if too_far else ""
    close = replace(wanted, min_agreement=None).holds(parity) and not too_far
    undecided = " The signal-to-noise ratio is kept: the model is undecided on the other images." if close else ""
    advice = "Use another mode, " + ("calibrate on more typical images, " if calibrated else "")
    return (
        f"The {mode} file is too far from the Keras model: {', '.join(measured)}.{besides}{undecided} "
        f"{_what_is_left(kept, debuggable, calibrated)} {advice}or ask for less (`tolerance`, on the command line "
        "--min-agreement; --min-snr but for auto)."
    )


def _what_is_left(kept, debuggable, calibrated):
    """Where a refused file is, and how to look into it."""
    if kept is None:
        shows = " for `keras-vit debug`, which shows where the error enters" if debuggable else ""
        return f"Nothing was written; keep_rejected=True (--keep-rejected) keeps the file{shows}."
    if not debuggable:
        return f"It is kept as {kept}."
    more = " --calibration DIR" if calibrated else ""
    return f"It is kept as {kept}: `keras-vit debug MODEL {shlex.quote(str(kept))}{more}` shows where the error enters."
