"""The layers that components are made of."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Dense:
    """`y = x @ kernel + bias` with kernel (inputs, outputs) and bias (outputs,)."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x):
        return x @ self.kernel + self.bias

    def scaled(self, factor):
        """`y * factor`, for one factor or one per output."""
        return Dense(self.kernel * factor, self.bias * factor)


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm over the last axis, `(x - mean) / sqrt(mean square + epsilon) * gamma + beta`.

    gamma and beta have shape (D,); None where a rewrite has folded them away. Without `subtract_mean` it is RMSNorm.
    """

    gamma: np.ndarray | None
    beta: np.ndarray | None
    epsilon: float
    subtract_mean: bool = True

    def __call__(self, x):
        x = self._centred(x)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + self.epsilon)
        x = x if self.gamma is None else x * self.gamma
        return x if self.beta is None else x + self.beta

    def smallest_mean_square(self, x):
        """The least that epsilon is added to."""
        return np.square(self._centred(x)).mean(-1).min()

    def _centred(self, x):
        return x - x.mean(-1, keepdims=True) if self.subtract_mean else x
