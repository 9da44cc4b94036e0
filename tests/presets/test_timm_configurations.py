"""The presets against the configurations that their weights were published with.

Numbers recorded from timm 1.0 (`models/vision_transformer.py`, `models/deit.py`, `data/constants.py`, and `config.json`
of the repositories on the hub), but for one: timm crops 0.9 for DeiT. DeiT's authors evaluate at 224/256 = 0.875
(facebookresearch/deit, `main.py`, `--eval-crop-ratio`), and so does this package.
"""

import numpy as np
import pytest
from conftest import pixels
from PIL import Image

import keras_vit_plugin as kv

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGREG = "augreg_in21k_ft_in1k"
# name: (tag on the hub, crop, mean, std, patch, depth, width, heads, ratio of the MLP, distilled)
PUBLISHED = {
    "vit_tiny_patch16_224": (AUGREG, 0.9, HALF, HALF, 16, 12, 192, 3, 4, False),
    "vit_small_patch16_224": (AUGREG, 0.9, HALF, HALF, 16, 12, 384, 6, 4, False),
    "vit_base_patch16_224": (AUGREG, 0.9, HALF, HALF, 16, 12, 768, 12, 4, False),
    "vit_base_patch32_224": (AUGREG, 0.9, HALF, HALF, 32, 12, 768, 12, 4, False),
    "vit_large_patch16_224": (AUGREG, 0.9, HALF, HALF, 16, 24, 1024, 16, 4, False),
    "vit_large_patch32_224": (None, 0.9, HALF, HALF, 32, 24, 1024, 16, 4, False),
    "vit_huge_patch14_224": (None, 0.9, HALF, HALF, 14, 32, 1280, 16, 4, False),
    "deit_tiny_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 192, 3, 4, False),
    "deit_small_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 384, 6, 4, False),
    "deit_base_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 768, 12, 4, False),
    "deit_tiny_distilled_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 192, 3, 4, True),
    "deit_small_distilled_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 384, 6, 4, True),
    "deit_base_distilled_patch16_224": ("fb_in1k", 0.875, IMAGENET_MEAN, IMAGENET_STD, 16, 12, 768, 12, 4, True),
}


def test_every_preset_of_timm_has_a_row():
    own = ("vit_digits", "simple_vit_cifar10")
    assert PUBLISHED.keys() == {name for name in kv.list_presets() if not name.endswith("_test") and name not in own}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_as_published(name):
    tag, crop, mean, std, patch, depth, width, heads, ratio, distilled = PUBLISHED[name]
    preset = kv.presets.get_preset(name)
    assert preset.pretrained == (tag and f"timm/{name}.{tag}")
    assert (preset.crop_fraction, preset.mean, preset.std) == (crop, mean, std)
    assert (preset.image_shape, preset.patch_size, preset.num_layers) == ((224, 224, 3), patch, depth)
    assert (preset.hidden_dim, preset.num_heads, preset.mlp_dim) == (width, heads, ratio * width)
    assert (preset.distilled, preset.num_classes, preset.pooling) == (distilled, 1000, "token")
    assert (preset.layer_scale, preset.num_register_tokens) == (None, 0)
    letter = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H"}[name.split("_")[1]]
    family = "DeiT" if name.startswith("deit") else "ViT"
    assert preset.description == f"{family}-{letter}/{patch}" + ", distilled" * distilled


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_the_built_model_prepares_photos_as_published(name):
    _, crop, mean, std, *_ = PUBLISHED[name]
    model = kv.build(name)
    photo = pixels((300, 300, 3), 1)[0].astype(np.float32)
    side = round(224 / crop)
    edge = (side - 224) // 2
    expected = (bicubic(photo, side)[edge : edge + 224, edge : edge + 224] / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(model.preprocessor(photo[None])[0], expected, atol=1e-3)
    assert {norm.epsilon for norm in norms_of(model)} == {1e-6}
    assert model.backbone.use_qkv_bias


def norms_of(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kv.layers.LayerNormalization)]


def bicubic(photo, side):
    """A float photo resized by Pillow's antialiased bicubic interpolation."""
    planes = np.moveaxis(photo, -1, 0)
    resized = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return np.stack(resized, axis=-1)


@pytest.mark.parametrize("side", [24, 150])
def test_photos_are_resized_by_antialiased_bicubic_interpolation(side):
    photo = pixels((64, 64, 3), 1)[0].astype(np.float32)
    resized = np.asarray(kv.ViTImageConverter((side, side))(photo[None]))[0]
    np.testing.assert_allclose(resized, bicubic(photo, side), atol=0.02)


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row[0]])
def test_pretrained_weights_are_asked_of_the_presets_own_repository(name, monkeypatch):
    from keras_vit_plugin.checkpoints import hub

    class Asked(Exception):
        pass

    def download(repository):
        raise Asked(repository)

    monkeypatch.setattr(hub, "download", download)
    with pytest.raises(Asked, match=rf"^timm/{name}\.{PUBLISHED[name][0]}$"):
        kv.build(name, weights="pretrained")
