"""Warnings that point at the line of the caller's program, however deep in this package they arise."""

import os
import sys
import warnings
from pathlib import Path

_FOLDERS = tuple(f"{Path(__file__).parents[1] / name}{os.sep}" for name in ("keras_vit_plugin", "export"))


def warn(message):
    """Gives a `UserWarning` that names the first line outside this package on the way here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOLDERS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
