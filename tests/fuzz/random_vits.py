"""Random classifiers of this package."""

import numpy as np
from random_model import Head, RandomModel, choice

import keras_vit_plugin as kv


def vit(generator, policy):
    patch = (int(generator.integers(2, 6)), int(generator.integers(2, 6)))
    grid = (int(generator.integers(2, 5)), int(generator.integers(2, 5)))
    channels = choice(generator, (1, 3, 3))
    heads = int(generator.integers(1, 6))
    registers, distilled = choice(generator, (0, 0, 1, 4)), generator.random() < 0.25
    pooling = "token" if distilled else choice(generator, ("token", "token", "mean"))
    backbone = kv.models.ViTBackbone(
        image_shape=(patch[0] * grid[0], patch[1] * grid[1], channels),
        patch_size=patch,
        num_layers=int(generator.integers(1, 4)),
        num_heads=heads,
        hidden_dim=heads * choice(generator, (4, 6, 8, 16)),
        mlp_dim=choice(generator, (16, 24, 64)),
        use_class_token=pooling == "token" or generator.random() < 0.5,
        use_distillation_token=distilled,
        num_register_tokens=registers,
        use_qkv_bias=generator.random() < 0.7,
        dropout_rate=choice(generator, (0.0, 0.1)),
        attention_dropout=choice(generator, (0.0, 0.1)),
        stochastic_depth=choice(generator, (0.0, 0.2)),
        layer_scale=choice(generator, (None, None, 0.1, 1.0)),
        layer_norm_epsilon=choice(generator, (1e-6, 1e-5, 1e-3)),
        dtype=policy,
    )
    mean, std = mean_and_std(generator, channels)
    scale, offset = 1 / (255 * std), -mean / std
    preprocessor, normalization = None, {"mean": mean.tolist(), "std": std.tolist()}
    if generator.random() < 0.5:
        converter = kv.models.ViTImageConverter(
            image_size=backbone.image_shape[:2], crop_fraction=choice(generator, (1.0, 0.875)), scale=scale.tolist(),
            offset=offset.tolist(),
        )  # fmt: skip
        preprocessor, normalization = kv.models.ViTImageClassifierPreprocessor(converter), {}
    head, units = class_head(generator, "output")
    model = kv.models.ViTImageClassifier(
        backbone, units, preprocessor, pooling, None if head.activation == "linear" else head.activation,
        dropout=choice(generator, (0.0, 0.2)),
    )  # fmt: skip
    parts = ["vit", pooling, f"{registers} registers"] + ["distilled"] * distilled
    return RandomModel(model, scale, offset, normalization, [head], parts=parts)


def simple_vit(generator, policy):
    patch, grid = int(generator.integers(2, 5)), int(generator.integers(2, 5))
    channels = choice(generator, (1, 3))
    model = kv.models.SimpleViT(
        (patch * grid, patch * grid, channels), patch, hidden_dim=choice(generator, (8, 16, 24)),
        num_layers=int(generator.integers(1, 4)), num_heads=int(generator.integers(1, 5)),
        key_dim=int(generator.integers(2, 8)), mlp_dim=32, num_classes=int(generator.integers(2, 9)), dtype=policy,
    )  # fmt: skip
    return RandomModel(model, np.float64(1 / 255), np.float64(0), {}, [Head("output", "classes")], parts=["SimpleViT"])


def mean_and_std(generator, channels):
    if generator.random() < 0.5:
        return np.full(channels, 0.5), np.full(channels, 0.5)
    return generator.uniform(0.3, 0.6, channels).round(3), generator.uniform(0.2, 0.5, channels).round(3)


def class_head(generator, name):
    """`(Head, units)` of a classifier."""
    kind = int(generator.integers(10))
    several = int(generator.integers(2, 9))
    if kind < 5:
        return Head(name, "classes"), several
    if kind < 7:
        return Head(name, "classes", "softmax"), several
    if kind == 7:
        return Head(name, "binary", "sigmoid"), 1
    if kind == 8:
        return Head(name, "binary", "linear", True), 1
    return Head(name, "multi-label", "sigmoid"), several
