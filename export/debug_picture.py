"""A `DebugReport` as a picture."""

import io

from .files import write_atomically

KINDS = 6  # with a colour of their own; the others share one


def draw(report, path):
    """Writes a PNG: the error's way through the blocks, whose ops it is from, and what is saturated.

    Args:
        report: a `DebugReport`.
        path: where to, ending in `.png`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    curve, shares, saturated = figure.subplots(3, sharex=True)
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
    shares.legend(fontsize=8)

    saturated.bar(names, [100 * max(op.saturated for op in ops) for ops in places.values()], color="tab:red")
    saturated.set_ylabel("most saturated tensor, % of values")
    saturated.tick_params(axis="x", rotation=45)
    for axis in (curve, shares, saturated):
        axis.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
