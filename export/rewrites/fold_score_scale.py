"""The factor 1/sqrt(d) of the attention scores into the query projection.

`(x Wq + bq) s = x (s Wq) + s bq`. Applies to every spec. Source: distributivity.
"""

from dataclasses import replace

from ..spec.attention import Attention
from .stream import NO_BLOCKS


def refuse(spec):
    return "" if spec.blocks else NO_BLOCKS


def fold_score_scale(spec):
    def fold(residual):
        attention = residual.body
        if not isinstance(attention, Attention):
            return residual
        query = attention.query.scaled(attention.score_scale)
        return replace(residual, body=replace(attention, query=query, score_scale=1.0))

    return spec.with_residuals(fold)
