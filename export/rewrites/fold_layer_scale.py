"""LayerScale into the output projections of attention and MLP.

`g * (x W + b) = x (W diag(g)) + g * b`. Applies wherever there is LayerScale (arXiv:2103.17239).
"""

from dataclasses import replace

from ..spec.promises import Promise
from .stream import with_layers


def refuse(spec):
    return "" if any(map(_is_foldable, spec.residuals())) else "there is no LayerScale"


def fold_layer_scale(spec):
    def fold(residual):
        if not _is_foldable(residual):
            return residual
        writers = {name: dense.scaled(residual.scale) for name, dense in residual.body.writers().items()}
        return replace(with_layers(residual, writers), scale=None)

    return spec.with_residuals(fold)


def _is_foldable(residual):
    return residual.scale is not None and Promise.WRITES_BY_LAYERS in residual.body.promises
