"""The biases of key and value out of the attention.

The key bias adds one number to a row of scores, which softmax ignores: it is dropped. Each row of probabilities sums
to 1, so the value bias passes through attention: `(P (x Wv + bv)) Wo + bo = P (x Wv) Wo + (bo + bv Wo)`. Applies to
every spec. Source: shift invariance of softmax; distributivity.
"""

import numpy as np

from ..spec.layers import Dense
from ..spec.promises import Promise
from .stream import NO_BLOCKS, with_layers

NEEDED = {Promise.KEYS_MAY_SHIFT, Promise.VALUES_ARE_AVERAGED}


def refuse(spec):
    return "" if spec.blocks else NO_BLOCKS


def fold_key_value_bias(spec):
    def fold(residual):
        attention = residual.body
        if not attention.promises >= NEEDED:  # no attention, or one that has absorbed both
            return residual
        key, value, output = attention.key, attention.value, attention.output
        layers = {
            "key": Dense(key.kernel, np.zeros_like(key.bias)),
            "value": Dense(value.kernel, np.zeros_like(value.bias)),
            "output": Dense(output.kernel, output.bias + value.bias @ output.kernel),
        }
        return with_layers(residual, layers)

    return spec.with_residuals(fold)
