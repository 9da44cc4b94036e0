"""Function-preserving passes, spec in, spec out, in float64: the oracle's logits agree before and after to 1e-9."""

import re
import sys

from .absorb_key_value import absorb_key_value
from .balance_heads import balance_heads
from .centre_writers import centre_writers
from .describe_change import describe_change
from .fold_key_value_bias import fold_key_value_bias
from .fold_layer_scale import fold_layer_scale
from .fold_norm_affine import fold_norm_affine
from .fold_pixel_normalization import fold_pixel_normalization
from .fold_score_scale import fold_score_scale
from .keep_pooled_tokens import keep_pooled_tokens
from .rotate_stream import rotate_stream
from .scale_stream import scale_stream

# In the order in which they build on each other.
PASSES = (
    fold_pixel_normalization,
    fold_score_scale,
    fold_layer_scale,
    fold_norm_affine,
    fold_key_value_bias,
    centre_writers,
    rotate_stream,
    keep_pooled_tokens,
    balance_heads,
    absorb_key_value,
)
MEASURED_PASSES = (balance_heads, scale_stream)  # they take images too
FLOAT16_PASSES = (scale_stream,)  # for runtimes that compute in it


def apply_passes(spec, images=None, passes=PASSES):
    """Runs the passes.

    Args:
        spec: a `ViTSpec`.
        images: raw pixels 0..255, `(N, H, W, C)`, for the passes that measure; None leaves those out.

    Returns:
        The new spec and `{pass name: what it changed}`, an empty text where it did not apply.
    """
    changes = {}
    for rewrite in passes:
        if rewrite not in MEASURED_PASSES:
            rewritten = rewrite(spec)
        else:
            rewritten = spec if images is None else rewrite(spec, images)
        changes[rewrite.__name__] = describe_change(spec, rewritten)
        spec = rewritten
    return spec, changes


def condition(name):
    """When a pass applies, in the words of its header."""
    header = sys.modules[f"{__name__}.{name}"].__doc__
    return " ".join(re.search(r"Applies[^.]*\.", header).group().split())
