"""Each rewrite preserves the function: the oracle's logits before and after agree to 1e-9."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import run_python
from hypothesis import given, settings
from random_specs import images_for, specs

from keras_vit_plugin.export import rewrites
from keras_vit_plugin.export.rewrites.absorb_key_value import merged, shares
from keras_vit_plugin.export.rewrites.absorb_key_value import refuse as refuse_absorbing
from keras_vit_plugin.export.rewrites.rotate_stream import random_orthogonal
from keras_vit_plugin.export.rewrites.rotate_stream import refuse as refuse_rotation
from keras_vit_plugin.export.rewrites.stream import refuse_stream, stream_norms
from keras_vit_plugin.export.spec.attention import Attention
from keras_vit_plugin.export.spec.layers import Dense, Norm
from keras_vit_plugin.export.spec.mlp import Mlp
from keras_vit_plugin.export.spec.model import Head, ViTSpec
from keras_vit_plugin.export.spec.residual import Block, Residual

PREPARED_BY = {
    "centre_writers": (rewrites.fold_layer_scale,),
    "rotate_stream": (rewrites.fold_layer_scale, rewrites.fold_norm_affine, rewrites.centre_writers),
    "absorb_key_value": (rewrites.keep_pooled_tokens,),
    "scale_stream": (rewrites.fold_layer_scale,),
}


def assert_same_logits(before, after):
    images = images_for(before)
    reference = before.forward(images)
    np.testing.assert_allclose(after.forward(images), reference, rtol=0, atol=1e-9 * max(1, np.abs(reference).max()))


@pytest.mark.parametrize("rewrite", (*rewrites.PASSES, *rewrites.EXTRA_PASSES), ids=lambda rewrite: rewrite.__name__)
@settings(max_examples=40, deadline=None)
@given(spec=specs(subtract_mean=None, least_depth=0))
def test_a_rewrite_preserves_the_function(rewrite, spec):
    for earlier in PREPARED_BY.get(rewrite.__name__, ()):
        spec = earlier(spec)
    measured = (images_for(spec, 3),) if rewrite in rewrites.MEASURED_PASSES else ()
    assert_same_logits(spec, rewrite(spec, *measured))


@settings(max_examples=40, deadline=None)
@given(spec=specs(subtract_mean=None, least_depth=0))
def test_all_passes_together_preserve_the_function(spec):
    for images in (None, images_for(spec, 3)):
        rewritten, changes = rewrites.apply_passes(spec, images)
        assert_same_logits(spec, rewritten)
        assert set(changes) == {rewrite.__name__ for rewrite in rewrites.PASSES}
        assert bool(changes["balance_heads"]) == (images is not None and bool(spec.blocks))
        again, repeated = rewrites.apply_passes(rewritten, images)
        assert_same_logits(spec, again)
        once = ("fold_pixel_normalization", "fold_score_scale", "fold_layer_scale", "fold_norm_affine")
        assert not any(repeated[name] for name in (*once, "centre_writers", "absorb_key_value"))
        assert all(outcome.words for outcome in (*changes.values(), *repeated.values()))


@settings(max_examples=20, deadline=None)
@given(spec=specs(pre_norm=True))
def test_what_the_passes_promise_on_a_pre_norm_encoder(spec):
    rewritten, applied = rewrites.apply_passes(spec)
    assert applied["centre_writers"] and applied["rotate_stream"]
    assert (rewritten.pixel_scale == 1).all() and not rewritten.pixel_offset.any()
    assert all(norm.gamma is None and norm.beta is None and not norm.subtract_mean for norm in stream_norms(rewritten))
    assert all(block.attention.score_scale == 1 for block in rewritten.blocks)
    assert all(residual.scale is None for residual in rewritten.residuals())
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


@settings(max_examples=20, deadline=None)
@given(spec=specs())
def test_balanced_heads_have_one_range_per_channel_and_no_mean(spec):  # as exactly as float32 can measure
    spec = rewrites.fold_score_scale(spec)
    images = images_for(spec, 3)
    balanced = rewrites.balance_heads(spec, images)
    x = balanced.embed(images)
    for before, block in zip(spec.blocks, balanced.blocks):
        attention, tokens = block.attention, block.residuals[0].entering(x)
        query, key, value = (
            attention.heads(dense, tokens) for dense in (attention.query, attention.key, attention.value)
        )
        for values in (key, value):
            assert np.abs(values.mean((0, 2))).max() <= 1e-3 * max(1, np.abs(values).max())
        ranges = [np.abs(values).max((0, 2)).ravel() for values in (query, key)]
        asked, told = (attention.heads(dense, tokens) for dense in (before.attention.query, before.attention.key))
        told = told - told.mean((0, 2), keepdims=True)
        # A range of next to nothing is balanced as if it were 1e-6.
        visible = np.minimum(*(np.abs(values).max((0, 2)).ravel() for values in (asked, told))) > 2e-6
        np.testing.assert_allclose(ranges[0][visible], ranges[1][visible], rtol=1e-2)
        x = block(x)


@settings(max_examples=40, deadline=None)
@given(spec=specs())
def test_the_last_block_reads_the_tokens_themselves_where_few_ask(spec):
    _, changes = rewrites.apply_passes(spec)
    block = rewrites.keep_pooled_tokens(spec).blocks[-1]
    worth = block.kept_tokens is not None and pays(spec, block)
    assert bool(changes["absorb_key_value"]) == worth
    attention = rewrites.absorb_key_value(rewrites.keep_pooled_tokens(spec)).blocks[-1].attention
    assert (attention.key is None) == (attention.value is None) == worth


def pays(spec, block):
    """Whether merged attention saves at least the share of the multiplications that the weights grow by, counted by the
    arrays that there are."""
    before, after = (
        replace(rewrites.keep_pooled_tokens(spec), blocks=(*spec.blocks[:-1], with_attention(block, attention)))
        for attention in (block.attention, merged(block.attention))
    )
    saved = work(before)[0] - work(after)[0] + work(before)[1] - work(after)[1]
    grown = sum(layer.kernel.size for layer in after.dense_layers()) / sum(
        layer.kernel.size for layer in before.dense_layers()
    )
    return saved > 0 and grown - 1 <= saved / work(before)[0] * (1 + 1e-12)


def with_attention(block, attention):
    first, mlp = block.residuals
    return replace(block, residuals=(replace(first, body=attention), mlp))


def block_of(norm, attention, mlp, kept_tokens=None):
    return Block((Residual(norm, attention, kept_tokens=kept_tokens), Residual(norm, mlp)))


def work(spec):
    """Multiply-accumulates of all dense layers, and of the last block's products of two activations."""
    dense = len(spec.positions) * spec.patch.kernel.size + sum(head.dense.kernel.size for head in spec.heads)
    for block in spec.blocks:
        attention, asking = block.attention, block.kept_tokens or spec.num_tokens
        for layer, rows in (
            (attention.query, asking),
            (attention.key, spec.num_tokens),
            (attention.value, spec.num_tokens),
            (attention.output, asking),
            (block.residuals[1].body.hidden, asking),
            (block.residuals[1].body.output, asking),
        ):
            dense += 0 if layer is None else rows * layer.kernel.size
    last = spec.blocks[-1]
    return dense, 2 * last.kept_tokens * spec.num_tokens * last.attention.query.kernel.shape[1]


@pytest.mark.parametrize("heads, applies", [(1, True), (2, True), (3, True), (4, False), (6, False), (12, False)])
@pytest.mark.parametrize("tokens, width", [(197, 48), (257, 96), (1025, 192)])
def test_key_and_value_are_absorbed_by_a_deep_model_of_up_to_three_heads(tokens, width, heads, applies):
    """Twelve blocks as DeiT's: one weight in 72 is added for each head above two, one multiplication in 68 saved."""

    def dense(inputs, outputs):
        return Dense(np.zeros((inputs, outputs)), np.zeros(outputs))

    norm = Norm(np.ones(width), np.zeros(width), 1e-6)
    attention = Attention(heads, *(dense(width, width) for _ in range(4)), 1.0)
    mlp = Mlp(dense(width, 4 * width), dense(4 * width, width))
    block, last = (block_of(norm, attention, mlp, kept_tokens) for kept_tokens in (None, 1))
    spec = replace(
        small_spec(),
        patch=dense(1, width),
        prefix=np.zeros((1, width)),
        positions=np.zeros((tokens - 1, width)),
        blocks=(*[block] * 11, last),
        heads=(Head(0, dense(width, 10)),),
    )
    saved, grown = shares(spec)
    assert saved > 0 and (grown <= saved) == applies == (not refuse_absorbing(spec))
    assert pays(spec, spec.blocks[-1]) == applies


@pytest.mark.parametrize("tokens, applies", [(15, False), (16, True), (17, True)])
def test_weights_may_grow_by_no_more_than_the_share_that_is_saved(tokens, applies):
    """With 16 tokens the two shares are the same, 32 of 67."""

    def dense(inputs, outputs):
        return Dense(np.zeros((inputs, outputs)), np.zeros(outputs))

    norm = Norm(np.ones(16), np.zeros(16), 1e-6)
    attention = Attention(4, *(dense(16, 16) for _ in range(4)), 1.0)
    spec = replace(
        small_spec(),
        patch=dense(4, 16),
        prefix=np.zeros((1, 16)),
        positions=np.zeros((tokens - 1, 16)),
        blocks=(block_of(norm, attention, Mlp(dense(16, 32), dense(32, 16)), kept_tokens=1),),
        heads=(Head(0, dense(16, 2)),),
    )
    saved, grown = shares(spec)
    assert grown == pytest.approx(32 / 67) and (saved == grown) == (tokens == 16)
    words = f"the weights would grow by 47.8% to save {saved:.1%} of the multiplications"
    assert refuse_absorbing(spec) == ("" if applies else words)
    assert pays(spec, spec.blocks[-1]) == applies


@pytest.mark.parametrize("heads, applies", [(2, True), (4, False)])
def test_a_block_with_few_heads_absorbs_and_one_with_many_does_not(heads, applies):
    spec = rewrites.keep_pooled_tokens(small_spec(heads))
    rewritten, outcomes = rewrites.apply_passes(spec, passes=(rewrites.absorb_key_value,))
    assert bool(outcomes["absorb_key_value"]) == applies
    assert applies or "few tokens: it would save nothing" in outcomes["absorb_key_value"].words
    assert_same_logits(spec, rewritten)


def test_a_change_is_told_by_what_differs():
    spec = small_spec()
    told = rewrites.describe_change(spec, rewrites.fold_score_scale(spec))
    assert told.startswith("blocks.*.attention.query.kernel (2)") and "score_scale (2)" in told
    assert rewrites.describe_change(spec, spec) == ""
    parameters = rewrites.describe_change(spec, rewrites.fold_norm_affine(spec)).rsplit("; ")[1]
    assert parameters == f"{count(spec):,} -> {count(rewrites.fold_norm_affine(spec)):,} parameters"


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("half", [0, 1])
def test_one_unfolded_layer_scale_keeps_the_stream_in_its_basis(block, half):
    blocks = [*small_spec().blocks]
    assert refuse_stream(small_spec()) == ""
    residuals = [*blocks[block].residuals]
    residuals[half] = replace(residuals[half], scale=np.full(4, 0.5))
    blocks[block] = Block(tuple(residuals))
    assert refuse_stream(replace(small_spec(), blocks=tuple(blocks))) == "LayerScale is not folded"


@pytest.mark.parametrize("norm", [0, 1])
@pytest.mark.parametrize("parts", [{"gamma": np.full(4, 2.0)}, {"beta": np.full(4, 0.5)}])
def test_one_unfolded_norm_keeps_the_stream_from_being_rotated(norm, parts):
    spec = rewrites.centre_writers(rewrites.fold_norm_affine(small_spec()))
    assert refuse_rotation(spec) == ""
    residuals = [*spec.blocks[1].residuals]
    residuals[norm] = replace(residuals[norm], norm=replace(residuals[norm].norm, **parts))
    unfolded = Block(tuple(residuals))
    assert "is not folded" in refuse_rotation(replace(spec, blocks=(spec.blocks[0], unfolded)))


def test_a_pass_says_why_it_does_not_apply():
    spec = small_spec()
    _, outcomes = rewrites.apply_passes(spec)
    assert str(outcomes["balance_heads"]) == "does not apply: there are no images to measure on"
    assert str(outcomes["fold_layer_scale"]) == "does not apply: there is no LayerScale"
    assert outcomes["fold_norm_affine"].status == "changed"
    _, repeated = rewrites.apply_passes(rewrites.fold_norm_affine(spec), passes=(rewrites.fold_norm_affine,))
    assert str(repeated["fold_norm_affine"]) == "held already: nothing was left to change"


@settings(max_examples=20, deadline=None)
@given(spec=specs(pre_norm=True, subtract_mean=False))
def test_a_stream_whose_mean_norms_read_is_not_centred_but_rotated(spec):
    rewritten, outcomes = rewrites.apply_passes(spec)
    assert not outcomes["centre_writers"] and "RMSNorm" in outcomes["centre_writers"].words
    assert outcomes["rotate_stream"]
    assert_same_logits(spec, rewritten)


def test_reasons_are_there_without_docstrings():
    code = """
import sys
sys.path[:0] = ["tests", "tests/export"]
from test_rewrites import small_spec
from keras_vit_plugin.export import rewrites
print(rewrites.__doc__, rewrites.apply_passes(small_spec())[1]["balance_heads"], sep=", ")
"""
    words = "None, does not apply: there are no images to measure on"
    assert run_python(code, PYTHONOPTIMIZE="2").strip() == words


def small_spec(heads=2):
    generator = np.random.default_rng(0)

    def dense(inputs, outputs):
        return Dense(generator.normal(size=(inputs, outputs)), generator.normal(size=outputs))

    def norm():
        return Norm(generator.normal(size=4), generator.normal(size=4), 1e-6)

    blocks = tuple(
        Block(
            (
                Residual(norm(), Attention(heads, *(dense(4, 4) for _ in range(4)), 0.5)),
                Residual(norm(), Mlp(dense(4, 6), dense(6, 4))),
            )
        )
        for _ in range(2)
    )
    rows = generator.normal(size=(5, 4))
    return ViTSpec(
        (2, 2, 1),
        (1, 1),
        np.ones(1),
        np.zeros(1),
        dense(1, 4),
        rows[:1],
        rows[1:],
        blocks,
        norm(),
        (Head(0, dense(4, 3)),),
    )


def count(spec):
    """Weights, biases, gammas, betas and tokens of a spec, and its two numbers per input channel."""
    layers = sum(layer.kernel.size + layer.bias.size for layer in spec.dense_layers())
    norms = sum(array.size for norm in stream_norms(spec) for array in (norm.gamma, norm.beta) if array is not None)
    return layers + norms + spec.prefix.size + spec.positions.size + 2 * len(spec.pixel_scale)


def test_a_pass_that_changes_the_model_is_named():
    def doubled_keys(spec):
        def doubled(residual):
            body = residual.body
            return replace(residual, body=replace(body, key=body.key.scaled(2))) if hasattr(body, "key") else residual

        return spec.with_residuals(doubled)

    spec = small_spec()
    _, outcomes = rewrites.apply_passes(spec, validating=True)
    assert outcomes["rotate_stream"]
    passes = (rewrites.fold_score_scale, doubled_keys)
    with pytest.raises(RuntimeError, match=r"The rewrite doubled_keys changes the model: its logits differ by \d"):
        rewrites.apply_passes(spec, passes=passes, validating=True)
    assert rewrites.apply_passes(spec, passes=passes)[1]["doubled_keys"]  # nobody looks


def test_every_pass_changes_many_random_specs():
    """A pass that does nothing proves nothing: of 40 random models with images each changes some."""
    changed = Counter()

    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(spec=specs())
    def count_changes(spec):
        _, outcomes = rewrites.apply_passes(spec, images_for(spec, 3), validating=True)
        changed.update(name for name, outcome in outcomes.items() if outcome)

    count_changes()
    assert {rewrite.__name__ for rewrite in rewrites.PASSES} <= changed.keys() and min(changed.values()) >= 3
    heads = []

    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(spec=specs())
    def count_heads(spec):
        heads.append(spec.attentions()[0].num_heads)

    count_heads()
    assert max(heads) == 5


def refuse(spec):
    return ""
