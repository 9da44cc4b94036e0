"""In the last block, only the tokens that a head reads.

Rows of the residual stream meet in attention only, where every row is read through its key and value; what follows a
row's query concerns that row alone. So the last block computes queries, output projection and MLP for the class (and
distillation) token. Applies to pre-norm and post-norm encoders whose heads read single tokens.
"""

from dataclasses import replace

from .stream import NO_BLOCKS


def refuse(spec):
    if not spec.blocks:
        return NO_BLOCKS
    return "a head reads the mean of all tokens" if spec.pooled_tokens is None else ""


def keep_pooled_tokens(spec):
    if refuse(spec):
        return spec
    return replace(spec, blocks=(*spec.blocks[:-1], replace(spec.blocks[-1], kept_tokens=spec.pooled_tokens)))
