"""What the page of examples/web reads in hostile files, against what Python reads in them."""

import base64
import json
import re

import kinds
import numpy as np
import pytest

import keras_vit_plugin as kv
from keras_vit_plugin.export.tflite.errors import InvalidModelFile
from keras_vit_plugin.export.tflite.flatbuffer import read, with_checksum, write
from keras_vit_plugin.export.tflite.metadata import guessed_answer, read_metadata
from keras_vit_plugin.export.tflite.metadata_types import MOST_OPTIONS
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata

REFUSED = "refused"
READ_BY_THE_PAGE = """async (base64) => {
    const from = (name) => import(new URL(name, location));
    const [{ readGraph }, { readMetadata, readModelFile }] = [await from("flatbuffer.js"), await from("modelfile.js")];
    const { meaningByGraph } = await from("answers.js");
    const content = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    try {
        const bytes = await readModelFile(new Blob([content]), "m.tflite");
        const graph = readGraph(bytes, "m.tflite");
        const metadata = await readMetadata(bytes, graph, "m.tflite");
        if (metadata === null) return { guess: meaningByGraph(graph.lastOperator, graph.first, false) };
        const { size, channels, resize, interpolation, rule } = metadata.preprocessing;
        const { outputs, answers, labels, parity } = metadata;
        const agreement = parity.agreement ?? parity.top1_agreement ?? null;
        return { size, channels, resize, interpolation, rule, outputs, answers, labels, agreement };
    } catch (error) {
        return { refused: error.message };
    }
}"""


@pytest.fixture(scope="module")
def page():
    """The page in Chromium, served as it is."""
    import browser

    if missing := browser.missing_tools():
        pytest.skip(f"the web page needs what is missing: {missing}")
    with browser.Browser() as opened:
        yield opened.page


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Bytes of a file of four classes for photos of 16 by 16 pixels."""
    path = tmp_path_factory.mktemp("good") / "m.tflite"
    kv.export.export_tflite(kinds.model_of("logits"), path, pixels="0..1", **kinds.KINDS["logits"][2])
    return path.read_bytes()


def read_by_page(page, content):
    """What the page reads; `"refused"` where it says so in a sentence that names the file."""
    found = page.evaluate(READ_BY_THE_PAGE, base64.b64encode(content).decode())
    if "refused" not in found:
        return found
    assert re.fullmatch(r"m\.tflite\b.{5,150}\.", found["refused"]), found
    return REFUSED


def read_by_python(content):
    """The same, of Python."""
    try:
        tree = read(content)
        metadata = read_metadata(tree)
        guess = guessed_answer(tree) if metadata is None else None
    except InvalidModelFile:
        return REFUSED
    if guess is not None:
        return {"guess": {"task": guess.task, "activation": guess.activation}}
    preprocessing, parity = metadata.preprocessing.to_dict(), metadata.parity
    return json.loads(
        json.dumps(
            {
                **preprocessing,
                "outputs": metadata.outputs,
                "answers": [answer.to_dict() for answer in metadata.answers],
                "labels": metadata.labels,
                "agreement": parity.get("agreement"),
            }
        )
    )


def check_same(page, content, expected=None):
    """Both read the same, and what is expected of them where that is given."""
    python, found = read_by_python(content), read_by_page(page, content)
    assert found == python
    assert expected is None or (found == REFUSED) == (expected == REFUSED), found


def with_text(content, text):
    """The file with other bytes as the exporter's metadata, sealed where they have a place for a hash."""
    model = read(content)
    (entry,) = [entry for entry in model.metadata if entry.name == b"keras_vit_plugin"]
    model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
    return write(model)


def changed(content, key, value):
    """The file with another value, or without a key; dots lead into dictionaries and lists."""
    stored = get_metadata(read(content))
    *path, last = key.split(".")
    inner = stored
    for name in path:
        inner = inner[int(name) if name.isdigit() else name]
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return set_metadata(content, {name: value for name, value in stored.items() if name != "content_sha256"})


ABSENT = object()
NAMES = kinds.NAMES
WRONG = [
    *(("schema", value) for value in (None, "2", "3", 4, 99, -1, 1.5, True, [2], 1 << 40)),
    *(("keras_vit_plugin", value) for value in (7, None, ["1"], {})),
    *(("labels", value) for value in ({"0": "ant"}, dict(enumerate(NAMES)), "abcd", [], NAMES[:3], [*NAMES, "eel"])),
    *(("labels", value) for value in ([1, 2, 3, 4], [*NAMES[:3], None], [[name] for name in NAMES], 4, ABSENT, False)),
    *(("outputs", value) for value in ([], None, "logits", [1], ["logits", "none"], {}, ABSENT)),
    *(("answers", value) for value in ([], None, {}, [None], [[]], "classes", [{}], ABSENT)),
    *(("answers.0.task", value) for value in ("colours", None, ABSENT, ["classes"], "constructor", "__proto__")),
    *(("answers.0.activation", value) for value in ("relu", None, 1, "toString")),
    *(("answers.0.name", value) for value in (1, None, ABSENT)),
    ("answers.0.colour", "red"),
    ("labels", ["\ud800", *NAMES[1:]]),
    *(("preprocessing", value) for value in (None, ABSENT, [], {}, "cover", [16, 16])),
    *(("preprocessing.size", value) for value in ([60000, 60000], [17, 16], [0, 16], [-16, 16], [16], [16, 16, 3])),
    *(("preprocessing.size", value) for value in ([16.5, 16], ["16", "16"], [True, True], None, "16", 16, ABSENT)),
    *(("preprocessing.resize", value) for value in ([60000, 60000], [8193, 1], [0, 0], [20], {}, 20, "20", [1e9, 1])),
    *(("preprocessing.channels", value) for value in (1, 0, 4, -3, "3", None, True, [3], 1 << 40)),
    *(("preprocessing.interpolation", value) for value in ("area", None, 1, ["bicubic"], "constructor", "Bicubic")),
    *(("preprocessing.rule", value) for value in ("fit", None, 0, ["cover"], "toString", "")),
    ("preprocessing.mean", 0.5),
    *(("parity", value) for value in (None, [], "100 %", 1, {"agreement": "1"}, {"agreement": [1]}, ABSENT)),
    *(("parity.agreement", value) for value in (True, "NaN", {}, 1e301)),
    ("parity.images", -1),
    ("parity.others", [1]),
    ("parity.others", [{"others": [{"agreement": 1}], "images": 1}]),
    ("parity.snr_db", None),
    *((key, 5) for key in ("mode", "target", "verified_on", "verified_by", "weights_sha256", "rejected")),
    *((key, ABSENT) for key in ("mode", "target", "verified_on", "weights_sha256")),
    ("mode", "int8"),  # another than in `config`
    *(("config", value) for value in (None, ABSENT, [], {}, "float32", 5, [["mode", "float32"]])),
    *(("config.mode", value) for value in ("int8", None, ABSENT, 5, ["float32"])),
    *(("config.option", value) for value in ([], {}, [1], {"a": 1})),
    ("config", {"mode": "float32", **{f"option_{i}": i for i in range(MOST_OPTIONS)}}),
    ("held_out", -1),
    ("calibrated_for", None),
]
RIGHT = [
    ("answers.0.name", "none"),  # by another name than the graph has it: the first one
    ("answers.0.activation", ABSENT),
    ("preprocessing.resize", None),
    ("preprocessing.resize", [8192, 8192]),
    *(("preprocessing." + key, ABSENT) for key in ("resize", "channels", "interpolation", "rule")),
    ("labels", None),
    ("labels", ["", "<img src=x onerror=alert(1)>", '"content_sha256": "', "\ud83d\ude00"]),
    ("parity", {}),
    *(("parity.agreement", value) for value in (None, ABSENT, 0, 1, 0.5)),
    ("parity.others", []),
    *((key, ABSENT) for key in ("verified_by", "rejected", "held_out", "calibrated_for")),
    ("something_new", {"a": [1, None]}),
    *(("config.option", value) for value in (None, "a", "", 1, -1.5, 1e308, True, False)),
    ("config", {"mode": "float32", **{f"option_{i}": i for i in range(MOST_OPTIONS - 1)}}),
    ("target", "moon"),  # where it matters it is looked up
    ("prefer", 5),  # of older ones
    ("schema", 2),
    ("schema", 1),
    ("schema", ABSENT),
]
# Of a file of schema 2, which had `mode` and `prefer`.
WRONG_IN_2 = [
    *(("prefer", value) for value in (5, None, [], ["speed"], {}, True)),
    *(("mode", value) for value in (5, None, ABSENT, [], ["float32"])),
    ("answers", ABSENT),
]
RIGHT_IN_2 = [
    *(("prefer", value) for value in (ABSENT, "speed", "accuracy", "?")),
    *(("mode", value) for value in ("int8", "?")),
    *(("config", value) for value in (5, None, {"mode": "int4"})),  # of newer ones
]


def _called(change):
    key, value = change
    return f"{key}={'ABSENT' if value is ABSENT else str(value)[:20]}"


@pytest.mark.parametrize("change", WRONG, ids=_called)
def test_what_python_refuses_the_page_refuses(change, page, good):
    check_same(page, changed(good, *change), REFUSED)


@pytest.mark.parametrize("change", RIGHT, ids=_called)
def test_what_python_reads_the_page_reads(change, page, good):
    check_same(page, changed(good, *change), "read")


@pytest.fixture(scope="module")
def second(good):
    """The file as schema 2 had it."""
    return changed(changed(changed(good, "schema", 2), "config", ABSENT), "prefer", "speed")


def test_a_file_of_schema_2_is_read(page, second):
    stored = get_metadata(read(second))
    assert stored["schema"] == 2 and "config" not in stored and stored["mode"] == "float32"
    check_same(page, second, "read")


@pytest.mark.parametrize("change", WRONG_IN_2, ids=_called)
def test_what_python_refuses_of_schema_2_the_page_refuses(change, page, second):
    check_same(page, changed(second, *change), REFUSED)


@pytest.mark.parametrize("change", RIGHT_IN_2, ids=_called)
def test_what_python_reads_of_schema_2_the_page_reads(change, page, second):
    check_same(page, changed(second, *change), "read")


HASH = b'"content_sha256": "' + b"0" * 64 + b'"'
TEXTS = {
    "nothing": b"",
    "no JSON": b'{"keras_vit_plugin": "1", ' + HASH,
    "JSON behind it": b'{"keras_vit_plugin": "1", ' + HASH + b"} {}",
    "a list": b"[{" + HASH + b"}]",
    "a text": b'"keras_vit_plugin"',
    "a number": b"1",
    "NaN": b'{"keras_vit_plugin": NaN, ' + HASH + b"}",
    "no UTF-8": b'{"keras_vit_plugin": "\xff", ' + HASH + b"}",
    "nothing but a hash": b"{" + HASH + b"}",
    "no hash": b'{"keras_vit_plugin": "1"}',
    "a short hash": b'{"keras_vit_plugin": "1", "content_sha256": "00"}',
    "deep": b'{"keras_vit_plugin": "1", ' + HASH + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number beyond all": b'{"keras_vit_plugin": "1", ' + HASH + b', "x": [1e999]}',
    "half a character": b'{"keras_vit_plugin": "1", ' + HASH + b', "x": {"\\ud800": 1}}',
    "a byte order mark": b'\xef\xbb\xbf{"keras_vit_plugin": "1", ' + HASH + b"}",
    "too long": b'{"keras_vit_plugin": "1", ' + HASH + b"}" + b" " * (1 << 22),
    "a long number": b'{"keras_vit_plugin": "1", ' + HASH + b', "schema": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("text", TEXTS)
def test_metadata_that_is_no_object_is_refused(text, page, good):
    check_same(page, with_text(good, TEXTS[text]), REFUSED)


# Which metadata and which seal count


def _second_entry(good, first):
    """The file with two entries of the name; the other one has other labels."""
    model = read(good)
    other = get_metadata(model) | {"labels": NAMES[::-1]}
    (entry,) = [entry for entry in model.metadata if entry.name == b"keras_vit_plugin"]
    added = type(entry)()
    added.name, added.buffer = entry.name, len(model.buffers)
    model.buffers.append(type(model.buffers[0])())
    model.buffers[-1].data = np.frombuffer(json.dumps(other).encode(), np.uint8)
    model.metadata = [added, *model.metadata] if first else [*model.metadata, added]
    return write(model)


def _hash_in_a_name(good):
    """The file with the place of a hash in the name of a tensor."""
    model = read(good)
    model.subgraphs[0].tensors[0].name = HASH
    return write(model)


def _renamed(good):
    model = read(good)
    (entry,) = [entry for entry in model.metadata if entry.name == b"keras_vit_plugin"]
    entry.name = b"keras_vit_plugins"
    return write(model)


def _hash(content):
    return re.search(rb'"content_sha256": "(\w{64})"', content)[1]


def _answers_twice(good):
    stored = get_metadata(read(good))
    return changed(good, "answers", stored["answers"] * 2)


STORED = b'{"keras_vit_plugin": "9.9", "labels": ["x"], ' + HASH + b"}"
FILES = {
    "as exported": lambda good: good,
    "two entries, the first new": lambda good: _second_entry(good, True),
    "two entries, the last new": lambda good: _second_entry(good, False),
    "an answer twice": _answers_twice,
    "an empty object": lambda good: with_text(good, b"{}"),
    "a hash in a name": _hash_in_a_name,
    "another name of the entry": _renamed,
    "metadata of another file behind": lambda good: good + STORED,
    "metadata of another file behind, sealed": lambda good: with_checksum(good + STORED),
    "a whole file behind": lambda good: good + good,
    "zeros behind": lambda good: good + bytes(100),
    "zeros behind, sealed": lambda good: with_checksum(good + bytes(100)),
    "another hash": lambda good: good.replace(_hash(good), b"0" * 64),
    "a hash in capitals": lambda good: good.replace(_hash(good), _hash(good).upper()),
    "no hash": lambda good: good.replace(b"content_sha256", b"content_sha255"),
    "another blank in the hash": lambda good: good.replace(b'content_sha256": "', b'content_sha256":  '),
    "no mark": lambda good: with_checksum(good.replace(b'{"keras_vit_plugin":', b'{"keras_vit_plugim":')),
    "empty": lambda good: b"",
    "another identifier": lambda good: good[:4] + b"TFL4" + good[8:],
    "twice the identifier": lambda good: good[:8],
}


@pytest.mark.parametrize("name", FILES)
def test_python_and_the_page_agree_which_metadata_and_which_hash_count(name, page, good):
    check_same(page, FILES[name](good))


@pytest.mark.long
def test_the_page_and_python_read_the_kinds_of_output_alike(page, tmp_path):
    for kind, (_, _, options) in kinds.KINDS.items():
        path = tmp_path / f"{kind}.tflite"
        kv.export.export_tflite(kinds.model_of(kind), path, pixels="0..1", **options)
        check_same(page, path.read_bytes(), "read")
        (tmp_path / kind).mkdir()
        check_same(page, kinds.without_metadata(path, tmp_path / kind).read_bytes(), "read")
        if kind not in ("embedding", "features"):
            older = kinds.of_older_version(path, tmp_path / kind).read_bytes()
            check_same(page, older, "read")


def test_cut_and_damaged_files_are_refused_by_both(page, good):
    generator = np.random.default_rng(0)
    for length in [*range(0, 64, 7), *generator.integers(64, len(good), 20)]:
        check_same(page, good[:length], REFUSED)
    for place in generator.integers(0, len(good), 40):
        damaged = bytearray(good)
        damaged[place] ^= 1 << int(generator.integers(8))
        check_same(page, bytes(damaged), REFUSED)


def test_damaged_tables_of_a_file_without_a_hash_are_read_within_the_file(page, good, tmp_path):
    """The page says a sentence, or reads what Python reads; it neither hangs nor leaves the bytes."""
    (tmp_path / "m.tflite").write_bytes(good)
    foreign = kinds.without_metadata(tmp_path / "m.tflite", tmp_path).read_bytes()
    generator = np.random.default_rng(1)
    read_by_both = 0
    for _ in range(150):
        damaged = np.frombuffer(foreign, np.uint8).copy()
        places = generator.integers(8, len(foreign), 3)
        damaged[places] = generator.choice([0, 1, 127, 128, 255], 3)
        python, found = read_by_python(damaged.tobytes()), read_by_page(page, damaged.tobytes())
        if REFUSED not in (python, found):
            read_by_both += 1
            assert found == python
    assert read_by_both > 10


def test_a_circle_of_operators_ends(page, good):
    model = read(good)
    graph = model.subgraphs[0]
    for code in model.operatorCodes:
        code.builtinCode = 22  # RESHAPE
    last = graph.operators[-1]
    last.inputs = list(last.outputs)
    model.metadata = []
    assert read_by_page(page, write(model)) == REFUSED


def test_vectors_that_are_stored_once_and_read_often_are_no_bomb(page, good):
    """Thousands of operators that share one vector of a million inputs."""
    model = read(good)
    graph = model.subgraphs[0]
    graph.operators[0].inputs = np.zeros(8000, np.int32)
    graph.operators = [graph.operators[0]] * 4000
    model.metadata = []
    content = write(model)
    assert len(content) < 1 << 20
    assert read_by_page(page, content) == REFUSED


@pytest.mark.parametrize("bad", ["\x00\x07\x1b[31m\u202egnp.exe\u2066", "a\u2028b\u2029c\x85d\nE"])
def test_labels_keep_nothing_that_a_page_would_obey(bad, page, good):
    found = read_by_page(page, changed(good, "labels", [bad, "b" * 10_000, "c", "d"]))["labels"]
    assert found[0] == re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", " ", bad)
    assert len(found[1]) <= 501 and found[2:] == ["c", "d"]
