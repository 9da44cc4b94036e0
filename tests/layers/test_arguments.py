"""What a layer or model is without arguments, what it is called, and that a dtype reaches all that it is made of."""

import inspect

import keras
import pytest

import keras_vit_plugin as kv
from keras_vit_plugin import layers

BLOCK = {"use_qkv_bias": True, "attention_dropout": 0, "stochastic_depth": 0, "layer_scale": None}
NORM = {"layer_norm_epsilon": 1e-6}
# What the docstrings say, as configs; timm's epsilon is 1e-6 too.
WITHOUT_ARGUMENTS = [
    (layers.PatchEmbedding(4, 8), {"patch_size": (4, 4), "use_bias": True}),
    (layers.PrefixTokensAndPositions(), {"use_class_token": True, "use_distillation_token": False}),
    (layers.PrefixTokensAndPositions(), {"num_register_tokens": 0}),
    (layers.MultiHeadSelfAttention(2), {"key_dim": None, "use_bias": True, "dropout": 0}),
    (layers.MLP(16), {"dropout": 0}),
    (layers.LayerNormalization(), {"epsilon": 1e-6}),
    (layers.LayerScale(), {"initial_value": 1e-5}),
    (layers.StochasticDepth(), {"rate": 0, "seed": None}),
    (layers.EncoderBlock(2, 16), {**BLOCK, **NORM, "dropout": 0}),
    (layers.PostNormEncoderBlock(2, 4, 16), NORM),
    (layers.TokenPooling(), {"index": 0}),
    (layers.MeanPooling(), {"num_prefix_tokens": 0}),
    (kv.ViTImageConverter(), {"crop_fraction": 1, "interpolation": "bicubic", "antialias": True, "scale": None}),
    (kv.ViTImageConverter(), {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": False}),
]


@pytest.mark.parametrize("layer, config", WITHOUT_ARGUMENTS, ids=lambda value: type(value).__name__)
def test_a_layer_without_arguments(layer, config):
    assert {name: layer.get_config()[name] for name in config} == config


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def test_models_without_arguments():
    rest = {"use_class_token": True, "use_distillation_token": False, "num_register_tokens": 0, "dropout_rate": 0}
    assert defaults(kv.ViTBackbone.__init__) == {**BLOCK, **NORM, **rest, "dtype": None}
    head = {"preprocessor": None, "pooling": "token", "activation": None, "dropout": 0, "head_dtype": None}
    assert defaults(kv.ViTImageClassifier.__init__) == head
    new = {"num_classes": None, "image_size": None, "weights": None, "new_head": False, "dtype": None}
    assert defaults(kv.build) == new


SIZES = {"image_shape": (8, 8, 3), "patch_size": 4, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_layers": 2}


def backbone(**arguments):
    return kv.ViTBackbone(**SIZES, layer_scale=0.1, stochastic_depth=0.1, dropout_rate=0.1, **arguments)


@pytest.mark.parametrize(
    "build",
    [
        lambda dtype: layers.EncoderBlock(2, 16, layer_scale=0.1, stochastic_depth=0.1, dtype=dtype),
        lambda dtype: layers.PostNormEncoderBlock(2, 4, 16, dtype=dtype),
        lambda dtype: backbone(dtype=dtype),
        lambda dtype: kv.ViTImageClassifier(backbone(dtype=dtype, use_distillation_token=True), 3),
        lambda dtype: kv.ViTImageClassifier(backbone(dtype=dtype), 3, pooling="mean"),
        lambda dtype: kv.build("simple_vit_test", dtype=dtype),
    ],
    ids=["EncoderBlock", "PostNormEncoderBlock", "ViTBackbone", "distilled", "mean", "SimpleViT"],
)
def test_a_dtype_reaches_every_layer(build):
    made = build("mixed_float16")
    if not isinstance(made, keras.Model):
        made.build((1, 4, 8))
    parts = [layer for layer in made._flatten_layers() if not isinstance(layer, keras.layers.InputLayer)]
    assert len(parts) > 5
    assert {layer.dtype_policy.name for layer in parts} == {"mixed_float16"}


def test_the_head_may_have_a_dtype_of_its_own():
    model = kv.ViTImageClassifier(backbone(dtype="mixed_float16", use_distillation_token=True), 3, head_dtype="float32")
    assert {head.dtype_policy.name for head in model.heads} == {"float32"}
    assert model.pooler.dtype_policy.name == "mixed_float16"


def names(layer):
    return {each.name for each in layer._flatten_layers(include_self=False)}


def test_parts_have_the_names_that_the_docs_and_saved_policies_use():
    attention = {"attention", "query", "key", "value", "output", "attention_dropout"}
    mlp = {"mlp", "hidden", "hidden_dropout", "output_dropout", "output"}
    block = {"attention_norm", "mlp_norm", "attention_scale", "mlp_scale", "attention_drop_path", "mlp_drop_path"}
    model = kv.ViTImageClassifier(backbone(use_distillation_token=True), 3)
    trunk = model.backbone
    assert names(trunk.blocks[1]) == attention | mlp | block
    own = ["images", "patch_embedding", "tokens", "embedding_dropout", "block_0", "block_1", "norm"]
    assert [layer.name for layer in trunk.layers] == own
    heads = {"predictions", "distillation_predictions", "pooler", "distillation_pooler", "output_dropout", "average"}
    assert heads < {layer.name for layer in model.layers}
    simple = kv.build("simple_vit_test")
    assert [layer.name for layer in simple.layers] == [
        "images",
        "patch_embedding",
        "tokens",
        "block_0",
        "pooling",
        "logits",
    ]
    assert names(simple.blocks[0]) == attention | mlp | {"norm"}
