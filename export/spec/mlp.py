"""The two dense layers of an MLP, with GELU between."""

from dataclasses import dataclass

from .component import Component
from .functions import gelu
from .layers import Dense
from .promises import Promise


@dataclass(frozen=True, eq=False)
class Mlp(Component):
    """`output(gelu(hidden(x)))`."""

    hidden: Dense
    output: Dense

    READERS = ("hidden",)
    WRITERS = ("output",)

    @property
    def promises(self):
        return frozenset({Promise.READS_BY_LAYERS, Promise.WRITES_BY_LAYERS, Promise.ROW_BY_ROW})

    def __call__(self, x, queries=None):
        return self.output(gelu(self.hidden(x[:, :queries])))

    def layers(self):
        return [self.hidden, self.output]

    def multiplications(self, tokens, queries):
        return queries * (self.hidden.kernel.size + self.output.kernel.size)
