"""The `keras-vit` command as a user types it."""

import json
import re
from pathlib import Path

import command
import hostile_tflite
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import pixels
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import explain
from keras_vit_plugin.cli import demo, main
from keras_vit_plugin.export import Dynamic, Runner, Tolerance
from keras_vit_plugin.export.tflite.flatbuffer import write
from keras_vit_plugin.images.gather import gather_labelled
from keras_vit_plugin.images.preprocessing import preprocessing_of
from keras_vit_plugin.presets import digits as digits_preset
from keras_vit_plugin.presets.digits import load_digits_split


def keras_vit(*arguments, code=0):
    result = command.keras_vit(*arguments)
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines(keepends=True)
    result.stderr = "".join(line for line in lines if not line.startswith("keras-vit: "))  # progress on a slow machine
    return result


def keras_vit_json(*arguments):
    return json.loads(keras_vit(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with the shipped model as .keras, digits as images, and its int8 file made by the command."""
    folder = tmp_path_factory.mktemp("digits")
    kv.build("vit_digits", weights="pretrained").save(folder / "digits.keras")
    (x_train, y_train), (x_test, y_test) = load_digits_split()
    for name, images, labels in (("train", x_train[:40], y_train), ("test", x_test[:40], y_test)):
        (folder / name).mkdir()
        rows = ["file,label"]
        for i, (image, label) in enumerate(zip(images, labels)):
            Image.fromarray(image[..., 0]).save(folder / name / f"{i}.png")
            rows.append(f"{i}.png,{label}")
        (folder / name / "labels.csv").write_text("\n".join(rows) + "\n")
    report = keras_vit_json(
        *("export", "vit_digits", folder / "m.tflite", "--quantize", "int8-full", "--calibration", folder / "train")
    )
    assert report["parity"]["images"] == 10  # of the 40, held out
    return folder


def test_list():
    names = [row["name"] for row in keras_vit_json("list", "vit_*")]
    assert names == kv.list_presets("vit_*")
    assert "vit_digits" in keras_vit("list").stdout
    assert keras_vit("list", "vti*").stdout == "No preset matches 'vti*': keras-vit list prints all.\n"


def test_verify(digits):
    report = keras_vit_json("verify", digits / "digits.keras", digits / "m.tflite", "--images", digits / "test")
    wanted = {"images", "agreement", "snr_db", "max_abs_error", "top1_accuracy_model", "top1_accuracy_tflite"}
    assert wanted <= set(report)
    assert report["images"] == 40 and report["agreement"] >= 0.95 and report["top1_accuracy_tflite"] >= 0.95
    people = keras_vit("verify", "vit_digits", digits / "m.tflite", "--images", digits / "test")
    assert "top-1, file" in people.stdout and people.stderr == ""


def test_a_file_with_more_outputs_says_what_it_carries(tmp_path):
    path = tmp_path / "m.tflite"
    report = keras_vit_json("export", "vit_digits", path, "--quantize", "dynamic", "--outputs", "embedding,attention")
    assert min(report["others_snr_db"]["embedding"], report["others_snr_db"]["attention"]) > 20
    metadata = keras_vit_json("inspect", path)["metadata"]
    assert metadata["outputs"] == ["logits", "embedding", "attention"] and metadata["mode"] == "dynamic"
    printed = " ".join(keras_vit("inspect", path).stdout.replace("│", " ").split())
    for told in (
        "dynamic for litert",
        "10: 0, 1, 2, 3, 4",
        "cover 8x8 (bicubic), grey",
        "24 synthetic images",
        "SHA-256",
    ):
        assert told in printed


def test_run_prints_the_top_five_with_names(digits):
    result = keras_vit_json("run", digits / "m.tflite", digits / "test" / "0.png", digits / "test" / "1.png")
    labels = [row.split(",")[1] for row in (digits / "test" / "labels.csv").read_text().splitlines()[1:3]]
    assert [photo["top"][0]["label"] for photo in result] == labels
    assert [len(photo["top"]) for photo in result] == [5, 5]
    probabilities = [answer["probability"] for answer in result[0]["top"]]
    assert probabilities == sorted(probabilities, reverse=True) and 0.99 < sum(probabilities) <= 1.0001
    (digits / "names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    people = keras_vit("run", digits / "m.tflite", digits / "test" / "0.png", "--labels", digits / "names.txt")
    assert f"digit {labels[0]}" in people.stdout and people.stderr == ""


def test_inspect(digits):
    report = keras_vit_json("inspect", digits / "m.tflite")
    assert report["float_tensors"] == 0 and report["metadata"]["labels"] == list("0123456789")
    people = keras_vit("inspect", digits / "m.tflite")
    assert "int8-full for litert" in people.stdout and people.stderr == ""
    assert report["sha256"] in re.sub(r"[\s│]|SHA-256", "", people.stdout)  # whole, on lines of 80 characters


def test_export_of_a_keras_file_reads_well(digits, tmp_path):
    people = keras_vit("export", digits / "digits.keras", tmp_path / "m.tflite", "--quantize", "dynamic")
    assert "dynamic for litert" in people.stdout and "SNR" in people.stdout and people.stderr == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("export", "vit_digit", "m.tflite"), "closest are: vit_digits"),
        (("export", "vit_test", "m.tflite"), "ships no weights. Pass `weights`"),
        (("export", "no.keras", "m.tflite"), "No file: 'no.keras'"),
        (("export", "vit_test", "m.tflite", "--weights", "no.npz"), "no.npz"),
        (("export", "vit_digits", "m.tflite", "--quantize", "int9"), "`quantize` must be one of"),
        (("export", "vit_digits", "m.tflite", "--mean", "a"), "--mean must be one number"),
        (("export", "vit_digits", "no/folder/m.tflite"), "cannot be written"),
        (("export", "vit_digits", "m.tflite", "--labels", "no.txt"), "No label file: 'no.txt'"),
        (("export", "vit_digits", "m.tflite", "--min-snr", "500"), "Nothing was written"),
        (("run", "no.tflite", "a.png"), "No file: 'no.tflite'"),
        (("inspect", "README.md"), "no TFLite model"),
    ],
)
@pytest.mark.sampled(3)
def test_errors_are_one_line_without_a_traceback(arguments, message, monkeypatch):
    result = keras_vit(*arguments, code=1)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not Path("m.tflite").exists()


def test_run_takes_a_folder(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    photos = keras_vit_json("run", digits / "m.tflite", digits / "test")
    assert len(photos) == 40 and all("top" in photo for photo in photos)
    refused = keras_vit("run", digits / "m.tflite", tmp_path / "empty", code=1)
    assert f"{tmp_path / 'empty'} is no image that can be read: it is a folder" in refused.stderr


def test_options_are_checked_before_a_model_is_opened(tmp_path):
    """Opening one takes long; this one does not even exist."""
    for arguments, match in (
        (("m.tflite", "--quantize", "int-8"), "The closest are: int8, "),
        (("m.tflite", "--quantize", "int8"), "an image folder (--calibration DIR)"),
        (("m.bin",), "`path` must end in .tflite"),
        ((tmp_path / "none" / "m.tflite",), "there is no folder"),
        (("m.tflite", "--min-agreement", "99"), "`min_agreement` must be in 0..1"),
    ):
        assert match in keras_vit("export", "nowhere.keras", *arguments, code=1).stderr


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder of what a command reads, with links that are called as what it writes; no model can be opened."""
    monkeypatch.setattr("keras_vit_plugin.open_model.open_model", lambda *_: pytest.fail("work began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("p.png", "photos/a.png", "m.keras", "m.tflite", "w.npz", "names.html"):
        (tmp_path / name).write_bytes(b"what was there")
    (tmp_path / "link.png").symlink_to("p.png")
    (tmp_path / "hard.png").hardlink_to("p.png")
    (tmp_path / "model.png").symlink_to("m.keras")
    (tmp_path / "model.tflite").symlink_to("m.keras")
    (tmp_path / "weights.html").symlink_to("w.npz")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, name, other",
    [
        ("explain m.keras p.png --out p.png", "out", "photo"),
        ("explain m.keras p.png --out photos/../p.png", "out", "photo"),
        ("explain m.keras p.png --out link.png", "out", "photo"),
        ("explain m.keras link.png --out hard.png", "out", "photo"),
        ("explain m.keras p.png --out model.png", "out", "model"),
        ("explain m.keras p.png --out names.html --labels names.html", "out", "labels"),
        ("explain vit_test p.png --out weights.html --weights w.npz", "out", "weights"),
        ("export m.keras model.tflite", "out", "model"),
        ("export m.keras m.tflite --labels m.tflite", "out", "labels"),
        ("export m.keras m.tflite --report names.html --labels names.html", "report", "labels"),
        ("export vit_test m.tflite --report weights.html --weights w.npz", "report", "weights"),
        ("debug m.keras m.tflite --picture model.png", "picture", "model"),
        ("debug m.keras p.png --picture link.png", "picture", "tflite"),
        ("debug m.keras m.tflite --images photos --picture photos/a.png", "picture", "images"),
        ("debug m.keras m.tflite --calibration photos --picture photos/a.png", "picture", "calibration"),
    ],
)
def test_what_is_read_is_not_written_over(arguments, name, other, inputs):
    before = {path: path.read_bytes() for path in inputs.rglob("*.*")}
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 1 and "which it would overwrite" in result.output
    assert f"`{name}` must " in result.output and f"`{other}`" in result.output and "Traceback" not in result.output
    assert {path: path.read_bytes() for path in inputs.rglob("*.*")} == before


def test_export_does_not_write_over_its_labels(tmp_path):
    names = tmp_path / "m.tflite"
    names.write_text("a")
    with pytest.raises(ValueError, match="`path` must be another file than `labels`"):
        kv.export.export_tflite(None, names, labels=str(names))


def test_a_truncated_keras_file_and_a_broken_photo(digits, tmp_path):
    content = (digits / "digits.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    assert "no complete zip archive" in keras_vit("export", tmp_path / "cut.keras", "m.tflite", code=1).stderr
    Image.fromarray(pixels((16, 16, 3), 1)[0]).save(tmp_path / "p.png")
    (tmp_path / "p.png").write_bytes((tmp_path / "p.png").read_bytes()[:100])
    assert "p.png is no image" in keras_vit("run", digits / "m.tflite", tmp_path / "p.png", code=1).stderr
    assert "nowhere.png is no image" in keras_vit("run", digits / "m.tflite", tmp_path / "nowhere.png", code=1).stderr


def test_a_preset_folder_is_a_model(tmp_path):
    kv.build("vit_test").save_to_preset(str(tmp_path / "preset"))
    keras_vit("export", tmp_path / "preset", tmp_path / "m.tflite")
    np.testing.assert_array_equal(kv.export.inspect(tmp_path / "m.tflite").inputs[0]["shape"], [1, 16, 16, 3])


def test_export_explains_its_rewrites_and_writes_a_page(digits, tmp_path):
    result = keras_vit(
        *("export", "vit_digits", tmp_path / "m.tflite", "--quantize", "dynamic", "--explain"),
        *("--report", tmp_path / "report.html"),
    )
    words = " ".join(result.stdout.replace("\u2502", " ").split())
    assert "rotate_stream" in words and "patch.kernel" in words
    assert "does not apply: there are no images to measure on" in words  # balance_heads: no calibration
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_model_that_is_not_rewritten_says_so(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    keras.Model(images, keras.layers.Dense(3)(x)).save(tmp_path / "m.keras")
    people = keras_vit("export", tmp_path / "m.keras", tmp_path / "m.tflite", "--explain").stdout
    assert "No rewrites: Functional is not one of this package's classifiers.\n" in people
    assert "as Keras emits it, which is slower: Functional" in re.sub(r"\s*│\s*│\s*│\s*", " ", people)
    refused = keras_vit("debug", tmp_path / "m.keras", tmp_path / "m.tflite", code=1).stderr
    assert "`model` has no blocks that are known: Functional is not one" in refused and "keras-vit verify" in refused


def test_class_names_come_from_a_folder_with_one_per_class(tmp_path):
    for name in ("cat", "dog", "eel"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(pixels((8, 8, 3), 1)[0]).save(tmp_path / "photos" / name / "0.png")
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    keras.Model(images, keras.layers.Dense(3)(x)).save(tmp_path / "m.keras")
    keras_vit("export", tmp_path / "m.keras", tmp_path / "m.tflite", "--labels", tmp_path / "photos")
    (answer,) = keras_vit_json("run", tmp_path / "m.tflite", tmp_path / "photos" / "cat" / "0.png")
    assert sorted(each["label"] for each in answer["top"]) == ["cat", "dog", "eel"]


def test_numbers_may_be_fractions():
    from keras_vit_plugin.cli.options import numbers

    assert numbers("1/255", "std") == [1 / 255] and numbers("0.5,1/4,2", "std") == [0.5, 0.25, 2.0]
    for text in ("1/0", "1/2/3", "a/2", "", "1,,2"):
        with pytest.raises(ValueError, match="--std must be one number or fraction, such as 1/255"):
            numbers(text, "std")


def test_a_rejected_file_is_kept_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(Dynamic, "tolerance", Tolerance(0.5, 250))
    arguments = ["export", "vit_digits", str(tmp_path / "m.tflite"), "--quantize", "dynamic"]
    for more, left in (([], []), (["--keep-rejected"], ["m.rejected.tflite"])):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 1 and "(wanted 250 dB)" in result.output
        assert ("keras-vit debug MODEL" in result.output) == bool(left)
        assert [path.name for path in tmp_path.iterdir()] == left


def test_the_image_shape_of_a_model_with_open_sides(tmp_path):
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(images))
    model, file, folder = tmp_path / "m.keras", tmp_path / "m.tflite", tmp_path / "photos"
    keras.Model(images, keras.layers.Dense(3)(x)).save(model)
    folder.mkdir()
    for number, photo in enumerate(pixels((9, 7, 3))):
        Image.fromarray(photo).save(folder / f"{number}.png")
    export = ["export", str(model), str(file), "--pixels", "0..255"]
    for shape in ("9x7", "9x7x0", "9x-7x3", "9,7,3", "axbxc"):
        result = CliRunner().invoke(main, [*export, "--image-shape", shape])
        assert result.exit_code == 1 and f"such as 224x224x3, got {shape!r}" in result.output
    assert "pass image_shape=(HEIGHT, WIDTH, CHANNELS) (--image-shape HxWxC)" in CliRunner().invoke(main, export).output
    result = CliRunner().invoke(main, [*export, "--image-shape", "9x7x3"])
    assert result.exit_code == 0, result.output
    verify = ["verify", str(model), str(file), "--images", str(folder), "--pixels", "0..255"]
    assert CliRunner().invoke(main, [*verify, "--image-shape", "9x7x3"]).exit_code == 0
    assert CliRunner().invoke(main, verify).exit_code == 1


def test_a_file_is_made_like_another(digits, tmp_path):
    """The mode with the options that a search chose, and the target."""
    options = ("--calibration", digits / "train", "--max-size", 0.9, "--prefer", "size")
    chosen = keras_vit_json("export", "vit_digits", tmp_path / "a.tflite", "--quantize", "auto", *options)
    assert chosen["config"]["mode"] != "auto" and chosen["config"] == chosen["file"]["metadata"]["config"]
    again = keras_vit_json(
        *("export", "vit_digits", tmp_path / "b.tflite", "--like", tmp_path / "a.tflite"),
        *("--calibration", digits / "train"),
    )
    assert (again["config"], again["target"]) == (chosen["config"], "litert")
    refused = keras_vit("export", "vit_digits", "m.tflite", "--like", tmp_path / "a.tflite", "--quantize", "8", code=1)
    assert "--quantize does not go with --like" in refused.stderr
    assert "No file: 'no.tflite'" in keras_vit("export", "vit_digits", "m.tflite", "--like", "no.tflite", code=1).stderr


def dense_classifier(seed):
    """Bytes of a file of ten classes for digits, each of another size."""
    tensors = [
        hostile_tflite.tensor("images", (1, 8, 8, 1)),
        hostile_tflite.tensor("shape", (2,), hostile_tflite.INT, 1),
    ]
    tensors += [hostile_tflite.tensor("flat", (1, 64)), hostile_tflite.tensor("kernel", (10, 64), buffer=2)]
    tensors += [hostile_tflite.tensor("logits", (1, 10))]
    operators = [hostile_tflite.operator(0, (0, 1), (2,)), hostile_tflite.operator(1, (2, 3, -1), (4,))]
    graph = hostile_tflite.schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[4], operators=operators)
    kernel = np.random.default_rng(seed).normal(size=(10, 64)).astype(np.float32)
    tree = hostile_tflite.model(("RESHAPE", "FULLY_CONNECTED"), [graph], [np.array([1, 64], np.int32), kernel])
    tree.description = b"x" * 99 * seed
    return write(tree)


def test_the_demo_shows_what_its_files_answer(tmp_path, monkeypatch):
    (x_train, y_train), (x_test, y_test) = ((images[:40], labels[:40]) for images, labels in load_digits_split())
    files = {mode: dense_classifier(seed) for seed, mode in enumerate(demo.MODES)}
    drawn, threads = [], []

    def export(model, path, quantize, calibration, labels):
        np.testing.assert_array_equal(calibration, x_train)
        assert "".join(labels) == "0123456789"
        path.write_bytes(files[quantize])

    class Counted(Runner):
        def __init__(self, content, num_threads=None):
            super().__init__(content, num_threads)
            threads.append(num_threads)

    def draw(*arguments, **options):
        drawn.append((arguments, options))
        draw_predictions(*arguments, **options)

    draw_predictions = explain.draw_predictions
    monkeypatch.setattr(explain, "draw_predictions", draw)
    monkeypatch.setattr(digits_preset, "load_digits_split", lambda: ((x_train, y_train), (x_test, y_test)))
    monkeypatch.setattr(demo, "export_tflite", export)
    monkeypatch.setattr(demo, "Runner", Counted)
    rows, accuracy, picture = demo.run_demo(tmp_path)

    answers = {mode: Runner(content)(x_test).argmax(1) for mode, content in files.items()}
    model = keras.saving.load_model(tmp_path / "vit_digits.keras")
    expected = np.asarray(model(x_test / np.float32(127.5) - 1)).argmax(1)
    assert accuracy == np.mean(expected == y_test) > 0.9
    assert [row.mode for row in rows] == list(demo.MODES) and threads == [1] * len(rows)  # a time is of one thread
    for row in rows:
        assert row.size_bytes == len(files[row.mode]) and 0 < row.median_ms < 1000
        assert row.parity.images == 40 and row.parity.top1_accuracy_tflite == np.mean(answers[row.mode] == y_test)
        assert row.parity.top1_agreement == np.mean(answers[row.mode] == expected)
    (((shown, names, path), options),) = drawn
    assert path == picture == tmp_path / "digits.png" and Image.open(path).size[0] > 100
    np.testing.assert_array_equal(shown, x_test[:20])
    assert names == [str(answer) for answer in answers["int8-full"][:20]]
    np.testing.assert_array_equal(options["correct"], answers["int8-full"][:20] == y_test[:20])
    images, labels = gather_labelled(tmp_path / "digits", None, preprocessing_of(model), (), 10)
    np.testing.assert_array_equal(images, x_test)
    np.testing.assert_array_equal(labels, y_test)
