"""Damaged and foreign model files, odd and hostile images: handled or refused with a sentence that names the file.

The package and `examples/on_device/vit.py` run in processes of their own here, since what is tested could kill them.
"""

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, pixels, run_python, started
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import keras_vit_plugin as kv
from keras_vit_plugin.export import InvalidModelFile, Runner, inspect, verify
from keras_vit_plugin.export.tflite.flatbuffer import CHECKSUM_KEY, METADATA_START, read, with_checksum, write
from keras_vit_plugin.images.preprocessing import Preprocessing

COMMAND = Path(sys.executable).with_name("keras-vit")
EXAMPLE = REPOSITORY / "examples" / "on_device"
DEVICE_PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
PYTHONS = {"own": Path(sys.executable), "device": DEVICE_PYTHON}


def example_python(name):
    if not PYTHONS[name].exists():
        pytest.skip(f"no device environment at {PYTHONS[name]}: run `make .venv-device/installed`")
    return PYTHONS[name]


def run_with_example(python, code, *arguments):
    """Runs code that may `import vit` and returns what it printed; a crash shows its signal and its last words."""
    result = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE)},
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stdout[-300:]} {result.stderr[-2000:]}"
    return result.stdout


# ---- Model files ----


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A file for both runtimes; with some bytes changed it makes tflite-runtime 2.14 crash."""
    path = tmp_path_factory.mktemp("model") / "m.tflite"
    model = kv.build("vit_digits", weights="pretrained")
    kv.export.export_tflite(model, path, target="tflite-runtime", labels=list("0123456789"))
    return path


def damaged(content, count, seed):
    """The bytes with one to three of them changed, many times over."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(content)
        for place in generator.integers(0, len(changed), generator.integers(1, 4)):
            changed[place] ^= generator.integers(1, 256)
        yield bytes(changed)


def truncated(content):
    lengths = {0, 1, 7, 8, 15, 16, 100, 500, *range(600, len(content), len(content) // 40), len(content) - 1}
    return [content[:length] for length in sorted(lengths)]


LOAD_ALL = """
import sys
from pathlib import Path
from keras_vit_plugin.export import InvalidModelFile, Runner, inspect
refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    for load in (inspect, lambda path: Runner(path.read_bytes())):
        try:
            load(path)
        except InvalidModelFile as error:
            assert load is not inspect or path.name in str(error), error
            refused += 1
print(refused)
"""

LOAD_ALL_ON_DEVICE = """
import sys, vit
from pathlib import Path
refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    try:
        vit.Model(path)
    except ValueError as error:
        assert path.name in str(error), error
        refused += 1
print(refused)
"""


@pytest.fixture(scope="module")
def damaged_files(model_file, tmp_path_factory):
    """Files with changed bytes, of many lengths, and with each byte of what marks the metadata changed."""
    folder = tmp_path_factory.mktemp("damaged")
    content = model_file.read_bytes()
    marks = [content.find(mark) + i for mark in (METADATA_START, CHECKSUM_KEY) for i in range(len(mark))]
    marked = [content[:place] + b"?" + content[place + 1 :] for place in marks]
    for i, bad in enumerate([*damaged(content, 200, 0), *truncated(content), *marked]):
        (folder / f"{i:03}.tflite").write_bytes(bad)
    return folder


def test_no_damaged_file_reaches_an_interpreter(damaged_files):
    count = len(list(damaged_files.iterdir()))
    assert run_python(LOAD_ALL, damaged_files).split()[-1] == str(2 * count)


@pytest.mark.parametrize("python", PYTHONS)
def test_no_damaged_file_reaches_an_interpreter_on_a_device(python, damaged_files):
    printed = run_with_example(example_python(python), LOAD_ALL_ON_DEVICE, damaged_files)
    assert printed.split()[-1] == str(len(list(damaged_files.iterdir())))


def test_the_whole_file_is_taken(model_file):
    content = model_file.read_bytes()
    assert with_checksum(content) == content == write(read(content))
    assert Runner(content).image_shape == Runner(bytearray(content)).image_shape == (8, 8, 1)
    assert inspect(model_file).metadata["labels"] == list("0123456789")
    changed = read(content)
    changed.description = "another description"
    assert Runner(write(changed)).image_shape == (8, 8, 1)  # what the package itself writes is sealed again


def to_tflite(function, *shapes):
    import tensorflow as tf

    function = tf.function(function, input_signature=[tf.TensorSpec(shape) for shape in shapes])
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()


@pytest.fixture(scope="module")
def foreign_files(tmp_path_factory):
    """`{name: what must be said}` of files that are no image classifiers, and their folder."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("foreign")
    pattern = np.random.default_rng(0).random((32, 32, 1), np.float32)
    photo = (1, 32, 32, 3)
    for name, function, shapes in (
        ("two_inputs", lambda a, b: tf.reduce_mean(a * pattern + b, (1, 2)), (photo, photo)),
        ("rank_2", lambda a: a * pattern.reshape(1, -1), ((1, 1024),)),
        ("four_channels", lambda a: tf.reduce_mean(a * pattern, (1, 2)), ((1, 32, 32, 4),)),
        ("no_classifier", lambda a: a * pattern, (photo,)),
    ):
        (folder / f"{name}.tflite").write_bytes(to_tflite(function, *shapes))
    (folder / "text.tflite").write_text("no model " * 100)
    (folder / "empty.tflite").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(folder / "png.tflite", "PNG")
    with zipfile.ZipFile(folder / "zip.tflite", "w") as archive:
        archive.writestr("model", "text")
    return folder


@pytest.mark.parametrize(
    "name", ["two_inputs", "rank_2", "four_channels", "no_classifier", "text", "empty", "png", "zip"]
)
def test_foreign_files_are_refused_by_name(name, foreign_files, tmp_path):
    path = foreign_files / f"{name}.tflite"
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    commands = [[COMMAND, "run", path, tmp_path / "p.png"]]
    commands += [[python, EXAMPLE / "vit.py", "classify", path, tmp_path / "p.png"] for python in PYTHONS.values()]
    for command in commands:
        if not Path(command[0]).exists():
            continue
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 1 and result.stdout == ""
        (sentence,) = [line for line in result.stderr.splitlines() if "INFO" not in line]
        assert str(path) in sentence
    if name in ("text", "empty", "png", "zip"):
        with pytest.raises(InvalidModelFile, match=f"{name}.tflite: no TFLite model"):
            inspect(path)
        with pytest.raises(InvalidModelFile, match=f"{name}.tflite: no TFLite model"):
            verify(kv.build("vit_test"), path, pixels((16, 16, 3), 1))


def test_an_image_model_of_another_program_is_classified_with(tmp_path):
    import tensorflow as tf

    pattern = np.random.default_rng(0).random((32, 32, 1), np.float32)
    content = to_tflite(lambda a: tf.nn.softmax(tf.reduce_mean(a * pattern, (1, 2))), (1, 32, 32, 3))
    (tmp_path / "m.tflite").write_bytes(content)
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "p.png")
    for command in ([COMMAND, "run"], [sys.executable, EXAMPLE / "vit.py", "classify"]):
        command = [*command, tmp_path / "m.tflite", tmp_path / "p.png", "--json"]
        unsaid = subprocess.run(command, capture_output=True, text=True)
        assert unsaid.returncode == 1 and "--pixels" in unsaid.stderr and "Traceback" not in unsaid.stderr
        result = subprocess.run([*command, "--pixels", "0..255"], capture_output=True, text=True, check=True)
        answer = json.loads(result.stdout)
        assert (answer[0] if isinstance(answer, list) else answer)["top"][0]["label"] == "class 1"


# ---- Images ----


def png(path, width, height, colour_type, bits, row, rows=None, **chunks):
    """Writes a PNG by hand: Pillow writes neither 16-bit colours nor pictures without their memory."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    lines = [
        packer.compress(b"\0" + (row(y) if callable(row) else row)) for y in range(height if rows is None else rows)
    ]
    data = b"".join([*lines, packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    extra = b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def picture(height=40, width=60, seed=0):
    """A smooth uint8 picture `(height, width, 3)`, different in all corners."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


GREY = np.asarray(Image.fromarray(picture()).convert("L"))
ALPHA = np.indices((40, 60)).sum(0).astype(np.uint8)


def as_grey(image):
    return np.repeat(image[..., None], 3, -1)


def handled_images(folder):
    """Writes odd images; `{name: the RGB pixels they show}`."""
    colours = picture()
    shown = {}

    def save(name, image, expected, **options):
        image.save(folder / name, **options)
        shown[name] = expected

    save("rgb.png", Image.fromarray(colours), colours)
    save("grey.png", Image.fromarray(GREY), as_grey(GREY))
    save("grey_alpha.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), as_grey(GREY))
    save("rgba.png", Image.fromarray(np.dstack([colours, ALPHA])), colours)
    save("rgba.tif", Image.fromarray(np.dstack([colours, ALPHA])), colours)
    save("rgba.webp", Image.fromarray(np.dstack([colours, ALPHA])), colours, lossless=True, exact=True)
    save("one_bit.png", Image.fromarray(GREY).point(lambda v: 255 * (v > 99)).convert("1"), as_grey(255 * (GREY > 99)))
    few = Image.fromarray(colours).quantize(16)
    save("palette.png", few, np.asarray(few.convert("RGB")))
    save("palette_transparent.png", few, np.asarray(few.convert("RGB")), transparency=bytes(range(0, 256, 16)))
    save("palette_transparent.gif", few, np.asarray(few.convert("RGB")), transparency=3)
    save("cmyk.tif", Image.fromarray(255 - np.dstack([colours, 0 * GREY + 255])[..., :4], "CMYK"), colours)
    save("p.bmp", Image.fromarray(colours), colours)
    turns = {
        1: colours,
        2: colours[:, ::-1],
        3: colours[::-1, ::-1],
        4: colours[::-1],
        5: colours.swapaxes(0, 1),
        6: np.rot90(colours),
        7: colours[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(colours, -1),
    }
    for orientation, stored in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation_{orientation}.png", Image.fromarray(np.ascontiguousarray(stored)), colours, exif=exif)
    others = [Image.fromarray(picture(seed=seed)) for seed in (1, 2)]
    save("animated.gif", few, np.asarray(few.convert("RGB")), save_all=True, append_images=others)
    save("animated.webp", Image.fromarray(colours), colours, save_all=True, append_images=others, lossless=True)
    save("animated.png", Image.fromarray(colours), colours, save_all=True, append_images=others)
    text = PngInfo()
    text.add_text("comment", "with a comment")
    save("text.png", Image.fromarray(colours), colours, pnginfo=text)
    wide = GREY.astype(np.uint16) * 256 + 77
    png(folder / "grey_16.png", 60, 40, 0, 16, lambda y: wide[y].astype(">u2").tobytes())
    shown["grey_16.png"] = as_grey(wide // 257)
    deep = colours.astype(np.uint16) * 256 + 77
    png(folder / "rgb_16.png", 60, 40, 2, 16, lambda y: deep[y].astype(">u2").tobytes())
    shown["rgb_16.png"] = colours
    deep_alpha = np.dstack([deep, ALPHA.astype(np.uint16) * 256])
    png(folder / "rgba_16.png", 60, 40, 6, 16, lambda y: deep_alpha[y].astype(">u2").tobytes())
    shown["rgba_16.png"] = colours
    png(folder / "rgb_key.png", 60, 40, 2, 8, lambda y: colours[y].tobytes(), tRNS=struct.pack(">3H", *colours[0, 0]))
    shown["rgb_key.png"] = colours
    save("one_pixel.png", Image.new("RGB", (1, 1), (9, 8, 7)), np.full((1, 1, 3), (9, 8, 7), np.uint8))
    return shown


def refused_images(folder):
    """Writes images that must be refused; `{name: what is said}`."""
    whole = folder / "whole.jpg"
    Image.fromarray(picture(400, 600)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "zero_bytes.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    png(folder / "bomb.png", 50_000, 50_000, 2, 8, b"\0" * 99, rows=1)
    Image.fromarray(picture(400, 600)).save(folder / "truncated.png")
    (folder / "truncated.png").write_bytes((folder / "truncated.png").read_bytes()[:5_000])
    Image.new("RGB", (10_000, 1)).save(folder / "thin.png")
    Image.new("RGB", (1, 10_000)).save(folder / "high.png")
    Image.fromarray(np.zeros((20, 20), np.float32)).save(folder / "floats.tif")
    return {
        "zero_bytes.jpg": "damaged or none of AVIF, BMP",
        "truncated.jpg": "truncated",
        "text.jpg": "damaged or none of AVIF, BMP",
        "folder.jpg": "it is a folder",
        "pipe.jpg": "it is a pipe or a device, no regular file",
        "missing.jpg": "no such file",
        "bomb.png": "decompression bomb",
        "truncated.png": "truncated",
        "thin.png": "10000 x 1 pixels are more than 50 times",
        "high.png": "1 x 10000 pixels are more than 50 times",
        "floats.tif": "floats",
    }


PIXELS_ON_DEVICE = """
import sys, json, warnings, numpy as np, vit
warnings.simplefilter("error")
warnings.simplefilter("ignore", vit.Image.DecompressionBombWarning)
out, names, settings = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
arrays, errors = {}, {}
for name in names:
    for i, (shape, preprocessing) in enumerate(settings):
        try:
            arrays[f"{name}:{i}"] = vit.read_pixels(name, lambda image: vit.to_pixels(image, shape, preprocessing))
        except ValueError as error:
            errors[f"{name}:{i}"] = str(error)
np.savez(out, **arrays)
print(json.dumps(errors))
"""

SETTINGS = [
    Preprocessing((40, 60)),
    Preprocessing((16, 16)),
    Preprocessing((16, 16), 1, (20, 20), "lanczos3"),
    Preprocessing((15, 20), 3, (18, 22), "bilinear", "pad"),
    Preprocessing((20, 12), 3, (20, 13), "nearest", "stretch"),
]


def pixels_on_device(python, paths, settings, folder):
    """What vit.py gives for each path and each `Preprocessing`: pixels, or the sentence."""
    described = [(setting.image_shape, setting.to_dict()) for setting in settings]
    names = json.dumps([str(path) for path in paths])
    errors = json.loads(run_with_example(python, PIXELS_ON_DEVICE, folder / "pixels.npz", names, json.dumps(described)))
    with np.load(folder / "pixels.npz") as arrays:
        return {**arrays, **errors}


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory):
    """A folder of images, `{name: what it shows}` and `{name: what is said}`."""
    folder = tmp_path_factory.mktemp("images")
    return folder, handled_images(folder), refused_images(folder)


@pytest.mark.filterwarnings("error")
def test_odd_images_show_what_they_show(odd_images):
    folder, handled, _ = odd_images
    for name, expected in handled.items():
        loaded = Preprocessing(expected.shape[:2]).load(folder / name)
        np.testing.assert_array_equal(loaded, expected, err_msg=name)
        assert Preprocessing((8, 8), 1).load(folder / name).shape == (8, 8, 1)
    assert len(handled) >= 27


@pytest.mark.filterwarnings("error")
def test_hostile_images_are_refused_by_name(odd_images):
    folder, _, refused = odd_images
    for name, reason in refused.items():
        with pytest.raises(ValueError, match=f"{name} is no image that can be read: .*{reason}"):
            Preprocessing((16, 16)).load(folder / name)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_example_gives_the_pixels_and_sentences_of_the_package(python, odd_images, tmp_path):
    folder, handled, refused = odd_images
    paths = [folder / name for name in (*handled, *refused)]
    theirs = pixels_on_device(example_python(python), paths, SETTINGS, tmp_path)
    assert len(theirs) == len(paths) * len(SETTINGS)
    for path in paths:
        for i, setting in enumerate(SETTINGS):
            try:
                np.testing.assert_array_equal(theirs[f"{path}:{i}"], setting.load(path), err_msg=f"{path.name} {i}")
            except ValueError as error:
                assert theirs[f"{path}:{i}"] == str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    (tmp_path / "p.png").chmod(0)
    with pytest.raises(ValueError, match="p.png is no image that can be read: .*Permission denied"):
        Preprocessing((16, 16)).load(tmp_path / "p.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
def test_an_image_with_changed_bytes_is_read_or_refused(suffix, tmp_path):
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(picture(48, 64)).save(path)
    content = path.read_bytes()
    outcomes = []
    for bad in [*damaged(content, 60, 1), *truncated(content + b" " * 600)[:12]]:
        path.write_bytes(bad)
        try:
            outcomes.append(Preprocessing((16, 16)).load(path).shape == (16, 16, 3))
        except ValueError as error:
            assert str(path) in str(error)
            outcomes.append(False)
    assert not all(outcomes)


MEMORY = """
import sys
from keras_vit_plugin.images.preprocessing import Preprocessing
def peak():  # of this program alone; `getrusage` begins with that of the process which started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
before = peak()
try:
    said = Preprocessing((224, 224), 3, (256, 256)).load(sys.argv[1]).mean()
except ValueError as error:
    said = error
print(peak() - before, said, sep="\\n")
"""
MEMORY_ON_DEVICE = MEMORY.replace(
    "from keras_vit_plugin.images.preprocessing import Preprocessing", "import vit"
).replace(
    "Preprocessing((224, 224), 3, (256, 256)).load(sys.argv[1])",
    "vit.read_pixels(sys.argv[1], lambda image: vit.to_pixels(image, (224, 224, 3), {'resize': (256, 256)}))",
)


@pytest.fixture(scope="module")
def large_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    half = [b"\0" * 6_000 + b"\xff" * 6_000, b"\xff" * 6_000 + b"\0" * 6_000]  # a chessboard of four fields
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    grey, rgba = [half[0], half[1]], [b"".join(bytes([v]) * 4 for v in row) for row in half]
    png(folder / "rgba_turned.png", 12_000, 9_000, 6, 8, lambda y: rgba[y >= 4_500], eXIf=exif)
    png(
        folder / "wide.png",
        12_000,
        9_000,
        0,
        16,
        lambda y: np.repeat(np.frombuffer(grey[y >= 4_500], "u1"), 2).tobytes(),
    )
    board = np.kron([[0, 255], [255, 0]], np.ones((4_500, 6_000), np.uint8)).astype(np.uint8)
    Image.fromarray(board).save(folder / "baseline.jpg")
    Image.new("RGB", (7_000, 6_000)).save(folder / "p.webp", lossless=True, quality=0, method=0)
    return folder


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is measured as Linux tells it")
@pytest.mark.parametrize(
    "name, megabytes",
    [("rgba_turned.png", 600), ("wide.png", 400), ("baseline.jpg", 60), ("p.webp", 300)],
)
@pytest.mark.long
def test_memory_is_bounded_on_large_images(name, megabytes, large_images, tmp_path):
    path = large_images / name
    used, said = run_python(MEMORY, path).splitlines()
    used_there, said_there = run_with_example(
        sys.executable, "import warnings; warnings.simplefilter('ignore')" + MEMORY_ON_DEVICE, path
    ).splitlines()
    assert float(used) < megabytes and float(used_there) < megabytes
    assert said == said_there
    if name == "p.webp":
        assert "7000 x 6000 pixels of WEBP" in said
        return
    loaded = Preprocessing((32, 32)).load(path)[..., 0]
    np.testing.assert_array_equal(
        loaded[[4, 4, 28, 28], [4, 28, 4, 28]] > 127, np.array([0, 1, 1, 0], bool) ^ ("turned" in name)
    )
    if name == "baseline.jpg":
        theirs = pixels_on_device(sys.executable, [path], [Preprocessing((32, 32))], tmp_path)
        np.testing.assert_array_equal(theirs[f"{path}:0"][..., 0], loaded)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""
OPEN_ALL_ON_DEVICE = """
import sys, vit
from PIL import Image
for path in sys.argv[1:]:
    for read in (lambda: vit.read_pixels(path, vit.np.asarray), lambda: list(vit.frames_of(path)),
                 lambda: [vit.open_image(frame, ["JPEG"]).load() for frame in vit.frames_of(path)]):
        try:
            read()
        except ValueError as error:
            print(error)
"""


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    """Pillow has Ghostscript draw an EPS, whatever it is called."""
    mark, ghostscript = tmp_path / "mark", tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {mark}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    photos = [tmp_path / name for name in ("p.png", "p.jpg", "p.gif", "p.webp", "p.tif", "p.eps")]
    for photo in photos:
        photo.write_bytes(EPS)
        with pytest.raises(ValueError, match=f"{photo.name} is no image that can be read: it is damaged or none of"):
            Preprocessing((8, 8)).load(photo)
    run_with_example(sys.executable, OPEN_ALL_ON_DEVICE, *photos)
    assert not mark.exists()
    with pytest.raises(Exception), Image.open(photos[0]) as image:  # noqa: B017 - the mark is all that is drawn
        image.load()
    assert mark.exists()


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", ".avif", ".jp2"])
def test_promised_formats_are_read(suffix, tmp_path):
    from PIL import features

    if suffix in (".avif", ".jp2") and not features.check({".avif": "avif", ".jp2": "jpg_2000"}[suffix]):
        pytest.skip(f"this Pillow was built without {suffix}")
    Image.fromarray(picture()).save(tmp_path / f"p{suffix}")
    (tmp_path / f"p{suffix}").rename(tmp_path / "p.jpg")  # the content counts
    assert Preprocessing((8, 8)).load(tmp_path / "p.jpg").std() > 10
    code = "import sys, vit\nprint(vit.read_pixels(sys.argv[1], vit.np.asarray).shape[:2])"
    assert run_with_example(sys.executable, code, tmp_path / "p.jpg").strip() == "(40, 60)"


def animation_of(count):
    """A GIF of so many frames of one pixel."""
    header = b"GIF89a\1\0\1\0\x80\0\0" + bytes(3) + b"\xff" * 3
    return header + count * (b"\x2c" + bytes(4) + b"\1\0\1\0\0\2\2\x44\1\0") + b"\x3b"


def test_of_a_million_frames_one_is_read(tmp_path):
    (tmp_path / "p.gif").write_bytes(animation_of(1_000_000))
    used, said = run_python(MEMORY, tmp_path / "p.gif").splitlines()
    used_there, _ = run_with_example(sys.executable, MEMORY_ON_DEVICE, tmp_path / "p.gif").splitlines()
    assert said == "0.0" and float(used) < 30 and float(used_there) < 30


# ---- Pipes, which would be waited for ----


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """A folder of pipes that nobody writes to, called as what they are given for."""
    folder = tmp_path_factory.mktemp("pipes")
    for name in ("m.tflite", "m.keras", "m.h5", "names.txt", "p.png", "index.npz", "video.gif"):
        os.mkfifo(folder / name)
    (folder / "table").mkdir()
    os.mkfifo(folder / "table" / "labels.csv")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "{pipes}/m.tflite", "p.png"),
        ("run", "{model}", "{pipes}/p.png"),
        ("run", "{model}", "p.png", "--labels", "{pipes}/names.txt"),
        ("inspect", "{pipes}/m.tflite"),
        ("verify", "vit_digits", "{pipes}/m.tflite", "--images", "."),
        ("verify", "vit_digits", "{model}", "--images", "{pipes}/p.png"),
        ("verify", "vit_digits", "{model}", "--images", "{pipes}/table"),
        ("verify", "{pipes}/m.keras", "{model}", "--images", "."),
        ("debug", "vit_digits", "{pipes}/m.tflite"),
        ("debug", "{pipes}/m.h5", "{model}"),
        ("debug", "vit_digits", "{model}", "--images", "{pipes}/table"),
        ("export", "vit_digits", "{pipes}/none.tflite", "--labels", "{pipes}/names.txt"),
        ("export", "vit_digits", "{pipes}/none.tflite", "--verification", "{pipes}/table"),
        ("export", "vit_digits", "{pipes}/none.tflite", "--weights", "{pipes}/m.h5"),
        ("explain", "vit_digits", "{pipes}/p.png", "--out", "{pipes}/none.png"),
        ("explain", "{pipes}/m.keras", str(REPOSITORY / "docs" / "benchmark.png"), "--out", "{pipes}/none.png"),
        ("explain", "vit_digits", "p.png", "--out", "{pipes}/p.png"),
    ],
)
@pytest.mark.timeout(60)  # a pipe that is opened waits for ever
def test_a_pipe_is_refused_by_the_command(arguments, pipes, model_file, monkeypatch):
    from keras_vit_plugin import cli

    monkeypatch.setattr(cli, "silence_native_stderr", contextlib.nullcontext)  # it would print past the runner
    arguments = [argument.format(pipes=pipes, model=model_file) for argument in arguments]
    result = CliRunner().invoke(cli.main, arguments)
    given = next(argument for argument in arguments if str(pipes) in argument and "none" not in argument)
    assert result.exit_code == 1 and given in result.output and "fault of keras-vit" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("classify", "{pipes}/m.tflite", "p.png"),
        ("classify", "{model}", "{pipes}/p.png"),
        ("folder", "{model}", "{pipes}/table"),
        ("embed", "{model}", "{pipes}/table", "i.npz"),
        ("embed", "{model}", "{photos}", "{pipes}/index.npz"),
        ("search", "{model}", "{pipes}/index.npz", "p.png"),
        ("benchmark", "{pipes}/m.tflite"),
    ],
)
def test_a_pipe_is_refused_by_the_example(arguments, pipes, model_file, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "p.png")
    arguments = [argument.format(pipes=pipes, model=model_file, photos=tmp_path) for argument in arguments]
    result = subprocess.run(
        [sys.executable, EXAMPLE / "vit.py", *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "it is a pipe or a device, no regular file" in result.stderr


def test_the_camera_reads_a_stream_of_a_pipe_but_no_animation(pipes, model_file, tmp_path):
    jpeg = tmp_path / "p.jpg"
    Image.fromarray(picture()).save(jpeg)
    command = [sys.executable, EXAMPLE / "vit.py", "camera", model_file, pipes / "video.gif"]
    for content, code, said in ((jpeg.read_bytes(), 0, "frame 1"), (animation_of(2), 1, "read from a file, no pipe")):
        with started(command, stderr=subprocess.PIPE, text=True) as process:
            (pipes / "video.gif").write_bytes(content)
            printed = "".join(process.communicate(timeout=60))
        assert process.returncode == code and said in printed and "Traceback" not in printed


# ---- Answers that are no numbers ----


@pytest.fixture(scope="module")
def nan_file(tmp_path_factory):
    """A file of another program that answers dark images with NaN."""
    import tensorflow as tf

    pattern = np.random.default_rng(0).random((32, 32, 3), np.float32)
    content = to_tflite(lambda a: tf.nn.softmax(tf.math.log(tf.reduce_mean(a * pattern, (1, 2)) - 9)), (1, 32, 32, 3))
    folder = tmp_path_factory.mktemp("nan")
    (folder / "m.tflite").write_bytes(content)
    for name, value in (("bright", 200), ("dark", 0), ("clear", 150)):
        Image.new("RGB", (8, 8), (value, value // 2, value // 3)).save(folder / f"{name}.png")
    return folder


def test_an_answer_of_nan_is_an_error_of_its_image(nan_file):
    model, photos = nan_file / "m.tflite", [nan_file / f"{name}.png" for name in ("bright", "dark", "clear")]
    command = [COMMAND, "run", model, *photos, "--pixels", "0..255"]
    people = subprocess.run(command, capture_output=True, text=True)
    assert people.returncode == 1 and not re.search(r"\bnan\b", people.stdout) and people.stdout.count("%") == 6
    assert f"{photos[1]}: {model} answers with NaN or infinity" in people.stderr
    machines = subprocess.run([*command, "--json"], capture_output=True, text=True)
    answers = json.loads(machines.stdout)
    assert machines.returncode == 1 and [answer["file"] for answer in answers] == list(map(str, photos))
    assert ["error" in answer for answer in answers] == [False, True, False]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("command", ["classify", "classify --json", "folder", "camera", "embed", "search"])
def test_an_answer_of_nan_is_an_error_of_its_image_on_a_device(command, python, nan_file, tmp_path):
    model, photos = nan_file / "m.tflite", [nan_file / f"{name}.png" for name in ("bright", "dark", "clear")]
    name, *options = command.split()
    given = {"classify": photos, "folder": [nan_file], "embed": [nan_file, tmp_path / "i.npz"]}.get(name)
    if name == "camera":
        given = [tmp_path / "video.webp"]
        images = [Image.open(photo) for photo in photos]
        images[0].save(given[0], save_all=True, append_images=images[1:], lossless=True)
    vit = [example_python(python), EXAMPLE / "vit.py"]
    if name == "search":
        subprocess.run([*vit, "embed", model, nan_file, tmp_path / "i.npz", "--pixels", "0..255"], capture_output=True)
        given = [tmp_path / "i.npz", photos[1]]
    result = subprocess.run([*vit, name, model, *given, *options, "--pixels", "0..255"], capture_output=True, text=True)
    assert result.returncode == 1 and not re.search(r"(?i)\bnan\b", result.stdout), result.stdout
    assert "answers with NaN or infinity" in result.stderr and "Traceback" not in result.stderr
    assert ("frame 2" if name == "camera" else str(photos[1])) in result.stderr


# ---- One bad image among others ----


def test_a_bad_image_does_not_hide_the_answers_of_others(model_file, odd_images):
    folder, _, refused = odd_images
    bad = [folder / name for name in ("zero_bytes.jpg", "truncated.jpg", "folder.jpg", "missing.jpg")]
    photos = [bad[0], folder / "grey.png", *bad[1:], folder / "rgb.png"]
    run = subprocess.run([COMMAND, "run", model_file, *photos, "--json"], capture_output=True, text=True)
    answers = json.loads(run.stdout)
    assert run.returncode == 1 and [answer["file"] for answer in answers] == list(map(str, photos))
    assert [Path(answer["file"]) for answer in answers if "error" in answer] == bad
    assert all(refused[Path(answer["file"]).name] in answer["error"] for answer in answers if "error" in answer)
    people = subprocess.run([COMMAND, "run", model_file, *photos], capture_output=True, text=True)
    assert people.returncode == 1 and "grey.png" in people.stdout and "rgb.png" in people.stdout
    assert [str(path) in people.stderr for path in bad] == [True] * 4 and "Traceback" not in people.stderr
    example = subprocess.run(
        [sys.executable, EXAMPLE / "vit.py", "classify", model_file, *photos, "--json"], capture_output=True, text=True
    )
    theirs = [json.loads(line) for line in example.stdout.splitlines()]
    assert example.returncode == 1 and [str(path) in example.stderr for path in bad] == [True] * 4
    ours = [answer for answer in answers if "error" not in answer]
    for our, their in zip(ours, theirs, strict=True):
        assert our["file"] == their["file"]
        np.testing.assert_allclose(
            *[[entry["probability"] for entry in answer["top"]] for answer in (our, their)], atol=1e-5
        )


def test_a_bad_image_in_a_batch(model_file, odd_images, tmp_path):
    folder, _, _ = odd_images
    kv.export.export_tflite(kv.build("vit_digits", weights="pretrained"), tmp_path / "m.tflite", batch_size=3)
    photos = [folder / name for name in ("zero_bytes.jpg", "one_pixel.png", "rgb.png", "text.jpg", "one_bit.png")]
    ones, threes = (
        json.loads(subprocess.run([COMMAND, "run", path, *photos, "--json"], capture_output=True).stdout)
        for path in (model_file, tmp_path / "m.tflite")
    )
    for one, three in zip(ones, threes, strict=True):
        assert one["file"] == three["file"] and one.get("error") == three.get("error")
        for a, b in zip(one.get("top", ()), three.get("top", ()), strict=True):
            assert a["index"] == b["index"] and abs(a["probability"] - b["probability"]) < 1e-4
    assert ones[1]["top"] != ones[2]["top"]  # two of one batch
