"""The key into the query and the value into the output projection, where few tokens ask.

Per head, `(x Wq + bq) (t Wk)' = (x Wq Wk' + bq Wk') t'` and `(P t Wv) Wo = (P t) (Wv Wo)`: the scores and the mixture
are taken of the tokens t themselves, and the key and value of every token need not be computed. The key bias adds one
number to a row of scores, which softmax ignores; the value bias passes through attention into the output bias. Applies
to the last block where `keep_pooled_tokens` does and heads are few: the merged weights grow with their number. Source:
associativity; named after the same step in DeepSeek-V2's attention, arXiv:2405.04434, 2.1.2.
"""

from dataclasses import replace

import numpy as np

from ..spec import Dense
from .stream import ABSORBED, NO_BLOCKS, has_absorbed

MOST_HEADS = 3  # with more, the merged weights are at least twice as large as the four that they replace


def refuse(spec):
    if not spec.blocks:
        return NO_BLOCKS
    block = spec.blocks[-1]
    heads = block.attention.num_heads
    if has_absorbed(block):
        return ABSORBED
    if block.kept_tokens is None:
        return "the last block computes all tokens"
    if heads > MOST_HEADS:
        return f"the last block has {heads} heads: with more than {MOST_HEADS} the merged weights are larger"
    return "" if heads * block.kept_tokens < spec.num_tokens else "there are few tokens: it would save nothing"


def absorb_key_value(spec):
    if refuse(spec):
        return spec
    block = spec.blocks[-1]
    attention = block.attention
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
    attention = replace(attention, query=query, key=None, value=None, output=output)
    return replace(spec, blocks=(*spec.blocks[:-1], replace(block, attention=attention)))
