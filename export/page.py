"""An export's report as one HTML page that needs nothing beside it."""

import base64
import html
import io

from PIL import Image

from keras_vit_plugin.image_model.answers import MULTI_LABEL
from keras_vit_plugin.image_model.labels import class_names
from keras_vit_plugin.plot_style import DARK, LIGHT, PAGE_STYLE, as_picture, legend, new_figure, paint

SHOWN_IMAGES = 5
STYLE = (
    PAGE_STYLE
    + """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; }
.tile { background: var(--panel); border-radius: .5rem; padding: .75rem; }
.tile b { display: block; font-size: 1.35rem; }
.outside .bar { background: var(--warn); }
.changed { display: flex; flex-wrap: wrap; gap: 1rem; } .changed figure { margin: 0; width: 10.5rem; }
.changed img { width: 100%; border-radius: .3rem; }
pre { background: var(--panel); border-radius: .5rem; padding: .75rem; overflow-x: auto; font-size: .85rem; }
img.plot { width: 100%; min-width: 34rem; max-width: 52rem; } .failed { border: 2px solid var(--wrong); }
"""
)


def as_page(report, images, labels):
    """The page.

    Args:
        report: an `ExportReport`.
        images: the verification images, uint8 `(N, H, W, C)`.
        labels: class names in index order, or None.

    Returns:
        HTML.
    """
    parity = report.parity
    tiles = {
        "size": f"{report.size_bytes / 1e6:.2f} MB",
        **parity.in_words(),
        **{f"SNR, {name}": f"{snr_db:.1f} dB" for name, snr_db in report.others_snr_db.items()},
        **{f"SNR, {each.kind} images": each.words for each in report.shifts},
    }
    title = f"{report.path or 'no file written'}: {report.mode} for {report.target}"
    verdict = "" if report.path else '<p class="tile failed">Too far from the Keras model: no file was written.</p>'
    sections = [
        f"<h1>{html.escape(title)}</h1>{verdict}",
        '<div class="tiles">' + "".join(map(_tile, tiles.items())) + "</div>",
        f'<p class="note">Against the Keras model on {parity.images} {html.escape(report.verified_on)} images, by '
        f"{html.escape(report.verified_by)}. "
        f"Input: {html.escape(report.input)}. Photos: {html.escape(report.photos)}. "
        f"Inside: {html.escape(report.pixels)}. The export took {report.seconds:.0f} s.</p>",
        '<p class="note">The Keras model answers the same on these pixels by</p><pre>'
        + html.escape("\n".join(report.keras_lines))
        + "</pre>",
        _ranges_section(report),
        _choice_section(report),
        _block_section(report),
        _changed_section(report, images, labels),
        _ops_section(report.file),
        _rewrites_section(report),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>{''.join(sections)}</html>"
    )


def _tile(item):
    name, value = item
    return f'<div class="tile"><b>{html.escape(value)}</b>{html.escape(name)}</div>'


def _ranges_section(report):
    outside = report.shifts_in_words().get("values outside their ranges")
    return "" if outside is None else f'<p class="note">Values outside of their calibrated ranges: {outside}.</p>'


def _choice_section(report):
    if not report.tried:
        return ""

    def row(tried):
        top1 = "" if tried.top1_drop is None else f"{-tried.top1_drop:+.1f}"
        agreements = ("" if share is None else f"{share:.1%}" for share in (tried.agreement, tried.agreement_kept))
        figures = *agreements, top1, f"{tried.relative_error:.1%}", f"{tried.snr_db:.1f}"
        return "<tr>" + "".join(f"<td>{text}" for text in (tried.name, f"{tried.size_bytes / 1e6:.2f}", *figures))

    names = "tried", "MB", "same answers", "at least, 90 % certain", "top-1, points", "relative error", "SNR dB"
    heads = "".join(f"<th>{name}" for name in names)
    rows = "".join(map(row, report.tried))
    table = f'<div class="scroll"><table><tr>{heads}{rows}</table></div>'
    return f"<h2>Why this file</h2><p>{html.escape(report.choice)}</p>{table}"


def _block_section(report):
    if not report.block_snr_db:
        return ""
    light, dark = (_png(_draw_blocks(report.block_snr_db, report.parity.snr_db, theme)) for theme in (LIGHT, DARK))
    return (
        '<h2>Where the error enters</h2><div class="scroll"><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{dark}"><img class="plot" alt="SNR after each block" src="{light}"></picture></div>'
    )


def _draw_blocks(block_snr_db, logits_snr_db, theme):
    figure = new_figure(theme, 8.3, 3)
    axis = figure.subplots()
    paint(axis, theme)
    blocks = range(1, len(block_snr_db) + 1)
    axis.plot(blocks, block_snr_db, marker="o", label="tokens after the block")
    axis.axhline(logits_snr_db, color=theme.series[1], linestyle="--", label="logits")
    axis.set_xlabel("block")
    axis.set_ylabel("SNR against Keras, dB")
    axis.set_xticks(blocks[:: -(-len(blocks) // 24)])
    legend(axis, theme)
    return as_picture(figure)


def _changed_section(report, images, labels):
    changed, answer = report.changed_answers, report.answers[0]
    if report.verified_on == "synthetic" or not answer.has_decisions:
        return ""
    if not changed:
        return "<h2>Changed answers</h2><p>None: the file calls every image what the model calls it.</p>"
    names = class_names(answer, labels)

    def words(index, probability):
        name = names[index] if index < len(names) else f"class {index}"
        share = f"yes at {probability:.0%}" if answer.task == MULTI_LABEL else f"{probability:.0%}"
        return f"{html.escape(name)}, {share}"

    figures = [
        f"<figure>{_picture(images[each.image], each.image)}<figcaption>"
        f"Keras: {words(each.model_class, each.model_probability)}<br>"
        f"file: {words(each.file_class, each.file_probability)}</figcaption></figure>"
        for each in changed[:SHOWN_IMAGES]
    ]
    return (
        f"<h2>Changed answers: {len(changed)} of {report.parity.images}</h2>"
        f'<p class="note">Those that the model was surest of.</p><div class="changed">{"".join(figures)}</div>'
    )


def _ops_section(file):
    outside = file.nodes_outside_delegate or {}
    most = max(file.ops.values())

    def row(name, count):
        note = f"{outside[name]} outside the delegate" if name in outside else ""
        css = ' class="outside"' if note else ""
        width = max(round(240 * count / most), 2)
        return f'<tr{css}><td>{name}<td>{count}<td><div class="bar" style="width:{width}px"></div><td>{note}'

    rows = "".join(row(name, count) for name, count in file.ops.items())
    summary = f"{sum(file.ops.values())} ops, {file.delegate_partitions} XNNPACK partition(s)"
    return f'<h2>What is in the file: {summary}</h2><div class="scroll"><table>{rows}</table></div>'


def _rewrites_section(report):
    if not report.changes:
        return f"<h2>Rewrites</h2><p>None: {html.escape(report.road_reason)}.</p>"
    rows = "".join(
        f"<tr><td>{name}<td>{html.escape(change or report.reasons[name])}" for name, change in report.changes.items()
    )
    return f'<h2>Rewrites of the graph</h2><div class="scroll"><table>{rows}</table></div>'


def _picture(image, number):
    """An image as HTML; one of other channels than grey or RGB by its number."""
    if image.shape[-1] not in (1, 3):
        return f"<p>image {number}</p>"
    return f'<img alt="image {number}" src="{_png(_image_png(image))}">'


def _image_png(image):
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, format="png")
    return stream.getvalue()


def _png(content):
    return "data:image/png;base64," + base64.b64encode(content).decode()
