"""The parts of the README that the benchmarks write."""

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
END = "<!-- to here -->\n"


def begin(writer):
    """The line above the part that a program of this folder writes."""
    return f"<!-- written by benchmarks/{writer} -->\n"


def with_part(text, writer, lines):
    """A page with the part of a program written anew."""
    before, rest = text.split(begin(writer), 1)
    return before + begin(writer) + "\n".join(lines) + "\n" + rest[rest.index(END) :]
