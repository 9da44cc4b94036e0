"""Types of arguments of the command lines here: what does not fit is an error before any work."""

import argparse
from pathlib import Path


def positive(text):
    """A whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def writable_file(text):
    """The path of a file that can be written; it is made where there is none."""
    try:
        Path(text).open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot be written: {error}") from error
    return Path(text)
