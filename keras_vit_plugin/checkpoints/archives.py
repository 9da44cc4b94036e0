"""Zip archives of strangers: `.keras` and `.npz`."""

import contextlib
import zipfile

from keras_vit_plugin.checkpoints.limits import RefusedFile, check_expansion, check_json_size, parse_json

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile bounds what comes out of these two alone
MOST_MEMBERS = 10_000  # tensors of an `.npz`, or assets
PIECE = 2**20  # bytes


@contextlib.contextmanager
def open_archive(path):
    """A `ZipFile` whose members are no more than its file can hold.

    Raises:
        RefusedFile: a member is encrypted or compressed in an unusual way, or all would become too large.
    """
    with zipfile.ZipFile(path) as archive:
        _check_members(archive.infolist(), path.stat().st_size)
        yield archive


def _check_members(members, file_bytes):
    if len(members) > MOST_MEMBERS:
        raise RefusedFile(f"it has {len(members)} members, at most {MOST_MEMBERS} are read")
    for member in members:
        if member.flag_bits & 1:
            raise RefusedFile(f"its member {member.filename!r} is encrypted")
        if member.compress_type not in METHODS:
            raise RefusedFile(f"its member {member.filename!r} is neither stored nor deflated")
    if len({member.filename for member in members}) < len(members):
        raise RefusedFile("it has two members of one name")
    if sum(member.compress_size for member in members) > file_bytes:
        raise RefusedFile("its members overlap")
    check_expansion("what it holds", sum(member.file_size for member in members), file_bytes)


def read_json_member(archive, name):
    """The object in a JSON member."""
    size = _member(archive, name).file_size
    check_json_size(size, name)
    with archive.open(name) as member:
        # In pieces: a single `read()` inflates all there is, whatever size the archive declares.
        return parse_json(b"".join(iter(lambda: member.read(PIECE), b"")), name)


def unpack(archive, folder, *names):
    """Writes members into a folder, in which no name leads out of it.

    Args:
        archive: from `open_archive`.
        folder: to write into.
        names: of members; one that ends in a slash stands for all members below it, which may be none.

    Raises:
        RefusedFile: a member is missing.
    """
    for name in names:
        if name.endswith("/"):
            archive.extractall(folder, [each for each in archive.namelist() if each.startswith(name)])
        else:
            archive.extract(_member(archive, name), folder)


def _member(archive, name):
    try:
        return archive.getinfo(name)
    except KeyError:
        raise RefusedFile(f"it has no member {name}") from None
