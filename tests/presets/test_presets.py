"""The table of architectures and `build`."""

from pathlib import Path

import numpy as np
import pytest

import keras_vit_plugin as kv
from keras_vit_plugin.presets.digits import load_digits_split

EXPECTED_PARAMETERS = {
    # ViT-B/16, timm and the paper's table 1: 86,567,656; DeiT: arXiv:2012.12877, table 1.
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "simple_vit_cifar10": 41_226,
}


@pytest.mark.parametrize("name", EXPECTED_PARAMETERS)
def test_parameter_counts(name):
    assert kv.build(name).count_params() == EXPECTED_PARAMETERS[name]


def test_the_promised_presets_exist():
    names = kv.list_presets()
    assert names == sorted(names)
    wanted = {f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")}
    wanted |= {"vit_base_patch32_224", "vit_large_patch32_224", "vit_huge_patch14_224"}
    wanted |= {f"deit_{size}{kind}_patch16_224" for size in ("tiny", "small", "base") for kind in ("", "_distilled")}
    wanted |= {"simple_vit_cifar10", "vit_digits", "vit_test"}
    assert wanted <= set(names)
    assert all(name.startswith("vit_") for name in kv.list_presets("vit_*"))
    assert "vit_digits" in kv.list_presets("vit_*")


def test_a_misspelt_name_gets_the_three_closest():
    with pytest.raises(ValueError, match="'deit_tinny_patch16_224'.*closest are: deit_tiny_patch16_224, .*, .*"):
        kv.build("deit_tinny_patch16_224")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"image_size": 18}, "height must be divisible by the patch height, got 18 and 4; 16 or 20"),
        ({"image_size": "16"}, "positive integer or a pair"),
        ({"weights": "pretrained"}, "'vit_test' has no pretrained weights"),
    ],
)
def test_build_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        kv.build("vit_test", **arguments)


def test_a_missing_weight_file():
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        kv.build("vit_test", weights="nowhere.npz")


def test_other_classes_and_a_non_square_image():
    model = kv.build("vit_test", num_classes=np.int64(7), image_size=(16, 24))
    assert model.output_shape == (None, 7)
    assert model.input_shape == (None, 16, 24, 3)


def test_vit_digits_is_small_and_as_good_as_stated():
    weights = Path(kv.presets.__file__).parent / "vit_digits.weights.h5"
    assert weights.stat().st_size <= 1_000_000
    _, (images, labels) = load_digits_split()
    assert len(images) == 360  # a fifth of 1,797
    model = kv.build("vit_digits", weights="pretrained")
    accuracy = np.mean(model.predict(images, verbose=0).argmax(1) == labels)
    assert round(float(accuracy), 3) == 0.994  # README and CHANGELOG state 99.4 %
