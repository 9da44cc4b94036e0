"""Weights under the parameter names of timm's `vision_transformer.py`."""

import numpy as np

from keras_vit_plugin.checkpoints.fit import fit_positions, read_fitting
from keras_vit_plugin.checkpoints.positions import square_grid
from keras_vit_plugin.checkpoints.transformers import is_of_transformers, with_timm_names


def assign_timm_tensors(model, tensors, source, new_head=False):
    """Writes timm-named tensors into a `ViTImageClassifier`; position embeddings are resized to its image size.

    Args:
        model: the classifier to fill.
        tensors: `{timm name: StoredTensor}`, or under the names of Transformers.
        source: what to call the tensors in an error, usually their path.
        new_head: leave the classification head alone, and ignore one in `tensors`.

    Raises:
        ValueError: see `read_fitting`; no weight of the model has changed.
    """
    destinations = _destinations(model)
    heads = [name for name in destinations if name.startswith("head")]
    tensors = with_timm_names(tensors) if is_of_transformers(tensors) else dict(tensors)
    if new_head:
        for name in heads:
            destinations.pop(name)
            tensors.pop(name, None)
    if "pos_embed" in tensors:
        backbone = model.backbone
        prefix = backbone.tokens.num_positioned_prefix_tokens
        # timm's checkpoints are of square images.
        shape = tensors["pos_embed"].shape
        grid = square_grid(shape[1] - prefix) if len(shape) == 3 else None
        tensors["pos_embed"] = fit_positions(tensors["pos_embed"], prefix, grid, backbone.patch_grid)
    expected = {name: (shape, model.variable_dtype) for name, (shape, _) in destinations.items()}
    arrays = read_fitting(expected, tensors, source, heads)
    for name, (_, assign) in destinations.items():
        assign(arrays[name])


def _destinations(model):
    """`{timm name: (timm shape, function that writes the array into the model)}`."""
    backbone = model.backbone
    width = backbone.hidden_dim
    tokens, blocks = backbone.tokens, backbone.blocks
    table = {}

    def plain(name, variable):
        table[name] = (tuple(variable.shape), variable.assign)

    def dense(name, layer):
        inputs, outputs = layer.kernel.shape
        table[f"{name}.weight"] = ((outputs, inputs), lambda w: layer.kernel.assign(w.T))
        plain(f"{name}.bias", layer.bias)

    def norm(name, layer):
        plain(f"{name}.weight", layer.gamma)
        plain(f"{name}.bias", layer.beta)

    def fused_qkv(name, attention):
        parts = (attention.query, attention.key, attention.value)

        def assign_weight(w):  # (3 D, D)
            for layer, part in zip(parts, np.split(w, 3)):
                layer.kernel.assign(part.T)

        def assign_bias(b):  # (3 D,)
            for layer, part in zip(parts, np.split(b, 3)):
                layer.bias.assign(part)

        table[f"{name}.weight"] = ((3 * width, width), assign_weight)
        if attention.use_bias:
            table[f"{name}.bias"] = ((3 * width,), assign_bias)

    if tokens.use_class_token:
        plain("cls_token", tokens.class_token)
    if tokens.use_distillation_token:
        plain("dist_token", tokens.distillation_token)
    if tokens.num_register_tokens:
        plain("reg_token", tokens.register_tokens)
    plain("pos_embed", tokens.position_embedding)

    projection = backbone.patch_embedding.projection
    height, columns, channels, _ = projection.kernel.shape
    table["patch_embed.proj.weight"] = (
        (width, channels, height, columns),
        lambda w: projection.kernel.assign(w.transpose(2, 3, 1, 0)),
    )
    plain("patch_embed.proj.bias", projection.bias)

    for i, block in enumerate(blocks):
        norm(f"blocks.{i}.norm1", block.attention_norm)
        fused_qkv(f"blocks.{i}.attn.qkv", block.attention)
        dense(f"blocks.{i}.attn.proj", block.attention.output_dense)
        norm(f"blocks.{i}.norm2", block.mlp_norm)
        dense(f"blocks.{i}.mlp.fc1", block.mlp.hidden)
        dense(f"blocks.{i}.mlp.fc2", block.mlp.output_dense)
        if block.attention_scale is not None:
            plain(f"blocks.{i}.ls1.gamma", block.attention_scale.gamma)
            plain(f"blocks.{i}.ls2.gamma", block.mlp_scale.gamma)
    norm("norm", backbone.norm)
    for name, layer in zip(("head", "head_dist"), model.heads):
        dense(name, layer)
    return table
