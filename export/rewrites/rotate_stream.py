"""The residual stream in another orthogonal basis, which spreads its outlier channels over all of them.

For orthogonal Q, RMSNorm(x Q) = RMSNorm(x) Q; with writers w Q and readers Q' W the function stays the same. Applies
to pre-norm encoders whose norms are RMSNorm without gamma and beta. Source: QuaRot, arXiv:2404.00456.
"""

import numpy as np

from .stream import every_reader_is_normed, layer_scale_is_folded, map_readers, map_writers, stream_norms


def rotate_stream(spec):
    bare = every_reader_is_normed(spec) and all(
        norm.gamma is None and norm.beta is None and not norm.subtract_mean for norm in stream_norms(spec)
    )
    if not bare or not layer_scale_is_folded(spec):
        return spec
    rotation = random_orthogonal(spec.width)
    return map_readers(map_writers(spec, rotation), rotation.T)


def random_orthogonal(width, seed=0):
    """A Haar-distributed orthogonal matrix (width, width) (Mezzadri 2007, arXiv:math-ph/0609050)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return q * np.sign(np.diag(r))
