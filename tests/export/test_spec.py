"""The float64 oracle against the Keras models."""

import keras
import numpy as np
import pytest
from conftest import pixels, real_data

import keras_vit_plugin as kv
from keras_vit_plugin.export.spec.errors import UnsupportedTopology
from keras_vit_plugin.export.spec.readers.own_models import from_keras
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.images.preprocessing import pixel_normalization


def relative_error(model, images):
    scale, offset = pixel_normalization(model, 3)
    oracle = from_keras(model, scale, offset).forward(images)
    assert oracle.dtype == np.float64
    return np.abs(keras_logits(model, images, scale, offset) - oracle).max() / np.abs(oracle).max()


def test_oracle_agrees_with_keras(tiny_model):
    assert relative_error(tiny_model, pixels(tiny_model.image_shape)) <= 1e-5


def test_oracle_agrees_with_keras_on_a_non_square_image():
    model = kv.build("vit_test", image_size=(8, 20))
    assert relative_error(model, pixels(model.image_shape)) <= 1e-5


def test_oracle_agrees_with_keras_on_real_weights_and_photos():
    model = kv.build("deit_tiny_patch16_224", weights=real_data("weights", "deit_tiny_patch16_224_in1k.npz"))
    from keras_vit_plugin.images.gather import gather_images
    from keras_vit_plugin.images.preprocessing import preprocessing_of

    photos = gather_images(real_data("imagenet_calibration"), preprocessing_of(model), "images", 4)
    assert relative_error(model, photos) <= 1e-5


def test_the_oracle_sees_merged_lora_weights():
    model = kv.build("vit_test")
    plain = from_keras(model, 1.0, 0.0).forward(pixels(model.image_shape) / 255)
    model.backbone.enable_lora(2)
    for block in model.backbone.blocks:
        block.attention.query.lora_kernel_b.assign(np.ones((2, 32)))
    merged = from_keras(model, 1.0, 0.0).forward(pixels(model.image_shape) / 255)
    x = (pixels(model.image_shape) / 255).astype("float32")
    assert np.abs(merged - plain).max() > 1e-3
    np.testing.assert_allclose(model(x), merged, rtol=1e-4, atol=1e-5)


def test_wrong_images_and_unknown_models():
    spec = from_keras(kv.build("vit_test"), 1.0, 0.0)
    with pytest.raises(ValueError, match=r"shape \(B, 16, 16, 3\), got \(2, 8, 8, 3\)"):
        spec.forward(np.zeros((2, 8, 8, 3)))
    with pytest.raises(UnsupportedTopology, match="Sequential"):
        from_keras(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), 1.0, 0.0)
    classifier = kv.ViTImageClassifier(kv.build("vit_test").backbone, 3, activation="softmax")
    with pytest.raises(UnsupportedTopology, match="softmax"):
        from_keras(classifier, 1.0, 0.0)
