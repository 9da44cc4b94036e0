"""Raw pixels straight into the patch projection.

With p = pixel * s + o per channel, `p @ W + b = pixel @ (diag(s) W) + (b + o @ W)`: the patches do not overlap, so
every weight sees one channel. Applies to every spec. Source: distributivity.
"""

from dataclasses import replace

import numpy as np

from ..spec.layers import Dense


def refuse(spec):
    return ""


def fold_pixel_normalization(spec):
    pixels = spec.patch_size[0] * spec.patch_size[1]
    scale, offset = np.tile(spec.pixel_scale, pixels), np.tile(spec.pixel_offset, pixels)
    kernel, bias = spec.patch.kernel, spec.patch.bias
    patch = Dense(scale[:, None] * kernel, bias + offset @ kernel)
    return replace(
        spec, patch=patch, pixel_scale=np.ones_like(spec.pixel_scale), pixel_offset=np.zeros_like(spec.pixel_offset)
    )
