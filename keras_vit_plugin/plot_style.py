"""The colours and sizes of all pictures of this project, for light pages and for dark ones.

A picture keeps a background of its own, so that it can be read on a page of the other scheme too. The colours of the
series are those of Okabe and Ito, which the colour-blind tell apart, lightened for the dark page.
"""

import importlib.util
import io
import warnings
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Theme:
    """Colours as `#rrggbb`: of the page, of text on it, of lines that guide the eye, and of the series of a plot."""

    name: str
    background: str
    panel: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    right: str
    wrong: str


LIGHT = Theme(
    "light",
    background="#ffffff",
    panel="#f3f5f7",
    text="#1f2328",
    muted="#59636e",
    grid="#d1d9e0",
    series=("#0072b2", "#d55e00", "#007a5a", "#aa4a8c", "#8a6d00", "#3d7f99", "#5f5f5f"),
    right="#007a5a",
    wrong="#c0392b",
)
DARK = Theme(
    "dark",
    background="#0d1117",
    panel="#1b222b",
    text="#f0f6fc",
    muted="#9da7b3",
    grid="#353d47",
    series=("#56b4e9", "#ff9d5c", "#3fd0a4", "#e39ac4", "#e6c84c", "#8fd3e8", "#b8b8b8"),
    right="#3fd0a4",
    wrong="#ff8a80",
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_of(name):
    """The theme that is called `"light"` or `"dark"`.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in THEMES:
        raise ValueError(f"`theme` must be one of {', '.join(THEMES)}, got theme={name!r}.")
    return THEMES[name]


def require_matplotlib():
    """Raises `ImportError` with the remedy where no picture can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("Pictures need matplotlib: pip install 'keras-vit-plugin[plots]'.")


def new_figure(theme, width, height):
    """A matplotlib figure in a theme's background.

    Args:
        theme: a `Theme`.
        width, height: in inches, of 100 pixels at the size at which it is shown.

    Raises:
        ImportError: there is no matplotlib.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=theme.background)


def paint(axis, theme, frame=True):
    """Gives an axis of matplotlib a theme's colours, and no frame unless `frame`."""
    axis.set_facecolor(theme.background)
    axis.title.set_color(theme.text)
    if not frame:
        axis.axis("off")
        return
    axis.tick_params(colors=theme.muted, labelcolor=theme.text)
    for text in (axis.xaxis.label, axis.yaxis.label):
        text.set_color(theme.text)
    for name, spine in axis.spines.items():
        spine.set_color(theme.muted)
        spine.set_visible(name in ("left", "bottom"))
    axis.grid(color=theme.grid)
    axis.set_axisbelow(True)
    axis.set_prop_cycle(color=theme.series)


def legend(axis, theme, **options):
    """Adds a legend in a theme's colours; `options` are matplotlib's."""
    return axis.legend(facecolor=theme.background, edgecolor=theme.grid, labelcolor=theme.text, **options)


def check_picture_suffix(path, name="path", more=()):
    """Raises `ValueError` where matplotlib writes no picture of the suffix of a path; without a suffix it is a PNG.

    Args:
        path: where to.
        name: of the argument that it is.
        more: other suffixes that are taken, such as `(".html",)`.
    """
    require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    suffixes = [*more, *(f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes())]
    if (suffix := Path(path).suffix.lower()) and suffix not in suffixes:
        raise ValueError(f"`{name}` must end in {', '.join(suffixes)} or nothing, got {name}={str(path)!r}.")


def as_picture(figure, path=None, dpi=150):
    """A figure as bytes: a PNG, or what the suffix of `path` says.

    Its texts are drawn as they are, as names of files and classes are in them: `$` begins no formula, a character that
    the font lacks is a box, without a warning, and bytes of a name that are no text are written as `\\udce9`.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        drawn = text.get_text().encode(errors="backslashreplace").decode()
        if drawn != text.get_text():
            text.set_text(drawn)
    picture = io.BytesIO()
    with warnings.catch_warnings(), rc_context({"text.parse_math": False}):  # labels of ticks are made by drawing
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        figure.savefig(picture, format=(Path(path).suffix[1:] if path else "") or "png", dpi=dpi)
    return picture.getvalue()


def _variables(theme):
    return (
        f"--background: {theme.background}; --panel: {theme.panel}; --text: {theme.text}; --muted: {theme.muted}; "
        f"--grid: {theme.grid}; --bar: {theme.series[0]}; --warn: {theme.series[1]}; --wrong: {theme.wrong};"
    )


# Of the project's HTML pages: they follow the scheme of the reader's system.
PAGE_STYLE = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: var(--text); background: var(--background); overflow-wrap: break-word; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; max-width: 34rem; }}
.scroll {{ overflow-x: auto; }}
figcaption, .note {{ font-size: .85rem; color: var(--muted); }}
.bar {{ background: var(--bar); height: .8rem; border-radius: .2rem; margin-top: .35rem; }}
"""
