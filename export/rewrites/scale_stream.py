"""The residual stream scaled by a power of two, so that the sums of squares that its norms take fit float16.

A norm of c x is that of x, with c^2 times its epsilon; every writer is scaled by c. Tokens of a large ViT can have sums
of squares beyond 65504, which are infinite in float16, and their norm is then 0. Applies to pre-norm encoders with
LayerScale folded.
"""

from dataclasses import replace

import numpy as np

from .stream import map_writers, refuse_stream

LENGTH = 64.0  # of the longest token, about: sixteen times the sum of its squares still fits


def refuse(spec):
    return refuse_stream(spec)


def scale_stream(spec, images):
    if refuse(spec):
        return spec
    tokens = [spec.embed(images)]
    for residual in spec.residuals():
        tokens.append(residual(tokens[-1]))
    longest = max(np.square(x).sum(-1).max() for x in tokens) ** 0.5
    if longest == 0:
        return spec
    factor = 2.0 ** np.round(np.log2(LENGTH / longest))

    def scaled(norm):
        return replace(norm, epsilon=norm.epsilon * factor**2)

    def scale(residual):
        return replace(residual, norm=scaled(residual.norm))

    spec = map_writers(spec, factor * np.eye(spec.width)).with_residuals(scale)
    return replace(spec, norm=scaled(spec.norm))
