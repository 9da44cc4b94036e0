"""The benchmark's picture: how long a file takes against how often its answer differs from the model's."""

import numpy as np
from page import OURS, kept

from keras_vit_plugin.plot_style import new_figure, paint, theme_of

WIDTH, HEIGHT, DPI = 8.3, 5.6, 200  # inches of 100 pixels at the size at which it is shown, drawn at twice that
SIZE = 9  # points of the names
LEAST, MOST = 0.1, 30  # % of answers that differ; below LEAST the logarithm is not shown any further
TICKS = (99.9, 99.8, 99.5, 99, 98, 95, 90, 80, 70)
PLACES = ((1, 0), (-1, 0), (0.9, 1), (0.9, -1), (-0.9, 1), (-0.9, -1), (0, 1.3), (0, -1.3))  # of a name, from its point

DISTANCES = (7, 11, 16, 24, 34, 46, 60)  # of a name from its point, in points


def draw(rows, path, theme="light"):
    """Writes the picture.

    Time is on a logarithmic axis, and the share of changed answers on another, so that 99.8 and 99 % are as far apart
    as 98 and 90 %. Ours are all named, and of each peer what no other file of its beats on both axes.

    Args:
        rows: of `benchmark.json`.
        path: a PNG.
        theme: `"light"` or `"dark"`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    theme = theme_of(theme)
    figure = new_figure(theme, WIDTH, HEIGHT)
    axis = figure.subplots()
    paint(axis, theme)
    roads = list(dict.fromkeys(row["road"] for row in rows))
    colours = dict(zip(_ours_first(roads), theme.series, strict=False))
    points = [(row, row["milliseconds"]["1"], _changed(row)) for row in rows]
    for road in roads:
        ours = road.startswith(OURS)
        mine = [point for point in points if point[0]["road"] == road]
        x, y = [point[1] for point in mine], [point[2] for point in mine]
        axis.scatter(
            x, y, label=road[4:], color=colours[road], s=130 if ours else 34, marker="*" if ours else "o", zorder=3
        )
    _scale(axis, [point[1] for point in points], [point[2] for point in points])
    axis.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=SIZE, frameon=False, labelcolor=theme.text
    )
    FigureCanvasAgg(figure).draw()
    figure.set_layout_engine("none")  # what is placed now stays
    _name(axis, [point for point in points if _named(point, points)], points, colours)
    figure.savefig(path, dpi=DPI)


def _ours_first(roads):
    return sorted(roads, key=lambda road: not road.startswith(OURS))


def _changed(row):
    """The percentage of answers that differ, over all sets of photos."""
    return float(np.clip(100 * (1 - kept(row)), LEAST, MOST))


def _scale(axis, x, y):
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(min(MOST, 1.5 * max(y)), 0.75 * LEAST)  # the better, the higher
    axis.set_xlim(0.6 * min(x), 1.35 * max(x))  # names stand on the left too
    ticks = [
        tick for tick in (3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200, 400, 800) if min(x) < tick * 1.2 < 1.5 * max(x)
    ]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    shown = [tick for tick in TICKS if 100 - tick <= max(axis.get_ylim())]
    axis.set_yticks([100 - tick for tick in shown], [f"{tick:g}{'–100' * (tick == TICKS[0])} %" for tick in shown])
    axis.minorticks_off()
    axis.set_xlabel("milliseconds per photo, one thread")
    axis.set_ylabel("same answer as the Keras model")


def _named(point, points):
    """Whether a file is one of ours, or one that none of its road beats in time and in answers."""
    row, x, y = point
    same = [other for other in points if other[0]["road"] == row["road"]]
    beaten = any(u <= x and v <= y and (u, v) != (x, y) for _, u, v in same)
    return row["road"].startswith(OURS) or not beaten


def _name(axis, named, points, colours):
    """Writes the names where they cover no point and no other name, and are nearest to their own points."""
    pixel = axis.figure.dpi / 72
    centres = axis.transData.transform([(x, y) for _, x, y in points])
    frame = axis.get_window_extent().extents
    texts, halves, places = [], [], []
    for point, road, name in _groups(named, axis.transData.transform, 8 * pixel):
        text = axis.annotate(
            name, axis.transData.inverted().transform(point), xytext=(0, 0), textcoords="offset points",
            fontsize=SIZE, weight="bold" if road.startswith(OURS) else "normal", color=colours[road],
            ha="center", va="center", zorder=4,
        )  # fmt: skip
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2
        texts.append(text)
        halves.append(half)
        places.append((point, [np.array(each) * (half + far * pixel) for far in DISTANCES for each in PLACES]))
    chosen = [point + offsets[0] for point, offsets in places]
    for _ in range(8):  # each in turn moves to its best place among the others
        before = [*chosen]
        for i, (point, offsets) in enumerate(places):
            others = [j for j in range(len(chosen)) if j != i]
            taken = np.array([*centres, *(chosen[j] for j in others)])
            sizes = np.array([[5 * pixel] * 2] * len(centres) + [halves[j] + pixel for j in others])
            costs = [_cost(point, point + offset, halves[i], centres, (taken, sizes), frame) for offset in offsets]
            chosen[i] = point + offsets[int(np.argmin(costs))]
        if np.array_equal(before, chosen):
            break
    for text, half, (point, _), centre in zip(texts, halves, places, chosen):
        offset = centre - point
        text.set_position(offset / pixel)
        edge = offset - np.clip(offset, -half, half)  # from the point to the nearest edge of the name
        if np.hypot(*edge) > 12 * pixel:
            line = {"arrowstyle": "-", "color": text.get_color(), "lw": 0.7, "shrinkA": 0}
            axis.annotate("", text.xy, xytext=edge / pixel, textcoords="offset points", arrowprops=line)


def _groups(named, place, near):
    """Files of a road that lie on each other, under one name: `[(pixel, road, name)]`."""
    groups = []
    for row, x, y in named:
        point = place((x, y))
        for group in groups:
            if group[1] == row["road"] and np.hypot(*(group[0] - point)) < near:
                if not any(_short(row).startswith(name) for name in group[2]):
                    group[2].append(_short(row))
                break
        else:
            groups.append((point, row["road"], [_short(row)]))
    return [(point, road, " / ".join(names)) for point, road, names in groups]


def _cost(point, centre, half, centres, taken, frame):
    """How bad a place is for a name: above all what it covers, then what is outside of the frame, and its distance.

    A place that is nearer to another point than to its own costs as much as half of the name.

    Args:
        point: that is named.
        centre, half: of the name's box.
        centres: all points.
        taken: boxes that are to stay free: their centres and half of their sizes, `(N, 2)` each.
        frame: of the axis: left, bottom, right and top.
    """
    boxes, sizes = taken
    sides = np.minimum(centre + half, boxes + sizes) - np.maximum(centre - half, boxes - sizes)
    covered = sides.clip(0).prod(-1).sum()
    inside = np.prod((np.minimum(centre + half, frame[2:]) - np.maximum(centre - half, frame[:2])).clip(0))
    area = 4 * np.prod(half)

    own, *distances = np.hypot(*(np.abs(np.array([point, *centres]) - centre) - half).clip(0).T)
    others = np.hypot(*(centres - point).T) > half[1]
    astray = np.array(distances)[others].min(initial=np.inf) < own
    return 5 * covered + 4 * (area - inside) + astray * area / 2 + area / 100 * own / half[1]


def _short(row):
    """A mode in few words."""
    return row["mode"].replace(" preset", "").replace("default hint", "bf16").replace("prefer ", "")
