"""Attention heads whose queries, keys, values, mixtures and weights few bits can hold.

Measured on images, per block:

* keys and values lose their mean over tokens, k - c and v - m. A shift of all keys adds one number to a row of scores,
  which softmax ignores; rows of softmax P sum to 1, so `(P v) Wo = (P (v - m)) Wo + m Wo`.
* any invertible diagonal matrix S may stand between query and key, `(q S) (k / S)' = q k'`, and between value and
  output, `(P v / S) (S Wo) = (P v) Wo`. The first S gives query and key the same range in every channel. The second
  divides the unevenness of what attention mixes, and of the weights that read it, equally between the two: channels of
  one range leave Wo rows of very different lengths, of which 4 or 8 bits hold the short ones badly.

Applies to every spec with images to measure on. Source: shift invariance of softmax; equalization as between layers in
Nagel et al. 2019, arXiv:1906.04721, and, with a square root, between activations and weights in AWQ, arXiv:2306.00978.
"""

from dataclasses import replace

import numpy as np

from ..spec.functions import softmax
from ..spec.model import Dense
from .stream import ABSORBED, NO_BLOCKS, has_absorbed

IMAGES = 16


def refuse(spec):
    if not spec.blocks:
        return NO_BLOCKS
    return ABSORBED if all(map(has_absorbed, spec.blocks)) else ""


def balance_heads(spec, images):
    if refuse(spec):
        return spec
    images = images[np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)]
    x, blocks = spec.embed(images), []
    for block in spec.blocks:
        if not has_absorbed(block):
            tokens = block.attention_input(x)
            attention = _scaled(_centred(block.attention, tokens), tokens, block.kept_tokens)
            block = replace(block, attention=attention)
        blocks.append(block)
        x = blocks[-1](x)
    return replace(spec, blocks=tuple(blocks))


def _centred(attention, tokens):
    def centred(dense):
        mean = dense(tokens).mean((0, 1))
        return Dense(dense.kernel, dense.bias - mean), mean

    key, _ = centred(attention.key)
    value, mean = centred(attention.value)
    output = Dense(attention.output.kernel, attention.output.bias + mean @ attention.output.kernel)
    return replace(attention, key=key, value=value, output=output)


def _scaled(attention, tokens, queries):
    def largest(values):  # of (B, heads, T, d), per channel: (heads * d,)
        return np.maximum(np.abs(values).max((0, 2)).ravel(), 1e-6)

    def heads(dense):
        return attention.heads(dense, tokens)

    between = np.sqrt(largest(heads(attention.key)) / largest(heads(attention.query)))
    mixture = softmax(attention.scores(tokens, queries)) @ heads(attention.value)

    def root_mean_square(values, axis):
        return np.maximum(np.sqrt(np.square(values).mean(axis)).ravel(), 1e-9)

    behind = np.sqrt(root_mean_square(mixture, (0, 2)) / root_mean_square(attention.output.kernel, 1))
    output = Dense(attention.output.kernel * behind[:, None], attention.output.bias)
    return replace(
        attention,
        query=attention.query.scaled(between),
        key=attention.key.scaled(1 / between),
        value=attention.value.scaled(1 / behind),
        output=output,
    )
