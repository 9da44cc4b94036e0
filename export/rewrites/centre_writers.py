"""A mean-free residual stream, which turns LayerNorm into RMSNorm.

With C = I - 11'/D, LayerNorm(x) = LayerNorm(x C), and x C is mean-free when every writer w becomes w C: the norm needs
no mean and no subtraction. Applies to pre-norm encoders with LayerScale folded. Source: SliceGPT, arXiv:2401.15024.
"""

from dataclasses import replace

import numpy as np

from .stream import every_reader_is_normed, layer_scale_is_folded, map_writers


def centre_writers(spec):
    if not every_reader_is_normed(spec) or not layer_scale_is_folded(spec):
        return spec
    spec = map_writers(spec, np.eye(spec.width) - 1 / spec.width)

    def without_mean(block):
        return replace(
            block,
            attention_norm=replace(block.attention_norm, subtract_mean=False),
            mlp_norm=replace(block.mlp_norm, subtract_mean=False),
        )

    norm = replace(spec.norm, subtract_mean=False)
    return replace(spec, blocks=tuple(map(without_mean, spec.blocks)), norm=norm)
