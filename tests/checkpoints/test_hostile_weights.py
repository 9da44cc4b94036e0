"""Weights and models that read other files, become gigabytes, or are no models: refused with a sentence."""

import itertools
import json
import math
import os
import struct
import zipfile
import zlib

import h5py
import hostile_weights
import keras
import numpy as np
import pytest
from conftest import run_python
from hostile_weights import MODEL_FILES, WEIGHT_FILES, WEIGHTS, load, replaced, write
from safetensors.numpy import save_file
from test_checkpoints import timm_tensors

import keras_vit_plugin as kv
from keras_vit_plugin.open_model import open_model


def refused(path, match):
    """Asserts that loading is refused in one sentence that names the file."""
    with pytest.raises(ValueError, match=match) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1000
    return str(error.value)


# ---- Other files of the machine ----


def external(secret):
    def change(h5, name):
        shape = h5[name].shape
        del h5[name]
        h5.create_dataset(name, shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    return change


def virtual(secret):
    def change(h5, name):
        shape = h5[name].shape
        del h5[name]
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", shape)
        h5.create_virtual_dataset(name, layout)

    return change


def endless(secret):
    """A virtual dataset whose size is that of its source: asking for its shape opens a pipe, which waits forever."""
    pipe = secret.with_name("pipe")
    pipe.exists() or os.mkfifo(pipe)

    def change(h5, name):
        del h5[name]
        layout = h5py.VirtualLayout((4,), "f4", maxshape=(None,))
        source = h5py.VirtualSource(str(pipe), "x", (4,), "f4", maxshape=(None,))
        layout[0 : h5py.h5s.UNLIMITED : 1] = source[0 : h5py.h5s.UNLIMITED : 1]
        h5.create_virtual_dataset(name, layout)

    return change


def link(kind):
    def make(secret):
        def change(h5, name):
            value = h5[name][()]
            del h5[name]
            h5["elsewhere"] = value
            h5[name] = h5py.ExternalLink(str(secret), "x") if kind == "external" else h5py.SoftLink("/elsewhere")

        return change

    return make


def group_link(secret):
    def change(h5, name):
        group = name.rsplit("/", 1)[0]
        del h5[group]
        h5[group] = h5py.ExternalLink(str(secret), "/")

    return change


LEADING_OUT = {
    "external": (external, "takes its values from another file"),
    "virtual": (virtual, "is virtual: it takes its values from other files"),
    "endless": (endless, "is virtual: it takes its values from other files"),
    "external link": (link("external"), "is a link, which could lead to another file"),
    "soft link": (link("soft"), "is a link, which could lead to another file"),
    "link of a group": (group_link, "is a link, which could lead to another file"),
}


@pytest.mark.parametrize("how", LEADING_OUT)
@pytest.mark.parametrize("name", WEIGHT_FILES + MODEL_FILES)
def test_no_other_file_is_read(how, name, tmp_path):
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as h5:
        h5["x"] = np.full(10_000, 7, np.float32)
    change, match = LEADING_OUT[how]
    refused(write(tmp_path / name, change(secret)), match)


@pytest.mark.parametrize("index", ["model.weights.json", "model.safetensors.index.json"])
def test_a_folder_names_no_file_outside(index, tmp_path):
    path = write(tmp_path / "kerashub_preset", lambda h5, name: None)
    (path / index).write_text(json.dumps({"weight_map": {"/vars": ["../secret.h5"]}}))
    refused(path, f"its {index} names '../secret.h5', which is no file of the folder")


# ---- Other things than numbers ----


def committed(h5, name):
    del h5[name]
    h5[name] = np.dtype("f4")


def second_name(h5, name):
    h5["again"] = h5[name]


def circle(h5, name):
    h5["circle"] = h5["/"]


def reference_attribute(h5, name):
    h5.attrs["x"] = h5[name].ref


def list_attribute(h5, name):
    h5.attrs.create("x", ["a", "b"], dtype=h5py.string_dtype())


def bit_field(h5, name):
    del h5[name]
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(h5.id, b"bits", h5py.h5t.STD_B32LE, space).write(space, space, np.zeros(4, np.uint32))


def array_type(h5, name):
    del h5[name]
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(h5.id, name.encode(), h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (2,)), space)


def text(h5, name):
    replaced(["a", "b"])(h5, name)


NOT_NUMBERS = {
    "text": (replaced([b"a", b"b"]), "holds text, not numbers"),
    "text of any length": (text, "holds text, not numbers"),
    "records": (replaced(np.zeros(3, [("a", "f4")])), "holds records, not numbers"),
    "complex": (replaced(np.zeros(3, "c8")), "holds (records|an unknown type), not numbers"),
    "lists": (
        lambda h5, name: replaced(None, shape=(3,), dtype=h5py.vlen_dtype("f4"))(h5, name),
        "holds lists of any length, not numbers",
    ),
    "opaque": (replaced(np.zeros(3, "V2")), "holds opaque bytes, not numbers"),
    "enumeration": (
        replaced(np.zeros(3, "i1"), dtype=h5py.enum_dtype({"a": 0, "b": 1})),
        "holds an enumeration, not numbers",
    ),
    "references": (
        lambda h5, name: replaced(np.array([h5.ref], h5py.ref_dtype))(h5, name),
        "holds references, not numbers",
    ),
    "arrays": (array_type, "holds arrays, not numbers"),
    "bit field": (bit_field, "holds bit fields, not numbers"),
    "empty": (replaced(h5py.Empty("f4")), "is empty"),
    "committed type": (committed, "is neither a group nor a dataset"),
    "second name": (second_name, "has a second name"),
    "circle": (circle, "has a second name"),
    "attribute": (reference_attribute, "attribute 'x' .* is neither numbers nor text"),
    "list attribute": (list_attribute, "attribute 'x' .* is a list of texts"),
    "other filter": (replaced(np.ones((9, 9), "f4"), compression="lzf"), "compressed by other means than gzip"),
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
@pytest.mark.parametrize("name", ["m.weights.h5", "whole.keras", "whole.h5"])
def test_what_is_no_number_is_refused(kind, name, tmp_path):
    change, match = NOT_NUMBERS[kind]
    refused(write(tmp_path / name, change), match)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_integers_are_no_weights_of_a_whole_model(name, tmp_path):
    def change(h5, where):
        replaced(np.ones(h5[where].shape, np.int8))(h5, where)

    refused(write(tmp_path / name, change), "is int8, the model has no weight of shape")


def test_integers_that_a_whole_model_has_are_read(tmp_path):
    model = hostile_weights.plain_model()
    model.quantize("int8")
    model.save(tmp_path / "whole.keras")
    (kernel,) = (v for v in load(tmp_path / "whole.keras").variables if v.dtype == "int8")
    np.testing.assert_array_equal(kernel, next(v for v in model.variables if v.dtype == "int8"))


# ---- Gigabytes ----

MB = 2**20
LARGE = 320 * MB
MEASURED = """
import resource, sys
sys.path[:0] = ["tests", "tests/checkpoints"]
from pathlib import Path
import hostile_weights
import keras
import keras_vit_plugin as kv
from keras_vit_plugin.open_model import open_model
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for name in ("w.npz", "m.keras", "whole.keras", "whole.h5"):
    try:
        hostile_weights.load(Path(sys.argv[1]) / "warm" / name)
    except ValueError:
        pass
for folder in sorted(Path(sys.argv[1]).glob("large*")):
    (path,) = folder.iterdir()
    before = peak()
    try:
        hostile_weights.load(path)
        said = "loaded"
    except ValueError as error:
        said = str(error).replace("\\n", " ")
    print(f"{folder.name}|{path}|{peak() - before:.0f}|{said}")
"""


def fill(h5, name):
    del h5[name]
    h5.create_dataset(name, (10_000, 8_000), "f4", fillvalue=1)


def extra_fill(h5, name):
    h5.create_dataset("layers/more/vars/0", (10_000, 8_000), "f4", fillvalue=1, chunks=(10, 16))


def partly_written(h5, name):
    del h5[name]
    h5.create_dataset(name, (10_000, 8_000), "f4", chunks=(100, 100))[:9] = 1


def zipped_zeros(h5, name):
    del h5[name]
    dataset = h5.create_dataset(name, (75_000, 1_000), "f4", chunks=(15_000, 1_000), compression=1)
    dataset[:15_000] = 0
    content = dataset.id.read_direct_chunk((0, 0))[1]
    for row in range(15_000, 75_000, 15_000):
        dataset.id.write_direct_chunk((row, 0), content)


def wide_chunk(h5, name):
    del h5[name]
    dataset = h5.create_dataset(name, (4,), "f4", maxshape=(None,), chunks=(LARGE // 4,), compression=1)
    dataset[:] = 0


def long_chunk(h5, name):
    shape = h5[name].shape
    del h5[name]
    chunks = (MB // 4 // math.prod(shape[1:]), *shape[1:])
    dataset = h5.create_dataset(name, shape, "f4", maxshape=(None, *shape[1:]), chunks=chunks, compression=1)
    packer = zlib.compressobj(1)
    pieces = [packer.compress(bytes(MB)) for _ in range(LARGE // MB)]
    dataset.id.write_direct_chunk((0,) * len(shape), b"".join([*pieces, packer.flush()]))


def write_large(folder):
    """Small files of many kinds, each alone in a folder."""
    count = itertools.count()

    def place(name):
        own = folder / f"large{next(count):02}"
        own.mkdir()
        return own / name

    for name in ("m.weights.h5", "whole.keras", "whole.h5"):
        for change in (fill, extra_fill, partly_written, zipped_zeros, wide_chunk, long_chunk):
            write(place(name), change)
    write(place("m.keras"), fill)
    tensors = {f"{name}.npy": hostile_weights.npy(value) for name, value in timm_tensors("vit_test").items()}
    header = hostile_weights.npy(np.zeros((0, 32), np.float32)).replace(b"(0, 32)", b"(%d, 32)" % (LARGE // 128))
    for name in ("extra.npy", "pos_embed.npy"):
        rest = {each: content for each, content in tensors.items() if each != name}
        hostile_weights.add_zeros(place("w.npz"), rest, name, LARGE)
    hostile_weights.write_members(place("w.npz"), {**tensors, "norm.weight.npy": header})
    for name in ("m.keras", "whole.keras"):
        whole = hostile_weights.read_members(write(folder / name, lambda h5, name: None))
        for member in (WEIGHTS, "config.json"):
            rest = {each: content for each, content in whole.items() if each != member}
            hostile_weights.add_zeros(place(name), rest, member, LARGE)
            path = place(name)
            hostile_weights.add_zeros(path, rest, member, LARGE)
            hostile_weights.understate(path, member)
        deep = {**whole, "config.json": b"[" * 15_000_000}
        hostile_weights.write_members(place(name), deep)
        (folder / name).unlink()
    path = place("whole.keras")
    hostile_weights.plain_model().save(path)
    members = hostile_weights.read_members(path)
    config = members["config.json"].replace(b'"units": 3', b'"units": 400000')
    hostile_weights.write_members(path, {**members, "config.json": config})


@pytest.mark.long
def test_a_small_file_does_not_become_large(tmp_path):
    (tmp_path / "warm").mkdir()
    for name in ("m.keras", "whole.keras", "whole.h5"):
        write(tmp_path / "warm" / name, lambda h5, name: None)
    np.savez(tmp_path / "warm" / "w.npz", **timm_tensors("vit_test"))
    write_large(tmp_path)
    lines = [line.split("|", 3) for line in run_python(MEASURED, tmp_path).splitlines() if line.startswith("large")]
    assert len(lines) == 33
    wrong = [line for line in lines if float(line[2]) > 120 or line[1] not in line[3]]
    assert not wrong


def test_optimizer_states_are_not_read(tmp_path):
    """They may be of any size: weights of a model in training are half as large again."""

    def change(h5, name):
        h5["optimizer/vars/9"] = np.full((3, 3), np.nan, np.float32)

    model = kv.build("vit_test", weights=write(tmp_path / "m.weights.h5", change))
    assert model.count_params()


def test_compressed_weights_are_read(tmp_path):
    """gzip within HDF5, and a `.keras` that was packed again."""
    values = {}

    def change(h5, name):
        values[name] = np.random.default_rng(0).normal(size=h5[name].shape).astype(np.float32)
        options = {"compression": 9, "shuffle": True, "fletcher32": True, "chunks": h5[name].shape}
        replaced(values[name], **options)(h5, name)

    for name in ("m.weights.h5", "m.keras", "whole.keras"):
        path = write(tmp_path / name, change)
        if path.suffix == ".keras":
            hostile_weights.write_members(path, hostile_weights.read_members(path), zipfile.ZIP_DEFLATED)
        model = load(path)
        (value,) = values.values()
        assert any(np.array_equal(value, weight) for weight in model.weights)


# ---- No files, no archives, no configs ----

CONFIGS = {
    "list": (b"[1, 2]", "config.json is JSON, but no object"),
    "not UTF-8": (b"\xff\xfe\xfa{", "config.json is no JSON"),
    "not JSON": (b"{'a': 1}", "config.json is no JSON"),
    "deep": (b'{"a":' * 50_000, "config.json is no JSON"),
    "digits": (b'{"a": ' + b"9" * 10_000 + b"}", "config.json is no JSON"),
    "other types": (b'{"image_shape": "wide", "patch_size": {"a": 1}}', "cannot be"),
    "no sizes": (b'{"image_shape": [0, 1, NaN], "patch_size": [0, "a"]}', "cannot be"),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", [name for name in WEIGHT_FILES + MODEL_FILES if "h5" not in name])
def test_configs_that_are_none(kind, name, tmp_path):
    path = write(tmp_path / name, lambda h5, name: None)
    content, match = CONFIGS[kind]
    if path.is_dir():
        (path / "config.json").write_bytes(content)
    else:
        hostile_weights.write_members(path, {**hostile_weights.read_members(path), "config.json": content})
    refused(path, match)


@pytest.mark.parametrize(
    "name", ["w.npz", "w.safetensors", "m.h5", "m.weights.h5", "m.keras", "whole.h5", "whole.keras"]
)
def test_a_pipe_is_no_file(name, tmp_path):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, "no regular file")


@pytest.mark.parametrize(
    "name, member",
    [("preset", "config.json"), ("preset", WEIGHTS)]
    + [(name, member) for name in MODEL_FILES[2:] for member in ("config.json", WEIGHTS, "task.json")],
)
def test_a_pipe_in_a_folder(name, member, tmp_path):
    path = write(tmp_path / name, lambda h5, name: None)
    (path / member).unlink(missing_ok=True)
    os.mkfifo(path / member)
    refused(path, "no regular file|has no config.json|has no file config.json")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
def test_a_folder_is_no_file(name, tmp_path):
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "no regular file")


def encrypted(path):
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["w.npz", "m.keras", "whole.keras"])
def test_archives_of_other_kinds(name, tmp_path):
    path = tmp_path / name
    if name == "w.npz":
        np.savez(path, **timm_tensors("vit_test"))
    else:
        write(path, lambda h5, name: None)
    members = hostile_weights.read_members(path)
    encrypted(path)
    refused(path, "is encrypted")
    hostile_weights.write_members(path, members, zipfile.ZIP_BZIP2)
    refused(path, "is neither stored nor deflated")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        for each in [*members, *members]:
            archive.writestr(each, members[each])
    refused(path, "two members of one name")


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00aa"])
def test_members_without_a_header(content, tmp_path):
    path = tmp_path / "w.npz"
    hostile_weights.write_members(path, {"cls_token.npy": content})
    refused(path, "member 'cls_token.npy' has no header of an array")


def test_a_member_whose_deflated_bytes_are_damaged(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, cls_token=np.zeros(999, np.float32))
    content = bytearray(path.read_bytes())
    place = content.index(b"cls_token.npy") + len("cls_token.npy") + int.from_bytes(content[28:30], "little")
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    refused(path, "is damaged or incomplete: .*decompressing data")


def test_a_member_is_as_long_as_its_header_says(tmp_path):
    path = tmp_path / "w.npz"
    hostile_weights.write_members(path, {"cls_token.npy": hostile_weights.npy(np.zeros(99, np.float32))[:-4]})
    refused(path, r"member 'cls_token.npy' of \d+ bytes holds no \(99,\) of float32")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "m.weights.h5", "m.keras", "whole.keras", "whole.h5"])
def test_changed_bytes(name, tmp_path):
    """Nothing but a sentence with the file's name, or weights."""
    path = tmp_path / name
    if name.startswith("w."):
        (np.savez if name == "w.npz" else lambda path, **tensors: save_file(tensors, path))(
            path, **timm_tensors("vit_test")
        )
    else:
        write(path, lambda h5, name: None)
    content = path.read_bytes()
    members = hostile_weights.read_members(path) if path.suffix in (".npz", ".keras") else None
    generator = np.random.default_rng(0)
    outcomes = set()
    for turn in range(10):
        if members and turn % 2:  # with the right checksum, so that it gets further
            member = list(members)[turn // 2 % min(3, len(members))]
            hostile_weights.write_members(path, {**members, member: changed(members[member], generator)})
        else:
            path.write_bytes(changed(content, generator))
        try:
            load(path)
            outcomes.add("loaded")
        except ValueError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes


def changed(content, generator):
    content = bytearray(content)
    for place in [*generator.integers(0, len(content), 3), generator.integers(0, min(len(content), 800))]:
        content[place] = generator.integers(256)
    return bytes(content)


def test_a_list_of_texts_that_are_one_text_is_not_read(tmp_path):
    """Names that all refer to one of a megabyte become 0.4 GB, which takes twice as much to read."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        names = np.array(["X" * 1_000_000] + [f"y{number:04}" for number in range(399)], object)
        file.create_group("g").attrs.create("weight_names", names, dtype=h5py.string_dtype())
    content = bytearray((tmp_path / "m.h5").read_bytes())
    at = 0
    while True:  # the first reference: the text's length, the address of a heap and the place in it
        at = content.index(struct.pack("<I", 1_000_000), at + 1)
        (address,) = struct.unpack("<Q", content[at + 4 : at + 12])
        if content[address : address + 4] == b"GCOL" and content[at + 16 : at + 20] == struct.pack("<I", 5):
            break
    content[at : at + 16 * 400] = bytes(content[at : at + 16]) * 400
    (tmp_path / "m.h5").write_bytes(content)
    with pytest.raises(ValueError, match="m.h5' cannot be loaded as a Keras model: its lists of names cannot be read"):
        open_model(tmp_path / "m.h5")


def test_groups_in_groups_have_an_end(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w", libver="latest") as file:
        group = file.id
        for _ in range(4000):
            group = h5py.h5g.create(group, b"a")
    with pytest.raises(ValueError, match="in it lies in more than 64 groups"):
        kv.checkpoints.load_weights(kv.build("vit_test"), tmp_path / "m.weights.h5")
    (tmp_path / "m.weights.h5").rename(tmp_path / "m.h5")
    with pytest.raises(ValueError, match="in it lies in more than 64 groups") as error:
        open_model(tmp_path / "m.h5")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("nested", [False, True])
def test_a_sequential_of_thousands_of_layers_is_not_built(nested, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model = keras.Sequential([keras.Input((8, 8, 3)), model]) if nested else model
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    layers = config["config"]["layers"]
    layers = layers[1]["config"]["layers"] if nested else layers
    layers[1:1] = [layers[1]] * 5000
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="a Sequential of 5003 layers, at most 256 are built"):
        open_model(tmp_path / "m.keras")


def test_an_archive_of_many_members_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for number in range(10_001):
            archive.writestr(f"assets/{number}", b"")
    with pytest.raises(ValueError, match="it has 10001 members, at most 10000 are read"):
        open_model(tmp_path / "m.keras")


def test_the_state_of_an_optimizer_may_be_of_any_type(tmp_path):
    """It is not read."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 2)), verbose=0)
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["optimizer_weights"]["odd"] = np.zeros(4, "V2")
    assert open_model(tmp_path / "m.h5").count_params() == model.count_params()
