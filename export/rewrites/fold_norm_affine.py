"""The gamma and beta of a LayerNorm into the dense layers that read it.

`(n * gamma + beta) W + b = n (diag(gamma) W) + (b + beta @ W)`. Applies to the norms in front of attention, MLP and
head; a norm on the residual stream itself keeps its affine. Source: SliceGPT, arXiv:2401.15024.
"""

from dataclasses import replace

from ..spec.model import Dense
from .stream import ABSORBED, has_absorbed


def refuse(spec):
    affine = [block for block in spec.blocks if block.attention_norm is not None and not _is_bare(block.attention_norm)]
    return ABSORBED if any(map(has_absorbed, affine)) else ""


def fold_norm_affine(spec):
    if refuse(spec):
        return spec

    def fold_block(block):
        attention, hidden = block.attention, block.mlp_hidden
        norm = block.attention_norm
        if norm is not None and not _is_bare(norm):
            attention = replace(
                attention,
                query=_fold(norm, attention.query),
                key=_fold(norm, attention.key),
                value=_fold(norm, attention.value),
            )
        if block.mlp_norm is not None:
            hidden = _fold(block.mlp_norm, hidden)
        return replace(
            block,
            attention_norm=_bare(norm),
            attention=attention,
            mlp_norm=_bare(block.mlp_norm),
            mlp_hidden=hidden,
        )

    heads = spec.heads
    if spec.norm is not None:
        heads = tuple(replace(head, dense=_fold(spec.norm, head.dense)) for head in heads)
    return replace(spec, blocks=tuple(map(fold_block, spec.blocks)), norm=_bare(spec.norm), heads=heads)


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
