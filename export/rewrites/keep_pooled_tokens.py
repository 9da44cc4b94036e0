"""In the last block, only the tokens that a head reads.

Rows of the residual stream meet in attention only, where every row is read through its key and value; what follows a
row's query concerns that row alone. So the last block computes queries, output projection and MLP for the class (and
distillation) token. Applies to pre-norm and post-norm encoders whose heads read single tokens.
"""

from dataclasses import replace

from ..spec.promises import Promise
from .stream import NO_BLOCKS


def refuse(spec):
    if not spec.blocks:
        return NO_BLOCKS
    if not all(Promise.ROW_BY_ROW in residual.body.promises for residual in spec.blocks[-1].residuals):
        return "a component of the last block mixes tokens as no attention does"
    return "a head reads the mean of all tokens" if spec.pooled_tokens is None else ""


def keep_pooled_tokens(spec):
    if refuse(spec):
        return spec
    first, *rest = spec.blocks[-1].residuals
    block = replace(spec.blocks[-1], residuals=(replace(first, kept_tokens=spec.pooled_tokens), *rest))
    return replace(spec, blocks=(*spec.blocks[:-1], block))
