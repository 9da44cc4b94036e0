"""Changes to zip archives, as .keras and .npz files are: their members and their tables."""

import functools
import struct
import zipfile
import zlib

from mutate_bytes import EXTREMES
from mutate_json import changed_json
from mutation import Unfit, refused

BOMB = 2 << 30  # bytes that a few kilobytes become
MEGABYTE = bytes(1 << 20)


def members(path):
    """`{name: bytes}` of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, contents):
    """Writes an archive, stored, of `(name, bytes)` pairs, whose names may be equal."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            archive.writestr(zipfile.ZipInfo(name), content)


def member_removed(path, random):
    contents = list(members(path).items())
    contents.pop(random.randrange(len(contents)))
    write(path, contents)


def member_renamed(path, random):
    contents = list(members(path).items())
    place = random.randrange(len(contents))
    name, content = contents[place]
    new = random.choice((f"{name}_", f"../{name}", f"/tmp/{name}", name.upper(), "", "a/" * 2000 + name, "\x1b[31m"))
    contents[place] = (new, content)
    write(path, contents)


def member_emptied(path, random):
    contents = members(path)
    contents[random.choice(list(contents))] = b""
    write(path, contents.items())


def member_doubled(path, random):
    """Twice the same name, with other bytes the second time."""
    contents = list(members(path).items())
    name, content = random.choice(contents)
    contents.append((name, content[: len(content) // 2]))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            archive.NameToInfo.pop(name, None)  # else Python warns
            archive.writestr(zipfile.ZipInfo(name), content)


def json_member_changed(path, random):
    contents = members(path)
    names = [name for name in contents if name.endswith(".json")]
    if not names:
        raise Unfit
    name = "config.json" if "config.json" in names and random.random() < 0.8 else random.choice(names)
    contents[name] = changed_json(contents[name], random).encode("utf-8", "surrogatepass")
    write(path, contents.items())


def table_field_made_extreme(path, random):
    """A field of the central directory, or of its end."""
    content = bytearray(path.read_bytes())
    kind, fields = random.choice(
        (
            (b"PK\x01\x02", ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4))),
            (b"PK\x03\x04", ((6, 2), (8, 2), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\x05\x06", ((8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    starts = [place for place in range(len(content)) if content[place : place + 4] == kind]
    place, size = random.choice(fields)
    value = random.choice((*EXTREMES, 9, 12, 14, 99)) % 256**size
    start = random.choice(starts) + place
    content[start : start + size] = value.to_bytes(size, "little")
    path.write_bytes(content)


@refused
def member_made_a_bomb(path, random):
    """A member of 2 GB of zeros in 2 MB; an array's begins as one of that size does."""
    contents = members(path)
    name = random.choice([name for name in contents if name.endswith((".h5", ".npy", "config.json"))])
    head = b""
    if name.endswith(".npy"):
        head = array_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({BOMB // 4},), }}")
    others = [(other, zlib.crc32(content), content, len(content), 0) for other, content in contents.items()]
    bomb = (name, 0, deflated_zeros(head), BOMB + len(head), 8)
    write_raw(path, [bomb if entry[0] == name else entry for entry in others])


def array_header(text):
    """The start of a .npy file with this description."""
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@functools.lru_cache
def deflated_zeros(head=b""):
    """A deflate stream of `head` and `BOMB` zeros: one megabyte, compressed once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + megabyte * (BOMB >> 20) + packer.flush(zlib.Z_FINISH)


def write_raw(path, entries):
    """Writes an archive of `(name, CRC, packed bytes, size, method)`, which need not agree."""
    body, table = bytearray(), bytearray()
    for name, crc, packed, size, method in entries:
        name = name.encode()
        fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0)
        table += b"PK\x01\x02\x14\x00" + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\x03\x04" + fields + name + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(table), len(body), 0)
    path.write_bytes(bytes(body + table) + b"PK\x05\x06" + end)


ZIP = (
    member_removed,
    member_renamed,
    member_emptied,
    member_doubled,
    table_field_made_extreme,
    table_field_made_extreme,
    member_made_a_bomb,
)
