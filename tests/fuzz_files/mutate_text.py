"""Changes to text files: names of classes, and tables of photos."""

from mutation import Unfit

ESCAPES = ("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x08\x08\x08", "\x7f", "\x0c", "\x85", "\u2028")
ODD_NAMES = (
    *ESCAPES,
    "[bold red]x[/bold red]",
    "[/]",
    "<script>alert(1)</script>",
    '"',
    "'; --",
    "\\",
    "=1+1",
    "\u202egnp.exe",
    "e\u0301\u0301\u0301",
    "\ufeff",
    "x" * 200_000,
    "\0",
    "-1",
    "99999999999999999999",
    "1e5",
    "\u0663",
    " ",
    "",
)


def on_lines(change):
    """A mutation by a function of `(lines, random)`, which returns other lines."""

    def mutation(path, random):
        path.write_text("\n".join(change(path.read_text().splitlines(), random)) + "\n", encoding="utf-8", newline="")

    mutation.__name__ = change.__name__
    return mutation


def name_changed(lines, random):
    place = random.randrange(len(lines))
    return [*lines[:place], random.choice(ODD_NAMES), *lines[place + 1 :]]


def part_of_a_line_changed(lines, random):
    place = random.randrange(len(lines))
    parts = lines[place].split(",")
    parts[random.randrange(len(parts))] = random.choice(ODD_NAMES)
    return [*lines[:place], ",".join(parts), *lines[place + 1 :]]


def line_removed(lines, random):
    place = random.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def line_doubled(lines, random):
    return lines + [random.choice(lines)] * random.choice((1, 1, 10, 1000))


def quotes_left_open(lines, random):
    place = random.randrange(len(lines))
    return [*lines[:place], '"' + lines[place], *lines[place + 1 :]]


def encoded_otherwise(path, random):
    text = path.read_text()
    path.write_bytes(
        text.encode(random.choice(("utf-16", "utf-8-sig", "utf-32", "utf-7"))) + b"\xff\xfe"[: random.choice((0, 2))]
    )


def lines_ended_otherwise(path, random):
    path.write_bytes(
        path.read_bytes().replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8")))
    )


def emptied(path, random):
    path.write_bytes(random.choice((b"", b"\n", b" \n \n", b"\xef\xbb\xbf")))


def row_added(path, random):
    """A row of a labels.csv about something that is no photo of this folder."""
    if path.name != "labels.csv":
        raise Unfit
    file = random.choice(
        ("/etc/passwd", "../seeds/photos/0.png", "/dev/zero", ".", "pipe", "nothing.png", "0.png", "~")
    )
    with open(path, "a", encoding="utf-8") as table:
        table.write(random.choice((f"{file},1\n", f"{file},1,2,3\n", f"{file}\n", f'"{file}\n",1\n')))


LABELS = (
    *map(on_lines, (name_changed, name_changed, name_changed, line_removed, line_doubled)),
    encoded_otherwise,
    lines_ended_otherwise,
    emptied,
)
TABLE = (
    *map(on_lines, (part_of_a_line_changed, part_of_a_line_changed, line_removed, line_doubled, quotes_left_open)),
    encoded_otherwise,
    lines_ended_otherwise,
    emptied,
    row_added,
    row_added,
)
