"""Named architectures: `build("deit_tiny_patch16_224")`, `list_presets("vit_*")`."""

import difflib
import fnmatch
from pathlib import Path

from keras_vit_plugin.geometry import as_pair
from keras_vit_plugin.presets.architectures import ARCHITECTURES, SimpleViTPreset, ViTPreset

__all__ = ["ARCHITECTURES", "SimpleViTPreset", "ViTPreset", "build", "get_preset", "list_presets"]


def list_presets(pattern="*"):
    """Names of the presets that match a shell pattern such as `"vit_*"`, sorted."""
    return sorted(fnmatch.filter(ARCHITECTURES, pattern))


def get_preset(name):
    """The table row of a preset.

    Raises:
        ValueError: the name is unknown; the message offers the three closest.
    """
    if name not in ARCHITECTURES:
        closest = difflib.get_close_matches(str(name), ARCHITECTURES, n=3, cutoff=0.0)
        raise ValueError(f"Unknown preset name={name!r}. The closest are: {', '.join(closest)}.")
    return ARCHITECTURES[name]


def build(name, num_classes=None, image_size=None, weights=None, new_head=False, dtype=None):
    """Builds a named model.

    Args:
        name: a preset, see `list_presets`.
        num_classes: number of logits; None takes the preset's.
        image_size: side in pixels or `(height, width)`; None takes the preset's. Position embeddings are resized.
        weights: None for random weights, `"pretrained"` for the preset's own, or a path: `.weights.h5`, `.keras`, a
            preset folder, or timm-named tensors in `.npz` or `.safetensors`. For a `SimpleViT` the first two may be
            of the notebook's model in layers of Keras's own.
        new_head: keep the random head instead of loading one, to fine-tune on other classes.
        dtype: Keras dtype or policy, such as `"mixed_float16"`.

    Returns:
        A `ViTImageClassifier` (its preprocessor resizes, crops and normalizes raw images) or a `SimpleViT`.

    Raises:
        ValueError: unknown name, an image size the patches do not fit, or weights that do not fit the model.
        FileNotFoundError: `weights` names no file.
    """
    preset = get_preset(name)
    if num_classes is not None and (not hasattr(num_classes, "__index__") or num_classes < 1):
        raise ValueError(f"`num_classes` must be a positive integer or None, got num_classes={num_classes!r}.")
    image_shape = preset.image_shape
    if image_size is not None:
        image_shape = (*as_pair(image_size), image_shape[2])

    path = _weights_path(name, preset, weights)
    model = _BUILDERS[type(preset)](preset, int(num_classes or preset.num_classes), image_shape, dtype)
    if path is not None:
        from keras_vit_plugin.checkpoints import load_weights

        load_weights(model, path, new_head=new_head)
    return model


def _weights_path(name, preset, weights):
    if weights is None:
        return None
    if str(weights) != "pretrained":
        path = Path(weights)
        if not path.exists():
            raise FileNotFoundError(f"`weights` names no file or folder: weights={str(weights)!r}.")
        return path
    if preset.pretrained is None:
        raise ValueError(
            f"The preset {name!r} has no pretrained weights. Pass weights=PATH to load your own, or weights=None."
        )
    if preset.ships_weights:
        return Path(__file__).parent / preset.pretrained
    from keras_vit_plugin.checkpoints.hub import download

    return download(preset.pretrained)


def _build_vit(preset, num_classes, image_shape, dtype):
    from keras_vit_plugin import models

    backbone = models.ViTBackbone(
        image_shape=image_shape,
        patch_size=preset.patch_size,
        num_layers=preset.num_layers,
        num_heads=preset.num_heads,
        hidden_dim=preset.hidden_dim,
        mlp_dim=preset.mlp_dim,
        use_distillation_token=preset.distilled,
        num_register_tokens=preset.num_register_tokens,
        layer_scale=preset.layer_scale,
        dtype=dtype,
    )
    converter = models.ViTImageConverter(
        image_size=image_shape[:2],
        crop_fraction=preset.crop_fraction,
        scale=[1 / (255 * std) for std in preset.std],
        offset=[-mean / std for mean, std in zip(preset.mean, preset.std)],
    )
    return models.ViTImageClassifier(
        backbone, num_classes, models.ViTImageClassifierPreprocessor(converter), pooling=preset.pooling
    )


def _build_simple_vit(preset, num_classes, image_shape, dtype):
    from keras_vit_plugin import models

    return models.SimpleViT(
        image_shape=image_shape,
        patch_size=preset.patch_size,
        hidden_dim=preset.hidden_dim,
        num_layers=preset.num_layers,
        num_heads=preset.num_heads,
        key_dim=preset.key_dim,
        mlp_dim=preset.mlp_dim,
        num_classes=num_classes,
        dtype=dtype,
    )


_BUILDERS = {ViTPreset: _build_vit, SimpleViTPreset: _build_simple_vit}
