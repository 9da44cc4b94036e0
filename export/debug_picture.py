"""A `DebugReport` as a picture."""

from keras_vit_plugin.plot_style import LIGHT, as_picture, legend, new_figure, paint

from .files import write_atomically

KINDS = 6  # with a colour of their own; the others share one


def draw(report, path):
    """Writes a PNG: the error's way through the blocks, whose ops it is from, and what is saturated.

    Args:
        report: a `DebugReport`.
        path: where to, ending in `.png`.
    """
    figure = new_figure(LIGHT, 8.3, 9)
    curve, shares, saturated = figure.subplots(3, sharex=True)
    for axis in (curve, shares, saturated):
        paint(axis, LIGHT)
    places = report.by("place")
    names = list(places)

    curve.plot(names, [ops[-1].snr_db for ops in places.values()], marker="o")
    curve.set_ylabel("SNR against Keras, dB")
    curve.set_title(f"{report.mode}: logits {report.logits_snr_db:.1f} dB on {report.images} images")

    by_kind = sorted(report.by("kind").items(), key=lambda item: -sum(op.noise for op in item[1]))
    groups = [(kind, ops) for kind, ops in by_kind[:KINDS]]
    groups.append(("others", [op for _, ops in by_kind[KINDS:] for op in ops]))
    below = [0.0] * len(names)
    for kind, ops in groups:
        heights = [100 * sum(op.noise for op in ops if op.place == name) / report.noise for name in names]
        shares.bar(names, heights, bottom=below, label=kind)
        below = [low + height for low, height in zip(below, heights)]
    shares.set_ylabel("share of the logits' error, %")
    legend(shares, LIGHT, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    saturated.bar(names, [100 * max(op.saturated for op in ops) for ops in places.values()], color=LIGHT.series[-1])
    saturated.set_ylabel("most saturated tensor, % of values")
    saturated.tick_params(axis="x", rotation=45)
    write_atomically(path, as_picture(figure))
