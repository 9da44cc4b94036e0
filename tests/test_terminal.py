"""What the `keras-vit` command prints: texts of others reach a terminal as text, whatever they hold."""

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import kinds
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin import cli
from keras_vit_plugin.cli import tables, terminal
from keras_vit_plugin.cli.run import _photos
from keras_vit_plugin.export import InvalidModelFile, Tolerance, export_tflite
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.inspect import FileReport
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata
from keras_vit_plugin.export.verification.debug import DebugReport
from keras_vit_plugin.export.verification.op_error import OpError
from keras_vit_plugin.export.verification.parity import ParityReport

MARKUP = "[unknown] [red] :smile: "  # each is text
ORDERS = "\x1b[2J\x1b]52;c;aGk=\x07\x08\x7f\x9b2J\r\u202e\u2066\u2028"  # a terminal obeys these, or shows other text
HOSTILE = MARKUP + "[/] [link=x] " + ORDERS
IN_A_NAME = MARKUP + ORDERS  # of a file
BYTE_IN_A_NAME = b"byte \x9b2J"  # of a file: no UTF-8
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def assert_text(printed, times=1):
    """Nothing in bytes is an order, and the hostile text is there, its markup whole."""
    text = printed.decode("utf-8")  # which the bytes of no UTF-8 would not pass
    assert not OBEYED.findall(text), text
    assert text.count(MARKUP.strip()) >= times, text


@pytest.fixture
def command(monkeypatch):
    """`command(*arguments)`: the bytes on standard output and standard error together, and the exit code."""
    monkeypatch.setattr(cli, "silence_native_stderr", contextlib.nullcontext)  # it would print past the runner
    monkeypatch.setenv("COLUMNS", "2000")

    def run(*arguments):
        result = CliRunner().invoke(cli.main, list(map(str, arguments)))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output_bytes, result.exit_code

    return run


@pytest.fixture(scope="module")
def hostile_files(tmp_path_factory):
    """A folder of hostile name with a file whose metadata are hostile, photos of hostile names, and a label file."""
    folder = tmp_path_factory.mktemp("hostile") / IN_A_NAME
    folder.mkdir()
    export_tflite(kinds.model_of("logits"), folder / "m.tflite", pixels="0..1", **kinds.KINDS["logits"][2])
    content = (folder / "m.tflite").read_bytes()
    stored = get_metadata(read(content))
    texts = "keras_vit_plugin", "verified_on", "verified_by", "rejected", "weights_sha256"
    hostile = dict.fromkeys(texts, HOSTILE) | {"labels": [HOSTILE] * 4}
    (folder / "all.tflite").write_bytes(set_metadata(content, stored | hostile))
    (folder / "labels.tflite").write_bytes(set_metadata(content, stored | {"labels": [HOSTILE] * 4}))
    Image.fromarray(kinds.photos(1)[0]).save(folder / "p.png")
    (folder / "p.png").rename(folder / f"{IN_A_NAME}.png")
    (folder / "no photo.png").write_bytes(b"")
    (folder / "labels.txt").write_text("\n".join([HOSTILE.replace("\r", "")] * 4), newline="")
    return folder


def test_run(hostile_files, command):
    photo, bad = hostile_files / f"{IN_A_NAME}.png", hostile_files / "no photo.png"
    printed, code = command("run", hostile_files / "labels.tflite", photo)
    assert_text(printed, 6)  # twice in the path, and a class name in four rows
    assert code == 0
    printed, code = command("run", hostile_files / "m.tflite", photo, bad, "--labels", hostile_files / "labels.txt")
    assert_text(printed, 7)
    assert code == 1
    printed, code = command("run", hostile_files / "labels.tflite", photo, bad, "--json")
    assert printed.isascii() and not OBEYED.findall(printed.decode())
    (told, refused), _ = json.JSONDecoder().raw_decode(printed.decode())
    assert code == 1 and told["file"] == str(photo) and told["top"][0]["label"] == HOSTILE and "error" in refused


def test_inspect(hostile_files, command, monkeypatch):
    assert_text(command("inspect", hostile_files / "all.tflite")[0], 9)
    assert_text(command("inspect", hostile_files / "labels.tflite", "--json")[0].replace(b"\\u", b""), 0)
    report = FileReport(
        *(
            1,
            HOSTILE,
            {HOSTILE: 1},
            {},
            HOSTILE,
            [{"dtype": HOSTILE, "shape": HOSTILE}],
            [{"dtype": HOSTILE, "shape": HOSTILE}],
        ),
        *(0, 0, 4, None, {HOSTILE: 1}, HOSTILE, {}),
    )
    monkeypatch.setattr(kv.export, "inspect", lambda *_: report)
    assert_text(command("inspect", "m.tflite")[0], 8)


@pytest.mark.parametrize("changed", [{"labels": [1]}, {"weights_sha256": 0}, {"outputs": [1.5]}, {"mode": ["x"]}])
def test_metadata_of_others_are_refused_with_the_files_name(changed, hostile_files, command, tmp_path):
    content = (hostile_files / "m.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(set_metadata(content, get_metadata(read(content)) | changed))
    printed, code = command("inspect", tmp_path / "m.tflite")
    assert b"fault of keras-vit" not in printed and (code == 0 or b"m.tflite: its metadata" in printed)
    model = kinds.model_of("logits")
    with contextlib.suppress(InvalidModelFile):
        kv.export.wanted_of(tmp_path / "m.tflite", kv.export.verify(model, content, kinds.photos(4), pixels="0..1"))


def test_verify(hostile_files, command, monkeypatch):
    def verify(*_, **__):
        warnings.warn(HOSTILE, stacklevel=2)
        return ParityReport(4, 0.5, 1.0, 1.0, name=HOSTILE, others=(ParityReport(4, 0.5, 1.0, 1.0, name=HOSTILE),))

    monkeypatch.setattr("keras_vit_plugin.open_model.open_model", lambda *_: None)
    monkeypatch.setattr(kv.export, "verify", verify)
    monkeypatch.setattr(kv.export, "wanted_of", lambda *_: Tolerance(1.0, 99))
    printed, code = command("verify", "model", hostile_files / "m.tflite", "--images", ".")
    assert_text(printed, 6)
    assert code == 1


def test_export(hostile_files, command, tmp_path):
    out = tmp_path / f"{IN_A_NAME}.tflite"
    options = ("--labels", hostile_files / "ten.txt", "--explain", "--report", tmp_path / f"{IN_A_NAME}.html")
    names = [HOSTILE.replace("\r", "").replace("\x7f", "")] * 10
    (hostile_files / "ten.txt").write_text("\n".join(names), newline="")
    printed, code = command("export", "vit_digits", out, *options)
    assert_text(printed, 2)
    printed, code = command("export", "vit_digits", tmp_path / "none" / IN_A_NAME)
    assert_text(printed)
    assert code == 1


def test_tables_of_texts(command, capfdbinary):
    with contextlib.redirect_stdout(open(os.dup(1), "w")) as stream:  # noqa: SIM115
        candidate = SimpleNamespace(
            name=HOSTILE, size_bytes=1, agreement=1, agreement_kept=1, top1_drop=1, relative_error=1, snr_db=1
        )
        tables.print_candidates(SimpleNamespace(tried=[candidate], choice=HOSTILE))
        tables.print_rewrites(SimpleNamespace(changes={HOSTILE: HOSTILE, "a": ""}, reasons={"a": HOSTILE}))
        tables.print_answer({"file": HOSTILE, "values": [{"label": HOSTILE, "value": 1.0}]})
        op = OpError(HOSTILE, HOSTILE, HOSTILE, "int8", 1.0, 1.0, 0.0, 1.0, 0.0, "rounding")
        tables.print_debug(HOSTILE, DebugReport("int8", 1, 1.0, (op,)))
        stream.flush()
    assert_text(capfdbinary.readouterr().out, 12)


def test_demo(command, monkeypatch):
    parity = ParityReport(4, 0.5, 1.0, 1.0, 0.5, 0.5)
    row = SimpleNamespace(mode=HOSTILE, size_bytes=1, parity=parity, median_ms=1.0)
    monkeypatch.setattr("keras_vit_plugin.cli.demo.run_demo", lambda output: ([row], 0.5, output))
    assert_text(command("demo", "--output", IN_A_NAME)[0], 2)


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("list", HOSTILE, HOSTILE),
        ("run", f"--{HOSTILE}"),
        ("run", "m.tflite", "p.png", "--threads", HOSTILE),
        ("inspect", f"/tmp/{HOSTILE}"),
        ("export", HOSTILE, "m.tflite"),
        ("export", "vit_digits", "m.tflite", "--mean", HOSTILE),
        ("export", "vit_digits", "m.tflite", "--quantize", HOSTILE),
        ("export", "vit_digits", "m.tflite", "--labels", HOSTILE),
        ("verify", HOSTILE, "m.tflite", "--images", "."),
        ("debug", HOSTILE, "m.tflite"),
    ],
)
def test_what_is_refused_is_quoted_as_text(arguments, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed, code = command(*arguments)
    assert code in (1, 2) and b"Traceback" not in printed
    assert not OBEYED.findall(printed.decode()), printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_of_files_that_are_no_text(encoding, hostile_files, tmp_path):
    """And what the terminal's encoding lacks. The command runs as its users run it."""
    photo = os.path.join(os.fsencode(tmp_path), BYTE_IN_A_NAME + b".png")
    Path(os.fsdecode(photo)).write_bytes((hostile_files / f"{IN_A_NAME}.png").read_bytes())
    missing = photo.replace(b"byte", b"none")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "2000"}
    for options in ([], ["--json"]):
        result = subprocess.run(
            [Path(sys.executable).with_name("keras-vit"), "run", hostile_files / "m.tflite", photo, missing, *options],
            capture_output=True,
            env=environment,
        )
        printed = result.stdout + result.stderr
        assert result.returncode == 1 and b"Traceback" not in printed and b"can't encode" not in printed, printed
        assert b"\\udc9b2J.png" in result.stdout and b"\x9b" not in printed and b"\x1b" not in printed
        if options:
            assert [os.fsencode(each["file"]) for each in json.loads(result.stdout)] == [photo, missing]


def test_json_is_json():
    assert json.loads(terminal.as_json({"a": [np.inf, float("nan"), 1.5], "b": "\x7f\ud800"})) == {
        "a": [None, None, 1.5],
        "b": "\x7f\ud800",
    }


@pytest.mark.parametrize("values", [[], [1], [{"a": [1, {"b": 2}]}, "x\ny", []]])
def test_an_array_is_printed_value_by_value_as_at_once(values, capsys):
    terminal.print_json_array(iter(values))
    assert capsys.readouterr().out == json.dumps(values, indent=2) + "\n"


def test_an_array_is_not_whole_after_an_error(capsys):
    def fails():
        yield 1
        raise ValueError

    with pytest.raises(ValueError):
        terminal.print_json_array(fails())
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)


def test_photos_are_listed_once_and_not_kept(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (1, 1)).save(tmp_path / "photos" / name / "p.png")
    (tmp_path / "empty").mkdir()
    photos = _photos(["x.png", tmp_path / "photos", tmp_path / "empty"])
    assert iter(photos) is photos
    assert list(photos) == [
        *("x.png", tmp_path / "photos" / "a" / "p.png", tmp_path / "photos" / "b" / "p.png", tmp_path / "empty")
    ]


def test_there_is_one_door():
    paths = {*(REPOSITORY / "keras_vit_plugin" / "cli").glob("*.py")} - {Path(terminal.__file__)}
    assert len(paths) > 10
    for path in paths:
        content = path.read_text(encoding="utf-8")
        assert not re.findall(r"import rich|from rich|echo\(|(?<!\w)print\(|stdout\.write|stderr\.write", content), path


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_an_output_that_is_full_is_named(hostile_files):
    code = "from keras_vit_plugin.cli import main; main()"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code, "inspect", hostile_files / "m.tflite"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "Error: Standard output cannot be written: No space left on device." in done.stderr
