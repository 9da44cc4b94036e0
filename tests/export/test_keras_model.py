"""Any Keras model as a function from pixels to named outputs, and what those mean."""

import warnings

import keras
import numpy as np
import pytest
from conftest import pixels
from notebook_model import NotebookViT
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.cli.classify import classify_files
from keras_vit_plugin.export import ParityError, Runner, Tolerance, export_tflite, inspect, pipeline, verify, wanted_of
from keras_vit_plugin.image_model import image_model
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.image_model.image_model import ImageModel
from keras_vit_plugin.image_model.labels import checked_labels
from keras_vit_plugin.images.preprocessing import preprocessing_of

SIDE = 8
layers = keras.layers


def model_with(head, structure=lambda images: images, policy="float32", dtype=None):
    """A small convolutional model; `head` takes its vector and its map and gives the outputs."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        images = keras.Input((SIDE, SIDE, 3), name="photo", dtype=dtype)
        maps = layers.Conv2D(6, 3, activation="gelu", bias_initializer="normal")(
            layers.Rescaling(1 / 127.5, -1)(images)
        )
        outputs = head(layers.GlobalAveragePooling2D()(maps), maps)
        return keras.Model(structure(images), outputs)
    finally:
        keras.config.set_dtype_policy("float32")


def dense(units, activation=None, name=None):
    return layers.Dense(units, activation=activation, name=name, kernel_initializer="he_normal")


HEADS = {
    "logits": (lambda v, m: dense(3)(v), "logits", "classes", "linear"),
    "two heads' mean": (lambda v, m: (dense(3)(v) + dense(3)(v)) / 2, "logits", "classes", "linear"),
    "softmax": (lambda v, m: dense(3, "softmax")(v), "probabilities", "classes", "softmax"),
    "softmax layer": (lambda v, m: layers.Softmax()(dense(3)(v)), "probabilities", "classes", "softmax"),
    "two softmaxes' mean": (
        lambda v, m: layers.Average()([dense(3, "softmax")(v), dense(3, "softmax")(v)]),
        "probabilities",
        "classes",
        "softmax",
    ),
    "one sigmoid": (lambda v, m: dense(1, "sigmoid")(v), "probabilities", "binary", "sigmoid"),
    "sigmoids": (lambda v, m: layers.Activation("sigmoid")(dense(4)(v)), "probabilities", "multi-label", "sigmoid"),
    "one number": (lambda v, m: dense(1)(v), "values", "regression", "linear"),
    "positive numbers": (lambda v, m: dense(2, "softplus")(v), "values", "regression", "linear"),
    "pooled": (lambda v, m: v, "embedding", "embedding", "linear"),
    "normed": (lambda v, m: layers.LayerNormalization()(v), "embedding", "embedding", "linear"),
    "unit length": (lambda v, m: layers.UnitNormalization()(v), "embedding", "embedding", "linear"),
    "residual": (lambda v, m: v + dense(6)(v), "embedding", "embedding", "linear"),
    "maps": (lambda v, m: m, "features", "features", "linear"),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.sampled(6)
def test_what_a_head_means_is_seen_and_verified(head, tmp_path):
    function, name, task, activation = HEADS[head]
    model = model_with(function)
    images = pixels((SIDE, SIDE, 3), 24)
    report = export_tflite(model, tmp_path / "m.tflite", calibration=images, pixels="0..255")
    (answer,) = report.answers
    assert (answer.name, answer.task, answer.activation) == (name, task, activation)
    assert report.parity.task == task and report.parity.snr_db > 80
    assert (report.parity.agreement is None) == (task in ("regression", "embedding", "features"))
    assert inspect(tmp_path / "m.tflite").metadata["answers"] == [
        {"name": name, "task": task, "activation": activation}
    ]
    parity = verify(model, tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 8, seed=5), pixels="0..255")
    assert parity.task == task and parity.snr_db > 80


def test_every_head_is_seen_and_only_what_its_shape_alone_tells_is_a_guess():
    found = {head: ImageModel(model_with(function)) for head, (function, *_) in HEADS.items()}
    assert {head: model.answers for head, model in found.items()} == {
        head: (Answer(*meant),) for head, (_, *meant) in HEADS.items()
    }
    guessed = {head for head, model in found.items() if model.told == (False,)}
    assert guessed == {"logits", "two heads' mean", "one number", "maps"}


def test_names_are_those_of_the_first_output():
    model = ImageModel(model_with(lambda v, m: [dense(1, "sigmoid", name="old")(v), dense(3, name="kind")(v)]))
    assert checked_labels(["no", "yes"], model) == ["no", "yes"]
    with pytest.raises(ValueError, match="the model has 1 or 2 classes, got 3 names"):
        checked_labels(["ant", "bee", "cat"], model)


@pytest.mark.parametrize(
    "units, loss, task",
    [
        (1, keras.losses.BinaryCrossentropy(from_logits=True), "binary"),
        (3, keras.losses.BinaryCrossentropy(from_logits=True), "multi-label"),
        (3, "mse", "regression"),
        (1, "mse", "regression"),
        (3, "mae", "regression"),
        (3, "mape", "regression"),
        (3, "mean_absolute_error", "regression"),
        (3, keras.losses.MeanSquaredError(), "regression"),
        (3, "huber", "regression"),
        (3, "log_cosh", "regression"),
        (3, "poisson", "regression"),
        (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "classes"),
        (3, "cosine_similarity", "embedding"),
        (1, None, "regression"),
    ],
)
def test_the_loss_tells_what_linear_outputs_mean(units, loss, task):
    model = model_with(lambda vector, maps: dense(units)(vector))
    if loss is not None:
        model.compile("adam", loss)
    found = ImageModel(model)
    assert found.answer.task == task and found.told == (loss is not None,)
    assert ImageModel(model, task="embedding").answer.task == "embedding"  # the caller knows best


@pytest.mark.parametrize("task, match", [("labels", "one of classes, binary"), ("binary", "does not fit the output")])
def test_a_task_that_does_not_fit_is_refused(task, match):
    with pytest.raises(ValueError, match=match):
        ImageModel(model_with(lambda vector, maps: dense(3)(vector)), task=task)


def test_what_is_known_by_its_name_is_an_operator_of_tensorflow():
    import tensorflow as tf

    names = (*image_model.SAME, *image_model.SUMS, *image_model.PRODUCTS, *image_model.DENSE, *image_model.NUMBERS)
    names += (*image_model.CALLS, *image_model.CONSTANTS)
    assert [name for name in names if not hasattr(tf.raw_ops, name)] == []


def test_several_outputs_keep_their_names_and_are_all_verified(tmp_path, monkeypatch):
    looked_at, changed_answers = [], pipeline.changed_answers
    monkeypatch.setattr(
        pipeline, "changed_answers", lambda *given: looked_at.append(given[2].name) or changed_answers(*given)
    )
    images = pixels((SIDE, SIDE, 3), 24)
    as_dict = model_with(lambda v, m: {"kind": dense(3, "softmax")(v), "age": dense(1)(v), "map": m})
    as_list = model_with(lambda v, m: [dense(3, name="kind")(v), dense(1, "sigmoid", name="old")(v)])
    for model, names in ((as_dict, ("age", "kind", "map")), (as_list, ("kind", "old"))):
        for mode in ("float32", "dynamic"):
            path = tmp_path / "m.tflite"
            report = export_tflite(
                model, path, mode, calibration=images, pixels="0..255", tolerance=Tolerance(0.5, 10.0)
            )
            assert tuple(answer.name for answer in report.answers) == names
            assert looked_at.pop() == names[0] and not looked_at
            if report.parity.agreement in (1.0, None):  # of the first output
                assert not report.changed_answers
            assert tuple(other.name for other in (report.parity, *report.parity.others)) == names
            computed = signature_outputs(path.read_bytes(), images[:1])
            expected = dict(zip(names, ImageModel(model)(images[:1])))
            for name in names:
                np.testing.assert_allclose(computed[name], expected[name], atol=1e-5 if mode == "float32" else 0.2)


def signature_outputs(content, images):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=content).get_signature_runner("serving_default")(images=images)


def test_a_wrong_second_output_refuses_the_file(tmp_path, monkeypatch):
    model = model_with(lambda v, m: [dense(3, name="kind")(v), dense(1, name="age")(v)])
    right = ImageModel.traced
    monkeypatch.setattr(
        ImageModel,
        "traced",
        lambda self, images: {k: v * (1 + 0.1 * (k == "age")) for k, v in right(self, images).items()},
    )
    with pytest.raises(ParityError, match=r"age: \d+.\d dB .wanted 80 dB"):
        export_tflite(model, tmp_path / "m.tflite", calibration=pixels((SIDE, SIDE, 3), 24), pixels="0..255")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "structure", [lambda i: i, lambda i: [i], lambda i: {"photo": i}], ids=["tensor", "list", "dict"]
)
def test_a_model_is_called_by_its_own_structure(structure, tmp_path):
    model = model_with(lambda vector, maps: dense(3)(vector), structure)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*structure of `inputs`.*")
        assert export_tflite(model, tmp_path / "m.tflite", pixels="0..255").parity.snr_db > 80


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Conv2D(4, 3), dense(3, "softmax")

    def call(self, images):
        return self.head(layers.Flatten()(self.hidden(images / 255)))


@pytest.mark.parametrize("known_by", ["a call", "fit", "predict"])
def test_a_subclassed_model_exports_after_its_first_call(known_by, tmp_path):
    model, images = Subclassed(), pixels((SIDE, SIDE, 3), 8)
    if known_by == "fit":
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(images.astype("float32"), np.zeros(8), verbose=0)
    else:
        (model if known_by == "a call" else model.predict_on_batch)(images.astype("float32"))
    report = export_tflite(model, tmp_path / "m.tflite", pixels="0..255")
    assert report.parity.snr_db > 80 and report.answers[0].activation == "softmax"
    with pytest.raises(ValueError, match="is not built: call it once on images"):
        export_tflite(Subclassed(), tmp_path / "n.tflite", pixels="0..255")


class Catching(Subclassed):
    """Keras records no shape of `args`, and one in a list of what is caught under another name."""

    def call(self, *args):
        return super().call(args[0])


class CatchingImages(Subclassed):
    def call(self, *images):
        return super().call(images[0])


def built_by_itself():
    class Building(Subclassed):
        def build(self):
            self.hidden.build((None, SIDE, SIDE, 3))
            self.head.build((None, 144))

    return Building()


@pytest.mark.filterwarnings("ignore:.*build:UserWarning", "ignore:.*unbuilt state:UserWarning")
@pytest.mark.parametrize("make", [Catching, CatchingImages, built_by_itself])
def test_the_caller_says_the_image_shape_where_keras_did_not_record_it(make, tmp_path):
    model, path, images = make(), tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 8)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images.astype("float32"), np.zeros(8), batch_size=5, verbose=0)  # the last batch is another
    if make is CatchingImages:
        assert export_tflite(model, path, pixels="0..255").parity.snr_db > 80
        return
    with pytest.raises(ValueError, match=r"inputs are unknown: pass image_shape=.* \(--image-shape HxWxC\)"):
        export_tflite(model, path, pixels="0..255")
    with pytest.raises(ValueError, match=r"cannot be called on a graph's images of shape \(7, 8, 3\): "):
        export_tflite(model, path, pixels="0..255", image_shape=(7, SIDE, 3))
    assert export_tflite(model, path, pixels="0..255", image_shape=(SIDE, SIDE, 3)).parity.snr_db > 80
    assert verify(model, path, images, pixels="0..255", image_shape=[SIDE, SIDE, 3]).snr_db > 80
    np.testing.assert_allclose(
        signature_outputs(path.read_bytes(), images[:1])["probabilities"],
        model(images[:1].astype("float32")),
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 0), (8, 8, 2.5), 8, "8x8x3"])
def test_an_image_shape_that_is_none_is_refused(shape, tmp_path):
    with pytest.raises(ValueError, match="`image_shape` must be three positive integers"):
        export_tflite(model_with(lambda v, m: dense(3)(v)), tmp_path / "m.tflite", pixels="0..255", image_shape=shape)


def test_open_sides_are_the_callers_and_known_ones_the_models(tmp_path):
    images = keras.Input((None, None, 3))
    vector = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(images))
    model, path = keras.Model(images, dense(3)(vector)), tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"known sides, its input is \(None, None, None, 3\): pass image_shape="):
        export_tflite(model, path, pixels="0..255")
    with pytest.raises(ValueError, match=r"must be the model's own, \(None, None, 3\); got .*\(9, 7, 1\)"):
        export_tflite(model, path, pixels="0..255", image_shape=(9, 7, 1))
    export_tflite(model, path, pixels="0..255", image_shape=(9, 7, 3))
    assert Runner(path.read_bytes()).image_shape == (9, 7, 3)


class Nested(keras.Model):
    """A subclassed model in another, with dropout, of whatever is given."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body, self.dropout = NotebookViT(dtype=self.dtype_policy), layers.Dropout(0.5)

    def call(self, images, training=None):
        x = keras.ops.cast(images, self.compute_dtype) / 255
        return self.body(self.dropout(x, training=training))


@pytest.mark.parametrize("given, policy", [("uint8", "float32"), ("float32", "mixed_float16")])
def test_the_notebooks_model_goes_from_fit_to_a_file(given, policy, tmp_path):
    images, path = pixels((32, 32, 3), 40), tmp_path / "m.tflite"
    model = Nested(dtype=policy)
    eager = given == "float32"  # which is quicker, but not what the notebook does
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=eager)
    model.fit(images.astype(given), np.arange(40) % 10, verbose=0)  # batches of 32 and 8
    report = export_tflite(model, path, pixels="0..255", verification=images)
    assert report.answers[0].task == "classes" and report.parity.snr_db > 80
    assert model.body.compute_dtype == policy.removeprefix("mixed_")  # it is left as it was


def test_a_model_that_tells_integers_from_floats_is_asked_what_it_takes(tmp_path):
    class Scaling(Subclassed):
        def call(self, images):
            whole = keras.backend.standardize_dtype(images.dtype) == "uint8"
            return super().call(keras.ops.cast(images, "float32") * (1 if whole else 255))

    model, images, path = Scaling(), pixels((SIDE, SIDE, 3), 8), tmp_path / "m.tflite"
    model(images)
    with pytest.raises(ValueError, match="otherwise as uint8 than as float32.*Wrap it"):
        export_tflite(model, path, pixels="0..255")
    assert export_tflite(model, path, pixels="0..1").parity.snr_db > 80  # floats are meant
    wrapped = keras.Sequential([keras.Input((SIDE, SIDE, 3), dtype="uint8"), model])
    export_tflite(wrapped, path, pixels="0..255")
    computed = signature_outputs(path.read_bytes(), images[:1])["probabilities"]
    np.testing.assert_allclose(computed, model(images[:1]), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_a_model_of_another_precision_is_exported_in_float32(policy, tmp_path):
    model = model_with(lambda v, m: layers.Dense(3, dtype="float32", kernel_initializer="he_normal")(v), policy=policy)
    report = export_tflite(model, tmp_path / "m.tflite", pixels="0..255")
    assert report.parity.snr_db > 80
    assert model.layers[2].dtype_policy.name == policy  # it is left as it was
    images = pixels((SIDE, SIDE, 3), 8)
    wanted = np.asarray(model(images.astype("float32")), np.float32)
    computed = signature_outputs((tmp_path / "m.tflite").read_bytes(), images[:1])["logits"]
    np.testing.assert_allclose(computed, wanted[:1], atol=0.05 * np.abs(wanted).max())


def test_an_integer_input_takes_no_normalization():
    model = model_with(lambda vector, maps: dense(3)(vector), dtype="uint8")
    ImageModel(model, 1.0, 0.0)
    for scale, offset in ((1.0, -1.0), (1 / 255, 0.0)):
        with pytest.raises(ValueError, match="The model's input is uint8: raw pixels go in as they are"):
            ImageModel(model, scale, offset)


def test_pixels_of_an_integer_input_go_in_as_they_are(tmp_path):
    model = model_with(lambda vector, maps: dense(3)(vector), dtype="uint8")
    images = pixels((SIDE, SIDE, 3), 24)
    for input_dtype in ("uint8", "float32"):
        path = tmp_path / f"{input_dtype}.tflite"
        export_tflite(model, path, calibration=images, pixels="0..255", input_dtype=input_dtype)
        computed = signature_outputs(path.read_bytes(), images[:1].astype(input_dtype))["logits"]
        np.testing.assert_allclose(computed, np.asarray(model(images[:1])), atol=1e-5)  # called by the test, on uint8
    with pytest.raises(ValueError, match="input is uint8: raw pixels go in as they are"):
        ImageModel(model, 1 / 255, 0.0)


def test_outputs_that_cannot_be_compared_are_refused():
    counted = model_with(lambda vector, maps: keras.ops.argmax(vector, axis=-1))
    with pytest.raises(ValueError, match="'.*' must be a float tensor with one row per image, it is int"):
        ImageModel(counted)
    mean = model_with(lambda vector, maps: keras.ops.mean(vector, axis=0))
    with pytest.raises(ValueError, match="one row per image"):
        ImageModel(mean)


def test_a_shared_head_hides_no_other_output(tmp_path):
    """Keras calls the outputs dense, dense and dense_1: what tells the first two apart must not be the third's name."""
    head, other = (layers.Dense(3, name=name, kernel_initializer="he_normal") for name in ("head", "head_1"))
    model = model_with(lambda v, m: [head(v), head(layers.GlobalMaxPooling2D()(m)), other(v)])
    path, images = tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 4)
    report = export_tflite(model, path, pixels="0..255")
    assert len(report.answers) == 3 and len(report.parity.others) == 2
    found = Runner(path.read_bytes()).outputs(images)
    for answer, expected in zip(report.answers, model(images.astype(np.float32))):
        np.testing.assert_allclose(found[answer.name], expected, atol=1e-4)


def test_a_subclassed_model_of_dicts(tmp_path):
    class Named(keras.Model):
        def __init__(self, key):
            super().__init__()
            self.key, self.pool, self.head = key, layers.GlobalAveragePooling2D(), dense(3)

        def call(self, inputs):
            return {"logits": self.head(self.pool(inputs[self.key])), "loss": None}

    images = pixels((SIDE, SIDE, 3), 4).astype(np.float32)
    for key, inputs in (("photo", {"photo": images}), (0, [images])):
        model = Named(key)
        model(inputs)
        report = export_tflite(model, tmp_path / "m.tflite", pixels="0..255")
        assert [answer.name for answer in report.answers] == ["logits"] and report.parity.snr_db > 80


def test_an_output_without_a_second_axis_decides_too(tmp_path):
    model = model_with(lambda v, m: keras.ops.squeeze(dense(1, "sigmoid")(v), -1))
    model.compile("adam", "binary_crossentropy")
    path, photo = tmp_path / "m.tflite", tmp_path / "photo.png"
    report = export_tflite(model, path, pixels="0..255", labels=["cat"], tolerance=Tolerance(1.0, 60))
    assert report.answers == (Answer("probabilities", "binary", "sigmoid"),) and report.parity.agreement == 1.0
    Image.fromarray(pixels((SIDE, SIDE, 3), 1)[0]).save(photo)
    (told,) = classify_files(path, [photo])
    expected = float(model(pixels((SIDE, SIDE, 3), 1).astype(np.float32))[0])
    assert {each["label"]: each["probability"] for each in told["top"]} == pytest.approx(
        {"cat": expected, "not cat": 1 - expected}, abs=1e-4
    )
    export_tflite(model_with(lambda v, m: keras.ops.mean(v, -1)), path, pixels="0..255", task="regression")
    (told,) = classify_files(path, [photo])
    assert [each["label"] for each in told["values"]] == ["number 0"]


def test_maps_of_numbers_are_not_printed_as_a_class(tmp_path):
    path = tmp_path / "m.tflite"
    export_tflite(model_with(lambda v, m: m), path, pixels="0..255", task="regression")
    with pytest.raises(ValueError, match=r"no classifier of photos: .* regression \(1, 6, 6, 6\) out"):
        list(classify_files(path, [tmp_path / "photo.png"]))


def test_the_callers_task_counts_for_more_than_the_files(tmp_path):
    model, path, images = model_with(lambda v, m: dense(4)(v)), tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 24)
    export_tflite(model, path, "dynamic", pixels="0..255", tolerance=Tolerance(0, 0))
    assert verify(model, path, images, pixels="0..255").task == "classes"
    export_tflite(model, tmp_path / "l.tflite", pixels="0..255", task="multi-label")
    assert verify(model, tmp_path / "l.tflite", images, pixels="0..255").task == "multi-label"  # as the file says
    found = verify(model, path, images, pixels="0..255", task="multi-label")
    assert found.task == "multi-label" and found.all_labels_agreement is not None
    numbers = verify(model, path, images, pixels="0..255", task="regression")
    assert numbers.agreement is None and wanted_of(path, numbers).min_agreement is None
    assert wanted_of(path, found, min_agreement=0.9).min_agreement == 0.9
    with pytest.raises(ValueError, match="is for outputs that decide something, this one gives regression; .*=0.9"):
        wanted_of(path, numbers, min_agreement=0.9)


def test_outputs_of_a_list_that_holds_a_dict_are_named_by_their_places():
    model = model_with(lambda v, m: [dense(3, name="kind")(v), {"age": dense(2, name="old")(v)}])
    assert [answer.name for answer in ImageModel(model).answers] == ["output_0", "1_age"]


def test_what_the_file_says_lets_labels_be_compared(tmp_path):
    """The model alone says that its one number is a regression, which no label fits."""
    model, path, images = model_with(lambda v, m: dense(1)(v)), tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 24)
    export_tflite(model, path, pixels="0..255", task="binary")
    assert verify(model, path, images, [0, 1] * 12, pixels="0..255").top1_accuracy_model is not None


def test_a_task_for_one_output_leaves_the_others_as_the_file_says(tmp_path):
    model = model_with(lambda v, m: [dense(4, name="a")(v), dense(3, name="b")(v)])
    path, images = tmp_path / "m.tflite", pixels((SIDE, SIDE, 3), 24)
    export_tflite(model, path, pixels="0..255", task={"a": "regression", "b": "multi-label"})
    found = verify(model, path, images, pixels="0..255", task={"a": "embedding"})
    assert (found.task, found.others[0].task) == ("embedding", "multi-label")


def test_another_programs_output_without_a_second_axis(tmp_path):
    import tensorflow as tf

    model = model_with(lambda v, m: keras.ops.squeeze(dense(1, "sigmoid")(v), -1))
    path, photo = tmp_path / "m.tflite", tmp_path / "photo.png"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    Image.fromarray(pixels((SIDE, 3 * SIDE, 3), 1)[0]).save(photo)
    (told,) = classify_files(path, [photo], pixels="0..255")
    stretched = preprocessing_of(model).load(photo)[None]  # as `verify` reads it
    answers = {each["label"]: each["probability"] for each in told["top"]}
    assert answers["yes"] == pytest.approx(float(model(stretched.astype(np.float32))[0]), abs=1e-4)


@pytest.mark.parametrize(
    "head, labels",
    [(lambda v, m: keras.ops.squeeze(dense(1, "sigmoid")(v), -1), ["yes"]), (lambda v, m: dense(1)(v), ["no", "yes"])],
)
def test_mediapipe_takes_a_name_per_output(head, labels, tmp_path):
    with pytest.raises(ValueError, match=r"takes outputs \(N, classes\) and a name for each"):
        export_tflite(
            model_with(head), tmp_path / "m.tflite", target="mediapipe", labels=labels, pixels="0..255", task="binary"
        )


def test_outputs_of_another_program_are_told_apart_beyond_ten(tmp_path):
    """Signatures have them in the order of text: output_10 before output_2."""
    import tensorflow as tf

    model = model_with(lambda v, m: [dense(3, "softmax" if i == 2 else None)(v) for i in range(12)])
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    parity = verify(model, path, pixels((SIDE, SIDE, 3), 8), pixels="0..255")
    assert len(parity.others) == 11 and min(each.snr_db for each in (parity, *parity.others)) > 80


def test_agreement_is_refused_where_there_is_nothing_to_agree_on(tmp_path):
    model = model_with(lambda vector, maps: dense(1)(vector))
    with pytest.raises(ValueError, match=r"min_agreement=0.9, but the model decides nothing: it gives values \(regres"):
        export_tflite(model, tmp_path / "m.tflite", pixels="0..255", tolerance=Tolerance(0.9, 10))
    with pytest.raises(ValueError, match="must hold two images or more, got 1"):
        export_tflite(model, tmp_path / "m.tflite", pixels="0..255", verification=pixels((SIDE, SIDE, 3), 1))
    for tolerance in (Tolerance(None, 10), Tolerance(min_snr_db=10)):
        assert export_tflite(model, tmp_path / "m.tflite", pixels="0..255", tolerance=tolerance).path
    with pytest.raises(ParityError, match=r"\(wanted 200 dB\)"):
        export_tflite(model, tmp_path / "m.tflite", pixels="0..255", tolerance=Tolerance(min_snr_db=200))


def test_this_packages_models_of_half_precision_are_judged_in_float32(tmp_path):
    model = kv.build("vit_test", dtype="mixed_float16")
    assert export_tflite(model, tmp_path / "m.tflite").parity.snr_db > 80


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_only_layers_that_compute_in_another_precision_do_so_in_float32():
    """A layer that Keras quantized computes in float32, by a policy of its own that its integer weights need."""
    images = keras.Input((SIDE, SIDE, 3))
    half = layers.Dense(6, dtype="mixed_bfloat16", kernel_initializer="he_normal")
    quantized, whole = dense(5), dense(3)
    x = half(layers.Flatten()(images))
    model = keras.Model(images, whole(quantized(layers.Activation("gelu", dtype="float32")(x))))
    quantized.quantize("int8")
    before = [layer.dtype_policy for layer in model.layers]
    photos = pixels((SIDE, SIDE, 3), 4)

    def exact(values):
        return values @ np.asarray(half.kernel) + np.asarray(half.bias)

    def rest(values):
        return np.asarray(whole(quantized(keras.activations.gelu(values))))

    x = photos.reshape(4, -1) / 255
    (found,) = ImageModel(model, 1 / 255, 0.0)(photos)
    np.testing.assert_allclose(found, rest(exact(x).astype(np.float32)), rtol=1e-3, atol=1e-3)
    policies = []
    with image_model.computing_in_float32(model):
        policies += [layer.dtype_policy for layer in model.layers]
    assert half.dtype_policy.name == "mixed_bfloat16"
    changed = [layer for layer, old, new in zip(model.layers, before, policies, strict=True) if new is not old]
    assert changed == [half]
    with pytest.raises(RuntimeError, match="of a test"), image_model.computing_in_float32(model):
        raise RuntimeError("of a test")
    assert all(layer.dtype_policy is old for layer, old in zip(model.layers, before, strict=True))


def test_a_model_of_a_fixed_batch_is_exported_with_it(tmp_path):
    images = keras.Input((SIDE, SIDE, 3), batch_size=3)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(images)))
    model = keras.Model(images, dense(3)(x))
    report = export_tflite(model, tmp_path / "m.tflite", batch_size=3, calibration=pixels((SIDE, SIDE, 3), 20))
    assert report.parity.snr_db > 80 and report.file.inputs[0]["shape"] == [3, SIDE, SIDE, 3]
    with pytest.raises(ValueError, match="`batch_size` must be 3, to which the .* fixed, got batch_size=1"):
        export_tflite(model, tmp_path / "n.tflite")
