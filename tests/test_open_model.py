"""A model from whatever names it, and a sentence for whatever does not."""

import contextlib
import json
import warnings

import keras
import numpy as np
import pytest
from conftest import pixels, run_python
from notebook_model import NotebookViT

import keras_vit_plugin as kv
from keras_vit_plugin.export import export_tflite, verify
from keras_vit_plugin.image_model.image_model import image_shape_of
from keras_vit_plugin.open_model import open_model


def plain_model():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(x)))


def answers(model, images):
    return np.asarray(model(images.astype("float32")))


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_files_of_whole_models_are_opened(name, tmp_path):
    model, images = plain_model(), pixels((8, 8, 3), 4)
    model.save(tmp_path / name)
    np.testing.assert_allclose(answers(open_model(tmp_path / name), images), answers(model, images), atol=1e-6)


def test_a_trained_classifier_is_opened_without_a_warning(tmp_path):
    """The optimizer is left behind: Keras calls its variables skipped, which reads as if weights were lost."""
    model = kv.build("vit_test")
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = pixels(model.image_shape, 4)
    model.fit(images.astype("float32"), np.arange(4), epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings(action="error"):
        opened = open_model(tmp_path / "m.keras")
    np.testing.assert_allclose(answers(opened, images), answers(model, images), atol=1e-5)


def test_the_loss_of_a_saved_model_tells_what_its_output_means(tmp_path):
    from keras_vit_plugin.image_model.image_model import ImageModel

    images = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(images)))
    for name, loss, task in (
        ("m.keras", keras.losses.BinaryCrossentropy(from_logits=True), "binary"),
        ("m.h5", keras.losses.BinaryCrossentropy(from_logits=True), "binary"),
        ("m.keras", "mse", "regression"),
        ("m.keras", lambda wanted, given: keras.ops.mean(wanted - given), "regression"),  # cannot be read again
    ):
        model = keras.Model(images, keras.layers.Dense(1)(x))
        model.compile("adam", loss)
        model.save(tmp_path / name)
        assert ImageModel(open_model(tmp_path / name)).answer.task == task


def test_preset_folders_of_kerashub_are_opened(tmp_path):
    import keras_hub

    backbone = keras_hub.models.ViTBackbone((16, 16, 3), 4, 1, 2, 8, 16)
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 255)
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    model = keras_hub.models.ViTImageClassifier(backbone, 3, preprocessor)
    model.save_to_preset(str(tmp_path / "task"))
    backbone.save_to_preset(str(tmp_path / "backbone"))
    images = pixels((16, 16, 3), 2)
    for path, wanted in ((tmp_path / "task", model), (tmp_path / "backbone", backbone)):
        opened = open_model(path)
        assert type(opened) is type(wanted)
        np.testing.assert_allclose(answers(opened, images), answers(wanted, images), atol=1e-5)
    kv.build("vit_test").save_to_preset(str(tmp_path / "ours"))
    assert type(open_model(tmp_path / "ours")) is kv.ViTImageClassifier


CUSTOM = """
import keras

@keras.saving.register_keras_serializable("somebody")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""
SAVE = """
import sys; sys.path.insert(0, sys.argv[1])
import keras, my_layers
images = keras.Input((8, 8, 3))
x = keras.layers.GlobalAveragePooling2D()(my_layers.Doubled()(keras.layers.Rescaling(1 / 255)(images)))
keras.Model(images, keras.layers.Dense(3)(x)).save(sys.argv[1] + "/m.keras")
"""
COMMAND = """
import contextlib, os, sys
os.chdir(sys.argv[1])
from click.testing import CliRunner
from keras_vit_plugin import cli
cli.silence_native_stderr = contextlib.nullcontext
for arguments in (["--import", "my_layers"], []):
    result = CliRunner().invoke(cli.main, ["export", "m.keras", "m.tflite", "--pixels", "0..255", *arguments])
    print(result.exit_code, result.output.replace("\\n", " "))
    sys.modules.pop("my_layers", None)
    import keras
    keras.saving.get_custom_objects().clear()
"""


@pytest.mark.long
def test_a_module_of_ones_own_registers_layers(tmp_path):
    (tmp_path / "my_layers.py").write_text(CUSTOM)
    run_python(SAVE, tmp_path)
    printed = run_python(COMMAND, tmp_path).splitlines()
    with_module, without = (line for line in printed if line[:2] in ("0 ", "1 "))
    assert with_module.startswith("0 ") and "float32 for litert" in with_module
    assert "'Doubled' is not known here" in without and "with --import" in without
    assert (tmp_path / "m.tflite").exists()


def test_a_lambda_is_not_run(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda value: value * 2)(images)
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="holds a Lambda layer, whose code is not run for safety. Write it as a layer"):
        open_model(tmp_path / "m.keras")


def test_a_saved_model_says_how_and_that_works(tmp_path):
    model, images = plain_model(), pixels((8, 8, 3), 16)
    model.export(tmp_path / "saved", verbose=False)
    with pytest.raises(ValueError, match="is a SavedModel, .*TFSMLayer.PATH, call_endpoint='serving_default'"):
        open_model(tmp_path / "saved")
    wrapped = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.TFSMLayer(tmp_path / "saved", call_endpoint="serving_default")]
    )
    export_tflite(wrapped, tmp_path / "m.tflite", pixels="0..255", calibration=images)
    assert verify(model, tmp_path / "m.tflite", images, pixels="0..255").snr_db > 80


@pytest.mark.parametrize(
    "name, match",
    [
        ("m.weights.h5", "holds weights alone: name its preset"),
        ("m.npz", "holds weights: name its preset, and pass the file with --weights"),
        ("m.pt", "is a PyTorch file"),
        ("m.onnx", "only Keras models are read"),
        ("m.tflite", "is a TFLite file already"),
        ("m.keras", "damaged or no .keras file"),
        ("m.h5", "cannot be loaded as a Keras model"),
        ("folder", "is no preset folder: it has no config.json"),
        ("vit_digitz", "closest are: vit_digits"),
    ],
)
def test_what_is_no_model_is_a_sentence(name, match, tmp_path):
    (tmp_path / "folder").mkdir()
    if name not in ("folder", "vit_digitz"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match=match) as refused:
        open_model(name if name == "vit_digitz" else tmp_path / name)
    assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [KeyError, TypeError, AssertionError, RecursionError, MemoryError, RuntimeError])
@pytest.mark.parametrize("command", ["export", "verify", "inspect", "run", "debug", "demo", "list"])
def test_no_command_prints_a_traceback(kind, command, monkeypatch):
    from click.testing import CliRunner

    from keras_vit_plugin import cli

    def broken(*_, **__):
        raise kind("[/] \x1b[2J loc(unknown): an\n" + 50 * "MLIR\n")

    monkeypatch.setattr("keras_vit_plugin.open_model.open_model", broken)
    monkeypatch.setattr("keras_vit_plugin.cli.run.read_labels", broken)
    monkeypatch.setattr(kv.export, "inspect", broken)
    monkeypatch.setattr(kv.presets, "get_preset", broken)
    monkeypatch.setattr("keras_vit_plugin.cli.demo.run_demo", broken)
    monkeypatch.setattr(cli, "silence_native_stderr", contextlib.nullcontext)
    arguments = {
        "export": ["m", "m.tflite"],
        "verify": ["m", "m.tflite", "--images", "."],
        "inspect": ["m.tflite"],
        "run": ["m.tflite", "a.png", "--labels", "names"],
        "debug": ["m", "m.tflite"],
        "demo": [],
        "list": [],
    }[command]
    result = CliRunner().invoke(cli.main, [command, *arguments])
    assert result.exit_code == 1 and "Traceback" not in result.output and "\x1b" not in result.output
    assert kind.__name__ in result.output and "--traceback shows where" in result.output
    assert result.output.count("MLIR") < 15
    again = CliRunner().invoke(cli.main, [command, *arguments, "--traceback"])
    assert again.exit_code == 1 and "Traceback" in again.output and kind.__name__ in again.output
    assert "\x1b" not in again.output


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("layer_norm_epsilon", "small", "it cannot be called on an image"),
        ("offset", "\ud800", r"its image converter has offset='.ud800', which is no number"),
        ("scale", {"a": 1}, "its image converter has scale={'a': 1}, which is no number"),
    ],
)
def test_a_config_whose_values_are_of_another_type_is_named(name, value, said, tmp_path):
    kv.build("vit_test").save_to_preset(str(tmp_path / "ours"))
    for file in (tmp_path / "ours").glob("*.json"):
        config = json.loads(file.read_text(), object_hook=lambda each: each | ({name: value} if name in each else {}))
        file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="ours' cannot be loaded as a preset: .*" + said):
        open_model(tmp_path / "ours")


def test_a_name_that_no_graph_can_have_is_named(tmp_path):
    model = plain_model()
    model.name = "my model"
    model.save(tmp_path / "m.keras")
    with pytest.raises(
        ValueError, match="m.keras' cannot be loaded .*: its name 'my model' is none that TensorFlow takes"
    ):
        open_model(tmp_path / "m.keras")


def test_the_notebooks_subclassed_model_knows_its_images_from_its_file(tmp_path):
    model, images = NotebookViT(), pixels((32, 32, 3), 3).astype(np.float32)
    model(images)
    model.save(tmp_path / "m.keras")
    opened = open_model(tmp_path / "m.keras")
    assert image_shape_of(opened) == (32, 32, 3)
    np.testing.assert_array_equal(opened(images), model(images))
