"""Function-preserving passes, spec in, spec out, in float64: the oracle's logits agree before and after to 1e-9."""

import sys
from dataclasses import dataclass

import numpy as np

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


VALIDATION_IMAGES = 2
LARGEST_ERROR = 1e-9  # of the logits, as a share of the largest, or of 1 where all are smaller
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


def apply_passes(spec, images=None, passes=None, validating=False):
    """Runs the passes.

    Args:
        spec: a `ViTSpec`.
        images: raw pixels 0..255, `(N, H, W, C)`, for the passes that measure; None leaves those out.
        passes: which, in their order; None is `PASSES`.
        validating: whether the oracle's logits are compared after every pass that changes something.

    Returns:
        The new spec and `{pass name: Outcome}`.

    Raises:
        RuntimeError: a pass changed the function; names it.
    """
    outcomes = {}
    validate = Validation(spec, images) if validating else None
    for rewrite in PASSES if passes is None else passes:
        reason = refusal(rewrite, spec, images)
        if reason:
            outcomes[rewrite.__name__] = Outcome(REFUSED, reason)
            continue
        rewritten = rewrite(spec, images) if rewrite in MEASURED_PASSES else rewrite(spec)
        words = describe_change(spec, rewritten)
        outcomes[rewrite.__name__] = Outcome(CHANGED, words) if words else Outcome(HELD, "nothing was left to change")
        spec = rewritten
        if validate is not None and words:
            validate(spec, rewrite.__name__)
    return spec, outcomes


class Validation:
    """Compares the oracle's logits with those before the passes.

    Args:
        spec: the `ViTSpec` before them.
        images: raw pixels 0..255, of which `VALIDATION_IMAGES` are taken; None takes noise.
    """

    def __init__(self, spec, images=None):
        noise = np.random.default_rng(0).integers(0, 256, (VALIDATION_IMAGES, *spec.image_shape))
        self._images = noise if images is None else images[:VALIDATION_IMAGES]
        self._expected = spec.forward(self._images)

    def __call__(self, spec, name):
        """Raises `RuntimeError` where the logits of the spec behind the pass of this name are others."""
        largest = max(1.0, np.abs(self._expected).max())
        error = np.abs(spec.forward(self._images) - self._expected).max()
        if not error <= LARGEST_ERROR * largest:
            raise RuntimeError(f"The rewrite {name} changes the model: its logits differ by {error:.3g}.")


def refusal(rewrite, spec, images=None):
    """Why a pass does not apply to a spec, in words; empty where it does."""
    if rewrite in MEASURED_PASSES and images is None:
        return "there are no images to measure on"
    return sys.modules[rewrite.__module__].refuse(spec)
