"""Each rewrite preserves the function: the oracle's logits before and after agree to 1e-9."""

import numpy as np
import pytest
from hypothesis import given, settings
from random_specs import images_for, specs

from keras_vit_plugin.export import rewrites
from keras_vit_plugin.export.rewrites.rotate_stream import random_orthogonal
from keras_vit_plugin.export.rewrites.stream import stream_norms

PREPARED_BY = {
    "centre_writers": (rewrites.fold_layer_scale,),
    "rotate_stream": (rewrites.fold_layer_scale, rewrites.fold_norm_affine, rewrites.centre_writers),
}


def assert_same_logits(before, after):
    images = images_for(before)
    reference = before.forward(images)
    np.testing.assert_allclose(after.forward(images), reference, rtol=0, atol=1e-9 * max(1, np.abs(reference).max()))


@pytest.mark.parametrize("rewrite", rewrites.PASSES, ids=lambda rewrite: rewrite.__name__)
@settings(max_examples=40, deadline=None)
@given(spec=specs())
def test_a_rewrite_preserves_the_function(rewrite, spec):
    for earlier in PREPARED_BY.get(rewrite.__name__, ()):
        spec = earlier(spec)
    assert_same_logits(spec, rewrite(spec))


@settings(max_examples=40, deadline=None)
@given(spec=specs())
def test_all_passes_together_preserve_the_function(spec):
    rewritten, applied = rewrites.apply_passes(spec)
    assert_same_logits(spec, rewritten)
    assert set(applied) == {rewrite.__name__ for rewrite in rewrites.PASSES}


@settings(max_examples=20, deadline=None)
@given(spec=specs(pre_norm=True))
def test_what_the_passes_promise_on_a_pre_norm_encoder(spec):
    rewritten, applied = rewrites.apply_passes(spec)
    assert applied["centre_writers"] and applied["rotate_stream"]
    assert (rewritten.pixel_scale == 1).all() and not rewritten.pixel_offset.any()
    assert all(norm.gamma is None and norm.beta is None and not norm.subtract_mean for norm in stream_norms(rewritten))
    assert all(block.attention.score_scale == 1 for block in rewritten.blocks)
    assert all(block.attention_scale is None and block.mlp_scale is None for block in rewritten.blocks)
    # The centred stream is mean-free; rotated, it is orthogonal to the rotated vector of ones.
    ones = np.ones(spec.width) @ random_orthogonal(spec.width)
    x = rewritten.embed(images_for(spec))
    for block in rewritten.blocks:
        x = block(x)
        assert np.abs(x @ ones).max() <= 1e-9 * max(1, np.abs(x).max())


@settings(max_examples=20, deadline=None)
@given(spec=specs(pre_norm=False))
def test_passes_leave_a_post_norm_stream_alone(spec):
    _, applied = rewrites.apply_passes(spec)
    assert not applied["centre_writers"] and not applied["rotate_stream"]


def test_the_rotation_is_orthogonal_and_the_same_every_time():
    rotation = random_orthogonal(24)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(24), atol=1e-12)
    np.testing.assert_array_equal(rotation, random_orthogonal(24))
