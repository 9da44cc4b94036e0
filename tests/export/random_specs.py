"""Random `ViTSpec`s for the property tests."""

import numpy as np
from hypothesis import strategies as st

from keras_vit_plugin.export.spec.attention import Attention
from keras_vit_plugin.export.spec.layers import Dense, Norm
from keras_vit_plugin.export.spec.mlp import Mlp
from keras_vit_plugin.export.spec.model import Head, ViTSpec
from keras_vit_plugin.export.spec.residual import Block, Residual


@st.composite
def specs(draw, pre_norm=None, subtract_mean=True, least_depth=1):
    """Specs of every topology: with and without prefix tokens, LayerScale, pre-norm, mean pooling, two heads.

    `subtract_mean` False is RMSNorm, None either.
    """
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    patch = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    grid = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    channels, heads, head_width = draw(st.sampled_from((1, 3))), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    width, hidden, classes = draw(st.integers(2, 12)), draw(st.integers(1, 8)), draw(st.integers(2, 5))
    prefix, depth = draw(st.integers(0, 3)), draw(st.integers(least_depth, 3))
    is_pre_norm = draw(st.booleans()) if pre_norm is None else pre_norm
    has_scale = draw(st.booleans())

    layer_norm = draw(st.booleans()) if subtract_mean is None else subtract_mean

    def array(*shape):
        return generator.normal(0, 0.5, shape)

    def dense(inputs, outputs):
        return Dense(array(inputs, outputs), array(outputs))

    def norm():
        return Norm(1 + array(width), array(width), 1e-6, layer_norm)

    def block():
        inner = heads * head_width
        attention = Attention(
            heads, dense(width, inner), dense(width, inner), dense(width, inner), dense(inner, width), head_width**-0.5
        )
        first = Residual(
            norm() if is_pre_norm else None,
            attention,
            array(width) if has_scale else None,
            None if is_pre_norm else norm(),
        )
        mlp = Mlp(dense(width, hidden), dense(hidden, width))
        return Block((first, Residual(norm() if is_pre_norm else None, mlp, array(width) if has_scale else None)))

    tokens = draw(st.sampled_from([(None,), (0,), (0, 1)])) if prefix >= 2 else (None,)
    return ViTSpec(
        image_shape=(patch[0] * grid[0], patch[1] * grid[1], channels),
        patch_size=patch,
        pixel_scale=generator.uniform(0.005, 0.02, channels),
        pixel_offset=array(channels),
        patch=dense(patch[0] * patch[1] * channels, width),
        prefix=array(prefix, width),
        positions=array(grid[0] * grid[1], width),
        blocks=tuple(block() for _ in range(depth)),
        norm=norm() if is_pre_norm else None,
        heads=tuple(Head(token, dense(width, classes)) for token in tokens),
    )


def images_for(spec, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *spec.image_shape))
