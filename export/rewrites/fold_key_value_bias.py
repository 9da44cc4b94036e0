"""The biases of key and value out of the attention.

The key bias adds one number to a row of scores, which softmax ignores: it is dropped. Each row of probabilities sums
to 1, so the value bias passes through attention: `(P (x Wv + bv)) Wo + bo = P (x Wv) Wo + (bo + bv Wo)`. Applies to
every spec. Source: shift invariance of softmax; distributivity.
"""

from dataclasses import replace

import numpy as np

from ..spec.model import Dense
from .stream import NO_BLOCKS


def refuse(spec):
    return "" if spec.blocks else NO_BLOCKS


def fold_key_value_bias(spec):
    def fold(attention):
        key, value, output = attention.key, attention.value, attention.output
        if key is None:  # absorbed, the biases with them
            return attention
        return replace(
            attention,
            key=Dense(key.kernel, np.zeros_like(key.bias)),
            value=Dense(value.kernel, np.zeros_like(value.bias)),
            output=Dense(output.kernel, output.bias + value.bias @ output.kernel),
        )

    return replace(spec, blocks=tuple(replace(block, attention=fold(block.attention)) for block in spec.blocks))
