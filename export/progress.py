"""Progress bars on standard error, on terminals only."""

import sys

from rich.console import Console
from rich.progress import track as rich_track


def track(items, description, total=None):
    """Yields the items and draws how far they are."""
    console = Console(stderr=True)
    return rich_track(items, description, total=total, console=console, transient=True, disable=not sys.stderr.isatty())
