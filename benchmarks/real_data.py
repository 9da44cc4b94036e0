"""Where the real data lies, and arguments that are checked before any work."""

import os
from pathlib import Path

USUAL = Path(__file__).parents[2] / "shared" / "data"


def folder():
    """What KERAS_VIT_DATA names, or the usual place where it is empty or not set."""
    return Path(os.environ.get("KERAS_VIT_DATA") or USUAL)


def lacking(data, needed):
    """Why a folder is not that of the real data, in words; empty where it has all of the `needed` paths."""
    if not data.is_dir():
        return f"{str(data)!r} is no folder"
    missing = [name for name in dict.fromkeys(needed) if not (data / name).exists()]
    return f"{str(data)!r} lacks {', '.join(missing)}" if missing else ""


def check_data(parser, data, needed):
    """Ends the program with an argument error where the real data is not there; what needs none takes any folder."""
    if needed and (reason := lacking(data, needed)):
        parser.error(f"--data, or KERAS_VIT_DATA, must name the folder of the real data: {reason}")


def make_output(parser, path):
    """Makes the folder of `--output`, or ends the program with an argument error."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output must be a folder, {str(path)!r} cannot be one: {error.strerror}")
    if not os.access(path, os.W_OK):
        parser.error(f"--output must be a folder that can be written, {str(path)!r} cannot")
