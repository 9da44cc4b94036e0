"""Multi-head self-attention."""

from dataclasses import dataclass

from .component import Component
from .functions import softmax
from .layers import Dense
from .promises import Promise


@dataclass(frozen=True, eq=False)
class Attention(Component):
    """Multi-head self-attention; `score_scale` multiplies the scores before softmax.

    Where a rewrite has absorbed key and value into query and output, they are None: every head reads the tokens
    themselves.
    """

    num_heads: int
    query: Dense
    key: Dense | None
    value: Dense | None
    output: Dense
    score_scale: float

    READERS = ("query", "key", "value")
    WRITERS = ("output",)

    @property
    def absorbed(self):
        """Whether the heads read the tokens themselves."""
        return self.key is None

    @property
    def promises(self):
        if self.absorbed:
            return frozenset({Promise.WRITES_BY_LAYERS, Promise.ROW_BY_ROW})
        return frozenset(Promise)

    def layers(self):
        return [layer for layer in (self.query, self.key, self.value, self.output) if layer is not None]

    def multiplications(self, tokens, queries):
        for_all = 0 if self.absorbed else self.key.kernel.size + self.value.kernel.size
        return queries * (self.query.kernel.size + self.output.kernel.size) + tokens * for_all

    def __call__(self, x, queries=None):
        """Attention over the tokens of x, `(B, T, D)`, for its first `queries` tokens; None is all."""
        return self.joined(softmax(self.scores(x, queries)) @ self.heads(self.value, x))

    def joined(self, mixed):
        """What leaves the attention, `(B, T, D)`, of the values as each head mixes them, `(B, heads, T, d)`."""
        mixed = mixed.transpose(0, 2, 1, 3)  # (B, T, heads, d)
        return self.output(mixed.reshape(*mixed.shape[:2], -1))

    def scores(self, x, queries=None):
        """What softmax takes, `(B, heads, T, T)`."""
        query, key = self.heads(self.query, x[:, :queries]), self.heads(self.key, x)
        return query @ key.transpose(0, 1, 3, 2) * self.score_scale

    def heads(self, dense, x):
        """`dense(x)` by head, `(B, heads, T, d)`; x itself, `(B, 1, T, D)`, where there is no dense."""
        if dense is None:
            return x[:, None]
        y = dense(x)
        return y.reshape(*y.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)
