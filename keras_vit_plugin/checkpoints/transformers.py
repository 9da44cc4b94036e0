"""Checkpoints of Hugging Face Transformers' ViT, DeiT and Dinov2, put under timm's parameter names.

Source: the parameter names of transformers/models/{vit,deit,dinov2}/modeling_*.py; timm's of vision_transformer.py.
"""

import re

import numpy as np

from keras_vit_plugin.checkpoints.stored_tensor import StoredTensor

FAMILIES = ("vit", "deit", "dinov2")
UNUSED = ("mask_token", "pooler.", "decoder.")  # of other tasks than classification
# Parts of names outside the attention's query, key and value, in Transformers and in timm.
NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm.": "norm.",
    "cls_classifier.": "head.",
    "distillation_classifier.": "head_dist.",
    "classifier.": "head.",
}
BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
QUERY_KEY_VALUE = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")


def is_of_transformers(names):
    """Whether parameter names are those of a ViT of Transformers."""
    return any("embeddings.patch_embeddings.projection." in name for name in names)


def with_timm_names(tensors):
    """The tensors under timm's names, query, key and value in one.

    Args:
        tensors: `{name in Transformers: StoredTensor}`.

    Returns:
        `{timm name: StoredTensor}`; a name that is not known stays as it is, so that it is listed as extra.
    """
    found, attention = {}, {}
    for name, tensor in tensors.items():
        family, _, rest = name.partition(".")
        rest = rest if family in FAMILIES else name
        if rest.startswith(UNUSED) or ".mask_token" in name:
            continue
        block = BLOCK.fullmatch(rest)
        prefix, rest = (f"blocks.{block[1]}.", block[2]) if block else ("", rest)
        part = QUERY_KEY_VALUE.fullmatch(rest)
        if block and part:
            attention.setdefault(f"{prefix}attn.qkv.{part[2]}", {})[part[1]] = name
            continue
        for theirs, timms in NAMES.items():
            if rest.startswith(theirs):
                rest = timms + rest.removeprefix(theirs)
                break
        found[prefix + rest] = tensor
    for name, parts in attention.items():
        own = [parts[part] for part in ("query", "key", "value") if part in parts]
        joined = _joined([tensors[each] for each in own])
        found |= {each: tensors[each] for each in own} if joined is None else {name: joined}
    return found


def _joined(tensors):
    """Query, key and value below each other; None where one is missing, or they differ in shape or type."""
    first = tensors[0]
    if len(tensors) < 3 or not first.shape or any((t.shape, t.dtype) != (first.shape, first.dtype) for t in tensors):
        return None
    shape = (3 * first.shape[0], *first.shape[1:])
    return StoredTensor(shape, first.dtype, lambda: np.concatenate([tensor.read() for tensor in tensors]))
