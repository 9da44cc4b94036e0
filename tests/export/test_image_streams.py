"""Images out of whatever people have: with labels or without, in batches or not, with an end or without."""

import itertools
import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from keras_vit_plugin.images import preprocessing, streams
from keras_vit_plugin.images.gather import gather_images, gather_labelled
from keras_vit_plugin.images.preprocessing import Preprocessing
from keras_vit_plugin.images.streams import MOST_STREAMED, spread

SHAPE = (4, 4, 3)
PREPROCESSING = Preprocessing((4, 4))
CLASSES = 5


def numbered(count):
    """uint8 `(count, 4, 4, 3)`, each image of the colour of its number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, *SHAPE)).copy()


IMAGES, LABELS = numbered(10), np.arange(10) % CLASSES


def test_names_are_those_of_pillow_and_of_keras():
    Image.init()
    assert set(preprocessing.HUNGRY_FORMATS) < set(preprocessing.FORMATS) <= set(Image.OPEN)
    assert set(preprocessing.INTERPOLATIONS) == {"bicubic", "bilinear", "lanczos3", "nearest"}


@pytest.mark.parametrize(
    "labels, kept",
    [
        ((1, 2, 3), True),
        ([1, 2, 3], True),
        ((1, 2), False),  # of two outputs
        ((np.zeros(3), np.ones(3), np.ones(3)), False),  # of three
        ({"a": [1, 2, 3]}, False),
    ],
)
def test_labels_of_several_outputs_are_not_those_of_images(labels, kept):
    assert (streams._labels_of(labels, 3) is not None) == kept


@pytest.mark.parametrize("size, factor", [((10_000, 2_500), 2), ((3_000, 3_000), 1), ((9_000, 9_000), 10)])
def test_a_large_photo_is_shrunk_by_its_shorter_side(size, factor):
    photo = SimpleNamespace(size=size, width=size[0], height=size[1])
    assert preprocessing._excess(photo, (224, 224)) == factor


def test_a_photo_is_shrunk_by_strips_as_in_one():
    photo = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (3 * 4 * preprocessing.STRIP + 8, 37, 3), np.uint8)
    )
    np.testing.assert_array_equal(preprocessing._shrunk(photo, "RGB", 4), photo.reduce(4))


def test_a_large_photo_of_a_hungry_format_is_refused():
    def photo(name, side):
        return SimpleNamespace(size=(side, side), format=name)

    for name in preprocessing.FORMATS:
        preprocessing._check_size(photo(name, 6000))
    preprocessing._check_size(photo("JPEG", 7000))
    with pytest.raises(ValueError, match="7000 x 7000 pixels of WEBP take too much memory; JPEG does not"):
        preprocessing._check_size(photo("WEBP", 7000))


def py_dataset(batches, endless=False):
    import keras

    class Batches(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return None if endless else len(batches)

        def __getitem__(self, place):
            return batches[place % len(batches)]  # as many do, it never says that there is no more

    return Batches()


def tf_dataset(*arrays):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays)


class Indexed:
    """As a dataset of PyTorch: a length and places, no iterator."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, place):
        return IMAGES[place], LABELS[place]


ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
WEIGHTS = np.ones(10)
SOURCES = {
    "pair": lambda: (IMAGES, LABELS),
    "pair in a list": lambda: [(IMAGES, LABELS)],
    "column": lambda: (IMAGES, LABELS[:, None]),
    "floats": lambda: (IMAGES.astype("float32"), LABELS.astype("float32")),
    "one-hot": lambda: (IMAGES, ONE_HOT),
    "weights": lambda: [(IMAGES[:7], LABELS[:7], WEIGHTS[:7]), (IMAGES[7:], LABELS[7:], WEIGHTS[7:])],
    "singles": lambda: zip(IMAGES, LABELS),
    "lists": lambda: [[IMAGES[:4], LABELS[:4]], [IMAGES[4:], LABELS[4:]]],
    "dict": lambda: {"image": IMAGES, "label": LABELS},
    "dicts": lambda: ({"image": image, "label": label} for image, label in zip(IMAGES, LABELS)),
    "dict and labels": lambda: [({"images": IMAGES}, LABELS)],
    "dataset": lambda: tf_dataset(IMAGES, LABELS).batch(4),
    "dataset of singles": lambda: tf_dataset(IMAGES, LABELS),
    "dataset, one-hot": lambda: tf_dataset(IMAGES, ONE_HOT).batch(4),
    "dataset of dicts": lambda: tf_dataset({"image": IMAGES, "label": LABELS}).batch(3),
    "dataset of unknown length": lambda: tf_dataset(IMAGES, LABELS).filter(lambda *_: True).batch(4),
    "PyDataset": lambda: py_dataset([(IMAGES[:6], LABELS[:6]), (IMAGES[6:], LABELS[6:])]),
    "indexed": Indexed,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.filterwarnings("error:.*accuracy")
def test_images_and_labels_come_together(name):
    images, labels = gather_labelled(SOURCES[name](), None, PREPROCESSING, (), CLASSES, "verification")
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.tolist() == LABELS.tolist() and images.dtype == np.uint8
    np.testing.assert_array_equal(gather_images(SOURCES[name](), PREPROCESSING, "verification"), IMAGES)


@pytest.mark.parametrize("answers", [np.linspace(0, 1, 10), np.arange(10), -LABELS, np.eye(3)[LABELS % 3]])
def test_labels_that_are_no_classes_give_no_accuracy(answers):
    with pytest.warns(UserWarning, match="No accuracy.*`verification` are neither class indices 0..4 nor one-hot"):
        images, labels = gather_labelled((IMAGES, answers), None, PREPROCESSING, (), CLASSES, "verification")
    assert len(images) == 10 and labels is None


BOXES = np.zeros((10, 4), "float32")
SEVERAL = {
    "dataset": lambda: tf_dataset(IMAGES, (LABELS, BOXES)).batch(4),
    "dataset of singles": lambda: tf_dataset(IMAGES, (LABELS, BOXES)),
    "dataset of two indices": lambda: tf_dataset(IMAGES, (LABELS, LABELS)).batch(2),
    "dataset of dicts": lambda: tf_dataset(IMAGES, {"class": LABELS, "box": BOXES}).batch(4),
    "ragged": lambda: tf_dataset(IMAGES, ragged()).batch(4),
    "generator": lambda: ((IMAGES[at : at + 5], (LABELS[at : at + 5], BOXES[at : at + 5])) for at in (0, 5)),
    "generator of lists": lambda: ([IMAGES[at : at + 5], [LABELS[at : at + 5], BOXES[at : at + 5]]] for at in (0, 5)),
    "lists of singles": lambda: ([image, [label, box]] for image, label, box in zip(IMAGES, LABELS, BOXES)),
    "two numbers": lambda: zip(IMAGES, zip(LABELS.tolist(), LABELS.tolist())),
    "of other shapes": lambda: [(IMAGES[:5], LABELS[:5]), (IMAGES[5:], BOXES[5:])],
}


def ragged():
    import tensorflow as tf

    return tf.ragged.constant([[0] * (number % 3) for number in range(10)])


@pytest.mark.parametrize("name", SEVERAL)
def test_labels_of_several_outputs_are_left_out(name):
    np.testing.assert_array_equal(gather_images(SEVERAL[name](), PREPROCESSING, "calibration"), IMAGES)
    images, labels = gather_labelled(SEVERAL[name](), None, PREPROCESSING, (), 2, "calibration")
    assert len(images) == 10 and labels is None


@pytest.mark.parametrize(
    "answers, got",
    [
        ((LABELS, BOXES), "tuple of 2"),
        ([LABELS, LABELS], "list of 2"),
        ((BOXES, BOXES), "tuple of 2"),
        ({"class": LABELS, "box": BOXES}, "dict of 2"),
        (LABELS[:7], "ndarray of 7"),
        (LABELS[:7].tolist(), "list of 7"),
        (3, "int of 1"),
    ],
)
def test_labels_given_beside_an_array_are_one_per_image(answers, got):
    for source in ((IMAGES, answers), {"image": IMAGES, "label": answers}):
        np.testing.assert_array_equal(gather_images(source, PREPROCESSING, "verification"), IMAGES)
        with pytest.raises(ValueError, match=f"labels of `verification` must be one .* got {got} for 10 images"):
            gather_labelled(source, None, PREPROCESSING, (), CLASSES, "verification")
    _, labels = gather_labelled((IMAGES, tuple(LABELS.tolist())), None, PREPROCESSING, (), CLASSES)
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("source", ["folder", "files", "pairs"])
def test_files_do_not_hold_four_channels(source, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (4, 4)).save(path)
    given = {"folder": tmp_path, "files": [str(path)], "pairs": [(str(path), 0)]}[source]
    for gather in (gather_images, lambda *args: gather_labelled(args[0], None, args[1], (), CLASSES, args[2])):
        with pytest.raises(
            ValueError, match=r"`images` has image files, .* the model takes 4. Pass an array \(N, 4, 4"
        ):
            gather(given, Preprocessing((4, 4), 4), "images")


def test_yes_and_no_are_labels_of_one_class():
    answers = np.arange(10)[:, None] % 2
    _, labels = gather_labelled((IMAGES, answers.astype("float32")), None, PREPROCESSING, (), 1)
    assert labels.tolist() == answers[:, 0].tolist()


def test_images_without_labels():
    for source in (IMAGES, list(IMAGES), [IMAGES[:3], IMAGES[3:]], [list(IMAGES)], iter(IMAGES), tf_dataset(IMAGES)):
        images, labels = gather_labelled(source, None, PREPROCESSING, (), CLASSES)
        np.testing.assert_array_equal(images, IMAGES)
        assert labels is None


def test_files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path, image in zip(paths, IMAGES):
        Image.fromarray(image).save(path)
    names = [str(path) for path in paths]
    for source in (paths, names, tuple(paths), np.array(names), iter(names), [names[:5], names[5:]], tf_dataset(names)):
        np.testing.assert_array_equal(gather_images(source, PREPROCESSING, "calibration"), IMAGES)
    _, labels = gather_labelled(zip(names, LABELS), None, PREPROCESSING, (), CLASSES)
    assert labels.tolist() == LABELS.tolist()
    _, labels = gather_labelled([(names[:6], LABELS[:6]), (names[6:], LABELS[6:])], None, PREPROCESSING, (), CLASSES)
    assert labels.tolist() == LABELS.tolist()
    paths[3].write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 of 10 images are left out: .*3.png is no image"):
        assert len(gather_images(paths, PREPROCESSING, "calibration")) == 9
    images, labels = gather_labelled(paths[:3], LABELS[:3], PREPROCESSING, (), CLASSES)
    assert len(images) == 3 and labels.tolist() == LABELS[:3].tolist()


ENDLESS = {
    "generator": lambda: itertools.cycle(numbered(200)),
    "batches": lambda: itertools.cycle([numbered(100), numbered(100)]),
    "dataset": lambda: tf_dataset(numbered(200), np.arange(200) % CLASSES).repeat().batch(32),
    "PyDataset": lambda: py_dataset([(numbered(64), np.arange(64) % CLASSES)], endless=True),
    "empty batches": lambda: itertools.chain([numbered(3)], itertools.repeat(numbered(0))),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_capped_and_said(name):
    if name == "empty batches":
        assert len(gather_images(ENDLESS[name](), PREPROCESSING, "verification")) == 3
        return
    with pytest.warns(UserWarning, match="`verification`: 1024 images are taken, the first; it has more, or no end"):
        images, labels = gather_labelled(ENDLESS[name](), None, PREPROCESSING, (), CLASSES, "verification")
    assert len(images) == MOST_STREAMED == 1024 and (labels is not None) == (name in ("dataset", "PyDataset"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gather_images(ENDLESS[name](), PREPROCESSING, "calibration", 64)) == 64


def test_a_generator_that_ends_at_the_cap_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gather_images((image for image in numbered(250)), PREPROCESSING, "verification")) == 250
    many = (numbered(128) for _ in range(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gather_images(many, PREPROCESSING, "verification")) == 1024


def test_memory_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(streams, "MOST_BYTES", 50 * 48)
    for source in (list(numbered(200)), tf_dataset(numbered(200)).batch(10)):
        with pytest.warns(UserWarning, match="50 images are taken, evenly spread"):
            images = gather_images(source, PREPROCESSING, "verification")
        assert images[[0, -1], 0, 0, 0].tolist() == [0, 199] and len(images) == 50
    for number in range(60):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    with pytest.warns(UserWarning, match="`images`: 50 of its 60 images are taken, evenly spread"):
        assert gather_images(tmp_path, PREPROCESSING, "images")[-1, 0, 0, 0] == 59


def test_an_endless_dataset_of_photos_needs_little_memory():
    """6.6 GB in 25 s was needed of float32 photos: it never ended."""
    code = """
import resource, itertools, warnings, numpy as np
warnings.simplefilter("ignore")
from keras_vit_plugin.images.gather import gather_images
from keras_vit_plugin.images.preprocessing import Preprocessing
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batch = np.random.default_rng(0).uniform(0, 255, (32, 96, 96, 3)).astype("float32")
images = gather_images((batch.copy() for _ in itertools.count()), Preprocessing((96, 96)), "verification")
print(len(images), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    count, megabytes = run_python(code).split()
    assert count == "1024" and float(megabytes) < 150


@pytest.mark.parametrize(
    "name", ["array", "images", "batches", "dataset", "dataset of batches", "PyDataset", "indexed", "pair"]
)
def test_few_of_many_are_taken_from_all_over(name):
    many, answers = numbered(100), np.arange(100) // 20
    batches = [(many[at : at + 8], answers[at : at + 8]) for at in range(0, 100, 8)]  # the last of 4
    source = {
        "array": many,
        "images": list(many),
        "batches": [images for images, _ in batches],
        "dataset": tf_dataset(many),
        "dataset of batches": tf_dataset(many).batch(8),
        "PyDataset": py_dataset(batches),
        "indexed": Indexed(),
        "pair": [(many, answers)],
    }[name]
    count = 5 if name == "indexed" else 20
    images, labels = gather_labelled(source, None, PREPROCESSING, (), CLASSES, "calibration", count)
    taken = images[:, 0, 0, 0].tolist()
    last = 9 if name == "indexed" else 99
    assert taken == sorted(set(taken)) and count - 1 <= len(taken) <= count
    assert np.abs(np.array(taken) - np.linspace(0, last, len(taken))).max() <= 5
    if labels is not None and name != "indexed":
        assert labels.tolist() == answers[taken].tolist()


def test_only_what_is_taken_is_read():
    class Slow(Indexed):
        read = 0

        def __len__(self):
            return 10_000_000

        def __getitem__(self, place):
            Slow.read += 1
            return IMAGES[place % 10]

    assert len(gather_images(Slow(), PREPROCESSING, "calibration", 64)) == 64 and Slow.read <= 65


def test_images_of_one_class_only_are_told():
    sorted_by_class = ((image, number // 100) for number, image in enumerate(numbered(200)))
    with pytest.warns(UserWarning, match="The 64 images taken of `calibration` are all of one class: shuffle it"):
        gather_labelled(sorted_by_class, None, PREPROCESSING, (), CLASSES, "calibration", 64)


@pytest.mark.parametrize(
    "source, match",
    [
        (lambda: 5, "`calibration` must be a folder, an array, an iterable of images"),
        (lambda: [], "`calibration` holds no images"),
        (lambda: iter(()), "`calibration` holds no images"),
        (lambda: [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], r"of shape \(4, 4, 3\), got \(5, 4, 3\)"),
        (
            lambda: {"picture": IMAGES, "label": LABELS},
            "keys 'picture', 'label': none is 'images' or 'image'. Map them",
        ),
        (lambda: [{"picture": IMAGES}], "keys 'picture'"),
        (lambda: (IMAGES[:3] / 255, LABELS[:3]), "multiply them by 255"),
        (lambda: iter(IMAGES / 255.0 * 1.0), "multiply them by 255"),
        (lambda: iter(IMAGES - 20.0), "raw pixels 0..255, its values run from"),
        (lambda: iter([IMAGES[0], np.full(SHAPE, np.nan)]), "NaN or infinity"),
        (lambda: ["/no/such.png", "/no/other.png"], r"None of 2 image\(s\) can be read. /no/such.png .*no such file"),
        (lambda: np.array([["a"]]), "`calibration` must|None of 1"),
    ],
)
def test_what_cannot_be_read_is_told(source, match):
    with pytest.raises(ValueError, match=match):
        gather_images(source(), PREPROCESSING, "calibration")


def test_black_among_others_is_fine():
    images = [np.zeros(SHAPE, np.float32), np.full(SHAPE, 200.0, np.float32)]
    assert gather_images(iter(images), PREPROCESSING, "calibration").max() == 200


def test_spread():
    assert spread(list(range(100)), 5) == [0, 25, 50, 74, 99]
    assert spread(np.arange(3), 5).tolist() == [0, 1, 2] and spread([1, 2], None) == [1, 2]


@pytest.mark.parametrize("dtype", ["S", "U", "O"])
def test_an_array_of_paths_is_one_of_photos(dtype, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, pixels in zip(paths, IMAGES):
        Image.fromarray(pixels).save(path)
    given = np.array([os.fsencode(path) if dtype == "S" else str(path) for path in paths], dtype)
    np.testing.assert_array_equal(gather_images(given, PREPROCESSING, "images"), IMAGES[:2])
