"""What the `keras-vit` command prints for people: results as tables."""

from keras_vit_plugin.cli.terminal import print_line, print_table, say


def print_candidates(made):
    """Prints the files that `"auto"` tried."""
    print_table(
        ("tried", "MB", "same answers", "certain", "top-1", "relative error", "SNR dB"),
        (
            (
                candidate.name,
                f"{candidate.size_bytes / 1e6:.2f}",
                *("" if share is None else f"{share:.2%}" for share in (candidate.agreement, candidate.agreement_kept)),
                "" if candidate.top1_drop is None else f"{0.0 - round(candidate.top1_drop, 1):+.1f}",
                f"{candidate.relative_error:.1%}",
                f"{candidate.snr_db:.1f}",
            )
            for candidate in made.tried
        ),
        title="Most accurate first",
        caption="certain: with 90 %, on images like these, counted up to what is asked for",
    )
    say(made.choice)


def print_answer(result):
    """Prints the classes of an image, or why there are none."""
    if "error" in result:
        say(f"Error: {result['error']}", err=True)
        return
    print_line((result["file"], "italic"))
    if "values" in result:
        print_table(("number", "value"), ((each["label"], f"{each['value']:.5g}") for each in result["values"]))
    else:
        rows = ((answer["label"], f"{answer['probability']:.1%}") for answer in result["top"])
        print_table(("class", "probability"), rows)


def print_rewrites(made):
    """Prints what each rewrite of an `ExportReport` changed."""
    if not made.changes:
        say(f"No rewrites: {made.road_reason}.")
        return
    rows = ((name, change or made.reasons[name]) for name, change in made.changes.items())
    print_table(("rewrite", "what it changed"), rows, title="Rewrites, in their order")


def print_debug(tflite, report):
    """Prints where the error of a file enters, by a `DebugReport`."""
    from keras_vit_plugin.export import advice

    print_line(
        f"{tflite}: {report.mode}, logits at {report.logits_snr_db:.1f} dB on {report.images} images. "
        "Shares are of the error that each op adds by itself, as it arrives in the logits."
    )
    for attribute in ("place", "kind"):
        rows = []
        for name, ops in report.by(attribute).items():
            widest = max(ops, key=lambda op: op.high - op.low)
            rows.append(
                (
                    name,
                    f"{ops[-1].snr_db:.1f}" if attribute == "place" else f"{min(op.snr_db for op in ops):.1f} at worst",
                    f"{sum(op.noise for op in ops) / report.noise:.1%}",
                    f"{widest.low:.3g}..{widest.high:.3g}",
                    f"{max(op.clipped for op in ops):.2%}",
                )
            )
        print_table((attribute, "SNR dB", "share of error", "widest range", "clipped"), rows)
    for op in report.worst():
        print_line(
            (f"{op.kind} in {op.place}", "bold"),
            f" ({op.name.split(';')[0]}): {op.noise / report.noise:.1%} of the error, mostly {op.cause}. "
            f"{advice(op, report.mode)}",
        )


def print_pairs(title, pairs):
    """Prints names and values, one a line."""
    print_line((str(title), "italic"))
    print_table(None, pairs.items())


def metadata_in_words(stored):
    """`{name: value}` of what the exporter stored in a file.

    Raises:
        InvalidModelFile: it stored something else.
    """
    from keras_vit_plugin.export.report import first_names
    from keras_vit_plugin.export.tflite.metadata import as_metadata

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
