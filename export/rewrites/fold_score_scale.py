"""The factor 1/sqrt(d) of the attention scores into the query projection.

`(x Wq + bq) s = x (s Wq) + s bq`. Applies to every spec. Source: distributivity.
"""

from dataclasses import replace

from .stream import NO_BLOCKS


def refuse(spec):
    return "" if spec.blocks else NO_BLOCKS


def fold_score_scale(spec):
    def fold(attention):
        return replace(attention, query=attention.query.scaled(attention.score_scale), score_scale=1.0)

    return replace(spec, blocks=tuple(replace(block, attention=fold(block.attention)) for block in spec.blocks))
