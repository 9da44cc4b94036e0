"""Bad input is refused by name, before any long work, and leaves no file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import pixels
from keras import ops
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.export import Tolerance, UnsupportedByTarget, export_tflite
from keras_vit_plugin.image_model.check import check_model


def refused(match, tmp_path, model=None, error=ValueError, path="m.tflite", **arguments):
    model = kv.build("vit_test") if model is None else model
    with pytest.raises(error, match=match):
        export_tflite(model, tmp_path / path, **arguments)
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"quantize": "int8-ful"}, "quantize='int8-ful'. The closest are: int8-full, "),
        ({"target": "coral"}, "`target` must be one of litert, tflite-runtime, gpu, mediapipe; got target='coral'"),
        ({"input_dtype": "int4"}, "`input_dtype` must be one of uint8, float32, int8"),
        (
            {"input_dtype": "int8"},
            "quantize='float32' goes with `input_dtype` uint8 or float32, got input_dtype='int8'",
        ),
        ({"quantize": "int8-full", "input_dtype": "float32"}, "goes with `input_dtype` uint8 or int8"),
        ({"output_dtype": "int8"}, "goes with `output_dtype` float32, got output_dtype='int8'"),
        ({"quantize": "int16x8", "output_dtype": "int8"}, "goes with `output_dtype` float32 or int16"),
        ({"quantize": "int4"}, "needs `calibration`"),
        ({"quantize": "int4", "target": "tflite-runtime"}, "no dense layers with weights of 4 bits. Take one .* int8"),
        (
            {"quantize": "int16x8", "target": "tflite-runtime"},
            "does not quantize pixels to 16 bits. Take one .* int8-full",
        ),
        ({"batch_size": 0}, "batch_size=0"),
        ({"tolerance": 0.9}, "Tolerance\\(min_agreement, min_snr_db\\)"),
        ({"quantize": "int8-full"}, "needs `calibration`"),
        ({"labels": ["a", "b"]}, "5 classes, got 2 names"),
        ({"mean": 0.5}, "`mean` and `std` together"),
        ({"mean": 0.5, "std": 0.0}, "`std` positive"),
        ({"calibration": np.zeros((0, 16, 16, 3), "uint8")}, "`calibration` holds no images"),
        ({"calibration": np.zeros((4, 8, 8, 3), "uint8")}, r"shape \(N, 16, 16, 3\), got \(4, 8, 8, 3\)"),
        ({"calibration": np.full((4, 16, 16, 3), np.nan)}, "NaN or infinity"),
        ({"calibration": np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3))}, "multiply them by 255"),
        ({"calibration": np.random.default_rng(0).normal(0, 1, (4, 16, 16, 3))}, "raw pixels 0..255, its values run"),
        ({"calibration": 5}, "a folder, an array, an iterable"),
        ({"path": "m.bin"}, "must end in .tflite, got path=.*m.bin"),
        ({"path": "no/such/folder/m.tflite"}, "cannot be written: path=.*no/such/folder"),
    ],
)
def test_unfit_arguments_are_refused_by_name(arguments, match, tmp_path):
    refused(match, tmp_path, **arguments)


def test_an_unwritable_path(tmp_path):
    (tmp_path / "taken.tflite").mkdir()
    refused("is a folder", tmp_path, path="taken.tflite")
    with pytest.raises(ValueError, match="cannot be written: path='/proc/m.tflite'"):
        export_tflite(kv.build("vit_test"), "/proc/m.tflite")


def test_calibration_folders_that_are_missing_empty_or_hold_a_broken_image(tmp_path):
    refused("No image folder", tmp_path, error=FileNotFoundError, calibration=tmp_path / "nowhere")
    folder = tmp_path / "photos"
    folder.mkdir()
    refused("photos' holds no images", tmp_path, calibration=folder)
    Image.fromarray(pixels((16, 16, 3), 1)[0]).save(folder / "a.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a.png").unlink()
    refused("b.png is no image that can be read", tmp_path, calibration=folder)
    (folder / "b.png").write_bytes(b"text")
    refused("b.png is no image that can be read", tmp_path, calibration=folder)


def test_models_that_cannot_be_right_are_refused(tmp_path):
    broken = kv.build("vit_test")
    broken.backbone.norm.gamma.assign(np.full(32, np.nan))
    refused("weight 'norm/gamma' holds NaN or infinity", tmp_path, broken)
    refused("must be a keras.Model, got str", tmp_path, "model")
    refused("is not built", tmp_path, keras.Sequential([keras.layers.Flatten()]))
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    refused("does not say how pixels become its input. Pass `pixels` .--pixels.: '0..1', '-1..1' or", tmp_path, model)
    unknown_size = keras.Input((None, None, 3))
    refused("known sides", tmp_path, keras.Model(unknown_size, keras.layers.GlobalAveragePooling2D()(unknown_size)))


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.long
def test_a_model_quantized_by_keras_is_refused(tmp_path):
    model = kv.build("vit_test")
    model.quantize("int8")
    refused("quantized by Keras .int8.. Export the float model", tmp_path, model)


def test_a_layer_quantized_by_keras_is_refused_by_its_path():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first")])
    model.add(keras.layers.Dense(2, name="second"))
    check_model(model)
    model.get_layer("second").quantize("int8")
    with pytest.raises(
        ValueError, match=r"^The layer '.*second' is quantized by Keras \(int8\)\. Export the float model"
    ):
        check_model(model)


def test_mean_and_std_of_another_channel_count(tmp_path):
    refused("`std` must be one number or one per channel .3., got 2", tmp_path, mean=[0, 0], std=[1, 1])


def test_a_graph_beyond_the_builtin_ops_is_refused(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Inverse(keras.layers.Layer):
        def call(self, x):
            return keras.ops.inv(x)

    images = keras.Input((8, 8, 3))
    x = Inverse()(keras.layers.Reshape((12, 16))(images)[:, :, :12])
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    refused("does not convert to TFLite builtin ops", tmp_path, model, UnsupportedByTarget, mean=0, std=1)


def test_calibration_images_that_say_little(tmp_path):
    images = pixels((16, 16, 3), 20)
    flat = np.full_like(images, 90)
    refused("`calibration` holds images of one colour each", tmp_path, quantize="int8", calibration=flat)
    refused("raw pixels 0..255, its values run to 1", tmp_path, quantize="int8", calibration=images // 128)
    with pytest.warns(UserWarning, match="`calibration`: 1 of 20 images are of one colour each"):
        mixed = np.concatenate([images[:19], flat[:1]])
        export_tflite(kv.build("vit_test"), tmp_path / "m.tflite", calibration=mixed)
    with pytest.warns(UserWarning, match=r"`calibration` holds 3 image\(s\): .* fewer than 16 may not fit"):
        keras.utils.set_random_seed(0)
        export_tflite(
            *(kv.build("vit_test"), tmp_path / "m.tflite", "int8-full"),
            calibration=images[:3],
            tolerance=Tolerance(0, -100),
        )


OUTSIDE = tf.Variable(np.arange(5.0), dtype="float32", trainable=False, name="outside")
TABLE = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0]), 0.0)


class Moved(keras.Model):
    """A subclassed model whose five answers are moved by what a function of the model gives."""

    def __init__(self, moved):
        super().__init__()
        self.pool, self.dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)
        self.seeds, self.inside = keras.random.SeedGenerator(0), tf.Variable(np.arange(5.0), dtype="float32")
        self.moved = moved

    def call(self, images, training=False):
        return self.dense(self.pool(images)) + self.moved(self)


def moved_model(moved):
    model = Moved(moved)
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


@pytest.mark.parametrize(
    "moved, match",
    [
        (lambda model: keras.random.normal((1, 5)), "draws random numbers when it answers; .* `if training:`"),
        (lambda model: keras.random.normal((1, 5), seed=model.seeds), "draws random numbers .*StatelessRandomNormal"),
        (lambda model: keras.random.dropout(ops.ones((1, 5)), 0.5), "draws random numbers .*StatelessRandomUniform"),
        (lambda model: TABLE.lookup(tf.constant([0])), "uses a resource of TensorFlow that is no variable"),
    ],
)
def test_models_that_draw_numbers_or_look_them_up(moved, match, tmp_path):
    refused(match, tmp_path, moved_model(moved), UnsupportedByTarget, pixels="0..1")


@pytest.mark.parametrize("moved", [lambda model: OUTSIDE, lambda model: model.inside])
def test_variables_that_keras_does_not_track_are_exported(moved, tmp_path):
    report = export_tflite(moved_model(moved), tmp_path / "m.tflite", pixels="0..1")
    assert report.parity.snr_db > 100


def test_an_option_of_a_mode_is_no_argument_of_the_export(tmp_path):
    said = r"`block_size` is an option of the mode: quantize=Int4\(block_size=48\), from keras_vit_plugin.export"
    refused(said, tmp_path, error=TypeError, quantize="int4", block_size=48)
    refused("no argument `mode`", tmp_path, error=TypeError, mode="int8")
    refused("no argument `piexls`. Did you mean `pixels`", tmp_path, error=TypeError, piexls="0..1")
