"""Which class an image of a folder is of: as Keras counts folders, or as names and indices say; never a wrong one."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY, run_python
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.images.folders import class_indices, image_files
from keras_vit_plugin.images.gather import gather_images, gather_labelled, labelled_batches
from keras_vit_plugin.images.preprocessing import Preprocessing, _excess

SIZE = (8, 8)
EXAMPLE = REPOSITORY / "examples" / "on_device"


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (value, value, value)).save(path)


def folder_of(tmp_path, names, count=1):
    """A folder with a sub-folder for each name."""
    for place, name in enumerate(names):
        for number in range(count):
            grey(tmp_path / "photos" / name / f"{number}.png", 10 * place + number)
    return tmp_path / "photos"


def labels_of(folder, class_names, num_classes):
    """`{value of the image: class index}`, or None, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        images, labels = gather_labelled(folder, None, Preprocessing(SIZE), class_names, num_classes)
    found = None if labels is None else dict(zip(images[:, 0, 0, 0].tolist(), labels.tolist()))
    return found, " ".join(str(warning.message) for warning in said)


def as_keras_reads(folder):
    import keras

    dataset = keras.utils.image_dataset_from_directory(folder, image_size=SIZE, batch_size=None, shuffle=False)
    return {int(image[0, 0, 0]): int(label) for image, label in dataset.as_numpy_iterator()}


@pytest.mark.parametrize(
    "names",
    [[str(number) for number in range(12)], [str(number) for number in range(1, 13)], ["b", "a", "C"], ["00", "01"]],
)
def test_sub_folders_count_as_in_keras(names, tmp_path):
    folder = folder_of(tmp_path, names)
    grey(folder / names[0] / "deeper" / "still" / "x.png", 200)
    (folder / names[1] / "0.png").rename(folder / names[1] / "0.PNG")
    labels, said = labels_of(folder, (), len(names))
    assert labels == as_keras_reads(folder) and labels[200] == labels[0]
    assert ("'2' is class" in said or "'10' is class" in said) == (len(names) == 12), said


def test_an_empty_class_keeps_its_place(tmp_path):
    folder = folder_of(tmp_path, ["a", "c"])
    (folder / "b").mkdir()
    assert labels_of(folder, (), 3) == (as_keras_reads(folder), "")


def test_what_programs_leave_behind_is_no_class_and_no_image(tmp_path):
    folder = folder_of(tmp_path, ["cat", "dog"])
    grey(folder / ".ipynb_checkpoints" / "0-checkpoint.png", 99)
    grey(folder / "cat" / ".thumbnails" / "0.png", 98)
    grey(folder / "__MACOSX" / "cat" / "x.png", 97)
    for name in ("cat/._0.png", "cat/.DS_Store", "._1.png", ".DS_Store"):
        (folder / name).write_bytes(b"no image")
    assert labels_of(folder, (), 2) == ({0: 0, 10: 1}, "")
    plain = tmp_path / "plain"
    grey(plain / "a.png", 5)
    (plain / "._a.png").write_bytes(b"no image")
    (plain / ".git").mkdir()
    assert len(gather_images(plain, Preprocessing(SIZE), "calibration")) == 1
    grey(folder / "beside.png", 96)
    assert "1 image(s) beside them are left out" in labels_of(folder, (), 2)[1]


@pytest.mark.parametrize(
    "folders, class_names, num_classes, expected, said",
    [
        # names decide, in whatever order
        (["cat", "dog"], ["cat", "dog"], 2, [0, 1], ""),
        (["cat", "dog"], ["dog", "cat"], 2, [1, 0], "'cat' is class 1. By their sorted order"),
        (["ant", "cat"], ["dog", "cat", "ant"], 3, [2, 1], ""),
        (["0", "10"], [str(number) for number in range(11)], 11, [0, 10], ""),
        # positions where no name is known, or none is met
        (["n01", "n02"], ["tench", "shark"], 2, [0, 1], "No sub-folder is called as a class"),
        # not sure
        (["cat", "dog"], ["dog", "bee"], 2, None, "the sub-folder 'cat' is none of the 2 class names, and others are"),
        (["0", "1"], (), 10, None, "there are 2 sub-folders and 10 classes"),
        (["0", "1", "2"], (), 2, None, "there are 3 sub-folders and 2 classes"),
        (["ant", "crane"], ["crane", "ant", "crane"], 3, None, "'crane' is the name of the classes 0 and 2"),
        # yes or no
        (["no", "yes"], (), 1, [0, 1], ""),
        (["cat", "dog"], ["cat"], 1, [1, 0], "'cat' is class 1"),
        (["cat", "dog"], ["dog", "cat"], 1, [1, 0], "'cat' is class 1"),
        (["dog"], ["dog"], 1, [1], ""),
        (["a", "b", "c"], (), 1, None, "there are 3 sub-folders and 2 classes"),
        (["a", "b", "c"], ["a"], 1, None, "there are 3 sub-folders and 2 classes"),
        # none
        (["a", "b", "c"], (), 0, None, ""),
    ],
)
def test_names_positions_and_doubt(folders, class_names, num_classes, expected, said, tmp_path):
    labels, told = labels_of(folder_of(tmp_path, folders), class_names, num_classes)
    assert labels == (None if expected is None else {10 * place: index for place, index in enumerate(expected)})
    assert said in told and (said != "") == (told != "")
    assert ("No accuracy is computed" in told) == (expected is None and num_classes > 0)


@pytest.mark.parametrize(
    "labels, class_names, num_classes, expected, said",
    [
        (["0", "10", "2"], (), 12, [0, 10, 2], ""),
        (["7"], (), 5, None, "the label '7' is beyond the classes, which are 0..4"),
        (["0.0", "11.0", "3.0"], (), 12, [0, 11, 3], ""),  # as pandas writes integers where some are missing
        (["1.0", "0"], ["a", "b"], 2, [1, 0], ""),
        (["2.0", "1.0"], ["1.0", "2.0"], 2, [1, 0], "'1.0' is taken as the name of class 0"),
        (["12.0"], (), 12, None, "the label '12.0' is beyond the classes, which are 0..11"),
        (["-1", "0"], (), 2, None, "the label '-1' is no class index: these are the whole numbers 0..1"),
        (["1.5", "0"], ["a", "b"], 2, None, "the label '1.5' is no class index"),
        (["0.5", "1.5"], (), 2, None, "the label '0.5' is no class index"),
        (["-1", "+1"], ["-1", "+1"], 2, [0, 1], ""),
        (["b", "a"], (), 2, [1, 0], "no class names are known, so its names are counted by their sorted order: 'a' is"),
        (["b", "a"], (), 3, None, "labels.csv has 2 names, not all of the 3 classes"),
        (["b", "1"], (), 2, None, "numbers beside names"),
        (["b", "2"], ["a", "b", "a"], 3, [1, 2], ""),  # an index for one of two classes of a name
        (["a"], ["a", "b", "a"], 3, None, "'a' is the name of the classes 0 and 2; write indices"),
        (["1", "0"], ["1", "0"], 2, [0, 1], "'0' is taken as the name of class 1, not as an index"),
        (["1", "0"], ["one", "0", "1"], 3, [2, 1], "'0' is taken as the name of class 1, not as an index"),
        (["1", "2"], ["one", "two", "2"], 3, [1, 2], ""),
        (["x"], ["a", "b"], 2, None, "the label 'x' is none of the 2 class names"),
        (["1", "0"], (), 1, [1, 0], ""),
        (["1"], ["cat"], 1, [1], ""),  # an index, no name of what is no cat
        (["1.0", "dog"], ["cat"], 1, [1, 0], ""),
    ],
)
def test_labels_csv_has_names_or_indices(labels, class_names, num_classes, expected, said, tmp_path):
    for place, _ in enumerate(labels):
        grey(tmp_path / f"{place}.png", place)
    rows = [f"{place}.png,{label}" for place, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows, ""]))
    found, told = labels_of(tmp_path, class_names, num_classes)
    assert found == (None if expected is None else dict(enumerate(expected)))
    assert said in told and (said != "") == (told != "")


def test_labels_csv_with_a_gap(tmp_path):
    grey(tmp_path / "a.png", 0)
    for row in ("a.png,", "a.png", ",3"):
        (tmp_path / "labels.csv").write_text(f"file,label\na.png,1\n{row}\n")
        with pytest.raises(ValueError, match="a file and a label in every row; row 2 has not"):
            image_files(tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_labels_csv_that_is_not_utf_8_is_named(encoding, tmp_path):
    grey(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_text("file,label\na.png,Käfer\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"labels.csv is not UTF-8: save it as UTF-8"):
        image_files(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import vit\ntry: vit.photos_of(sys.argv[2])\n"
    code += "except ValueError as error: print(error)"
    assert "labels.csv is not UTF-8: save it as UTF-8" in run_python(code, EXAMPLE, tmp_path)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"file,label\na.png,x\na.png," + b"x" * 140_000 + b"\n", "line 3: field larger than field limit"),
        (b'file,label\na.png,"x\n' + b"a.png,x\n" * 20_000, "field larger than field limit"),
        (b"file,label\na\0.png,x\n", "missing|line contains NUL|both in every row"),
        (b"file,label\n" + b"a" * 9_000 + b".png,x\n", "missing"),
        (b"file,label\na.png\n", "in every row"),
        (b"file\na.png\n", "columns file and label"),
        (b"", "columns file and label"),
        (b"\0" * 100, "columns file and label|NUL"),
    ],
)
def test_a_hostile_labels_csv_is_named(content, said, tmp_path):
    grey(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{tmp_path}/labels.csv .*({said})"):
        image_files(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import vit\n"
    code += "try: print([vit.is_image(path) for path, _ in vit.photos_of(sys.argv[2])])\n"
    code += "except ValueError as error: print(error)"
    printed = run_python(code, EXAMPLE, tmp_path)
    assert f"{tmp_path}/labels.csv" in printed or "missing" in said and printed.strip() == "[False]"


def test_only_line_ends_end_a_row(tmp_path):
    """And spaces around a name are not of it, here as in a label file."""
    grey(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_bytes("\ufefffile,label\r\n a.png , bee\u2028hive\x0c1\u00852 \n".encode())
    assert image_files(tmp_path)[1] == ["bee\u2028hive\x0c1\u00852"]
    code = "import sys; sys.path.insert(0, sys.argv[1]); import vit\n"
    code += "((path, label),) = vit.photos_of(sys.argv[2]); print(path.is_file(), ascii(label))"
    assert run_python(code, EXAMPLE, tmp_path).strip() == r"True 'bee\u2028hive\x0c1\x852'"


def test_a_labels_csv_may_name_files_elsewhere(tmp_path):
    grey(tmp_path / "a.png", 7)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "labels.csv").write_text(f"file,label\n../a.png,0\n{tmp_path / 'a.png'},0\n")
    assert gather_images(tmp_path / "photos", Preprocessing(SIZE), "images")[:, 0, 0, 0].tolist() == [7, 7]


def test_one_bad_photo_is_named_and_left_out_with_its_label(tmp_path):
    folder = folder_of(tmp_path, ["cat", "dog"], 3)
    (folder / "cat" / "1.png").write_bytes(b"no image")
    labels, said = labels_of(folder, (), 2)
    assert labels == {0: 0, 2: 0, 10: 1, 11: 1, 12: 1}
    assert "1 of 6 images are left out" in said and str(folder / "cat" / "1.png") in said
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"None of 6 image\(s\) can be read. .*0.png is no image"):
        gather_images(folder, Preprocessing(SIZE), "calibration")


def test_calibration_images_are_of_all_classes(tmp_path):
    folder = folder_of(tmp_path, [f"{number:02}" for number in range(16)], 10)
    images = gather_images(folder, Preprocessing(SIZE), "calibration", 64)
    assert len(images) == 64 and len({value // 10 for value in images[:, 0, 0, 0].tolist()}) == 16


def test_accuracy_of_numbered_folders_is_that_of_training(tmp_path):
    """A model that knows only how many tenths of white an image is, trained on folders "0".."11"."""
    import keras

    names = [str(number) for number in range(12)]
    folder = folder_of(tmp_path, names, 3)
    positions = {name: place for place, name in enumerate(sorted(names))}
    images = keras.Input((*SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    head = keras.layers.Dense(12)
    model = keras.Model(images, head(mean))
    kernel, bias = np.zeros((3, 12), "float32"), np.zeros(12, "float32")
    for number in range(12):  # the largest of -(x - c)^2 = 2 c x - c^2 + ...
        centre = (10 * number + 1) / 255
        kernel[0, positions[str(number)]], bias[positions[str(number)]] = 2 * centre, -(centre**2)
    head.set_weights([kernel, bias])
    path = tmp_path / "m.tflite"
    with pytest.warns(UserWarning, match="sorted order"):
        report = kv.export.export_tflite(model, path, verification=folder)
        parity = kv.export.verify(model, path, folder)
    assert report.parity.top1_accuracy_model == parity.top1_accuracy_model == parity.top1_accuracy_tflite == 1.0


# ---- examples/on_device/vit.py reads folders alike ----

READ = """
import sys, json
sys.path.insert(0, sys.argv[1])
import vit
found = []
for folder, names in json.loads(sys.argv[2]):
    classes, sentence = vit.classes_of(folder, vit.photos_of(folder), names)
    found.append((classes and {str(path): index for path, index in classes.items()}, sentence))
print(json.dumps(found))
"""


def test_the_example_reads_folders_alike(tmp_path):
    layouts = {
        "numbers": ([str(number) for number in range(12)], 12),
        "names": (["b", "a"], ["a", "b"]),
        "other order": (["b", "a"], ["b", "a"]),
        "some": (["b"], ["a", "b", "c"]),
        "too few": (["0", "1"], 10),
        "strangers": (["b", "x"], ["a", "b"]),
        "only strangers": (["y", "x"], ["a", "b"]),
        "two of a name": (["b", "a"], ["a", "b", "a"]),
        "yes first": (["cat", "dog"], ["cat"]),
        "yes last": (["cat", "dog"], ["dog"]),
        "only yes": (["cat"], ["cat"]),
        "yes and two others": (["cat", "dog", "eel"], ["dog"]),
        "no yes": (["cat", "dog"], ["eel"]),
        "csv yes": (["dog", "cat"], ["cat"]),
        "csv yes by index": (["1", "0"], ["cat"]),
        "csv only yes by index": (["1"], ["cat"]),
        "csv yes by index and no by name": (["1.0", "dog"], ["cat"]),
        "csv indices": (["0", "10", "2"], 12),
        "csv indices beside names": (["0", "10", "2"], list("abcdefghijk")),
        "csv beyond": (["0", "12"], 12),
        "csv names": (["b", "a"], ["a", "b"]),
        "csv names in another order": (["b", "a"], ["b", "a"]),
        "csv numbers as names": (["1", "0"], ["1", "0"]),
        "csv both": (["b", "2"], ["a", "b", "a"]),
        "csv two of a name": (["a", "b"], ["a", "b", "a"]),
        "csv strangers": (["a", "x"], ["a", "b"]),
        "csv unknown names": (["b", "a"], 2),
        "csv too few names": (["b", "a"], 3),
        "csv mixed": (["b", "1"], 2),
        "csv floats": (["0.0", "11.0", "3.0"], 12),
        "csv floats and indices": (["1.0", "0"], ["a", "b"]),
        "csv floats as names": (["2.0", "1.0"], ["1.0", "2.0"]),
        "csv floats beyond": (["12.0"], 12),
        "csv negative": (["-1", "0"], 2),
        "csv fractions": (["0.5", "1.5"], 2),
        "csv fractions beside names": (["1.5", "a"], ["a", "b"]),
        "csv signed names": (["-1", "+1"], ["-1", "+1"]),
        "csv unknown yes and no": (["yes", "no"], 2),
        "floats": (["0.0", "1.0"], 2),
    }
    cases = []
    for name, (labels, classes) in layouts.items():
        folder = tmp_path / name
        if name.startswith("csv"):
            for place, _ in enumerate(labels):
                grey(folder / f"{place}.png", place)
            rows = [f"{place}.png,{label}" for place, label in enumerate(labels)]
            (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
        else:
            folder = folder_of(folder, labels)
            grey(folder / ".hidden" / "x.png", 9)
            grey(folder / labels[0] / "deeper" / "x.png", 9)
            (folder / labels[0] / "._0.png").write_bytes(b"no image")
            (folder / labels[0] / "text.txt").write_text("no image")
        cases.append((str(folder), classes))
    printed = run_python(READ, EXAMPLE, json.dumps(cases))
    for (folder, classes), (theirs, told) in zip(cases, json.loads(printed), strict=True):
        paths, labels, folders = image_files(folder)
        names, count = (classes, len(classes)) if isinstance(classes, list) else ((), classes)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ours = class_indices(labels, folders, names, count)
        assert theirs == (None if ours is None else dict(zip(map(str, paths), ours))), folder
        assert bool(told) == bool(said), (folder, told)


@pytest.mark.parametrize("width, height, times", [(8000, 6000, 6), (3000, 6000, 3), (20_000, 850, 1), (5000, 3000, 1)])
def test_a_large_photo_is_shrunk_to_no_less_than_four_times_the_sides_wanted(width, height, times):
    assert _excess(SimpleNamespace(width=width, height=height, size=(width, height)), (224, 200)) == times


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_images_batch_by_batch_are_those_of_the_whole(labelled, as_array, tmp_path):
    folder = folder_of(tmp_path, ["a", "b"], 4) if labelled else tmp_path
    for number in range(0 if labelled else 8):
        grey(folder / f"{number}.png", number)
    next(folder.rglob("2.png")).write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 of 8 images are left out"):
        expected, classes = gather_labelled(folder, None, Preprocessing(SIZE), (), 2)
    assert len(expected) == 7 and (classes is None) == (not labelled)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source, labels = (expected, classes) if as_array else (folder, None)
        batches = list(labelled_batches(source, labels, Preprocessing(SIZE), (), 2, 3))
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), expected)
    if labelled:
        np.testing.assert_array_equal(np.concatenate([found for _, found in batches]), classes)
    else:
        assert all(found is None for _, found in batches)
    assert as_array or any("1 of 8 images are left out" in str(warning.message) for warning in said)


def test_what_a_folder_cannot_be_is_said_by_the_name_of_the_argument(tmp_path):
    grey(tmp_path / "a.png", 1)
    channels = Preprocessing(SIZE, 4)

    def batches(source, labels=None):
        return list(labelled_batches(source, labels, channels, (), 2, 3))

    for gather, argument in (
        (lambda folder: gather_images(folder, channels, "calibration"), "calibration"),
        (lambda folder: gather_labelled(folder, None, channels, (), 2, "verification"), "verification"),
        (batches, "images"),
    ):
        with pytest.raises(
            ValueError, match=rf"^`{argument}` has image files, .* takes 4\. Pass an array \(N, 8, 8, 4\)"
        ):
            gather(tmp_path)
    with pytest.raises(ValueError, match="^`labels` is for an array of images; a folder brings its own"):
        batches(tmp_path, [0])
