"""The one door through which the `keras-vit` command prints: whoever wrote a text, a terminal shows it and obeys none.

Class names, metadata, tensor names, file names and what exceptions say of them come from others.
"""

import json
import math
import sys
import textwrap
import unicodedata

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Embeddings, overrides and isolates: they change the order in which the text around them is read.
REORDERING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def show_every_character():
    """Lets standard output and error escape what their encoding lacks, as bytes of file names that are no UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def strip_control(text):
    """A text with spaces for control characters, line separators but `\\n`, and what reorders text; tabs stay."""
    return "".join(" " if _is_control(each) else each for each in text)


def _is_control(character):
    if character in "\n\t":
        return False
    return character in REORDERING or unicodedata.category(character) in ("Cc", "Zl", "Zp")


def in_one_line(text):
    """The same of anything, in one line."""
    return strip_control(str(text)).replace("\n", " ").replace("\t", " ")


def say(text, err=False):
    """Prints sentences to standard output, or to standard error."""
    click.echo(strip_control(str(text)), err=err)


def print_line(*parts):
    """Prints one line, however long: a path is not to be broken.

    Args:
        parts: texts, or pairs `(text, style)`.
    """
    parts = [(part, "") if isinstance(part, str) else part for part in parts]
    line = Text.assemble(*((in_one_line(text), style) for text, style in parts))
    Console(highlight=False).print(line, soft_wrap=True)


def print_table(columns, rows, title=None, caption=None, no_wrap=False, **options):
    """Prints rows of texts in columns.

    Args:
        columns: their names; None prints none.
        rows: of as many texts each.
        title, caption: texts above and below.
        no_wrap: whether a cell is cut where it is wider than the terminal, not broken into lines.
        options: of `rich.table.Table`.
    """
    title, caption = (text and Text(in_one_line(text)) for text in (title, caption))
    table = Table(title=title, caption=caption, show_header=columns is not None, **options)
    rows = list(rows)
    for column in columns or [""] * max(map(len, rows), default=0):
        table.add_column(Text(in_one_line(column)), no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
    for row in rows:
        table.add_row(*(Text(in_one_line(cell)) for cell in row))
    Console().print(table)


def as_json(value):
    """A value as JSON in ASCII; null stands for NaN and infinity, which JSON has not."""
    # `json` escapes all control characters but this one, which can be in texts only.
    return json.dumps(_finite(value), indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(value):
    """Prints a value as JSON."""
    click.echo(as_json(value))


def print_json_array(values):
    """Prints a JSON array, each value as soon as it is there; an error among them leaves it without an end."""
    before = "["
    for value in values:
        click.echo(f"{before}\n{textwrap.indent(as_json(value), '  ')}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")
