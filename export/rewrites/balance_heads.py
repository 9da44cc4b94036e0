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
from ..spec.layers import Dense
from ..spec.promises import Promise
from .stream import ABSORBED, NO_BLOCKS

IMAGES = 16
NEEDED = {Promise.KEYS_MAY_SHIFT, Promise.QUERY_KEY_DIAGONAL, Promise.VALUES_ARE_AVERAGED}


def refuse(spec):
    if not spec.attentions():
        return NO_BLOCKS
    return "" if any(attention.promises >= NEEDED for attention in spec.attentions()) else ABSORBED


def balance_heads(spec, images):
    if refuse(spec):
        return spec
    images = images[np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)]
    measured = spec.astype(np.float32)  # the factors need not be exact, what they are divided out of is
    x, balanced = measured.embed(images), []
    for residual, quick in zip(spec.residuals(), measured.residuals()):
        y = None
        if residual.body.promises >= NEEDED:
            y, body = _balanced(residual.body, quick.body, quick.entering(x), residual.kept_tokens)
            residual = replace(residual, body=body)
        balanced.append(residual)
        x = quick(x, y)
    balanced = iter(balanced)
    return spec.with_residuals(lambda residual: next(balanced))


def _balanced(attention, quick, tokens, queries):
    """What the attention gives of tokens, and the balanced attention.

    Args:
        attention: the `Attention`.
        quick: the same in float32, to measure with.
        tokens: what it reads, `(B, T, D)`.
        queries: how many leading tokens ask; None is all.
    """
    query, key, value = (quick.heads(dense, tokens) for dense in (quick.query, quick.key, quick.value))
    scores = query[:, :, :queries] @ key.transpose(0, 1, 3, 2) * quick.score_scale
    mixture = softmax(scores) @ value  # (B, heads, T, d)
    key_mean, value_mean = (values.mean((0, 2), keepdims=True, dtype=np.float64) for values in (key, value))

    def largest(values):  # per channel: (heads * d,)
        return np.maximum(np.abs(values).max((0, 2)).ravel(), 1e-6)

    def root_mean_square(values, axis):
        return np.maximum(np.sqrt(np.square(values).mean(axis)).ravel(), 1e-9)

    between = np.sqrt(largest(key - key_mean) / largest(query))
    unevenness = root_mean_square(mixture - value_mean, (0, 2)), root_mean_square(attention.output.kernel, 1)
    behind = np.sqrt(unevenness[0] / unevenness[1])
    mean = value_mean.ravel()
    output = Dense(attention.output.kernel * behind[:, None], attention.output.bias + mean @ attention.output.kernel)
    balanced = replace(
        attention,
        query=attention.query.scaled(between),
        key=Dense(attention.key.kernel, attention.key.bias - key_mean.ravel()).scaled(1 / between),
        value=Dense(attention.value.kernel, attention.value.bias - mean).scaled(1 / behind),
        output=output,
    )
    return quick.joined(mixture), balanced
