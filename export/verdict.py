"""Whether a finished file is near enough to its model: measured on its very bytes, as its target runs them."""

import shlex
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.gather import spread

from .quantization.tolerance import HALF_SUMS_DB, USUAL, Tolerance
from .request import rejected_path
from .tflite.errors import InvalidModelFile, UnsupportedByTarget
from .tflite.graph import Graph
from .tflite.runner import Runner
from .verification.distribution_shift import shift_reports, shifted_too_far
from .verification.gpu_parity import gpu_report
from .verification.half_precision import half_precision_outputs
from .verification.outputs import as_file_gives, outputs_of
from .verification.parity import ParityReport, compare, compare_all
from .verification.range_use import range_use
from .verification.snr_per_block import snr_per_block

STREAMED_IMAGES = 8
RANGE_IMAGES = 12


@dataclass(frozen=True)
class Oracle:
    """What the model as it was read computes on a few of the images that are verified on.

    Attributes:
        images: these images.
        outputs: `{name: (N, ...)}` of the outputs besides the model's own, float64.
        streams: the tokens that leave each block, as `ViTSpec.streams`; none of a model that was not read.
    """

    images: np.ndarray
    outputs: dict
    streams: list


@dataclass(frozen=True)
class Verdict:
    """What was measured of a finished file, and what it means.

    Attributes:
        parity: the `ParityReport`.
        verified_by: the runtimes that it was measured with.
        others_snr_db: `{what: SNR}` of what is checked besides the model's own outputs.
        block_snr_db: of the tokens that leave each block.
        shifts: the `ShiftReport`s.
        ranges: the `RangeUse`, or None.
        reference, outputs: of the first output, `(N, ...)`, by the model and by the file.
        refusal: why the file is not to be used, in a sentence; empty where it is.
    """

    parity: ParityReport
    verified_by: str
    others_snr_db: dict
    block_snr_db: tuple
    shifts: tuple
    ranges: Any
    reference: np.ndarray
    outputs: np.ndarray
    refusal: str


def oracle_of(job, files):
    """The `Oracle` of a `Job`, of its `FloatFiles`."""
    images = spread(job.images.verification, STREAMED_IMAGES)
    return Oracle(images, files.expected(images), files.streams(images))


def verdict_of(job, oracle, made, finished, finish, debuggable):
    """The `Verdict` on a finished file.

    Args:
        job: its `Job`.
        oracle: its `Oracle`.
        made: the `Made` that it was finished from.
        finished: its bytes.
        finish: the `Finish` that finished it.
        debuggable: whether `debug` can look into it.

    Raises:
        UnsupportedByTarget: the target cannot run it.
        ValueError: the model has no finite answer on the synthetic images that it is verified on.
    """
    request, images, target = job.request, job.images, job.request.target
    graph = Graph(finished)
    target.check(finished, graph.model, request.runtime_python)

    def reference_of(pixels):
        return as_file_gives(job.keras_model(pixels), job.answers, finish.answers)

    references = reference_of(images.verification)
    if images.verified_on == "synthetic" and not all(np.isfinite(reference).all() for reference in references):
        raise ValueError(
            "The Keras model gives NaN or infinity on the synthetic images that it is verified on where no others are "
            "given: pass images in `verification` (--verification DIR)."
        )
    few = [spread(each, len(oracle.images)) for each in references]
    gpu = None
    try:
        runner, verified_by = target.open(finished, request.runtime_python)
        computed = outputs_of(runner, images.verification, finish.answers)
        if target.half_precision:
            gpu = gpu_report(finished, oracle.images, few, finish.answers, oracle.outputs)
    except InvalidModelFile as error:
        raise UnsupportedByTarget(f"The {made.mode.name} file does not run there: {error}") from error
    shifts, ranges = (), None
    if images.calibration is not None and made.mode.quantizes:
        quick = runner if isinstance(runner, Runner) else Runner(finished)  # others start a process for each call
        float_graph = Graph(made.float_content)
        ranges = range_use(graph, float_graph, spread(images.verification, RANGE_IMAGES))
        shifts = shift_reports(
            images.verification,
            finish.answers,
            references,
            reference_of,
            lambda pixels: outputs_of(quick, pixels, finish.answers),
            graph,
            float_graph,
        )
    parity = replace(compare_all(references, computed, images.labels, finish.answers), gpu=gpu)
    others = _others_snr_db(finished, oracle, few, finish.answers, target.half_precision)
    if gpu is not None and gpu.adapter:
        verified_by = f"{verified_by}, and on {gpu.adapter}"
    return Verdict(
        parity=parity,
        verified_by=verified_by,
        others_snr_db=others,
        block_snr_db=tuple(snr_per_block(finished, oracle.streams, oracle.images)) if oracle.streams else (),
        shifts=shifts,
        ranges=ranges,
        reference=references[0],
        outputs=computed[0],
        refusal=_refusal(job, made, parity, others, shifts, debuggable),
    )


def _others_snr_db(content, oracle, references, answers, half_precision):
    """`{what: SNR}` of the outputs besides the model's own, and of the first of those in half precision."""
    computed = Runner(content).outputs(oracle.images) if oracle.outputs else {}
    snr = {name: snr_db(values, computed[name]) for name, values in oracle.outputs.items()}
    if half_precision:
        for answer, reference, values in zip(answers, references, half_precision_outputs(content, oracle.images)):
            values = values.reshape(len(oracle.images), *reference.shape[1:])
            snr[f"{answer.name} in half precision"] = compare(reference, values, answer=answer).snr_db
    return snr


def wanted_tolerance(job, made):
    """The `Tolerance` that the file of a `Made` must keep.

    On synthetic images only the signal-to-noise ratio of a quantized file counts, since their classes do not mean
    anything.
    """
    tolerance, images = job.request.tolerance, job.images
    usual = made.mode.tolerance.on(len(images.verification))
    if images.verified_on == "synthetic" and made.mode.quantizes:
        usual = replace(usual, min_agreement=None)
    wanted = usual if tolerance is None else tolerance.filled(usual)
    unsaid = tolerance is None or tolerance.min_agreement == USUAL
    if made.tried and unsaid and images.verified_on == "verification":
        wanted = replace(wanted, min_agreement=max(wanted.min_agreement or 0.0, job.constraints.min_agreement or 0.0))
    return wanted


def _refusal(job, made, parity, others, shifts, debuggable):
    """Why a file is not written, and what may help; empty where it holds."""
    request, wanted, gpu = job.request, wanted_tolerance(job, made), parity.gpu
    too_far = wanted.too_far(others)
    if gpu is not None and gpu.adapter:
        too_far += [f"{output} on {gpu.adapter}" for output in wanted.too_far(gpu.snr_db, HALF_SUMS_DB)]
    shifted = "" if request.narrow_range else shifted_too_far(shifts, wanted.min_snr_db)
    near = wanted.holds(parity) and not too_far
    if near and not shifted and made.fits:
        return ""
    left = _what_is_left(job, debuggable)
    if near:
        words = f"The {made.mode.name} file is too far from the Keras model: {shifted} {left}" if shifted else left
    else:
        words = _how_far(job, made, parity, wanted, too_far, left)
    return words if made.fits else f"{made.choice} {words}"


def _how_far(job, made, parity, wanted: Tolerance, too_far, left):
    """What was measured of a file that is too far from its model, and what to try."""
    measured = []
    for each in (parity, *parity.others):
        name = f"{each.name}: " if parity.others else ""
        if each.agreement is not None and wanted.min_agreement is not None:
            measured.append(
                f"{name}the same answer on {each.agreement:.1%} of {each.images} {job.images.verified_on} images "
                f"(wanted {wanted.min_agreement:.1%})"
            )
            name = ""
        measured.append(f"{name}{each.snr_db:.1f} dB (wanted {wanted.min_snr_db:.0f} dB)")
    besides = f" Besides: {', '.join(too_far)}." if too_far else ""
    close = replace(wanted, min_agreement=None).holds(parity) and not too_far
    undecided = " The signal-to-noise ratio is kept: the model is undecided on the other images." if close else ""
    calibrate = "calibrate on more typical images, " if job.images.calibration is not None else ""
    return (
        f"The {made.mode.name} file is too far from the Keras model: {', '.join(measured)}.{besides}{undecided} "
        f"{left} Use another mode, {calibrate}or ask for less (`tolerance`, on the command line --min-agreement "
        "or --min-snr)."
    )


def _what_is_left(job, debuggable):
    """Where a refused file is, and how to look into it."""
    if not job.request.keep_rejected:
        shows = " for `keras-vit debug`, which shows where the error enters" if debuggable else ""
        return f"Nothing was written; keep_rejected=True (--keep-rejected) keeps the file{shows}."
    kept = rejected_path(job.request.path)
    if not debuggable:
        return f"It is kept as {kept}."
    more = " --calibration DIR" if job.images.calibration is not None else ""
    return f"It is kept as {kept}: `keras-vit debug MODEL {shlex.quote(str(kept))}{more}` shows where the error enters."
