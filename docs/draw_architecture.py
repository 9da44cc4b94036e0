"""Draws the picture of docs/architecture.md: the way of an export through the rooms of `export/`.

make pictures
"""

from pathlib import Path

from keras_vit_plugin.plot_style import THEMES, as_picture, new_figure, paint, theme_of

IMAGES = Path(__file__).parent / "images"
# (what there is, the room that makes the next of it, what that does)
WAY = (
    ("arguments", "request.py", "names, types, ranges:\nchecked without the model"),
    ("Request", "job.py", "with model, photos, labels:\nall that the stages need"),
    ("Job", "spec/readers", "the model as float64 arrays,\nand an oracle of it"),
    ("ViTSpec", "rewrites/", "other weights,\nthe same function"),
    ("ViTSpec", "lowering/", "one static graph,\nas mode and target want it"),
    ("float .tflite", "quantization/", "the mode: calibrate, round,\nplan by a budget of noise"),
    ("quantized file", "targets/", "what the runtime wants,\nand whether it runs it"),
    ("finished file", "verification/", "these very bytes against\nthe Keras model"),
    ("verdict", "pipeline.py", "written,\nor an error with the report"),
)
COLUMNS = 3
WIDTH, HEIGHT = 3.0, 1.35  # inches of a box and what is around it


def draw(theme_name):
    """The picture as bytes of a PNG."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    theme = theme_of(theme_name)
    rows = -(-len(WAY) // COLUMNS)
    figure = new_figure(theme, COLUMNS * WIDTH, rows * HEIGHT)
    axes = figure.add_subplot()
    paint(axes, theme, frame=False)
    axes.set(xlim=(0, COLUMNS - 0.1), ylim=(rows, 0))
    for i, (given, room, does) in enumerate(WAY):
        row, column = divmod(i, COLUMNS)
        box = FancyBboxPatch(
            (column + 0.06, row + 0.16), 0.78, 0.68, "round,pad=0,rounding_size=0.04", fc=theme.panel, ec=theme.grid
        )
        axes.add_patch(box)
        middle = column + 0.45
        axes.text(
            middle,
            row + 0.34,
            f"{i + 1}  {room}",
            color=theme.series[0],
            ha="center",
            va="center",
            size=11,
            weight="bold",
        )
        axes.text(middle, row + 0.61, does, color=theme.text, ha="center", va="center", size=9)
        axes.text(column + 0.06, row + 0.08, given, color=theme.muted, ha="left", va="center", size=8.5, style="italic")
        if column + 1 < COLUMNS:
            ends = (column + 0.84, row + 0.5), (column + 1.06, row + 0.5)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, color=theme.muted))
    return as_picture(figure)


def main():
    for theme in THEMES:
        (IMAGES / f"architecture-{theme}.png").write_bytes(draw(theme))


if __name__ == "__main__":
    main()
