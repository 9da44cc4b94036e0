"""The functions of a Vision Transformer in float64."""

import numpy as np


def softmax(scores):
    """Softmax over the last axis in float64."""
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def gelu(x):
    """Exact GELU in float64 (arXiv:1606.08415)."""
    import tensorflow as tf

    return x * 0.5 * (1 + tf.math.erf(x / np.sqrt(2)).numpy())
