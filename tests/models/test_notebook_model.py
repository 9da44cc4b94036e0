"""`SimpleViT` is the teaching notebook's model: parameters, logits, training; and that model's files go into it."""

import warnings

import keras
import numpy as np
import pytest
from conftest import pixels, randomize, real_data
from notebook_model import NotebookViT, PatchesAndPositions, train

import keras_vit_plugin as kv
from keras_vit_plugin.checkpoints import load_weights, whole_models
from keras_vit_plugin.checkpoints.limits import RefusedFile
from keras_vit_plugin.checkpoints.plain_keras import same_answers

layers = keras.layers


def notebook_model(extract=False, model_class=NotebookViT):
    model = model_class(extract)
    model(np.zeros((1, 32, 32, 3), np.float32))
    randomize(model)
    return model


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("extract", [False, True], ids=["convolution", "dense of extracted patches"])
def test_the_notebooks_saved_weights_give_its_logits(extract, suffix, tmp_path):
    model, path = notebook_model(extract), tmp_path / f"notebook{suffix}"
    model.compile("adam", "mse", metrics=["accuracy"], run_eagerly=True)
    x = pixels((32, 32, 3), 6).astype(np.float32) / 255
    model.fit(x, np.zeros((6, 10)), verbose=0)  # so that the file has an optimizer's state too
    (model.save if suffix == ".keras" else model.save_weights)(path)
    # A .keras says what its layers compute, and is run; of weights alone nobody knows.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ours = kv.build("simple_vit_cifar10", weights=path)
    said = [each for each in warned if "layers of Keras's own, without what they compute" in str(each.message)]
    assert len(said) == (suffix == ".weights.h5")
    np.testing.assert_allclose(ours(x), model(x), atol=1e-5)
    assert ours.count_params() == model.count_params() == 41_226
    assert kv.explain.attention_maps(ours, x[0]).shape == (1, 4, 64, 64)


@pytest.mark.filterwarnings("ignore:.*without what they compute")
def test_another_head_or_image_size_as_for_files_of_our_own(tmp_path):
    path = tmp_path / "notebook.weights.h5"
    notebook_model().save_weights(path)
    with pytest.raises(ValueError, match=r"misshapen: layers/dense/vars/0 has \(64, 10\), the model needs \(64, 5\)"):
        kv.build("simple_vit_cifar10", num_classes=5, weights=path)
    assert kv.build("simple_vit_cifar10", num_classes=5, weights=path, new_head=True).output_shape == (None, 5)
    assert kv.build("simple_vit_cifar10", image_size=16, weights=path).tokens.position_embedding.shape == (1, 16, 64)


def second_norm(model):
    model.extra = layers.LayerNormalization()
    model.extra.build((None, 64, 64))


def second_head(model):
    model.extra = layers.Dense(10)
    model.extra.build((None, 64))


def class_token(model):
    model.extra = layers.Layer()
    model.extra.token = model.extra.add_weight(shape=(1, 1, 64), name="token")


def convolution(model):
    model.extra = layers.Conv2D(3, 3)
    model.extra.build((None, 32, 32, 3))


@pytest.mark.parametrize(
    "add, said",
    [
        (second_norm, "2 layers that can be norm"),
        (second_head, "2 layers that can be layers/dense"),
        (class_token, r"'extra' \[\(1, 1, 64\)\] besides"),
        (convolution, r"'extra' \[\(3, 3, 3, 3\), \(3,\)\] besides"),
    ],
)
def test_what_simple_vit_does_not_have_is_refused(add, said, tmp_path):
    class Other(NotebookViT):
        def __init__(self, extract=False):
            super().__init__(extract)
            add(self)

    path = tmp_path / "other.weights.h5"
    notebook_model(model_class=Other).save_weights(path)
    with pytest.raises(
        ValueError, match=f"holds no SimpleViT of 64 channels in layers of Keras's own: it has .*{said}"
    ):
        kv.build("simple_vit_cifar10", weights=path)


@pytest.mark.parametrize("num_classes, heads", [(10, "no"), (128, "2")])
def test_a_layer_as_wide_as_the_mlp_is_a_head_of_a_model_of_as_many_classes_alone(num_classes, heads, tmp_path):
    """Nothing tells the two layers of a file apart, so it is refused; the sentence says what each may be."""

    class WideHead(NotebookViT):
        def __init__(self, extract=False):
            super().__init__(extract)
            self.head = layers.Dense(128)

    path = tmp_path / "wide.weights.h5"
    notebook_model(model_class=WideHead).save_weights(path)
    said = f"it has 2 layers that can be mlp/hidden; {heads} layers that can be layers/dense; "
    with pytest.raises(ValueError, match=said):
        kv.build("simple_vit_cifar10", num_classes=num_classes, weights=path, new_head=True)


class OnlyAClassToken(layers.Layer):
    """Patches as the notebook's, with a class token and without positions."""

    def __init__(self):
        super().__init__()
        self.projection = layers.Conv2D(64, 4, strides=4)
        self.token = self.add_weight(shape=(1, 1, 64), name="token")

    def call(self, images):
        patches = keras.ops.reshape(self.projection(images), (-1, 64, 64))
        token = keras.ops.repeat(self.token, len(patches), axis=0)
        return keras.ops.concatenate([token, patches], axis=1)


class DenseForPositions(layers.Layer):
    """Patches as the notebook's, with a second projection, whose kernel has the shape of the positions."""

    def __init__(self):
        super().__init__()
        self.both = keras.Sequential([layers.Conv2D(64, 4, strides=4), layers.Dense(64, use_bias=False)])

    def call(self, images):
        return keras.ops.reshape(self.both(images), (-1, 64, 64))


@pytest.mark.parametrize(
    "other, place",
    [
        ({"patches": OnlyAClassToken}, "tokens_and_positions"),
        ({"patches": DenseForPositions}, "tokens_and_positions"),
        ({"norm": lambda: layers.GroupNormalization(1)}, "norm"),
    ],
)
def test_a_layer_of_another_kind_with_a_shape_that_fits_is_refused(other, place, tmp_path):
    class Other(NotebookViT):
        def __init__(self, extract=False):
            keras.Model.__init__(self)
            parts = {
                "patches": PatchesAndPositions,
                "attention": lambda: layers.MultiHeadAttention(4, 16),
                "norm": layers.LayerNormalization,
                "mlp": lambda: keras.Sequential([layers.Dense(128, "gelu"), layers.Dense(64)]),
                "pool": layers.GlobalAveragePooling1D,
                "head": lambda: layers.Dense(10),
            }
            for name, part in (parts | other).items():
                setattr(self, name, part())

    path = tmp_path / "other.weights.h5"
    notebook_model(model_class=Other).save_weights(path)
    with pytest.raises(ValueError, match=f"no layers that can be {place}"):
        kv.build("simple_vit_cifar10", weights=path)


def functional_notebook_model(activation="gelu", pre_norm=False, last=None):
    images = keras.Input((32, 32, 3))
    x = PatchesAndPositions()(images)
    norm, attention = layers.LayerNormalization(epsilon=1e-6), layers.MultiHeadAttention(4, 16)
    y = norm(x) if pre_norm else x
    x = x + attention(y, y)
    x = x if pre_norm else norm(x)
    x = x + layers.Dense(64)(layers.Dense(128, activation)(x))
    model = keras.Model(images, layers.Dense(10, last)(layers.GlobalAveragePooling1D()(x)))
    randomize(model)
    return model


@pytest.mark.parametrize("different", [{"activation": "relu"}, {"pre_norm": True}], ids=str)
def test_a_keras_file_of_another_architecture_with_its_shapes_is_refused(different, tmp_path):
    path, ours = tmp_path / "other.keras", kv.build("simple_vit_cifar10")
    functional_notebook_model(**different).save(path)
    before = ours.get_weights()
    with pytest.raises(ValueError, match="has the layers of a SimpleViT and gives other answers.*`export_tflite`"):
        load_weights(ours, path)
    assert all(map(np.array_equal, before, ours.get_weights()))


def test_a_keras_file_with_the_same_answers_as_probabilities_goes_in(tmp_path):
    model, x = functional_notebook_model(last="softmax"), pixels((32, 32, 3), 6).astype(np.float32) / 255
    model.save(tmp_path / "m.keras")
    ours = kv.build("simple_vit_cifar10", weights=tmp_path / "m.keras")
    np.testing.assert_allclose(keras.ops.softmax(ours(x)), model(x), atol=1e-5)


def test_answers_are_compared_as_in_use_and_only_where_both_take_the_images():
    ours = kv.build("simple_vit_test")
    randomize(ours)

    def own(*behind, front=ours):
        return keras.Sequential([front, *behind])

    assert same_answers(ours, ours) is same_answers(ours, own(layers.Softmax())) is True
    assert same_answers(ours, own(layers.Dropout(0.5))) is True
    assert same_answers(ours, own(layers.Rescaling(1.01))) is same_answers(ours, own(layers.ReLU())) is False
    assert same_answers(ours, own(layers.Reshape((1, -1)))) is None
    assert same_answers(ours, keras.Sequential([keras.Input((9, 9, 3)), layers.Flatten(), layers.Dense(5)])) is None


def test_a_keras_file_that_is_not_opened_is_refused_not_only_warned_about(tmp_path, monkeypatch):
    def refuse(path):
        raise RefusedFile("it is too large")

    functional_notebook_model().save(tmp_path / "m.keras")
    monkeypatch.setattr(whole_models, "load_archive", refuse)
    with pytest.raises(ValueError, match="m.keras' cannot be used: it is too large"):
        load_weights(kv.build("simple_vit_cifar10"), tmp_path / "m.keras")


def test_other_presets_do_not_take_them(tmp_path):
    path = tmp_path / "notebook.weights.h5"
    notebook_model().save_weights(path)
    with pytest.raises(ValueError, match="of one block alone, not into ViTImageClassifier"):
        kv.build("vit_test", weights=path)
    with pytest.raises(ValueError, match="holds no SimpleViT of 16 channels.*no layers that can be norm"):
        kv.build("simple_vit_test", weights=path)


@pytest.mark.long
def test_both_train_alike_on_cifar10():
    """Five seeds each: the means of what validation ends at are apart by less than their runs scatter."""
    with np.load(real_data("cifar10_subset.npz")) as data:
        images, labels = data["x_train"][:1000], data["y_train"][:1000]
    found = {}
    for name, build in (("notebook", NotebookViT), ("ours", lambda: kv.build("simple_vit_cifar10"))):
        histories = []
        for seed in range(42, 47):
            keras.utils.set_random_seed(seed)
            histories.append(train(build(), images, labels).history)
        for figure in ("accuracy", "loss"):
            found[name, figure] = np.array([history[f"val_{figure}"][-1] for history in histories])
    for figure in ("accuracy", "loss"):
        theirs, ours = found["notebook", figure], found["ours", figure]
        assert abs(theirs.mean() - ours.mean()) < max(theirs.std(), ours.std()), (figure, theirs, ours)
    assert found["ours", "accuracy"].mean() > 0.14 and found["ours", "loss"].mean() < 2.25
