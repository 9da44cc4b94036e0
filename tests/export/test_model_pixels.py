"""The pixels that a model takes, by what it begins with: taken where that is sure, asked for where it is not."""

import warnings

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.images import model_pixels
from keras_vit_plugin.images.preprocessing import (
    Preprocessing,
    pixel_normalization,
    pixel_words,
    preprocessing_of,
    two_lines,
)

keras = pytest.importorskip("keras")
layers = keras.layers
SHAPE = (8, 8, 3)
RAW, UNIT, SIGNED = ((1, 0), (1 / 255, 0), (1 / 127.5, -1))
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def model_of(*steps, dtype="float32", functional=True):
    """A model that begins with these layers or functions."""
    images = keras.Input(SHAPE, dtype=dtype)
    x = images
    for step in steps:
        x = step(x)
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(x)))


def adapted(data, **options):
    layer = layers.Normalization(**options)
    layer.adapt(data)
    return layer


def noise(low, high, channels=3):
    return np.random.default_rng(0).uniform(low, high, (20, 8, 8, channels)).astype("float32")


BEGINNINGS = {
    "rescaling": (lambda: [layers.Rescaling(1 / 255)], RAW),
    "rescaling to -1..1": (lambda: [layers.Rescaling(1 / 127.5, -1)], RAW),
    "rescaling per channel": (lambda: [layers.Rescaling(1 / (255 * IMAGENET[1]), -IMAGENET[0] / IMAGENET[1])], RAW),
    "rescaling of 0..1": (lambda: [layers.Rescaling(2.0, -1)], UNIT),
    "rescaling of -1..1": (lambda: [layers.Rescaling(0.5, 0.5)], SIGNED),
    "up and down": (lambda: [layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, -1)], UNIT),
    "normalization of 0..255": (lambda: [adapted(noise(0, 255))], RAW),
    "normalization of 0..1": (lambda: [adapted(noise(0, 1))], UNIT),
    "normalization given": (lambda: [layers.Normalization(mean=IMAGENET[0], variance=IMAGENET[1] ** 2)], UNIT),
    "normalization per pixel": (lambda: [adapted(noise(0, 255), axis=(1, 2, 3))], RAW),
    "normalization of all": (lambda: [adapted(noise(0, 255), axis=None)], RAW),
    "inverted": (lambda: [layers.Normalization(mean=0.5, variance=0.25**2, axis=None, invert=True)], None),
    "both": (
        lambda: [layers.Rescaling(1 / 255), layers.Normalization(mean=IMAGENET[0], variance=IMAGENET[1] ** 2)],
        RAW,
    ),
    "augmentation first": (
        lambda: [layers.RandomFlip(), layers.RandomRotation(0.5), layers.Resizing(4, 4), layers.Rescaling(1 / 255)],
        RAW,
    ),
    "nested": (lambda: [keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)])], RAW),
    "nested twice": (
        lambda: [keras.Sequential([keras.Sequential([layers.Rescaling(1 / 255)]), layers.Flatten()])],
        RAW,
    ),
    "operators": (lambda: [lambda x: x / 127.5 - 1], RAW),
    "named operators": (lambda: [lambda x: keras.ops.add(keras.ops.divide(x, 127.5), -1.0)], RAW),
    "lambda": (lambda: [layers.Lambda(lambda x: x / 255)], RAW),
    "BGR less mean": (lambda: [lambda x: x[..., ::-1], lambda x: x - np.float32([103.9, 116.8, 123.7])], RAW),
    "preprocess_input": (lambda: [keras.applications.vgg16.preprocess_input], RAW),
    "image converter": (lambda: [converter()], RAW),
    # what says nothing, or too little
    "nothing": (lambda: [], None),
    "identity": (lambda: [layers.Rescaling(1.0)], None),
    "not adapted": (lambda: [layers.Normalization()], None),
    "0..1 or -1..1": (lambda: [layers.Rescaling(2.0)], None),
    "much too small": (lambda: [layers.Rescaling(1 / 65535)], None),
    "much too large": (lambda: [layers.Rescaling(100.0)], None),
    "not affine": (lambda: [layers.Lambda(lambda x: (x / 255) ** 2)], None),
    "later": (lambda: [layers.Conv2D(3, 1), layers.Rescaling(1 / 255)], None),
}


def converter():
    import keras_hub

    return keras_hub.layers.ImageConverter(scale=1 / 255)


@pytest.mark.parametrize("name", BEGINNINGS)
def test_what_a_model_begins_with(name):
    make, expected = BEGINNINGS[name]
    model = model_of(*make())
    if expected is None:
        with pytest.raises(ValueError, match="Pass `pixels` .--pixels.: '0..1', '-1..1' or '0..255'"):
            pixel_normalization(model, 3)
        return
    scale, offset = pixel_normalization(model, 3)
    np.testing.assert_allclose(scale, expected[0])
    np.testing.assert_allclose(offset, expected[1])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_taken_is_what_the_model_was_trained_on(seed):
    """Normalizations adapted on images of a range, bright, dark or of little contrast."""
    generator = np.random.default_rng(seed)
    for name, (low, high) in {"0..255": (0, 255), "0..1": (0, 1)}.items():
        for mean in (0.3, 0.5, 0.7):
            data = np.clip(generator.normal(mean, 0.2, (20, *SHAPE)), 0, 1) * (high - low) + low
            assert f"pixels {name}" in pixel_words(model_of(adapted(data.astype("float32"))), 3)


def test_a_mean_that_two_ranges_may_have_is_told():
    bright = np.random.default_rng(0).uniform(0.2, 0.9, (20, *SHAPE)).astype("float32")
    with pytest.warns(UserWarning, match=r"by its mean it takes pixels of 0..1. Bright images of -1..1 .* `pixels`"):
        pixel_normalization(model_of(adapted(bright)), 3)
    with warnings.catch_warnings(action="error"):
        pixel_normalization(model_of(adapted(bright)), 3, pixels="0..1")
        pixel_normalization(model_of(adapted(255 * bright)), 3)
        pixel_normalization(model_of(layers.Rescaling(2.0, -1.0)), 3)


def test_sequential_models_and_those_of_keras():
    sequential = keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)])
    assert pixel_words(sequential, 3) == "raw pixels 0..255 (the model begins with Rescaling(1/255))"
    for name in ("MobileNetV3Small", "EfficientNetV2B0"):
        model = getattr(keras.applications, name)(input_shape=(32, 32, 3), weights=None)
        assert pixel_normalization(model, 3)[0].tolist() == [1, 1, 1]
    inside = keras.Sequential([keras.Input((32, 32, 3)), model, layers.Dense(2)])
    assert pixel_words(inside, 3).startswith("raw pixels 0..255 (the model begins with Rescaling")
    bare = keras.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None, alpha=0.35)
    with pytest.raises(ValueError, match="Functional does not say how pixels become its input"):
        pixel_normalization(bare, 3)


def test_words_name_the_source():
    scaled = model_of(layers.Rescaling(1 / 127.5, -1), layers.Normalization(mean=0.1, variance=0.5, axis=None))
    assert pixel_words(scaled, 3) == (
        "raw pixels 0..255 (the model begins with Rescaling(1/127.5, -1) and Normalization)"
    )
    assert "image converter" in pixel_words(kv.build("vit_test"), 3)
    assert "pixel_scale" in pixel_words(kv.SimpleViT(), 3)
    assert pixel_words(model_of(), 3, pixels="-1..1") == "pixels -1..1 (as given)"
    assert "`mean` and `std`" in pixel_words(model_of(), 3, 0, 1)
    with pytest.raises(ValueError, match=r"begins with Rescaling\(2\), which more than one range suits"):
        pixel_words(model_of(layers.Rescaling(2.0)), 3)


def test_pixels_as_given():
    for name in ("0..255", "0..1", "-1..1"):
        scale, offset = pixel_normalization(model_of(), 3, pixels=name)
        low, high = (float(bound) for bound in name.split(".."))
        np.testing.assert_allclose(np.stack([offset, 255 * scale + offset]), [[low] * 3, [high] * 3], atol=1e-12)
    with pytest.raises(ValueError, match="`pixels` must be one of 0..1, -1..1, 0..255; got pixels='0-1'"):
        pixel_normalization(model_of(), 3, pixels="0-1")
    with pytest.raises(ValueError, match="Pass `pixels` or `mean` and `std`, got pixels='0..1', mean=0, std=1"):
        pixel_normalization(model_of(), 3, 0, 1, "0..1")


def test_what_is_known_by_its_name_is_a_class_of_keras():
    from keras.src.ops import core, numpy

    known = {name for module in (layers, core, numpy) for name, each in vars(module).items() if isinstance(each, type)}
    names = model_pixels.SCALING | model_pixels.MOVING | model_pixels.INERT
    assert names <= known


def test_arguments_against_the_model_are_taken_and_told():
    model = model_of(layers.Rescaling(1 / 255))
    for given in ({"mean": 0, "std": 1}, {"pixels": "0..1"}):
        with pytest.warns(UserWarning, match="though the model says otherwise: raw pixels 0..255 .*Rescaling.1/255"):
            assert pixel_normalization(model, 3, **given)[0][0] == pytest.approx(1 / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_normalization(model, 3, mean=0, std=1 / 255)
        pixel_normalization(model, 3, mean=0, std=0.003922)  # as people round it
        pixel_normalization(model, 3, pixels="0..255")
        pixel_normalization(model_of(), 3, mean=0, std=1)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_an_integer_input_takes_pixels_as_they_are(dtype):
    """The float product of a rounded scale would be truncated: 255 * 0.003921569 * 255 to 254."""
    model = model_of(lambda x: keras.ops.cast(x, "float32"), layers.Rescaling(1 / 255), dtype=dtype)
    for given in ({}, {"mean": 0, "std": 1 / 255}, {"pixels": "0..255"}):
        scale, offset = pixel_normalization(model, 3, **given)
        assert (scale == 1).all() and (offset == 0).all()
    assert dtype in pixel_words(model, 3)
    for given in ({"pixels": "0..1"}, {"mean": 0.5, "std": 0.5}):
        with pytest.raises(ValueError, match=f"input is {dtype}: it takes pixels 0..255 as they are, got mean="):
            pixel_normalization(model, 3, **given)


def test_an_int8_input_is_refused():
    with pytest.raises(ValueError, match="int8, which does not hold pixels of 0..255"):
        pixel_normalization(model_of(lambda x: keras.ops.cast(x, "float32"), dtype="int8"), 3)


def test_a_model_that_begins_with_a_rescaling_is_exported_as_it_is(tmp_path):
    model = model_of(layers.Rescaling(1 / 255))
    kv.export.export_tflite(model, tmp_path / "m.tflite")
    images = pixels(SHAPE, 5)
    np.testing.assert_allclose(
        kv.export.Runner((tmp_path / "m.tflite").read_bytes())(images),
        model.predict(images.astype("float32"), verbose=0),
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", ["cropped", "plain", "image converter of KerasHub"])
def test_two_lines_make_the_model_answer_as_the_file(kind, tmp_path):
    import keras_hub

    if kind == "cropped":
        model = kv.build("vit_test")
        model.preprocessor.image_converter.crop_fraction = 0.875
        model.preprocessor.image_converter.image_size = (16, 16)
    elif kind == "plain":
        model = model_of()
    else:
        resize = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=[0.01, 0.02, 0.03], offset=[-1, 0, 1])
        preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(resize)
        backbone = keras_hub.models.ViTBackbone((16, 16, 3), 4, 1, 2, 8, 16)
        model = keras_hub.models.ViTImageClassifier(backbone, 3, preprocessor)
    how = {"mean": IMAGENET[0], "std": IMAGENET[1]} if kind == "plain" else {}
    kv.export.export_tflite(model, tmp_path / "m.tflite", **how)
    preprocessing = preprocessing_of(model)
    images = pixels(preprocessing.image_shape, 6)
    lines = two_lines(preprocessing, model, **how)
    assert len(lines) == 2
    told = {"model": model, "pixels": images, "np": np}
    exec("\n".join(lines), told)
    answers, file = np.asarray(told["answers"]), kv.export.Runner((tmp_path / "m.tflite").read_bytes())(images)
    np.testing.assert_allclose(file, answers, rtol=1e-3, atol=1e-3 * np.abs(answers).max())
    if kind == "cropped":
        assert "model.predict would resize to 18x18, crop to 16x16" in lines[1]
        predicted = model.predict(images, verbose=0)  # what the lines are there for
        assert np.abs(predicted - file).max() > 10 * np.abs(answers - file).max()
    assert isinstance(preprocessing, Preprocessing)
