"""The table of named architectures. Data only: `build` in this package turns a row into a model."""

from dataclasses import dataclass, replace

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class ViTPreset:
    """A ViT or DeiT: its shape, and how photos become its input.

    `mean` and `std` are per channel, for pixels scaled to 0..1. `crop_fraction` is the side of the centre crop over
    the side of the resized photo. `pretrained` is a file this package ships (`*.weights.h5`) or a repository on the
    Hugging Face hub with a timm-named `model.safetensors`.
    """

    description: str
    image_shape: tuple[int, int, int]
    patch_size: int
    num_layers: int
    hidden_dim: int
    num_heads: int
    mlp_dim: int
    num_classes: int = 1000
    distilled: bool = False
    num_register_tokens: int = 0
    layer_scale: float | None = None
    pooling: str = "token"
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    crop_fraction: float = 0.9
    labels: tuple[str, ...] = ()
    pretrained: str | None = None

    @property
    def ships_weights(self):
        return (self.pretrained or "").endswith(".weights.h5")


@dataclass(frozen=True)
class SimpleViTPreset:
    """The notebook's SimpleViT; its input is pixels scaled to 0..1."""

    description: str
    image_shape: tuple[int, int, int] = (32, 32, 3)
    patch_size: int = 4
    hidden_dim: int = 64
    num_layers: int = 1
    num_heads: int = 4
    key_dim: int = 16
    mlp_dim: int = 128
    num_classes: int = 10
    labels: tuple[str, ...] = CIFAR10_LABELS
    pretrained: str | None = None
    ships_weights: bool = False


TINY = {"num_layers": 12, "hidden_dim": 192, "num_heads": 3, "mlp_dim": 768}
SMALL = {"num_layers": 12, "hidden_dim": 384, "num_heads": 6, "mlp_dim": 1536}
BASE = {"num_layers": 12, "hidden_dim": 768, "num_heads": 12, "mlp_dim": 3072}
LARGE = {"num_layers": 24, "hidden_dim": 1024, "num_heads": 16, "mlp_dim": 4096}
HUGE = {"num_layers": 32, "hidden_dim": 1280, "num_heads": 16, "mlp_dim": 5120}


def _vit(letter, patch, width, pretrained=None):
    return ViTPreset(f"ViT-{letter}/{patch}", (224, 224, 3), patch, **width, pretrained=pretrained)


def _deit(letter, width, size, distilled=False):
    suffix = "_distilled" if distilled else ""
    return ViTPreset(
        f"DeiT-{letter}/16{', distilled' if distilled else ''}",
        (224, 224, 3),
        16,
        **width,
        distilled=distilled,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_fraction=0.875,
        pretrained=f"timm/deit_{size}{suffix}_patch16_224.fb_in1k",
    )


_TEST = ViTPreset(
    "two narrow blocks, for tests",
    image_shape=(16, 16, 3),
    patch_size=4,
    num_layers=2,
    hidden_dim=32,
    num_heads=2,
    mlp_dim=64,
    num_classes=5,
)

ARCHITECTURES = {
    "vit_tiny_patch16_224": _vit("Ti", 16, TINY, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    "vit_small_patch16_224": _vit("S", 16, SMALL, "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
    "vit_base_patch16_224": _vit("B", 16, BASE, "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"),
    "vit_base_patch32_224": _vit("B", 32, BASE, "timm/vit_base_patch32_224.augreg_in21k_ft_in1k"),
    "vit_large_patch16_224": _vit("L", 16, LARGE, "timm/vit_large_patch16_224.augreg_in21k_ft_in1k"),
    "vit_large_patch32_224": _vit("L", 32, LARGE),
    "vit_huge_patch14_224": _vit("H", 14, HUGE),
    "deit_tiny_patch16_224": _deit("Ti", TINY, "tiny"),
    "deit_small_patch16_224": _deit("S", SMALL, "small"),
    "deit_base_patch16_224": _deit("B", BASE, "base"),
    "deit_tiny_distilled_patch16_224": _deit("Ti", TINY, "tiny", distilled=True),
    "deit_small_distilled_patch16_224": _deit("S", SMALL, "small", distilled=True),
    "deit_base_distilled_patch16_224": _deit("B", BASE, "base", distilled=True),
    "simple_vit_cifar10": SimpleViTPreset("the teaching notebook's SimpleViT for CIFAR-10"),
    "vit_digits": ViTPreset(
        "a small ViT for scikit-learn's 8x8 handwritten digits, trained by this project and shipped with it",
        image_shape=(8, 8, 1),
        patch_size=2,
        num_layers=4,
        hidden_dim=48,
        num_heads=4,
        mlp_dim=96,
        num_classes=10,
        mean=(0.5,),
        std=(0.5,),
        crop_fraction=1.0,
        labels=tuple("0123456789"),
        pretrained="vit_digits.weights.h5",
    ),
    "vit_test": _TEST,
    "deit_distilled_test": replace(_TEST, distilled=True, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "vit_registers_test": replace(_TEST, num_register_tokens=3, layer_scale=0.1),
    "vit_mean_pooling_test": replace(_TEST, pooling="mean"),
    "simple_vit_test": SimpleViTPreset(
        "SimpleViT, narrower, for tests", image_shape=(8, 8, 3), hidden_dim=16, key_dim=4, mlp_dim=32
    ),
}
