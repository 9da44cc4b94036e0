"""Names of classes, as people give them."""

import os

import pytest
from conftest import functional_model

from keras_vit_plugin.export import export_tflite, inspect
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.image_model.labels import checked_labels, read_labels


class Model:
    """What is read of an `ImageModel`."""

    def __init__(self, task="classes", *shapes):
        self.shapes, self.answer = shapes or ((3,),), Answer("logits", task)


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "eel"],
        ("cat", "dog", "eel"),
        {2: "eel", 0: "cat", 1: "dog"},  # as Transformers' id2label
        {"2": "eel", "0": "cat", "1": "dog"},  # the same out of JSON
        {"eel": 2, "cat": 0, "dog": 1},  # as Keras's class_indices
    ],
)
def test_names_in_any_form(labels):
    assert checked_labels(labels, Model()) == ["cat", "dog", "eel"]


def test_names_may_be_numbers():
    assert checked_labels({0: 5, 2: 7, 1: 6}, Model()) == ["5", "6", "7"]


def test_a_path_is_read(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("1\n2\n3\n4\n")
    for given in (path, str(path)):
        export_tflite(functional_model(), tmp_path / "m.tflite", labels=given)
        assert inspect(tmp_path / "m.tflite").metadata["labels"] == ["1", "2", "3", "4"]
    with pytest.raises(FileNotFoundError, match="No label file: 'cat'"):  # of three letters for three classes
        checked_labels("cat", Model())


@pytest.mark.parametrize(
    "labels, match",
    [
        ({0: "cat", 2: "dog", 3: "eel"}, "a name to each index from 0 on"),
        ({"cat": 0, "dog": 0, "eel": 1}, "an index to each name"),
        ({"a": "cat", "b": "dog", "c": "eel"}, "a name to each index from 0 on"),
        (["cat", "dog"], "the model has 3 classes, got 2 names"),
        ({0: 1, 1: 2, 2: 0}, "a name to each index from 0 on, or an index to each name, got {0: 1"),
        ({"cat", "dog", "eel"}, "must be in index order, a set has none"),
        (3, "must be class names or the path of a file of them, got 3"),
    ],
)
def test_names_that_do_not_fit_are_refused(labels, match):
    with pytest.raises(ValueError, match=match):
        checked_labels(labels, Model())


def test_names_are_those_of_the_first_output():
    assert len(checked_labels(list("abcde"), Model("classes", (5,), (3,)))) == 5
    with pytest.raises(ValueError, match="has 5 classes, got 3 names"):
        checked_labels(list("abc"), Model("classes", (5,), (3,)))
    with pytest.raises(ValueError, match="has no classes, got 3 names"):
        checked_labels(list("abc"), Model("features", (4, 4, 3)))
    for shape in ((1,), ()):
        assert checked_labels(["no", "yes"], Model("binary", shape)) and checked_labels(["yes"], Model("binary", shape))


def test_names_of_a_folder_are_those_of_its_sub_folders(tmp_path):
    for name in ("dog", "cat", ".cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    assert read_labels(tmp_path) == ["cat", "dog"]  # as Keras numbers them
    with pytest.raises(ValueError, match="dog' must have a sub-folder per class, whose names are taken."):
        read_labels(tmp_path / "dog")


def test_only_line_ends_end_a_name(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffant\r\nbee\u2028hive\rcat\x0cfish\u0085\ndog\n\n".encode())
    assert read_labels(path) == ["ant", "bee\u2028hive", "cat\x0cfish", "dog"]


def test_where_no_label_file_is_it_is_said_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^No label file: '.*nowhere\.txt'\.$"):
        read_labels(tmp_path / "nowhere.txt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.txt")
        with pytest.raises(FileNotFoundError, match=r"^No label file: '.*pipe\.txt': it is a pipe or a device, no reg"):
            read_labels(tmp_path / "pipe.txt")


def test_label_files(tmp_path):
    path = tmp_path / "[labels].txt"
    for text in ("cat\ndog", "cat\ndog\n", "cat\r\ndog \r\n\r\n", "\ufeffcat\ndog\n\n \n"):
        path.write_bytes(text.encode())
        assert read_labels(path) == ["cat", "dog"]
    path.write_text("crane\nant\ncrane\n")
    assert read_labels(path) == ["crane", "ant", "crane"]  # ImageNet has two
    for content, match in (
        (b"cat\n\ndog\n", r"\[labels\].txt' must have a class name in every line, line 2 is empty"),
        (b"\n", "is empty"),
        ("hänfling\n".encode("latin-1"), "no text in UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_labels(path)
