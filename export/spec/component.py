"""What stands in a residual of a block: the door between the rewrites and the kinds of layers."""

from dataclasses import replace
from typing import ClassVar


class Component:
    """A function of the tokens `(B, T, D)`, float64, that reads the residual stream and is added to it.

    A component is a frozen dataclass with a file in `spec/` and one in `lowering/`.

    Attributes:
        READERS: names of its dense layers that read what enters it.
        WRITERS: names of those whose output leaves it.
    """

    READERS: ClassVar[tuple[str, ...]]
    WRITERS: ClassVar[tuple[str, ...]]

    @property
    def promises(self):
        """The `Promise`s that it gives; a rewrite that needs another leaves it alone."""
        return frozenset()

    def __call__(self, x, queries=None):
        """What leaves for the first `queries` tokens of x; None is all."""
        raise NotImplementedError

    def layers(self):
        """Every `Dense`, in the order of computation."""
        raise NotImplementedError

    def multiplications(self, tokens, queries):
        """Multiply-accumulates of its dense layers for so many tokens, of which so many ask."""
        raise NotImplementedError

    def readers(self):
        """`{name: Dense}` of the layers that read what enters it."""
        return self._named(self.READERS)

    def writers(self):
        """`{name: Dense}` of the layers whose output leaves it."""
        return self._named(self.WRITERS)

    def with_layers(self, layers):
        """The same with other dense layers, `{name: Dense}`."""
        return replace(self, **layers)

    def _named(self, names):
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
