"""`examples/on_device/vit.py`, every command, on both runtimes."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import hostile_tflite
import kinds
import numpy as np
import pytest
from conftest import REPOSITORY, started
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.presets.digits import load_digits_split

VIT = REPOSITORY / "examples" / "on_device" / "vit.py"
PYTHONS = {
    "ai-edge-litert": sys.executable,
    "tflite-runtime": str(REPOSITORY / ".venv-device" / "bin" / "python"),
}
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def vit(python, *arguments, code=0, **options):
    """Runs a command and returns what it printed on standard output and on standard error."""
    if "--threads" not in arguments:
        arguments = (*arguments, "--threads", 1)  # the tests of other processes need the other cores
    result = subprocess.run([python, VIT, *map(str, arguments)], capture_output=True, **options)
    printed, said = result.stdout.decode(), result.stderr.decode()
    assert result.returncode == code, said
    assert "Traceback" not in said
    return printed, "\n".join(line for line in said.splitlines() if "INFO" not in line)


@pytest.fixture(params=PYTHONS)
def python(request):
    if not os.path.exists(PYTHONS[request.param]):
        pytest.skip(f"no device environment at {PYTHONS[request.param]}: run `make .venv-device/installed`")
    return PYTHONS[request.param]


@pytest.fixture(scope="module")
def digits():
    """The model, a hundred held-out digits as `(8, 8)`, and what they are."""
    images, labels = load_digits_split()[1]
    return kv.build("vit_digits", weights="pretrained"), images[:100, ..., 0], labels[:100]


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """Files by mode, for both runtimes, and one of other weights."""
    folder = tmp_path_factory.mktemp("files")
    options = {"calibration": load_digits_split()[0][0][:32], "target": "tflite-runtime", "labels": LABELS}
    for mode in ("float32", "int8"):
        kv.export.export_tflite(digits[0], folder / f"{mode}.tflite", quantize=mode, **options)
    integers = {"input_dtype": "int8", "output_dtype": "int8"}
    kv.export.export_tflite(digits[0], folder / "integers.tflite", quantize="int8-full", **options, **integers)
    kv.export.export_tflite(digits[0], folder / "floats.tflite", input_dtype="float32", **options)
    kv.export.export_tflite(kv.build("vit_digits"), folder / "other.tflite")
    return folder


@pytest.fixture(scope="module")
def photos(digits, tmp_path_factory):
    """A folder with labels.csv."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["file,label"]
    for i, (image, label) in enumerate(zip(*digits[1:])):
        Image.fromarray(image).save(folder / f"{i:02}.png")
        rows.append(f"{i:02}.png,{LABELS[label]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def rows_of(printed):
    return list(csv.DictReader(io.StringIO(printed)))


@pytest.mark.parametrize("name, tolerance", [("float32", 1e-4), ("floats", 1e-4), ("int8", 0.02), ("integers", 0.2)])
@pytest.mark.sampled(4)
def test_classify_answers_as_keras_does(name, tolerance, python, files, photos, digits):
    paths = sorted(photos.glob("*.png"))[:40]
    printed, _ = vit(python, "classify", files / f"{name}.tflite", *paths, "--json", "--threads", 1)
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer["file"] for answer in answers] == list(map(str, paths))
    logits = digits[0].predict(digits[1][:40, ..., None], verbose=0).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for answer, probabilities in zip(answers, expected):
        assert len(answer["top"]) == 5
        for place in answer["top"][:1]:
            assert place["label"] == LABELS[place["index"]]
            assert abs(place["probability"] - probabilities[place["index"]]) <= tolerance
    same = [answer["top"][0]["index"] == best for answer, best in zip(answers, expected.argmax(1))]
    assert np.mean(same) >= (1.0 if tolerance < 0.01 else 0.95)
    people, _ = vit(python, "classify", files / f"{name}.tflite", paths[0])
    assert people.splitlines()[0] == str(paths[0]) and LABELS[expected[0].argmax()] in people.splitlines()[1]


def test_folder_prints_a_table_and_the_accuracy(python, files, photos, digits):
    printed, said = vit(python, "folder", files / "float32.tflite", photos)
    rows = rows_of(printed)
    answers = digits[0].predict(digits[1][..., None], verbose=0).argmax(1)
    assert [(row["file"], row["label"]) for row in rows] == [(f"{i:02}.png", LABELS[a]) for i, a in enumerate(answers)]
    assert all(0 < float(row["probability"]) <= 1 for row in rows)
    right = int((answers == digits[2]).sum())
    assert f"accuracy {right / 100:.1%}: {right} of the 100" in said


def test_folder_goes_on_after_an_unreadable_image(python, files, photos, tmp_path):
    for i in (3, 7):
        (tmp_path / f"{i}.png").write_bytes((photos / f"{i:02}.png").read_bytes())
    (tmp_path / "5.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    printed, said = vit(python, "folder", files / "float32.tflite", tmp_path, code=1)
    assert [row["file"] for row in rows_of(printed)] == ["3.png", "7.png"]
    assert f"{tmp_path / '5.png'} is no image" in said and "accuracy" not in said
    (tmp_path / "labels.csv").write_text("file,label\n7.png,1000\nmissing.png,2\n")
    printed, said = vit(python, "folder", files / "float32.tflite", tmp_path, code=1)
    assert [row["file"] for row in rows_of(printed)] == ["7.png"]
    assert "missing.png is no image" in said and "no accuracy: a label is beyond the classes, which are 0..9" in said
    (tmp_path / "labels.csv").write_text("file,label\n7.png,0\nmissing.png,2\n")
    _, said = vit(python, "folder", files / "float32.tflite", tmp_path, code=1)
    assert "of the 1 images that could be read" in said


def test_folder_reads_labels_as_names_as_numbers_and_as_folders(python, files, digits, tmp_path):
    for i, (image, label) in enumerate(zip(*digits[1:])):
        for style, name in (("names", LABELS[label]), ("numbers", str(label)), ("others", f"cat {label}")):
            (tmp_path / style / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / style / name / f"{i}.png")
    for style in ("names", "numbers"):
        assert "of the 100 images" in vit(python, "folder", files / "float32.tflite", tmp_path / style)[1]
    said = vit(python, "folder", files / "float32.tflite", tmp_path / "others")[1]
    assert "sub-folders are counted by their sorted order: 'cat 9' is class 9" in said and "of the 100 images" in said
    (tmp_path / "others" / "cat 10").mkdir()
    said = vit(python, "folder", files / "float32.tflite", tmp_path / "others")[1]
    assert "no accuracy: there are 11 labels and 10 classes" in said


@pytest.fixture(scope="module")
def video(digits, tmp_path_factory):
    """Twelve frames as Motion JPEG, GIF and WebP, and what they are."""
    folder = tmp_path_factory.mktemp("video")
    logits = digits[0].predict(digits[1][..., None], verbose=0)
    clear = np.sort((logits.max(1) - np.partition(logits, -2)[:, -2]).argsort()[-12:])  # resizing must not change them
    frames = [Image.fromarray(image).resize((64, 64), Image.Resampling.NEAREST) for image in digits[1][clear]]
    thumbnail = io.BytesIO()
    frames[0].resize((16, 16)).save(thumbnail, "JPEG")
    exif = Image.Exif()
    exif[0x010E] = thumbnail.getvalue().decode("latin-1")  # a JPEG in a JPEG, as cameras write it
    with open(folder / "video.mjpeg", "wb") as file:
        file.write(b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n")
        for i, frame in enumerate(frames):
            frame.save(file, "JPEG", quality=95, exif=b"" if i % 2 else exif, progressive=i % 3 == 0)
            file.write(b"\r\n--boundary\r\n" if i % 4 == 0 else b"")
    frames[0].save(folder / "video.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "video.webp", save_all=True, append_images=frames[1:], lossless=True)
    return folder, [LABELS[answer] for answer in logits[clear].argmax(1)]


def labels_of(printed):
    return [line.split()[-1] for line in printed.splitlines()]


@pytest.mark.parametrize("suffix", ["mjpeg", "gif", "webp"])
def test_camera_answers_for_every_frame(suffix, python, files, video):
    folder, labels = video
    printed, said = vit(python, "camera", files / "int8.tflite", folder / f"video.{suffix}")
    assert labels_of(printed) == labels and said == ""
    assert all(float(line.split("fps")[0].split()[-1]) > 0 for line in printed.splitlines())
    every, _ = vit(python, "camera", files / "int8.tflite", folder / f"video.{suffix}", "--every", 5)
    assert labels_of(every) == labels[::5] and every.startswith("frame 1 ")


def test_camera_reads_a_video_whose_last_frame_is_cut(python, files, video, tmp_path):
    folder, labels = video
    content = (folder / "video.mjpeg").read_bytes()
    last = content.rindex(b"\xff\xd8\xff")
    for cut in (last + 3, last + 200, len(content) - 2):
        printed, said = vit(python, "camera", files / "int8.tflite", "-", input=content[:cut])
        assert labels_of(printed)[:11] == labels[:11] and len(labels_of(printed)) <= 12
        assert cut == len(content) - 2 or "frame 12 cannot be read" in said
    damaged = content[: last - 60] + content[last:]  # the last but one loses its end; the last is whole
    printed, _ = vit(python, "camera", files / "int8.tflite", "-", input=damaged)
    assert labels_of(printed)[-1] == labels[-1]
    (tmp_path / "cut.gif").write_bytes((folder / "video.gif").read_bytes()[:-600])
    printed, said = vit(python, "camera", files / "int8.tflite", tmp_path / "cut.gif")
    assert 1 < len(labels_of(printed)) < 12 and "cut.gif ends here" in said
    for nothing in (b"", b"text " * 1000):
        assert "no JPEG, GIF or WebP" in vit(python, "camera", files / "int8.tflite", "-", input=nothing, code=1)[1]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_camera_answers_at_once_and_ends_cleanly(stop, python, files, video):
    folder, labels = video
    command = [python, VIT, "camera", files / "int8.tflite", "-"]
    with started(command, stderr=subprocess.PIPE) as process:
        process.stdin.write((folder / "video.mjpeg").read_bytes())
        process.stdin.flush()  # and stays open
        assert [process.stdout.readline().split()[-1].decode() for _ in labels] == labels
        process.send_signal(stop)
        said = process.stderr.read().decode()
        assert process.wait() == 0
    assert "stopped after 12 frames" in said and "Traceback" not in said


def test_camera_ends_where_nobody_reads_on(python, files, video):
    folder, _ = video
    command = [python, VIT, "camera", files / "int8.tflite", "-"]
    with started(command, stderr=subprocess.PIPE) as process:
        process.stdin.write((folder / "video.mjpeg").read_bytes())
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # the camera goes on until its reader is gone
            for _ in range(1000):
                process.stdin.write((folder / "video.mjpeg").read_bytes())
                process.stdin.flush()
        assert process.wait() == 1
        assert b"Traceback" not in process.stderr.read()


def test_embed_and_search(python, files, photos, tmp_path):
    (tmp_path / "more").mkdir()
    for path in [*sorted(photos.glob("*.png"))[:30], photos / "05.png"]:
        (tmp_path / "more" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "more" / "broken.png").write_bytes(b"no image")
    index = tmp_path / "index.npz"
    printed, said = vit(python, "embed", files / "float32.tflite", tmp_path / "more", index, code=1)
    assert "30 images, centred logits of 10 numbers" in printed and "broken.png is no image" in said
    with np.load(index) as stored:
        np.testing.assert_allclose(np.linalg.norm(stored["vectors"], axis=1), 1, atol=1e-6)
        vectors, names = stored["vectors"], stored["files"].tolist()
    found, _ = vit(python, "search", files / "float32.tflite", index, photos / "05.png", "--count", 4)
    lines = [line.split() for line in found.splitlines()]
    asked = vectors[names.index(str(tmp_path / "more" / "05.png"))]
    order = (vectors @ asked).argsort()[::-1][:4]
    assert [name for _, name in lines] == [names[i] for i in order]
    np.testing.assert_allclose([float(value) for value, _ in lines], (vectors @ asked)[order], atol=1e-3)
    # Another precision of the same weights can be compared with; other weights cannot.
    assert "05.png" in vit(python, "search", files / "int8.tflite", index, photos / "05.png")[0]
    _, said = vit(python, "search", files / "other.tflite", index, photos / "05.png", code=1)
    assert "embed the folder again" in said
    index.write_bytes(index.read_bytes()[:-300])
    assert "no index" in vit(python, "search", files / "float32.tflite", index, photos / "05.png", code=1)[1]
    assert "*.npz" in vit(python, "embed", files / "float32.tflite", tmp_path / "more", "index", code=1)[1]


def test_embed_takes_the_embedding_where_the_file_has_it(files, photos, tmp_path):
    """The signature is renamed here, so that the example's choice does not depend on what the exporter offers."""
    from keras_vit_plugin.export.tflite.flatbuffer import read, write

    model = read((files / "float32.tflite").read_bytes())
    (output,) = model.signatureDefs[0].outputs
    extra = type(output)(name=b"embedding", tensorIndex=output.tensorIndex)
    model.signatureDefs[0].outputs = [extra, output]
    model.subgraphs[0].outputs = [output.tensorIndex, output.tensorIndex]
    (tmp_path / "m.tflite").write_bytes(write(model))
    printed, _ = vit(sys.executable, "embed", tmp_path / "m.tflite", photos, tmp_path / "i.npz")
    assert "100 images, embedding of 10 numbers" in printed
    with np.load(tmp_path / "i.npz") as stored:
        assert np.abs(stored["vectors"].mean(1)).max() > 0.01  # centred logits have a mean of 0
    _, said = vit(sys.executable, "search", files / "float32.tflite", tmp_path / "i.npz", photos / "05.png", code=1)
    assert "holds embedding of the weights" in said and "gives centred logits" in said


# ---- What others wrote ----

MARKUP = "[red] [/] "  # text, as all that is written here
ORDERS = "\x1b[2J\x1b]52;c;aGk=\x07\x08\x7f\x9b2J\r\u202e\u2066\u2028"  # a terminal obeys these, or shows other text
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile(files, photos, tmp_path_factory):
    """A file whose class names are hostile, and a folder of photos, an index and a table of hostile names."""
    from keras_vit_plugin.export.tflite.flatbuffer import read
    from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

    folder = tmp_path_factory.mktemp("hostile") / ("photos " + ORDERS)
    folder.mkdir()
    content = (files / "float32.tflite").read_bytes()
    labels = {"labels": [f"{start}{MARKUP}{ORDERS}" for start in ("=", "+", "-", "@", "\t", "\r", "", "a", "b", "c")]}
    (folder / "m.tflite").write_bytes(set_metadata(content, get_metadata(read(content)) | labels))
    for i in range(20):
        (folder / f"={i} {ORDERS}.png").write_bytes((photos / f"{i:02}.png").read_bytes())
    (folder / f"bad {ORDERS}.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("command", ["classify", "classify --json", "folder", "camera", "embed", "search", "benchmark"])
@pytest.mark.sampled(7)
def test_texts_of_others_are_shown_and_not_obeyed(command, python, hostile, video):
    name, *options = command.split()
    model, paths, index = hostile / "m.tflite", sorted(hostile.glob("*.png")), hostile / "i.npz"
    vit(python, "embed", model, hostile, index, code=1)
    given = {
        "classify": paths,
        "folder": [hostile],
        "camera": [video[0] / "video.gif"],
        "embed": [hostile, index],
        "search": [index, paths[0]],
        "benchmark": ["--runs", 1],
    }[name]
    printed, said = vit(python, name, model, *given, *options, code=int(name in ("classify", "folder", "embed")))
    assert not OBEYED.findall(printed + said), printed + said
    assert "]52;c;aGk=" in printed and ("bad" in said) == (name in ("classify", "folder", "embed"))
    if options:
        told = [json.loads(line) for line in printed.splitlines()]
        assert {each["file"] for each in told} == set(map(str, paths)) - {str(hostile / f"bad {ORDERS}.png")}
        assert printed.isascii() and all(MARKUP + ORDERS in answer["label"] for each in told for answer in each["top"])
    elif name in ("classify", "camera"):
        assert printed.count(MARKUP.strip()) >= 12


def test_no_cell_of_a_table_is_a_formula(hostile):
    rows = list(csv.reader(io.StringIO(vit(sys.executable, "folder", hostile / "m.tflite", hostile, code=1)[0])))
    assert len(rows) == 21 and all(row[0].startswith("'=") for row in rows[1:])
    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r"))]
    assert sum(row[1].startswith("'") for row in rows[1:]) > 5
    code = "import sys; sys.path.insert(0, sys.argv[1]); import vit; print(*map(vit.cell, sys.argv[2:]))"
    cells = subprocess.run(
        [sys.executable, "-c", code, VIT.parent, "-1", "+2.5", "-1+1", "a"], capture_output=True, text=True, check=True
    )
    assert cells.stdout.split() == ["-1", "+2.5", "'-1+1", "a"]  # a number is no formula


@pytest.mark.parametrize("arguments", [(ORDERS,), ("classify", ORDERS, "p.png"), ("benchmark", "m", f"--{ORDERS}")])
def test_a_wrong_command_line_is_quoted_as_text(arguments, python):
    result = subprocess.run([python, VIT, *arguments], capture_output=True, text=True)
    assert result.returncode in (1, 2) and not OBEYED.findall(result.stdout + result.stderr)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_of_files_that_are_no_text(encoding, python, files, photos, tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"byte \x9b2J.png", "\u7532.png".encode()):
        with open(os.path.join(folder, name), "wb") as file:
            file.write((photos / "00.png").read_bytes())
    options = {"env": {**os.environ, "PYTHONIOENCODING": encoding}}
    for command in ("classify --json", "classify", "folder"):
        command, *more = command.split()
        given = sorted(tmp_path.iterdir()) if command == "classify" else [tmp_path]
        printed, _ = vit(python, command, files / "float32.tflite", *given, *more, **options)
        assert "byte \\udc9b2J.png" in printed and ("\u7532" in printed or "\\u7532" in printed)
    vit(python, "embed", files / "float32.tflite", tmp_path, tmp_path / "i.npz", **options)
    printed, _ = vit(python, "search", files / "float32.tflite", tmp_path / "i.npz", given[0] / "\u7532.png", **options)
    assert "byte \\udc9b2J.png" in printed


@pytest.mark.parametrize(
    "changed",
    [
        {"answers": [1]},
        {"answers": {"a": 1}},
        {"answers": [{"name": "logits"}]},
        {"labels": 5},
        {"preprocessing": {"resize": "ab"}},
        {"preprocessing": {"interpolation": "best"}},
        {"preprocessing": [1]},
        {"schema": "x"},
    ],
)
def test_metadata_of_others_are_refused_with_the_files_name(changed, files, photos, tmp_path):
    from keras_vit_plugin.export.tflite.flatbuffer import read
    from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

    content = (files / "float32.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(set_metadata(content, get_metadata(read(content)) | changed))
    _, said = vit(sys.executable, "classify", tmp_path / "m.tflite", photos / "00.png", code=1)
    assert f"{tmp_path / 'm.tflite'}: its metadata are not what keras-vit writes" in said


def test_a_file_that_ends_its_interpreter_gets_a_sentence(python, photos, tmp_path):
    long_enough = bytes(5000)  # for a model
    (tmp_path / "m.tflite").write_bytes(hostile_tflite.looping(body_calls_itself=True) + long_enough)
    _, said = vit(python, "classify", tmp_path / "m.tflite", photos / "00.png", code=1)
    assert f"{tmp_path / 'm.tflite'}: " in said and "does not survive this file (SIG" in said
    (tmp_path / "m.tflite").write_bytes(hostile_tflite.filling(50_000, 20_000) + long_enough)  # 4 GB
    arguments = ["--pixels", "0..1"]
    _, said = vit(python, "classify", tmp_path / "m.tflite", photos / "00.png", *arguments, code=1)
    assert "takes more than 1024 MiB for this file" in said


@pytest.mark.parametrize(
    "changed",
    [
        {"files": np.array(["a"])},
        {"vectors": np.zeros((30, 10))[0]},
        {"vectors": np.full((30, 10), np.nan)},
        {"vectors": np.array(["x"] * 30)},
        {"vectors": np.zeros((30, 10), "datetime64[s]")},
        {"files": np.arange(30)},
        {"vectors": np.zeros((30, 4), np.float32)},
        {"vectors_are": np.array(["a", "b", "c"])},
        {"vectors_are": np.array([1, 2])},
        {"vectors_are": np.array("x")},
    ],
)
@pytest.mark.sampled(5)
def test_an_index_of_others_is_refused_with_its_name(changed, files, photos, tmp_path):
    vit(sys.executable, "embed", files / "float32.tflite", photos, tmp_path / "i.npz")
    with np.load(tmp_path / "i.npz") as stored:
        np.savez(tmp_path / "i.npz", **{**stored, **changed})
    _, said = vit(sys.executable, "search", files / "float32.tflite", tmp_path / "i.npz", photos / "05.png", code=1)
    assert str(tmp_path / "i.npz") in said
    np.save(tmp_path / "i.npy", np.zeros(3))
    (tmp_path / "i.npy").rename(tmp_path / "i.npz")
    _, said = vit(sys.executable, "search", files / "float32.tflite", tmp_path / "i.npz", photos / "05.png", code=1)
    assert "i.npz is no index that can be read" in said


def test_an_index_that_would_become_gigabytes_is_refused(files, photos, tmp_path):
    vectors = np.zeros((1_000_000, 10), np.float32)
    np.savez_compressed(tmp_path / "i.npz", files=["a"], vectors=vectors, vectors_are=["a", "b"])
    _, said = vit(sys.executable, "search", files / "float32.tflite", tmp_path / "i.npz", photos / "05.png", code=1)
    assert "i.npz is no index that can be read: it is compressed" in said


# ---- What outputs mean ----


@pytest.fixture(scope="module")
def kind_files(tmp_path_factory):
    """`{kind: (path, what Keras gives)}`, and a folder of the photos as PNG files."""
    folder = tmp_path_factory.mktemp("kinds")
    images, made = kinds.photos(), {}
    for kind, (_, _, options) in kinds.KINDS.items():
        model, path = kinds.model_of(kind), folder / f"{kind}.tflite"
        kv.export.export_tflite(model, path, pixels="0..1", target="tflite-runtime", **options)
        made[kind] = path, kinds.scores_of(model, images)
    (folder / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "photos" / f"{i}.png")
    return made, folder / "photos"


def said_of(python, command, *arguments):
    return [json.loads(line) for line in vit(python, command, *arguments, "--json")[0].splitlines()]


@pytest.mark.parametrize("kind", [kind for kind in kinds.KINDS if kind not in ("regression", "embedding", "features")])
@pytest.mark.long
def test_classify_says_what_the_output_means(kind, python, kind_files):
    made, photos = kind_files
    path, scores = made[kind]
    expected, names = kinds.probabilities_of(kind, scores), kinds.names_of(kind)
    found = said_of(python, "classify", path, *sorted(photos.glob("*.png")))
    assert len(found) == len(expected)
    for said, probabilities in zip(found, expected):
        order = probabilities.argsort()[::-1]
        assert [answer["label"] for answer in said["top"]] == [names[i] for i in order]
        np.testing.assert_allclose([answer["probability"] for answer in said["top"]], probabilities[order], atol=1e-4)
    people, _ = vit(python, "classify", path, photos / "0.png")
    assert people.splitlines()[1].split() == [f"{expected[0].max():.1%}", *names[expected[0].argmax()].split()]


def test_classify_gives_the_numbers_of_a_regression(python, kind_files):
    (path, scores), photos = kind_files[0]["regression"], sorted(kind_files[1].glob("*.png"))
    for said, expected in zip(said_of(python, "classify", path, *photos), scores, strict=True):
        assert [number["label"] for number in said["values"]] == ["width", "height"] and "top" not in said
        np.testing.assert_allclose([number["value"] for number in said["values"]], expected, atol=1e-4)
    people, _ = vit(python, "classify", path, photos[0])
    assert [line.split()[1] for line in people.splitlines()[1:]] == ["width", "height"]
    assert float(people.split()[1]) == pytest.approx(scores[0, 0], rel=1e-3) and "%" not in people


def test_more_labels_than_five_may_be_true(tmp_path, kind_files):
    import keras

    images = keras.Input((16, 16, 3))
    scores = keras.layers.Dense(9, "sigmoid")(keras.layers.GlobalAveragePooling2D()(images))
    model = keras.Model(images, scores)
    model.layers[-1].bias.assign(np.arange(9) - 1.5)  # seven of them are true
    kv.export.export_tflite(model, tmp_path / "m.tflite", pixels="0..1")
    (said,) = said_of(sys.executable, "classify", tmp_path / "m.tflite", kind_files[1] / "0.png")
    assert len(said["top"]) == (np.asarray(kinds.scores_of(model, kinds.photos(1))) >= 0.5).sum() > 5


@pytest.mark.parametrize("kind", ["binary logit", "multi-label sigmoid", "regression"])
def test_folder_writes_what_the_output_means(kind, python, kind_files, tmp_path):
    (path, scores), photos = kind_files[0][kind], kind_files[1]
    for i, photo in enumerate(sorted(photos.glob("*.png"))):
        (tmp_path / ("yes" if i % 2 else "no")).mkdir(exist_ok=True)
        (tmp_path / ("yes" if i % 2 else "no") / photo.name).write_bytes(photo.read_bytes())
    printed, said = vit(python, "folder", path, tmp_path)
    rows = sorted(rows_of(printed), key=lambda row: os.path.basename(row["file"]))
    if kind == "binary logit":
        assert [row["label"] for row in rows] == ["yes" if score > 0 else "no" for score in scores[:, 0]]
        probabilities = kinds.probabilities_of(kind, scores).max(1)
        np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities, atol=1e-3)
        right = int(((scores[:, 0] > 0) == np.arange(8) % 2).sum())
        assert f"{right} of the 8 images" in said
        return
    names = ["width", "height"] if kind == "regression" else kinds.NAMES
    assert list(rows[0]) == ["file", *names]
    np.testing.assert_allclose([[float(row[name]) for name in names] for row in rows], scores, atol=1e-3)
    assert "no accuracy: one label for each photo does not judge" in said and "accuracy 0" not in said


def test_camera_says_what_the_output_means(python, kind_files, tmp_path):
    photos = [Image.open(path) for path in sorted(kind_files[1].glob("*.png"))]
    photos[0].save(tmp_path / "video.webp", save_all=True, append_images=photos[1:], lossless=True)
    for kind in ("binary sigmoid", "multi-label logits", "regression"):
        path, scores = kind_files[0][kind]
        printed, _ = vit(python, "camera", path, tmp_path / "video.webp")
        for line, row in zip(printed.splitlines(), scores, strict=True):
            said = line.split("fps")[1].split(", ")
            if kind == "regression":
                assert [part.split()[1] for part in said] == ["width", "height"]
                np.testing.assert_allclose([float(part.split()[0]) for part in said], row, rtol=1e-3)
                continue
            probabilities, names = kinds.probabilities_of(kind, row[None])[0], kinds.names_of(kind)
            count = max(1, (probabilities >= 0.5).sum())
            order = probabilities.argsort()[::-1][:count]
            assert [part.split() for part in said] == [[f"{probabilities[i]:.1%}", names[i]] for i in order]


@pytest.mark.parametrize("kind", ["embedding", "features"])
def test_vectors_are_compared_and_not_told(kind, python, kind_files, tmp_path):
    (path, scores), photos = kind_files[0][kind], kind_files[1]
    for command, given in (("classify", photos / "0.png"), ("folder", photos), ("camera", photos / "0.png")):
        printed, said = vit(python, command, path, given, code=1)
        assert printed == "" and f"gives an image's {kind}, not what it shows: `embed`" in said
    count = scores[0].size
    assert f"8 images, {kind} of {count} numbers" in vit(python, "embed", path, photos, tmp_path / "i.npz")[0]
    vectors = scores.reshape(8, -1) / np.linalg.norm(scores.reshape(8, -1), axis=1, keepdims=True)
    found = [line.split() for line in vit(python, "search", path, tmp_path / "i.npz", photos / "3.png")[0].splitlines()]
    order = (vectors @ vectors[3]).argsort()[::-1][:5]
    assert [os.path.basename(name) for _, name in found] == [f"{i}.png" for i in order]
    np.testing.assert_allclose([float(value) for value, _ in found], (vectors @ vectors[3])[order], atol=1e-3)


def test_one_number_is_no_vector(kind_files, tmp_path):
    path = kind_files[0]["binary logit"][0]
    _, said = vit(sys.executable, "embed", path, kind_files[1], tmp_path / "i.npz", code=1)
    assert "gives one number (binary): no vector to compare photos by" in said


def test_of_several_outputs_the_first_is_told_and_the_embedding_compared(kind_files, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 5, strides=5)(images))
    outputs = {"kind": keras.layers.Dense(3, "softmax")(x), "vector": x, "age": keras.layers.Dense(1)(x)}
    model, path = keras.Model(images, outputs), tmp_path / "m.tflite"
    kv.export.export_tflite(model, path, pixels="0..1")
    given = model(kinds.photos().astype("float32") / 255)
    first = sorted(outputs)[0]  # Keras's order of a dict
    assert first == "age"
    for said, value in zip(said_of(sys.executable, "classify", path, *sorted(kind_files[1].iterdir())), given["age"]):
        assert said["values"][0]["value"] == pytest.approx(float(value[0]), abs=1e-4)
    printed, _ = vit(sys.executable, "embed", path, kind_files[1], tmp_path / "i.npz")
    assert f"vector of {given['vector'].shape[1]} numbers" in printed


@pytest.mark.parametrize("kind", ["logits", "softmax", "binary sigmoid", "multi-label sigmoid"])
@pytest.mark.sampled(4)
def test_a_file_without_metadata_needs_pixels_and_is_read_by_its_graph(kind, python, kind_files, tmp_path):
    path, scores = kind_files[0][kind]
    path, photos = kinds.without_metadata(path, tmp_path), sorted(kind_files[1].glob("*.png"))
    for command, given in (("classify", photos[0]), ("folder", kind_files[1]), ("camera", photos[0])):
        printed, said = vit(python, command, path, given, code=1)
        assert printed == "" and "does not say what pixels it takes: --pixels=0..1 or --pixels=-1..1" in said
    expected = kinds.probabilities_of(kind, scores)
    for said, probabilities in zip(
        said_of(python, "classify", path, *photos, "--pixels=0..255"), expected, strict=True
    ):
        np.testing.assert_allclose(
            [answer["probability"] for answer in said["top"]], np.sort(probabilities)[::-1], atol=1e-4
        )


def test_pixels_of_a_file_without_metadata_are_scaled(python, kind_files, tmp_path):
    """The graph of the file takes pixels of 0..1 here, in float32."""
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(0).normal(0, 1, (16 * 16 * 3, 4)).astype(np.float32))
    call = tf.function(lambda images: tf.reshape(images, (1, -1)) @ weights)
    call = call.get_concrete_function(tf.TensorSpec((1, 16, 16, 3)))
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([call]).convert())
    for option, scale, offset in (("0..1", 1 / 255, 0), ("-1..1", 1 / 127.5, -1)):
        (said,) = said_of(python, "classify", path, kind_files[1] / "0.png", f"--pixels={option}")
        logits = (kinds.photos()[0].ravel() * scale + offset) @ weights.numpy()
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(
            [answer["probability"] for answer in said["top"]], np.sort(expected)[::-1], atol=1e-3
        )
    _, said = vit(python, "classify", kind_files[0]["logits"][0], kind_files[1] / "0.png", "--pixels=0..1", code=1)
    assert "--pixels is for a file that keras-vit did not make" in said


OLD_KINDS = ["logits", "softmax", "binary sigmoid", "multi-label sigmoid"]


@pytest.mark.parametrize("kind", OLD_KINDS)
def test_older_metadata_is_read_by_the_graph(kind, python, kind_files, tmp_path):
    """Schema 1 had the names of the outputs only."""
    (path, scores), photos = kind_files[0][kind], sorted(kind_files[1].glob("*.png"))
    old = kinds.of_older_version(path, tmp_path)
    found = said_of(python, "classify", old, *photos)
    expected = kinds.probabilities_of(kind, scores)
    for said, probabilities in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            [answer["probability"] for answer in said["top"]], np.sort(probabilities)[::-1], atol=1e-4
        )


def test_newer_metadata_is_refused(kind_files, tmp_path):
    from keras_vit_plugin.export.tflite.flatbuffer import read
    from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

    content = kind_files[0]["logits"][0].read_bytes()
    newer = get_metadata(read(content)) | {"schema": 4, "keras_vit_plugin": "9.9"}
    (tmp_path / "new.tflite").write_bytes(set_metadata(content, newer))
    _, said = vit(sys.executable, "classify", tmp_path / "new.tflite", kind_files[1] / "0.png", code=1)
    assert "made by keras-vit-plugin 9.9, which is newer than this vit.py" in said


@pytest.mark.sampled(1)
def test_benchmark_reports_each_thread_count(python, files):
    runtime = next(name for name, path in PYTHONS.items() if path == python)
    arguments = ("benchmark", files / "int8.tflite", "--runs", 5, "--threads", 1, 2)
    report = json.loads(vit(python, *arguments, "--json")[0])
    assert report["runtime"].startswith(f"{runtime} 2.") and report["runs"] == 5 and report["batch"] == 1
    assert report["megabytes"] == (files / "int8.tflite").stat().st_size / 1e6
    assert [result["threads"] for result in report["results"]] == [1, 2]
    assert all(0 < result["median_ms"] <= result["p90_ms"] for result in report["results"])
    assert report["runtime"] in vit(python, *arguments)[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("classify", "nowhere.tflite", "p.png"), "nowhere.tflite: there is no such file"),
        (("folder", "MODEL", "nowhere"), "nowhere: there is no such folder"),
        (("camera", "MODEL", "nowhere.mjpeg"), "No such file or directory: 'nowhere.mjpeg'"),
        (("search", "MODEL", "nowhere.npz", "p.png"), "nowhere.npz is no index that can be read"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(arguments, message, files):
    arguments = [files / "int8.tflite" if argument == "MODEL" else argument for argument in arguments]
    printed, said = vit(sys.executable, *arguments, code=1)
    assert printed == "" and message in said and said.count("\n") == 0


def test_numbers_are_checked(files):
    _, said = vit(sys.executable, "classify", files / "int8.tflite", "p.png", "--threads", 0, code=2)
    assert "--threads: must be a whole number of at least 1, got '0'" in said


# ---- Runtimes that are missing or broken ----

WITHOUT = "raise ModuleNotFoundError('No module of this name', name={!r})"
BROKEN = "raise ImportError('numpy.core.multiarray failed to import')"
WORKING = "class Interpreter: pass"
ASK = """
import sys
sys.path[:0] = sys.argv[1:]
import numpy
{before}
try:
    print({call})
except ImportError as error:
    print("ImportError:", error)
"""


def stub(folder, **modules):
    """Packages that shadow the real ones and do what is told when they are imported."""
    for package in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        code = modules.get(package, WITHOUT.format(package))
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(code if package == "tensorflow" else "")
        if package != "tensorflow":
            (folder / package / "interpreter.py").write_text(code)
    return folder


def loaded(folder, before="", package=False):
    """What the loader of the example, or of the package, says with these packages in front."""
    if package:
        call, paths = "interpreter_class()", [folder]
        before += "\nfrom keras_vit_plugin.export.tflite.runner import interpreter_class"
    else:
        call, paths = "vit.load_runtime()", [folder, VIT.parent]
        before += "\nimport vit"
    code = ASK.format(before=before, call=call)
    result = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize("package", [False, True])
def test_the_first_runtime_that_works_is_taken(package, tmp_path):
    both = {"ai_edge_litert": WORKING, "tflite_runtime": WORKING}
    for name, modules, before, taken in (
        ("both", both, "", "ai_edge_litert.interpreter.Interpreter"),
        ("old", both | {"ai_edge_litert": BROKEN}, "numpy.__version__ = '1.26.4'", "tflite_runtime.interpreter"),
        ("tensorflow", {"tensorflow": "class lite:\n    class Interpreter: pass"}, "", "tensorflow.lite.Interpreter"),
    ):
        (tmp_path / name).mkdir()
        said = loaded(stub(tmp_path / name, **modules), before, package)
        assert taken in said
        assert ("ai-edge-litert is installed but cannot be used: numpy.core.multiarray" in said) == (name == "old")


@pytest.mark.parametrize("package", [False, True])
def test_without_a_runtime_it_is_said_what_to_install(package, tmp_path):
    assert "pip install ai-edge-litert" in loaded(stub(tmp_path), package=package)


@pytest.mark.parametrize("package", [False, True])
def test_a_broken_runtime_is_named(package, tmp_path):
    said = loaded(stub(tmp_path, ai_edge_litert=BROKEN), package=package)
    assert "ai-edge-litert is installed but cannot be used: numpy.core.multiarray failed to import" in said
    assert "ImportError:" in said and "tensorflow is installed" not in said


@pytest.mark.parametrize("package", [False, True])
def test_tflite_runtime_with_numpy_2_is_not_tried(package, tmp_path):
    """It can be imported there, and fails when a file is loaded."""
    said = loaded(stub(tmp_path, tflite_runtime=WORKING), "numpy.__version__ = '2.4.0'", package)
    assert "tflite-runtime is installed but cannot be used: it needs NumPy 1 and this is 2.4.0" in said
    assert 'pip install "numpy<2"' in said or package


@pytest.mark.parametrize(
    "machine, version, advice",
    [
        ("aarch64", (3, 13, 1), "pip install ai-edge-litert"),
        ("armv7l", (3, 11, 2), 'pip install tflite-runtime "numpy<2"'),
        ("armv7l", (3, 13, 1), "Nothing is made for Python"),
    ],
)
def test_the_advice_is_for_this_python(machine, version, advice, tmp_path):
    before = f"import platform; platform.machine = lambda: {machine!r}; sys.version_info = {version}"
    assert advice in loaded(stub(tmp_path), before)


def test_run_of_the_command_says_what_to_install(files, photos, tmp_path):
    path = stub(tmp_path, ai_edge_litert=BROKEN, tensorflow="__version__ = '2'")
    result = subprocess.run(
        [Path(sys.executable).with_name("keras-vit"), "run", files / "int8.tflite", photos / "00.png"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(path)},
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "ai-edge-litert is installed but cannot be used" in result.stderr
    assert "Try: pip install ai-edge-litert" in result.stderr
