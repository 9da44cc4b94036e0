"""What the `keras-vit` command prints for people: results as tables."""

import click
from rich.console import Console
from rich.table import Table

FIRST_LABELS = 5


def print_candidates(made):
    """Prints the files that `"auto"` tried."""
    table = Table("tried", "MB", "same answers", "with 90 %", "top-1", "SNR dB", title="Cheapest first")
    for candidate in made.tried:
        drop = "" if candidate.top1_drop is None else f"{-candidate.top1_drop:+.1f}"
        table.add_row(
            candidate.name,
            f"{candidate.size_bytes / 1e6:.2f}",
            f"{candidate.agreement:.2%}",
            f"{candidate.agreement_kept:.2%}",
            drop,
            f"{candidate.snr_db:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(made.choice)


def print_answer(result):
    """Prints the classes of an image, or why there are none; says which."""
    if "error" in result:
        click.echo(f"Error: {result['error']}", err=True)
        return False
    _print_title(result["file"])
    table = Table("class", "probability")
    for answer in result["top"]:
        table.add_row(answer["label"], f"{answer['probability']:.1%}")
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
    for name, value in pairs.items():
        table.add_row(name, value)
    Console().print(table)


def _print_title(text):
    """Above a table, in one line: a path is not to be broken."""
    Console(highlight=False).print(text, style="italic", markup=False, soft_wrap=True)


def metadata_in_words(metadata):
    """`{name: value}` of what the exporter stored in a file."""
    if not metadata:
        return {"made as": "not by keras-vit"}
    preprocessing, parity, labels = metadata["preprocessing"], metadata["parity"], metadata["labels"]
    height, width = preprocessing["size"]
    resized = preprocessing["resize"] or preprocessing["size"]
    prepared = f"{preprocessing['rule']} {resized[0]}x{resized[1]} ({preprocessing['interpolation']})"
    return {
        "made as": f"{metadata['mode']} for {metadata['target']} by keras-vit-plugin {metadata['keras_vit_plugin']}",
        "gives": ", ".join(metadata["outputs"]),
        "labels": "none" if labels is None else f"{len(labels)}: {', '.join(labels[:FIRST_LABELS])}, ...",
        "photos": f"{prepared}, then the centre {height}x{width}, {metadata['colour']}",
        "same answers": f"{parity['top1_agreement']:.1%} of {parity['images']} {metadata['verified_on']} images",
        "SNR": f"{parity['snr_db']:.1f} dB",
        "weights": f"SHA-256 {metadata['weights_sha256'][:16]}...",
    }
