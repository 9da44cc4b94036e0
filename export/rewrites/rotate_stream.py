"""The residual stream in another orthogonal basis, which spreads its outlier channels over all of them.

For orthogonal Q, RMSNorm(x Q) = RMSNorm(x) Q; with writers w Q and readers Q' W the function stays the same. Applies
to pre-norm encoders whose norms are RMSNorm without gamma and beta. Source: QuaRot, arXiv:2404.00456.
"""

import numpy as np

from .stream import ABSORBED, map_readers, map_writers, reads_by_layers, refuse_stream, stream_norms


def refuse(spec):
    reason = refuse_stream(spec)
    if reason:
        return reason
    if any(norm.subtract_mean for norm in stream_norms(spec)):
        return "a norm subtracts the mean, which depends on the basis"
    if any(norm.gamma is not None or norm.beta is not None for norm in stream_norms(spec)):
        return "the gamma or beta of a norm is not folded"
    return "" if all(map(reads_by_layers, spec.residuals())) else ABSORBED


def rotate_stream(spec):
    if refuse(spec):
        return spec
    rotation = random_orthogonal(spec.width)
    return map_readers(map_writers(spec, rotation), rotation.T)


def random_orthogonal(width, seed=0):
    """A Haar-distributed orthogonal matrix (width, width) (Mezzadri 2007, arXiv:math-ph/0609050)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return q * np.sign(np.diag(r))
