"""Keras model -> spec -> rewrites -> float file -> quantized file -> verified -> written."""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_vit_plugin.version import VERSION

from . import flatbuffer
from .arguments import check_arguments, check_model, checked_labels, checked_outputs, wish_of
from .files import check_writable, write_atomically
from .float_files import FloatFiles
from .gpu_rules import gpu_problems
from .half_precision import half_precision_logits
from .images import (
    calibration_images,
    check_calibration,
    fingerprint,
    gather_images,
    gather_labelled,
    images_for_search,
    synthetic_images,
)
from .inspect import inspect
from .interpreter import Runner, load_error
from .mediapipe_metadata import require_mediapipe, with_softmax, with_tflite_metadata
from .page import as_page, require_matplotlib
from .preprocessing import pixel_normalization, preprocessing_of
from .quantize import NEEDS_CALIBRATION
from .quantize import quantize as quantize_file
from .report import ExportReport, changed_answers
from .search import explanation, search
from .streams import snr_per_block
from .targets import TARGETS, check_target
from .verify import TOLERANCES, ParityError, Tolerance, compare, keras_logits, snr_db, tflite_logits

METADATA_BYTES = 1500  # at most, but for labels and preprocessing
STREAMED_IMAGES = 8
SLACK_DB = {"attention": 6.0}  # softmax doubles the error of scores, and it is looked at, not added up


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
    verification=None,
    tolerance=None,
    report=None,
    min_agreement=None,
    max_top1_drop=None,
    max_size=None,
):
    """Converts a Keras image classifier to a `.tflite`, compares it with the model, and writes it if it held.

    The file has one signature, `serving_default`: `images`, raw pixels `(batch_size, H, W, C)`, to `logits`
    `(batch_size, classes)` and the `outputs` asked for. Normalization is folded in; resizing is the caller's.

    Args:
        model: a Keras model from images to class scores, on the TensorFlow backend. This package's classifiers are
            rewritten and lowered to a faster graph; any other is converted as it is.
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
            `(N, H, W, C)`, an iterable of images or batches, or a `tf.data.Dataset`. 64 are used, 256 for `"int4"`.
        labels: class names in index order, stored in the file.
        prefer: for `"int8"`: `"speed"`, or `"accuracy"`, which is slower and closer to the model; for `"auto"`:
            `"speed"` or `"size"`, what is cheap.
        mean, std: for pixels scaled to 0..1, per channel or one number; only for a model that does not say them.
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
        verification: images to compare on, as for `calibration`; None takes the calibration images, or synthetic ones.
        tolerance: a `Tolerance`; None takes the mode's own (`TOLERANCES`).
        report: where to write the report as a page, ending in `.html`; it needs matplotlib. It is written even where
            the file is too far from the model to be.
        min_agreement: for `"auto"`: the share of images, 0..1, that keep the model's answer; 0.99 where nothing is
            wished for. It is judged on up to 256 calibration images that are not calibrated on, where there are some;
            what was measured on them must hold with a certainty of about 90 %.
        max_top1_drop: for `"auto"`: accuracy that may be lost, in points of percent; the calibration folder needs
            labels.
        max_size: for `"auto"`: bytes. Alone it asks for the most accurate file of that size.

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
    if input_dtype is None and target in TARGETS:
        input_dtype = TARGETS[target].input_dtypes[0]
    check_arguments(quantize, target, prefer, input_dtype, output_dtype, block_size, batch_size, tolerance)
    outputs = checked_outputs(outputs, quantize, target)
    wish = wish_of(quantize, min_agreement, max_top1_drop, max_size)
    batch_size = int(batch_size)
    if quantize in (*NEEDS_CALIBRATION, "auto") and calibration is None:
        raise ValueError(f"quantize={quantize!r} needs `calibration`: an image folder or raw pixels (N, H, W, C).")
    check_writable(path, ".tflite")
    if report is not None:
        check_writable(report, ".html")
        require_matplotlib()
    check_model(model)
    preprocessing = preprocessing_of(model)
    scale, offset = pixel_normalization(model, preprocessing.channels, mean, std)
    labels = checked_labels(labels, model)
    if TARGETS[target].labels_inside:
        require_mediapipe()
        if labels is None or preprocessing.channels != 3:
            raise ValueError(
                f"target={target!r} needs `labels` and RGB images, got labels={labels!r} and {preprocessing.channels} "
                "channel(s)."
            )

    classes = model.output_shape[-1]
    judged = judged_answers = None
    if wish is not None:
        calibration, judged, judged_answers = images_for_search(calibration, preprocessing, labels or (), classes)
        if wish.max_top1_drop is not None and judged_answers is None:
            raise ValueError("`max_top1_drop` needs labels: give a folder with labels.csv, or a sub-folder per class.")
    elif calibration is not None:
        calibration = calibration_images(calibration, preprocessing, quantize)
    if calibration is not None:
        check_calibration(calibration)
    answers = None
    if isinstance(verification, (str, Path)):
        images, answers = gather_labelled(verification, None, preprocessing, labels or (), classes, "verification")
        verified_on = "verification"
    elif verification is not None:
        images, verified_on = gather_images(verification, preprocessing, "verification"), "verification"
    elif judged is not None:
        images, answers, verified_on = judged, judged_answers, "calibration"
    elif calibration is not None:
        images, verified_on = calibration, "calibration"
    else:
        images, verified_on = synthetic_images(preprocessing.image_shape), "synthetic"

    float_input = "float32" if input_dtype == "float32" else "uint8"
    files = FloatFiles(
        model, preprocessing.image_shape, scale, offset, calibration, batch_size, float_input, target, outputs
    )
    expected = files.expected(images[:STREAMED_IMAGES])
    streams = files.streams(images[:STREAMED_IMAGES])
    tried, choice = (), ""
    if wish is not None:
        reference = keras_logits(model, judged, scale, offset)
        metadata_bytes = METADATA_BYTES + len(json.dumps([labels, preprocessing.to_dict()]))
        content, chosen, tried = search(
            files, calibration, judged, reference, judged_answers, wish, prefer, metadata_bytes
        )
        choice = explanation(chosen, tried, wish, prefer, len(judged))
        quantize, prefer = chosen.mode, chosen.prefer
    else:
        content = files.lowered(quantize, prefer)
        files.forget()
        integer_dense = files.target.integer_dense
        content = quantize_file(
            content, quantize, calibration, prefer, input_dtype, output_dtype, block_size, integer_dense
        )
    content = flatbuffer.dequantize_pixels(content)
    tree = flatbuffer.read(content)
    tried = load_error(content) if files.target.at_hand else None
    check_target(flatbuffer.op_versions(tree), target, flatbuffer.hybrid_ops(tree), gpu_problems(tree), tried)

    reference, logits = keras_logits(model, images, scale, offset), tflite_logits(content, images)
    parity = compare(reference, logits, answers)
    others = _others_snr_db(content, images[:STREAMED_IMAGES], expected, reference, files.target.gpu)
    block_snr_db = tuple(snr_per_block(content, streams, images[:STREAMED_IMAGES])) if streams else ()
    if files.target.labels_inside:
        content = with_softmax(content)
    content = flatbuffer.set_metadata(
        content,
        {
            "keras_vit_plugin": VERSION,
            "mode": quantize,
            "prefer": prefer,
            "target": target,
            "outputs": ["probabilities" if files.target.labels_inside else "logits", *outputs],
            "labels": labels,
            "colour": preprocessing.colour,
            "preprocessing": preprocessing.to_dict(),
            "parity": parity.to_dict(),
            "verified_on": verified_on,
            "weights_sha256": weights_hash(model),
            "calibration_sha256": None if calibration is None else fingerprint(calibration),
        },
    )
    if files.target.labels_inside:
        content = with_tflite_metadata(content, labels, f"{model.name}, {quantize}", VERSION)
    made = ExportReport(
        path=None,
        mode=quantize,
        target=target,
        road=files.road,
        road_reason=files.road_reason,
        rewrites={name: bool(change) for name, change in files.changes.items()},
        changes=files.changes,
        size_bytes=len(content),
        parity=parity,
        verified_on=verified_on,
        block_snr_db=block_snr_db,
        others_snr_db=others,
        changed_answers=changed_answers(reference, logits),
        input=_input_description(preprocessing, input_dtype, batch_size),
        file=inspect(content),
        seconds=time.perf_counter() - started,
        choice=choice,
        tried=tried,
    )
    wanted = tolerance or default_tolerance(quantize, model, verified_on)
    if tried and tolerance is None and verified_on == "verification":
        wanted = replace(wanted, min_agreement=max(wanted.min_agreement, wish.min_agreement or 0.0))
    too_far = [
        f"{name} at {db:.1f} dB" for name, db in others.items() if db < wanted.min_snr_db - SLACK_DB.get(name, 0)
    ]
    holds = wanted.holds(parity) and not too_far and (not tried or chosen.fits)
    if holds:
        write_atomically(path, content)
        made = replace(made, path=str(path), seconds=time.perf_counter() - started)
    if report is not None:
        write_atomically(report, as_page(made, images, labels).encode())
    if tried and not chosen.fits:
        raise ParityError(f"{choice} Nothing was written.", made)
    if not holds:
        raise ParityError(_parity_message(quantize, parity, verified_on, wanted, too_far), made)
    return made


def _others_snr_db(content, images, expected, reference, gpu):
    """`{what: SNR}` of the outputs besides the logits, and of the logits in half precision."""
    computed = Runner(content).outputs(images) if expected else {}
    snr = {name: snr_db(values, computed[name]) for name, values in expected.items()}
    if gpu:
        logits = half_precision_logits(content, images)
        snr["logits in half precision"] = compare(reference[: len(images)], logits).snr_db
    return snr


def default_tolerance(mode, model, verified_on):
    """What a mode must keep: on synthetic images only the SNR of a quantized file counts, since their classes do not
    mean anything; a Keras model that computes in 16 bits is itself only good to about 30 dB."""
    tolerance = TOLERANCES[mode]
    if verified_on == "synthetic" and mode not in ("float32", "float16"):
        tolerance = replace(tolerance, min_agreement=0.0)
    if any(layer.compute_dtype in ("float16", "bfloat16") for layer in model._flatten_layers() if layer.weights):
        tolerance = Tolerance(min(tolerance.min_agreement, 0.9), min(tolerance.min_snr_db, 20.0))
    return tolerance


def weights_hash(model):
    """A hash of all weights of a Keras model."""
    import keras

    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def _input_description(preprocessing, input_dtype, batch_size):
    height, width = preprocessing.size
    pixels = "pixels less 128, -128..127" if input_dtype == "int8" else "pixels 0..255"
    text = f"{input_dtype} {preprocessing.colour} {pixels}, [{batch_size}, {height}, {width}, {preprocessing.channels}]"
    if preprocessing.resize and tuple(preprocessing.resize) != tuple(preprocessing.size):
        text += f"; resize to cover {preprocessing.resize[0]}x{preprocessing.resize[1]}, crop the centre"
    return text


def _parity_message(mode, parity, verified_on, wanted, too_far):
    besides = f" Besides: {', '.join(too_far)}." if too_far else ""
    return (
        f"The {mode} file is too far from the Keras model: it gives the same answer on "
        f"{parity.top1_agreement:.1%} of {parity.images} {verified_on} images (wanted {wanted.min_agreement:.1%}) at "
        f"{parity.snr_db:.1f} dB (wanted {wanted.min_snr_db:.0f} dB).{besides} Nothing was written. Use another mode, "
        "calibrate on more typical images, or pass a `tolerance` of your own."
    )
