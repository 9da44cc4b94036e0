"""How large a model's file may become when it is read, and what is said of a file that is not read."""

import contextlib
import json

ALWAYS_READ = 64 * 2**20  # bytes that any file may become
EXPANSION = 10  # times its own size that a larger one may become: weights hardly compress, pruned ones by less
LONGEST_TEXT = 600  # characters of an error
LONGEST_JSON = 16 * 2**20  # bytes of a config


class RefusedFile(ValueError):
    """A file is not read; the message is the reason, as a clause that does not name the file."""


@contextlib.contextmanager
def named(label):
    """Within the context, what reading a file raises becomes one ValueError that names it.

    Args:
        label: what to call the file in the error.
    """
    try:
        yield
    except ImportError:
        raise
    except RefusedFile as error:
        raise ValueError(f"{label} cannot be used: {_cut(error)}.") from error
    except Exception as error:  # zipfile, zlib, struct, h5py and NumPy raise a dozen kinds
        raise ValueError(f"{label} is damaged or incomplete: {first_line(error)}") from error


def _cut(text):
    """What of a text fits in a sentence: names in a file can have any length."""
    text = str(text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def first_line(error):
    """The first line that an exception says, with its kind where that is no sentence by itself."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)  # a KeyError would quote it
    line = _cut(next((line.strip() for line in text.splitlines() if line.strip()), ""))
    if line and isinstance(error, (ValueError, OSError, RuntimeError)) and not isinstance(error, UnicodeError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def most_bytes(stored):
    """Bytes that a file of `stored` bytes may become."""
    return max(ALWAYS_READ, EXPANSION * stored)


def check_expansion(what, declared, stored):
    """Raises `RefusedFile` where `what`, of `declared` bytes, is too large for a file of `stored` bytes."""
    if declared > most_bytes(stored):
        raise RefusedFile(f"{what} would be {declared / 1e6:,.0f} MB, from {stored / 1e6:,.2f} MB of file")


def check_regular(path):
    """Raises `RefusedFile` for a folder, a pipe or a device, whose reading may not end."""
    if not path.is_file():
        raise RefusedFile("it is no regular file")


def read_json_file(path):
    """The object in a JSON file of a preset folder or of an unpacked `.keras`."""
    if not path.is_file():
        raise RefusedFile(f"it has no file {path.name}")
    check_json_size(path.stat().st_size, path.name)
    return parse_json(path.read_bytes(), path.name)


def check_json_size(size, name):
    if size > LONGEST_JSON:
        raise RefusedFile(f"its {name} has {size / 1e6:,.0f} MB, at most {LONGEST_JSON / 1e6:.0f} are read")


def parse_json(content, name):
    """The object in JSON text.

    Args:
        content: bytes or a string.
        name: what to call it in the error.

    Raises:
        RefusedFile: it is too long, is no JSON, is nested too deeply, or is no object.
    """
    check_json_size(len(content), name)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedFile(f"its {name} is no JSON: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise RefusedFile(f"its {name} is JSON, but no object")
    return value
