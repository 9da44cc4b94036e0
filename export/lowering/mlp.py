"""The two dense layers of an MLP as ops."""

from .gelu_forms import lower_gelu


def lower_mlp(x, mlp, queries, context):
    """An `Mlp` over the first `queries` tokens of each image of x; None is all."""
    hidden = lower_gelu(context.dense(context.first_rows(x, queries), mlp.hidden), context)
    return context.dense(hidden, mlp.output)
