"""A mean-free residual stream, which turns LayerNorm into RMSNorm.

With C = I - 11'/D, LayerNorm(x) = LayerNorm(x C), and x C is mean-free when every writer w becomes w C: the norm needs
no mean and no subtraction. Applies to pre-norm encoders with LayerScale folded, all of whose norms subtract the mean.
Source: SliceGPT, arXiv:2401.15024.
"""

from dataclasses import replace

import numpy as np

from .stream import map_writers, refuse_stream, stream_norms


def refuse(spec):
    reason = refuse_stream(spec)
    if not reason and not all(norm.subtract_mean for norm in stream_norms(spec)):
        reason = "a norm reads the mean of the stream, as RMSNorm does"
    return reason


def centre_writers(spec):
    if refuse(spec):
        return spec
    spec = map_writers(spec, np.eye(spec.width) - 1 / spec.width)

    def without_mean(residual):
        return replace(residual, norm=replace(residual.norm, subtract_mean=False))

    return replace(spec.with_residuals(without_mean), norm=replace(spec.norm, subtract_mean=False))
