"""What a pass changed, in words: the arrays that differ, and the number of parameters."""

from collections import Counter
from dataclasses import fields, is_dataclass, replace

import numpy as np

from ..spec.residual import Block


def describe_change(before, after):
    """For people: which parts of a `ViTSpec` differ from another; empty where none does."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    changed = [path for path in {**old, **new} if not _same(old.get(path), new.get(path))]
    counts = Counter(tuple("*" if part.isdigit() else part for part in path) for path in changed)
    parts = [".".join(path) + (f" ({count})" if count > 1 else "") for path, count in counts.items()]
    sizes = [sum(leaf.size for leaf in leaves.values() if isinstance(leaf, np.ndarray)) for leaves in (old, new)]
    parameters = "" if sizes[0] == sizes[1] else f"; {sizes[0]:,} -> {sizes[1]:,} parameters"
    return ", ".join(parts) + parameters


def _leaves(value, path=()):
    """Every `(path, array or number)` below a dataclass or tuple."""
    if isinstance(value, Block):
        for residual in value.residuals:  # "attention.query.kernel" in place of "residuals.0.body.query.kernel"
            yield from _leaves(residual.body, named := (*path, type(residual.body).__name__.lower()))
            yield from _leaves(replace(residual, body=()), named)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, str(i)))
    else:
        yield path, value


def _same(a, b):
    return a is b or (a is not None and b is not None and np.shape(a) == np.shape(b) and np.array_equal(a, b))
