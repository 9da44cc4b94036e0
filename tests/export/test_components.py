"""Each kind of component: what it promises holds, and a new one is its file, its lowering and a line in a table."""

from dataclasses import dataclass

import numpy as np
import pytest
from random_specs import images_for

from keras_vit_plugin.export import rewrites
from keras_vit_plugin.export.lowering import vision_transformer
from keras_vit_plugin.export.lowering.vision_transformer import COMPONENTS, lower
from keras_vit_plugin.export.rewrites.absorb_key_value import merged
from keras_vit_plugin.export.rewrites.rotate_stream import random_orthogonal
from keras_vit_plugin.export.spec.attention import Attention
from keras_vit_plugin.export.spec.component import Component
from keras_vit_plugin.export.spec.functions import gelu
from keras_vit_plugin.export.spec.layers import Dense, Norm
from keras_vit_plugin.export.spec.mlp import Mlp
from keras_vit_plugin.export.spec.model import Head, ViTSpec
from keras_vit_plugin.export.spec.promises import Promise
from keras_vit_plugin.export.spec.residual import Block, Residual
from keras_vit_plugin.export.tflite.runner import Runner

WIDTH, TOKENS = 6, 5
GENERATOR = np.random.default_rng(0)


def dense(inputs, outputs):
    return Dense(GENERATOR.normal(0, 0.5, (inputs, outputs)), GENERATOR.normal(0, 0.5, outputs))


ATTENTION = Attention(2, dense(WIDTH, 4), dense(WIDTH, 4), dense(WIDTH, 4), dense(4, WIDTH), 0.7)
MLP = Mlp(dense(WIDTH, 8), dense(8, WIDTH))
EVERY = {"attention": ATTENTION, "absorbed attention": merged(ATTENTION), "mlp": MLP}


@dataclass(frozen=True, eq=False)
class GatedMlp(Component):
    """`output(gelu(gate(x)) * hidden(x))` (arXiv:2002.05202): two readers."""

    gate: Dense
    hidden: Dense
    output: Dense

    READERS = ("gate", "hidden")
    WRITERS = ("output",)

    @property
    def promises(self):
        return frozenset({Promise.READS_BY_LAYERS, Promise.WRITES_BY_LAYERS, Promise.ROW_BY_ROW})

    def __call__(self, x, queries=None):
        x = x[:, :queries]
        return self.output(gelu(self.gate(x)) * self.hidden(x))

    def layers(self):
        return [self.gate, self.hidden, self.output]

    def multiplications(self, tokens, queries):
        return queries * sum(layer.kernel.size for layer in self.layers())


def lower_gated_mlp(x, mlp, queries, context):
    from keras_vit_plugin.export.lowering.gelu_forms import lower_gelu

    x = context.first_rows(x, queries)
    return context.dense(lower_gelu(context.dense(x, mlp.gate), context) * context.dense(x, mlp.hidden), mlp.output)


GATED = GatedMlp(dense(WIDTH, 8), dense(WIDTH, 8), dense(8, WIDTH))


def spec_of(*bodies):
    """A spec of so many components, each behind a norm, with a class token."""
    norm = Norm(1 + 0.1 * GENERATOR.normal(size=WIDTH), 0.1 * GENERATOR.normal(size=WIDTH), 1e-6)
    return ViTSpec(
        image_shape=(4, 4, 1),
        patch_size=(2, 2),
        pixel_scale=np.full(1, 1 / 255),
        pixel_offset=np.zeros(1),
        patch=dense(4, WIDTH),
        prefix=GENERATOR.normal(size=(1, WIDTH)),
        positions=GENERATOR.normal(size=(4, WIDTH)),
        blocks=(Block(tuple(Residual(norm, body) for body in bodies)),),
        norm=norm,
        heads=(Head(0, dense(WIDTH, 3)),),
    )


def check_promises(component, x):
    """Fails where a promise that the component gives is not true."""
    given, y = component.promises, component(x)

    def same(other, entering=x):
        np.testing.assert_allclose(other(entering), y, atol=1e-9)

    if Promise.ROW_BY_ROW in given:
        np.testing.assert_allclose(component(x, 2), y[:, :2], atol=1e-12)
    if Promise.READS_BY_LAYERS in given:
        turn = random_orthogonal(x.shape[-1])
        readers = {name: Dense(turn.T @ layer.kernel, layer.bias) for name, layer in component.readers().items()}
        same(component.with_layers(readers), x @ turn)
    if Promise.WRITES_BY_LAYERS in given:
        matrix = np.random.default_rng(3).normal(size=(WIDTH, WIDTH))
        writers = {n: Dense(layer.kernel @ matrix, layer.bias @ matrix) for n, layer in component.writers().items()}
        np.testing.assert_allclose(component.with_layers(writers)(x), y @ matrix, atol=1e-9)
    if Promise.KEYS_MAY_SHIFT in given:
        same(component.with_layers({"key": Dense(component.key.kernel, component.key.bias + 3.0)}))
    if Promise.QUERY_KEY_DIAGONAL in given:
        by = np.random.default_rng(1).uniform(0.5, 2, component.query.bias.shape)
        same(component.with_layers({"query": component.query.scaled(by), "key": component.key.scaled(1 / by)}))
    if Promise.VALUES_ARE_AVERAGED in given:
        shifted = Dense(component.value.kernel, component.value.bias + 1.0)
        output = component.output
        output = Dense(output.kernel, output.bias - np.ones(len(output.kernel)) @ output.kernel)
        same(component.with_layers({"value": shifted, "output": output}))


@pytest.mark.parametrize("name", EVERY)
def test_what_a_component_promises_is_true(name):
    component, x = EVERY[name], np.random.default_rng(2).normal(size=(2, TOKENS, WIDTH))
    check_promises(component, x)
    assert component.promises
    sizes = sum(layer.kernel.size for layer in component.layers())
    assert component.multiplications(1, 1) == sizes
    assert component.readers().keys() | component.writers().keys() <= set(component.__dataclass_fields__)


def test_a_broken_promise_is_seen():
    class Shifted(Attention):
        def scores(self, x, queries=None):
            return super().scores(x, queries) * (1 + self.key.bias.mean())

    broken = Shifted(**vars(ATTENTION))
    with pytest.raises(AssertionError):
        check_promises(broken, np.random.default_rng(2).normal(size=(2, TOKENS, WIDTH)))


def test_every_component_has_a_lowering():
    assert {type(component) for component in EVERY.values()} == set(COMPONENTS)


def test_an_unknown_component_is_named():
    with pytest.raises(NotImplementedError, match="export/lowering has nothing for GatedMlp"):
        lower(spec_of(GATED))


def test_a_new_component_gets_the_rewrites_that_it_promises_and_a_file(monkeypatch):
    monkeypatch.setitem(vision_transformer.COMPONENTS, GatedMlp, lower_gated_mlp)
    check_promises(GATED, np.random.default_rng(2).normal(size=(2, TOKENS, WIDTH)))
    spec = spec_of(ATTENTION, GATED, MLP)
    images = images_for(spec, 3)
    rewritten, outcomes = rewrites.apply_passes(spec, images, validating=True)
    changed = {name for name, outcome in outcomes.items() if outcome}
    assert {"fold_norm_affine", "centre_writers", "rotate_stream", "keep_pooled_tokens", "balance_heads"} <= changed
    assert "gatedmlp.gate.kernel" in outcomes["rotate_stream"].words
    logits = Runner(lower(rewritten, 3))(images.astype(np.uint8))
    np.testing.assert_allclose(logits, spec.forward(images), atol=1e-4)


def test_a_component_that_promises_nothing_is_left_alone(monkeypatch):
    class Silent(GatedMlp):
        promises = frozenset()

    silent = Silent(**vars(GATED))
    spec = spec_of(ATTENTION, silent)
    rewritten, outcomes = rewrites.apply_passes(spec, images_for(spec, 3), validating=True)
    assert rewritten.residuals()[1].body is silent
    names = ("fold_norm_affine", "centre_writers", "rotate_stream", "keep_pooled_tokens")
    assert not any(outcomes[name] for name in names)
