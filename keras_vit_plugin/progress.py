"""How far long work is, on standard error: bars on a terminal, now and then a line where there is none."""

import contextlib
import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FIRST_LINE, NEXT_LINE = 8.0, 15.0  # seconds until the first line of a stage, and between lines
_lines = False
_shown = threading.local()  # what is shown by this thread already: a stage within it adds nothing


@contextlib.contextmanager
def print_lines():
    """Within the context: without a terminal, stages that take long are told of in lines."""
    global _lines
    before, _lines = _lines, True
    try:
        yield
    finally:
        _lines = before


def track(items, description, total=None):
    """Yields the items and shows how many are done, the time taken and the time left.

    Args:
        items: an iterable.
        description: of the stage, such as `"Reading images"`.
        total: how many items, where `items` does not say.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if getattr(_shown, "inside", False):
        yield from items
        return
    _shown.inside = True
    try:
        yield from _tracked(items, description, total)
    finally:
        _shown.inside = False


def _tracked(items, description, total):
    if sys.stderr.isatty():
        columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        console = Console(stderr=True)
        with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True) as progress:
            yield from progress.track(items, total=total, description=description)
    elif _lines:
        yield from _in_lines(items, description, total)
    else:
        yield from items


@contextlib.contextmanager
def stage(description):
    """Shows that work of unknown length goes on, within the context."""
    if getattr(_shown, "inside", False):
        yield
        return
    if sys.stderr.isatty():
        with Console(stderr=True).status(description):
            yield
        return
    if not _lines:
        yield
        return
    ended, started, stream = threading.Event(), time.monotonic(), sys.stderr

    def tell():
        wait = FIRST_LINE
        while not ended.wait(wait):
            print(f"keras-vit: {description}, {time.monotonic() - started:.0f} s", file=stream, flush=True)
            wait = NEXT_LINE

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _in_lines(items, description, total):
    started, stream = time.monotonic(), sys.stderr
    due = started + FIRST_LINE
    for done, item in enumerate(items):
        now = time.monotonic()
        if now >= due and done:
            due, each = now + NEXT_LINE, (now - started) / done
            left = "" if total is None else f" of {total}, about {each * (total - done):.0f} s left"
            print(f"keras-vit: {description}: {done}{left}", file=stream, flush=True)
        yield item
