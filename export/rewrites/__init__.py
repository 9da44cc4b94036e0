"""Function-preserving passes, spec in, spec out, in float64: the oracle's logits agree before and after to 1e-9."""

import sys
from dataclasses import dataclass

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
EXTRA_PASSES = (scale_stream,)  # those that a target may want besides


CHANGED, HELD, REFUSED = "changed", "held already", "does not apply"


@dataclass(frozen=True)
class Outcome:
    """What became of a pass; true where it changed something.

    Attributes:
        status: `CHANGED`, `HELD` where the spec was already as the pass makes it, or `REFUSED`.
        words: for people: what it changed, or why it does not apply.
    """

    status: str
    words: str

    def __bool__(self):
        return self.status == CHANGED

    def __str__(self):
        return f"{self.status}: {self.words}"


def apply_passes(spec, images=None, passes=None):
    """Runs the passes.

    Args:
        spec: a `ViTSpec`.
        images: raw pixels 0..255, `(N, H, W, C)`, for the passes that measure; None leaves those out.
        passes: which, in their order; None is `PASSES`.

    Returns:
        The new spec and `{pass name: Outcome}`.
    """
    outcomes = {}
    for rewrite in PASSES if passes is None else passes:
        reason = refusal(rewrite, spec, images)
        if reason:
            outcomes[rewrite.__name__] = Outcome(REFUSED, reason)
            continue
        rewritten = rewrite(spec, images) if rewrite in MEASURED_PASSES else rewrite(spec)
        words = describe_change(spec, rewritten)
        outcomes[rewrite.__name__] = Outcome(CHANGED, words) if words else Outcome(HELD, "nothing was left to change")
        spec = rewritten
    return spec, outcomes


def refusal(rewrite, spec, images=None):
    """Why a pass does not apply to a spec, in words; empty where it does."""
    if rewrite in MEASURED_PASSES and images is None:
        return "there are no images to measure on"
    return sys.modules[rewrite.__module__].refuse(spec)
