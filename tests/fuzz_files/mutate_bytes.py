"""Changes to bytes, whatever they mean. Each takes the bytes and a `random.Random`, and returns other bytes."""

EXTREMES = (0, 1, 127, 128, 255, -1, 2**15 - 1, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))


def bytes_flipped(content, random):
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 8, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def bytes_overwritten(content, random):
    changed = bytearray(content)
    start, length = random.randrange(len(changed)), random.choice((1, 2, 4, 16, 256))
    changed[start : start + length] = random.randbytes(length)
    return bytes(changed)[: len(content)]


def truncated(content, random):
    return content[: random.choice((0, 1, 8, random.randrange(len(content)), len(content) - 1))]


def extended(content, random):
    more = random.choice((b"\0", b"\0" * 4096, random.randbytes(64), content))
    return content + more


def chunk_repeated(content, random):
    start, length = random.randrange(len(content)), random.choice((1, 16, 256, 4096))
    chunk = content[start : start + length]
    place = random.randrange(len(content))
    return content[:place] + chunk * random.choice((1, 2, 16)) + content[place:]


def chunk_removed(content, random):
    start, length = random.randrange(len(content)), random.choice((1, 4, 16, 256))
    return content[:start] + content[start + length :]


def integer_made_extreme(content, random):
    """A field of 1 to 8 bytes, mostly near the start, where headers are."""
    size, order = random.choice((1, 2, 4, 4, 8)), random.choice(("little", "little", "big"))
    value = random.choice(EXTREMES) % 256**size
    reach = random.choice((64, 512, len(content)))
    start = random.randrange(max(1, min(reach, len(content)) - size))
    return content[:start] + value.to_bytes(size, order) + content[start + size :]


BYTES = (
    bytes_flipped,
    bytes_overwritten,
    truncated,
    extended,
    chunk_repeated,
    chunk_removed,
    integer_made_extreme,
    integer_made_extreme,
)
