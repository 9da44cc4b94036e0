"""The gamma and beta of a LayerNorm into the dense layers that read it.

`(n * gamma + beta) W + b = n (diag(gamma) W) + (b + beta @ W)`. Applies to the norms in front of attention, MLP and
head; a norm on the residual stream itself keeps its affine. Source: SliceGPT, arXiv:2401.15024.
"""

from dataclasses import replace

from ..spec.layers import Dense
from .stream import ABSORBED, reads_by_layers, with_layers


def refuse(spec):
    affine = [each for each in spec.residuals() if each.norm is not None and not _is_bare(each.norm)]
    return "" if all(map(reads_by_layers, affine)) else ABSORBED


def fold_norm_affine(spec):
    if refuse(spec):
        return spec

    def fold(residual):
        if residual.norm is None or _is_bare(residual.norm):
            return residual
        readers = {name: _fold(residual.norm, dense) for name, dense in residual.body.readers().items()}
        return replace(with_layers(residual, readers), norm=_bare(residual.norm))

    heads = spec.heads
    if spec.norm is not None:
        heads = tuple(replace(head, dense=_fold(spec.norm, head.dense)) for head in heads)
    return replace(spec.with_residuals(fold), norm=_bare(spec.norm), heads=heads)


def _fold(norm, dense):
    kernel, bias = dense.kernel, dense.bias
    if norm.beta is not None:
        bias = bias + norm.beta @ kernel
    if norm.gamma is not None:
        kernel = norm.gamma[:, None] * kernel
    return Dense(kernel, bias)


def _is_bare(norm):
    return norm.gamma is None and norm.beta is None


def _bare(norm):
    return None if norm is None else replace(norm, gamma=None, beta=None)
