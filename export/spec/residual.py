"""The halves of a block: what is added to the residual stream."""

from dataclasses import dataclass

import numpy as np

from .attention import Attention
from .component import Component
from .layers import Norm


@dataclass(frozen=True, eq=False)
class Residual:
    """`x + scale * body(norm(x))`, then `post_norm`.

    None leaves a norm or the scale out. With `kept_tokens`, only so many leading tokens leave it.
    """

    norm: Norm | None
    body: Component
    scale: np.ndarray | None = None
    post_norm: Norm | None = None
    kept_tokens: int | None = None

    def entering(self, x):
        """What the body reads of the stream x."""
        return x if self.norm is None else self.norm(x)

    def added(self, x, y=None):
        """The stream before the norm that may follow.

        Args:
            x: the stream, `(B, T, D)`.
            y: what the body gives of it, where that is known.
        """
        y = self.body(self.entering(x), self.kept_tokens) if y is None else y
        return x[:, : self.kept_tokens] + (y if self.scale is None else y * self.scale)

    def __call__(self, x, y=None):
        """The stream behind it; `y` as for `added`."""
        x = self.added(x, y)
        return x if self.post_norm is None else self.post_norm(x)


@dataclass(frozen=True, eq=False)
class Block:
    """Residuals one behind the other, whose last stream has a name in the file."""

    residuals: tuple[Residual, ...]

    def __call__(self, x):
        for residual in self.residuals:
            x = residual(x)
        return x

    @property
    def attention(self):
        """Its first attention, or None."""
        return next((each.body for each in self.residuals if isinstance(each.body, Attention)), None)

    @property
    def kept_tokens(self):
        """How many leading tokens leave it; None is all."""
        kept = [residual.kept_tokens for residual in self.residuals if residual.kept_tokens is not None]
        return min(kept, default=None)
