"""Changes to photos: the sides that their headers tell, what is inside of them, and other formats under their names."""

import struct
import zlib

from mutation import Unfit, refused

SIDES = (0, 1, 2, 15, 17, 255, 4096, 30_000, 65_535)
LARGE_SIDES = (*SIDES, 1 << 20, 2**31 - 1, 2**32 - 1)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n0 0 16 16 rectfill\nshowpage\n"
OTHERS = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"/>',
    "PPM": b"P6 30000 30000 255\n" + b"\0" * 64,
    "PPM of text": b"P3 2 2 255 " + b"1 " * 12,
    "PCX": b"\x0a\x05\x01\x08" + b"\0\0\0\0\x10\0\x10\0" + b"\0" * 120,
    "FLI": b"\x80\0\0\0\x11\xaf\x10\0\x10\0\x10\0\x08\0" + b"\0" * 114,
    "XBM": b"#define a_width 99999\n#define a_height 99999\nstatic char a_bits[] = {\n0x00};",
    "SGI": b"\x01\xda\x01\x01\0\x03\xff\xff\xff\xff\0\x03" + b"\0" * 500,
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "PSD": b"8BPS\0\x01\0\0\0\0\0\0\0\x03\0\0\x75\x30\0\0\x75\x30\0\x08\0\x03" + b"\0" * 64,
    "ICO": b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\xff\xff\xff\x7f\x16\0\0\0" + b"\0" * 64,
    "TGA": b"\0\0\x0a" + b"\0" * 9 + b"\xff\xff\xff\xff\x18\0" + b"\0" * 64,
}


def sides_changed(path, random):
    """The width and height in the header, with its checksum right."""
    content = bytearray(path.read_bytes())
    if content[1:4] == b"PNG":
        struct.pack_into(">II", content, 16, random.choice(LARGE_SIDES), random.choice(LARGE_SIDES))
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    elif content[:3] == b"GIF":
        struct.pack_into("<HH", content, random.choice((6, content.rfind(b"\x2c") + 5)), *random.choices(SIDES, k=2))
    elif content[:2] == b"BM":
        struct.pack_into("<II", content, 18, random.choice(LARGE_SIDES), random.choice(LARGE_SIDES))
    elif content[:2] == b"\xff\xd8":
        place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
        struct.pack_into(">HH", content, place + 5, *random.choices(SIDES, k=2))
    elif content[:4] == b"RIFF":
        place = max(content.find(b"\x9d\x01\x2a") + 3, 21)
        struct.pack_into("<HH", content, place, *random.choices(SIDES, k=2))
    else:
        raise Unfit
    path.write_bytes(content)


def tag_changed(path, random):
    """A field of a TIFF's first directory: its type, count or value."""
    content = bytearray(path.read_bytes())
    if content[:4] != b"II*\0":
        raise Unfit
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entry = start + 2 + 12 * random.randrange(count)
    offset, kind = random.choice(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<I")))
    struct.pack_into(kind, content, entry + offset, random.choice(LARGE_SIDES) % 256 ** struct.calcsize(kind))
    path.write_bytes(content)


def pages_without_end(path, random):
    """A TIFF whose next directory is the same again."""
    content = bytearray(path.read_bytes())
    if content[:4] != b"II*\0":
        raise Unfit
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * count, start)
    path.write_bytes(content)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunk_added(path, random):
    """A chunk of a PNG that unpacks to 64 MB, or that says what is not."""
    content = path.read_bytes()
    if content[1:4] != b"PNG":
        raise Unfit
    bomb = zlib.compress(bytes(64 << 20), 1)
    more = random.choice(
        (
            chunk(b"zTXt", b"a\0\0" + bomb),
            chunk(b"iCCP", b"a\0\0" + bomb),
            chunk(b"iTXt", b"a\0\1\0\0\0" + bomb),
            chunk(b"tEXt", b"\x1b[31m\0\x1b[31m"),
            chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40),
            chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"),
            chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            chunk(b"tRNS", b"\0" * 300),
            chunk(b"PLTE", b"\0" * 4),
            chunk(b"IDAT", bomb),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 2, 0, 0, 0)),
        )
    )
    path.write_bytes(content[:33] + more + content[33:])


def another_format_under_this_name(path, random):
    path.write_bytes(OTHERS[random.choice(sorted(OTHERS))])


@refused
def program_under_this_name(path, random):
    """PostScript, for which Pillow starts another program."""
    path.write_bytes(POSTSCRIPT)


PHOTO = (
    sides_changed,
    sides_changed,
    tag_changed,
    tag_changed,
    pages_without_end,
    chunk_added,
    another_format_under_this_name,
    program_under_this_name,
)
