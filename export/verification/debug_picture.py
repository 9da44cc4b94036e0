"""A `DebugReport` as a picture."""

from keras_vit_plugin.files import write_atomically
from keras_vit_plugin.plot_style import LIGHT, as_picture, legend, new_figure, paint

KINDS = 6  # with a colour of their own; the others share one
LEAST_SHARE = 1e-3  # of the error, of a kind that is named


def draw(report, path):
    """Writes a PNG: the error's way through the blocks, whose ops it is from, and what is clipped, if anything is.

    Args:
        report: a `DebugReport`.
        path: where to, ending in `.png`.
    """
    places = report.by("place")
    names, clipped = list(places), [100 * max(op.clipped for op in ops) for ops in places.values()]
    panels = 3 if any(clipped) else 2
    figure = new_figure(LIGHT, 8.3, 3 * panels)
    curve, shares, *rest = axes = figure.subplots(panels, sharex=True)
    for axis in axes:
        paint(axis, LIGHT)

    curve.plot(names, [ops[-1].snr_db for ops in places.values()], marker="o")
    curve.set_ylabel("SNR against Keras, dB")
    curve.set_title(f"{report.mode}: logits {report.logits_snr_db:.1f} dB on {report.images} images")

    by_kind = sorted(report.by("kind").items(), key=lambda item: -sum(op.noise for op in item[1]))
    by_kind = [(kind, ops) for kind, ops in by_kind if sum(op.noise for op in ops) >= LEAST_SHARE * report.noise]
    groups = by_kind[:KINDS]
    if by_kind[KINDS:]:
        groups.append(("others", [op for _, ops in by_kind[KINDS:] for op in ops]))
    below = [0.0] * len(names)
    for kind, ops in groups:
        heights = [100 * sum(op.noise for op in ops if op.place == name) / report.noise for name in names]
        shares.bar(names, heights, bottom=below, label=kind)
        below = [low + height for low, height in zip(below, heights)]
    shares.set_ylabel("share of the logits' error, %")
    legend(shares, LIGHT, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    for axis in rest:
        axis.bar(names, clipped, color=LIGHT.series[-1])
        axis.set_ylabel("most clipped tensor, % of values")
    axes[-1].tick_params(axis="x", rotation=45)
    write_atomically(path, as_picture(figure))
