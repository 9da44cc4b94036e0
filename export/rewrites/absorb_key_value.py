"""The key into the query and the value into the output projection, where few tokens ask.

Per head, `(x Wq + bq) (t Wk)' = (x Wq Wk' + bq Wk') t'` and `(P t Wv) Wo = (P t) (Wv Wo)`: the scores and the mixture
are taken of the tokens t themselves, and the key and value of every token need not be computed. The key bias adds one
number to a row of scores, which softmax ignores; the value bias passes through attention into the output bias. Applies
to the last block where `keep_pooled_tokens` does and it costs less: for q tokens of T that ask, h heads of width D and
inner width K in all, four kernels of D K with 2 T D K + 2 q (D K + T K) multiply-accumulates become two of h D D with
2 q h (D D + T D). A weight costs too, since for the few tokens that ask it is read anew. Source: associativity; named
after the same step in DeepSeek-V2's attention, arXiv:2405.04434, 2.1.2.
"""

from dataclasses import replace

import numpy as np

from ..op_costs import WEIGHT_READ
from ..spec import Dense
from .stream import ABSORBED, NO_BLOCKS, has_absorbed


def refuse(spec):
    if not spec.blocks:
        return NO_BLOCKS
    block = spec.blocks[-1]
    if has_absorbed(block):
        return ABSORBED
    if block.kept_tokens is None:
        return "the last block computes all tokens"
    before, after = costs(block.attention, spec.num_tokens, block.kept_tokens)
    return "" if after < before else f"it would save nothing: {after / before:.2f} of the cost"


def costs(attention, tokens, asking):
    """What an attention costs as it is and merged, in multiply-accumulates, weights that are read included.

    Args:
        attention: an `Attention` with key and value.
        tokens: how many there are.
        asking: of how many the query is computed.
    """
    width, inner = attention.key.kernel.shape
    heads = attention.num_heads
    before = 2 * tokens * width * inner + 2 * asking * (width + tokens) * inner + WEIGHT_READ * 4 * width * inner
    after = 2 * asking * heads * (width + tokens) * width + WEIGHT_READ * 2 * heads * width**2
    return before, after


def absorb_key_value(spec):
    if refuse(spec):
        return spec
    block = spec.blocks[-1]
    return replace(spec, blocks=(*spec.blocks[:-1], replace(block, attention=merged(block.attention))))


def merged(attention):
    """An attention whose heads read the tokens themselves."""
    heads = attention.num_heads

    def by_head(dense):
        return np.stack(np.split(dense.kernel, heads, axis=1)), np.stack(np.split(dense.bias, heads))

    query_kernel, query_bias = by_head(attention.query)  # (heads, D, d), (heads, d)
    key_kernel, _ = by_head(attention.key)
    value_kernel, _ = by_head(attention.value)
    output_kernel = np.stack(np.split(attention.output.kernel, heads))  # (heads, d, D)
    keys = key_kernel.transpose(0, 2, 1)  # (heads, d, D)
    query = Dense(
        np.concatenate(list(query_kernel @ keys), axis=1),
        np.concatenate([bias @ key for bias, key in zip(query_bias, keys)]),
    )
    output = Dense(
        np.concatenate(list(value_kernel @ output_kernel)),
        attention.output.bias + attention.value.bias @ attention.output.kernel,
    )
    return replace(attention, query=query, key=None, value=None, output=output)
