"""Every model family on tiny configs: configs, files, presets, training, precision, batch sizes."""

import keras
import keras_hub
import numpy as np
import pytest
from conftest import TINY_PRESETS, pixels, randomize, run_python

import keras_vit_plugin as kv

CLASSIFIERS = tuple(name for name in TINY_PRESETS if name != "simple_vit_test")


def inputs_of(model, count=3):
    return (pixels(model.image_shape, count) / 255).astype("float32")


def test_simple_vit_has_the_notebooks_parameters():
    model = kv.SimpleViT()
    assert model.count_params() == 41_226
    assert model.output_shape == (None, 10)
    assert not np.asarray(model.tokens.position_embedding).any()


def test_config_round_trip(tiny_model):
    twin = type(tiny_model).from_config(tiny_model.get_config())
    assert twin.get_config() == tiny_model.get_config()
    twin.set_weights(tiny_model.get_weights())
    x = inputs_of(tiny_model)
    np.testing.assert_array_equal(twin(x), tiny_model(x))


def test_the_config_of_a_backbone_is_what_it_was_built_with():
    config = {
        "image_shape": (8, 12, 3),
        "patch_size": (4, 2),
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 6,
        "mlp_dim": 5,
        "use_class_token": False,
        "use_distillation_token": False,
        "num_register_tokens": 2,
        "use_qkv_bias": False,
        "dropout_rate": 0.1,
        "attention_dropout": 0.2,
        "stochastic_depth": 0.3,
        "layer_scale": 0.4,
        "layer_norm_epsilon": 0.5,
    }
    found = kv.ViTBackbone(**config).get_config()
    assert {name: found[name] for name in config} == config


@pytest.mark.long
def test_keras_files_load_in_a_new_process_that_imports_the_package_only(tmp_path):
    for name in TINY_PRESETS:
        model = kv.build(name)
        randomize(model)
        x = inputs_of(model)
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=x, y=model(x))
    code = """
import sys, numpy as np, keras, keras_vit_plugin
for path in sys.argv[1:]:
    data = np.load(path + ".npz")
    model = keras.saving.load_model(path + ".keras")
    np.testing.assert_array_equal(model(data["x"]), data["y"])
    print(type(model).__name__)
"""
    printed = run_python(code, *(tmp_path / name for name in TINY_PRESETS)).split()
    assert printed == ["ViTImageClassifier"] * 4 + ["SimpleViT"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_preset_folders_load_through_our_classes_and_kerashubs(name, tmp_path):
    model = kv.build(name)
    randomize(model)
    model.save_to_preset(str(tmp_path))
    x = inputs_of(model)
    for base in (kv.ViTImageClassifier, keras_hub.models.ImageClassifier):
        loaded = base.from_preset(str(tmp_path))
        assert type(loaded) is kv.ViTImageClassifier
        np.testing.assert_array_equal(loaded(x), model(x))
        assert loaded.preprocessor.get_config() == model.preprocessor.get_config()
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path))
    assert type(backbone) is kv.ViTBackbone
    np.testing.assert_array_equal(backbone(x), model.backbone(x))
    assert kv.ViTImageClassifier.from_preset(str(tmp_path), num_classes=7).output_shape == (None, 7)


def test_the_answer_is_read_from_the_tokens_that_a_preset_names():
    for name in CLASSIFIERS:
        model = kv.build(name)
        randomize(model)
        x = inputs_of(model)
        tokens, prefix = np.asarray(model.backbone(x)), model.backbone.num_prefix_tokens
        if name == "vit_mean_pooling_test":
            read = [tokens[:, prefix:].mean(1)]
        else:
            read = [tokens[:, index] for index in range(2 if name == "deit_distilled_test" else 1)]
        answers = [
            pooled @ np.asarray(head.kernel) + np.asarray(head.bias)
            for pooled, head in zip(read, model.heads, strict=True)
        ]
        np.testing.assert_allclose(model(x), np.mean(answers, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.sampled(1)
def test_one_training_step_moves_every_weight(tiny_preset):
    keras.utils.set_random_seed(0)
    model = kv.build(tiny_preset)
    randomize(model)
    if hasattr(model, "preprocessor"):
        model.preprocessor = None
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.array(weight) for weight in model.trainable_weights]
    model.train_on_batch(inputs_of(model, 4), np.arange(4) % 5)
    still = [w.path for w, old in zip(model.trainable_weights, before) if np.array_equal(np.asarray(w), old)]
    assert still == []


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16"])
def test_sixteen_bit_policies_agree_with_float32(tiny_preset, policy):
    model = kv.build(tiny_preset)
    randomize(model)
    half = kv.build(tiny_preset, dtype=policy)
    half.set_weights(model.get_weights())
    x = inputs_of(model)
    output = np.asarray(half(x)).astype("float32")
    assert half(x).dtype == policy.removeprefix("mixed_")
    reference = np.asarray(model(x))
    assert np.abs(output - reference).max() <= 0.05 * np.abs(reference).max()


def test_any_batch_size_gives_the_same_rows(tiny_model):
    x = inputs_of(tiny_model, 5)
    whole = np.asarray(tiny_model(x))
    for size in (1, 2):
        np.testing.assert_allclose(tiny_model(x[:size]), whole[:size], rtol=1e-4, atol=1e-5)


def test_lora_trains_factors_of_query_and_value_only():
    model = kv.build("vit_test")
    model.backbone.enable_lora(2)
    trained = {tuple(weight.path.split("/")[-2:]) for weight in model.backbone.trainable_weights}
    parts = ("bias", "lora_kernel_a", "lora_kernel_b")
    assert trained == {(layer, part) for layer in ("query", "value") for part in parts}


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.long
def test_keras_quantize_and_a_file_of_it(tmp_path):
    model = kv.build("deit_distilled_test")
    randomize(model)
    x = inputs_of(model)
    reference = np.asarray(model(x))
    model.quantize("int8")
    quantized = np.asarray(model(x))
    assert 0 < np.abs(quantized - reference).max() < 0.05 * np.abs(reference).max()
    model.save(tmp_path / "q.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "q.keras")(x), quantized)


@pytest.mark.parametrize("argument, value", [("crop_to_aspect_ratio", False), ("pad_to_aspect_ratio", True)])
def test_a_converter_refuses_what_it_does_not_do(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be {not value}, got {argument}={value}"):
        kv.ViTImageConverter((4, 4), **{argument: value})
    assert kv.ViTImageConverter.from_config(kv.ViTImageConverter((4, 4)).get_config()).image_size == (4, 4)


def test_the_preprocessor_resizes_crops_and_normalizes():
    converter = kv.ViTImageConverter((4, 4), crop_fraction=0.5, scale=[2.0, 1, 1], offset=[0.0, 1, 0])
    image = np.zeros((8, 8, 3), "uint8")
    image[2:6, 2:6] = 10
    y = np.asarray(converter(image))
    np.testing.assert_allclose(y, np.broadcast_to([20, 11, 10], (4, 4, 3)), atol=1e-4)
    twin = kv.ViTImageConverter.from_config(converter.get_config())
    assert twin.get_config() == converter.get_config()
    twin.image_size = (2, 6)
    assert np.asarray(twin(np.zeros((3, 50, 40, 3), "uint8"))).shape == (3, 2, 6, 3)


def test_predict_takes_raw_images_of_another_size():
    model = kv.build("vit_test")
    images = pixels((40, 30, 3), 2).astype("float32")  # `predict` resizes in float, a direct call in the given dtype
    expected = model(model.preprocessor(images))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_stays_compiled_as_it_was(tmp_path):
    model = kv.build("vit_test")
    model.compile(keras.optimizers.SGD(0.5), "mse", metrics=[])
    model.fit(pixels((16, 16, 3)), np.zeros((4, 5)), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.loss == "mse"
    assert float(loaded.optimizer.learning_rate) == 0.5
    assert int(loaded.optimizer.iterations) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_shape": (30, 32, 3)}, "height must be divisible by the patch height, got 30 and 8"),
        ({"num_heads": 5}, "hidden_dim=32, num_heads=5"),
        ({"image_shape": (None, 32, 3)}, "full \\(height, width, channels\\)"),
    ],
)
def test_backbone_errors(change, message):
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    with pytest.raises(ValueError, match=message):
        kv.ViTBackbone(**{"image_shape": (32, 32, 3), **sizes, **change})


def test_classifier_errors():
    backbone = kv.ViTBackbone((16, 16, 3), 8, 1, 2, 8, 16, use_class_token=False)
    with pytest.raises(ValueError, match="needs a backbone with a class token"):
        kv.ViTImageClassifier(backbone, 3)
    with pytest.raises(ValueError, match="pooling='max'"):
        kv.ViTImageClassifier(backbone, 3, pooling="max")
    with pytest.raises(ValueError, match="crop_fraction=0"):
        kv.ViTImageConverter((4, 4), crop_fraction=0)


def test_a_classifier_clones_and_compiles_without_an_optimizer(tmp_path):
    model = kv.build("vit_test")
    assert keras.models.clone_model(model).count_params() == model.count_params()
    model.compile(optimizer=None)
    model.save(tmp_path / "m.keras")
    keras.saving.load_model(tmp_path / "m.keras")


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.long
def test_simple_vit_keeps_its_policy_and_its_quantization(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kv.build("simple_vit_test")
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").blocks[0].compute_dtype == "float16"
    model = kv.build("simple_vit_test")
    model.quantize("int8")
    x = inputs_of(model)
    model.save(tmp_path / "q.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "q.keras")(x), model(x))


def test_a_simple_vit_with_a_quantized_head_keeps_the_policies_of_all_layers():
    model = kv.build("simple_vit_test", dtype="bfloat16")
    model.head.quantize("int8")
    twin = kv.SimpleViT.from_config(model.get_config())
    ours, theirs = (
        [(layer.name, layer.compute_dtype, layer.quantization_mode) for layer in each._flatten_layers()]
        for each in (model, twin)
    )
    assert ("logits", "bfloat16", "int8") in ours and ("norm", "bfloat16", None) in ours
    assert theirs == ours
