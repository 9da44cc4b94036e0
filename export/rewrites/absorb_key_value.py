"""The key into the query and the value into the output projection, where few tokens ask.

Per head, `(x Wq + bq) (t Wk)' = (x Wq Wk' + bq Wk') t'` and `(P t Wv) Wo = (P t) (Wv Wo)`: the scores and the mixture
are taken of the tokens t themselves, and the key and value of every token need not be computed. The key bias adds one
number to a row of scores, which softmax ignores; the value bias passes through attention into the output bias. Applies
to the last block where `keep_pooled_tokens` does and heads are few: for q tokens of T that ask, h heads, width D and
inner width K of all heads, 2 T D K + 2 q (D + T) K multiply-accumulates become 2 q h (D + T) D, and 4 D K weights
2 h D D. The share that the weights grow by must not be more than the share that is saved. Source: associativity; named
after the same step in DeepSeek-V2's attention, arXiv:2405.04434, 2.1.2.
"""

from dataclasses import replace

import numpy as np

from ..spec.layers import Dense
from ..spec.promises import Promise
from .stream import ABSORBED, NO_BLOCKS

NEEDED = {Promise.KEYS_MAY_SHIFT, Promise.VALUES_ARE_AVERAGED, Promise.ROW_BY_ROW}


def refuse(spec):
    if not spec.attentions():
        return NO_BLOCKS
    block, attention = spec.blocks[-1], spec.blocks[-1].attention
    if attention is None or not attention.promises >= NEEDED:
        return ABSORBED
    if block.kept_tokens is None:
        return "the last block computes all tokens"
    saved, grown = shares(spec)
    if saved <= 0:
        return "there are few tokens: it would save nothing"
    return "" if grown <= saved else f"the weights would grow by {grown:.1%} to save {saved:.1%} of the multiplications"


def shares(spec):
    """What it would save of all dense layers' multiply-accumulates, and what it would add to all their weights."""
    block, attention = spec.blocks[-1], spec.blocks[-1].attention
    tokens, asking, heads = spec.num_tokens, block.kept_tokens, attention.num_heads
    width, inner = attention.key.kernel.shape
    before = 2 * tokens * width * inner + 2 * asking * (width + tokens) * inner
    after = 2 * asking * heads * (width + tokens) * width
    more = 2 * heads * width**2 - 4 * width * inner
    return (before - after) / _multiplications(spec), more / sum(layer.kernel.size for layer in spec.dense_layers())


def _multiplications(spec):
    """Multiply-accumulates of all dense layers."""
    count = len(spec.positions) * spec.patch.kernel.size + sum(head.dense.kernel.size for head in spec.heads)
    for block in spec.blocks:
        asking = block.kept_tokens or spec.num_tokens
        count += sum(residual.body.multiplications(spec.num_tokens, asking) for residual in block.residuals)
    return count


def absorb_key_value(spec):
    if refuse(spec):
        return spec
    last = spec.blocks[-1]
    residuals = [
        replace(residual, body=merged(residual.body)) if residual.body is last.attention else residual
        for residual in last.residuals
    ]
    return replace(spec, blocks=(*spec.blocks[:-1], replace(last, residuals=tuple(residuals))))


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
