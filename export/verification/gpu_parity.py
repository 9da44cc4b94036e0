"""How far a file for GPUs is from its model on the GPU of this machine."""

import numpy as np

from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.gather import spread

from ..tflite.webgpu import GPU_IMAGES, GpuReport, find_gpu, gpu_runner
from .outputs import names_in_file
from .parity import compare


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
