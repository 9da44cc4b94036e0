"""The sizes that `docs/reliability.md` promises, at their edges."""

import zipfile
import zlib

import h5py
import pytest

from keras_vit_plugin.checkpoints import archives, hdf5, limits, whole_models

MB = 2**20


def refused(call, *arguments):
    """Whether a call refuses; anything else it raises is a fault."""
    try:
        call(*arguments)
    except limits.RefusedFile:
        return True
    return False


@pytest.mark.parametrize(
    "stored, most",
    [(0, 64 * MB), (6 * MB, 64 * MB), (7 * MB, 70 * MB), (100 * MB, 1000 * MB)],
)
def test_a_file_becomes_64_mb_or_ten_times_itself(stored, most):
    assert not refused(limits.check_expansion, "it", most, stored)
    assert refused(limits.check_expansion, "it", most + 1, stored)


def test_a_config_has_up_to_16_mb(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"{}".ljust(16 * MB))
    assert limits.read_json_file(path) == {}
    path.write_bytes(b"{}".ljust(16 * MB + 1))
    with pytest.raises(limits.RefusedFile, match="its config.json has 17 MB, at most 17 are read"):
        limits.read_json_file(path)


def test_a_config_in_an_archive_is_not_inflated_where_it_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}".ljust(16 * MB + 1))
    with archives.open_archive(path) as archive:
        monkeypatch.setattr(archive, "open", lambda *arguments: pytest.fail("it was opened"))
        with pytest.raises(limits.RefusedFile, match="its config.json has 17 MB, at most 17 are read"):
            archives.read_json_member(archive, "config.json")


def test_a_compressed_chunk_has_at_most_its_values_and_a_checksum(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as h5:
        for name, size in (("as long", 4 * 4 + hdf5.CHECKSUM), ("longer", 4 * 4 + hdf5.CHECKSUM + 1)):
            dataset = h5.create_dataset(name, (4,), "f4", chunks=(4,), compression=1)
            dataset.id.write_direct_chunk((0,), zlib.compress(bytes(size)))
        assert not refused(hdf5.check_chunks, h5["as long"])
        assert refused(hdf5.check_chunks, h5["longer"])


def test_a_chunk_that_is_longer_than_its_dataset_counts_whole(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as h5:
        for name, values in (("short", 1000), ("long", 17 * MB)):
            h5.create_dataset(name, (1,), "f4", maxshape=(None,), chunks=(values,), compression=1)[0] = 1.0
        assert not refused(hdf5._check_sizes, {"short": h5["short"]}, MB, 1000)
        assert refused(hdf5._check_sizes, {"long": h5["long"]}, MB, 1000)


def test_a_sequential_has_at_most_so_many_layers():
    def config(count):
        return {"a": [{"class_name": "Sequential", "config": {"layers": [0] * count}}]}

    assert not refused(whole_models._check_sequentials, config(whole_models.LONGEST_SEQUENTIAL))
    assert refused(whole_models._check_sequentials, config(whole_models.LONGEST_SEQUENTIAL + 1))


def test_counts_are_those_of_the_docs():
    assert (archives.MOST_MEMBERS, hdf5.DEEPEST, whole_models.LONGEST_SEQUENTIAL) == (10_000, 64, 256)


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("no\nsuch"), "no"),
        (KeyError("a name"), "KeyError: a name"),
        (RuntimeError(), "RuntimeError"),
        (TypeError("\n  second "), "TypeError: second"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x61"),
    ],
)
def test_an_error_of_another_library_becomes_one_line(error, line):
    assert limits.first_line(error).startswith(line)
    assert "\n" not in limits.first_line(error)


def test_a_long_name_is_cut():
    with pytest.raises(ValueError) as error, limits.named("weights='w'"):
        raise limits.RefusedFile("x" * 700)
    assert str(error.value) == f"weights='w' cannot be used: {'x' * 600}...."
    with pytest.raises(ValueError) as error, limits.named("weights='w'"):
        raise limits.RefusedFile("x" * 600)
    assert str(error.value) == f"weights='w' cannot be used: {'x' * 600}."
