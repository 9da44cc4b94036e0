"""What the `keras-vit` command prints for people: results as tables."""

import unicodedata

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def strip_control(text):
    """Text of a file or a user without control characters, which a terminal would obey; line ends stay."""
    return "".join(" " if unicodedata.category(each) == "Cc" and each not in "\n\t" else each for each in text)


def print_candidates(made):
    """Prints the files that `"auto"` tried."""
    names = "tried", "MB", "same answers", "certain", "top-1", "relative error", "SNR dB"
    caption = "certain: with 90 %, on images like these, counted up to what is asked for"
    table = Table(*names, title="Most accurate first", caption=caption)
    for candidate in made.tried:
        table.add_row(
            candidate.name,
            f"{candidate.size_bytes / 1e6:.2f}",
            *("" if share is None else f"{share:.2%}" for share in (candidate.agreement, candidate.agreement_kept)),
            "" if candidate.top1_drop is None else f"{0.0 - round(candidate.top1_drop, 1):+.1f}",
            f"{candidate.relative_error:.1%}",
            f"{candidate.snr_db:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(made.choice, markup=False)


def print_answer(result):
    """Prints the classes of an image, or why there are none; says which."""
    if "error" in result:
        click.echo(f"Error: {result['error']}", err=True)
        return False
    _print_title(result["file"])
    if "values" in result:
        table = Table("number", "value")
        for each in result["values"]:
            table.add_row(escape(strip_control(each["label"])), f"{each['value']:.5g}")
    else:
        table = Table("class", "probability")
        for answer in result["top"]:
            table.add_row(escape(strip_control(answer["label"])), f"{answer['probability']:.1%}")
    Console().print(table)
    return True


def print_rewrites(made):
    """Prints what each rewrite of an `ExportReport` changed."""
    table = Table("rewrite", "what it changed", title="Rewrites, in their order")
    for name, change in made.changes.items():
        table.add_row(name, change or f"[dim]{made.reasons[name]}[/dim]")
    Console().print(table)


def print_pairs(title, pairs):
    """Prints names and values, one a line."""
    _print_title(title)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a hash is longer than a line may be
    for name, value in pairs.items():
        table.add_row(escape(strip_control(name)), escape(strip_control(value)))
    Console().print(table)


def _print_title(text):
    """Above a table, in one line: a path is not to be broken."""
    Console(highlight=False).print(strip_control(str(text)), style="italic", markup=False, soft_wrap=True)


def metadata_in_words(stored):
    """`{name: value}` of what the exporter stored in a file."""
    from keras_vit_plugin.export.metadata import as_metadata
    from keras_vit_plugin.export.report import first_names

    if not stored:
        return {"made as": "not by keras-vit"}
    metadata = as_metadata(stored)
    parity, labels = metadata.parity, metadata.labels
    gives = {answer.name: f"{answer.name} ({answer.task}, {answer.activation})" for answer in metadata.answers}
    words = {
        "made as": f"{metadata.mode} for {metadata.target} by keras-vit-plugin {metadata.version}",
        "gives": ", ".join(gives.get(name, name) for name in metadata.outputs),
        "class names": first_names(labels) if labels else "none",
        "photos": metadata.preprocessing.words,
    }
    if parity.get("agreement") is not None:
        words["same answers"] = f"{parity['agreement']:.1%} of {parity['images']} {metadata.verified_on} images"
    if "snr_db" in parity:
        words["SNR"] = f"{parity['snr_db']:.1f} dB"
    if metadata.verified_by:
        words["verified with"] = metadata.verified_by
    if metadata.rejected:
        words["rejected"] = metadata.rejected
    return words | {"weights": f"SHA-256 {metadata.weights_sha256[:16]}..."}
