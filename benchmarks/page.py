"""The benchmark's page, from what was measured."""

import textwrap

OURS, SHOWN_ARM = "(e)", "cortex-a76"
ABOUT = """\
DeiT-tiny/16, 224x224, batch 1, on {cpu}; the code of `{commit}`, run by `make benchmark`.
Agreement, SNR and top-1 are against the Keras model in float32, on {photos}. Methods were chosen on `imagenet_eval`;
`imagenet_test` is for figures only. The Keras model's own top-1 is {top1}.
Times are medians of {rounds} interleaved rounds. Only ratios within one run mean anything on another machine: `/ (a)`
is the time over that of (a) in float32, `/ (d)` over the fastest of (d). (g) runs in a process of its own, which times
itself when its turn comes; all others share one process. With two threads, where their pools may hinder each other, the
figures are less certain than with one. (d) without the hint f32 computes in bfloat16 what is not int8, on a CPU that
has it. The peers calibrate on the same 64 photos."""


def as_markdown(measured):
    """The page.

    Args:
        measured: what `compare.py` writes as `benchmark.json`.
    """
    rows, sets = measured["rows"], measured["photos"]
    lines = [
        "# Benchmark",
        "",
        ABOUT.format(
            cpu=measured["cpu"],
            commit=measured["commit"],
            photos=" and ".join(f"{count} photos of `{name}`" for name, count in sets.items()),
            top1=" and ".join(f"{value:.1%} on `{name}`" for name, value in measured["keras_top1"].items()),
            rounds=measured["rounds"],
        ),
    ]
    for threads in rows[0]["milliseconds"]:
        lines += ["", f"## {threads} thread{'s' if threads != '1' else ''}", "", *times(rows, threads)]
    lines += ["", "## Accuracy", "", *accuracy(rows, sets)]
    lines += arm(measured["arm"])
    lines += ["", "## How each file was made", "", "| road | mode | by |", "|---|---|---|"]
    lines += [f"| {row['road']} | {row['mode']} | `{row['made_by']}` |" for row in rows]
    if measured["failures"]:
        lines += ["", "## What could not be run", ""]
        lines += [f"* {each['road']}, {each['mode']}: {each['why']}" for each in measured["failures"]]
    return "\n".join(lines) + "\n"


def in_short(measured):
    """The lines of the README: each file of ours beside the fastest of a peer that keeps as many answers."""
    rows = measured["rows"]
    ours = [row for row in rows if row["road"].startswith(OURS)]
    peers = [row for row in rows if row not in ours]
    roads = list(dict.fromkeys(map(_peer, peers)))
    base = _fastest([row for row in rows if row["road"].startswith("(a)") and row["mode"] == "float32"])
    yield from textwrap.wrap(
        f"Side by side with {', '.join(roads[:-1])} and {roads[-1]} in one interleaved run, one thread of "
        f"{measured['cpu']}, answers on both sets ([all figures](docs/benchmark.md), by `make benchmark`):",
        120,
    )
    yield ""
    yield "| file | same answers | time / Keras's float32 | fastest peer that keeps as many | time / its | size / its |"
    yield "|---|---|---|---|---|---|"
    for row in ours:
        rival = _fastest([peer for peer in peers if kept(peer) >= kept(row)])
        beside = "none | | "
        if rival:
            ratios = f"{_time(row) / _time(rival):.2f} | {row['size_bytes'] / rival['size_bytes']:.2f}"
            beside = f"{_peer(rival)}, {rival['mode']} ({kept(rival):.1%}) | {ratios}"
        yield f"| `{row['mode']}` | {kept(row):.1%} | {_time(row) / _time(base):.2f} | {beside} |"
    counts = {(row["road"][:3], row["mode"]): row["instructions"] for row in measured["arm"] if row["cpu"] == SHOWN_ARM}
    if theirs := counts.get(("(a)", "dynamic")):
        yield ""
        shares = " and ".join(f"`{mode}` {counts[OURS, mode] / theirs:.2f}" for mode in ("dynamic", "int8"))
        yield f"Of the instructions of Keras's dynamic file on an ARM {SHOWN_ARM.title()}, {shares}."


def kept(row):
    """The share of the Keras model's answers that a file keeps, the mean over the sets of photos."""
    return sum(judged["agreement"] for judged in row["judged"].values()) / len(row["judged"])


def _fastest(rows):
    return min(rows, key=_time, default=None)


def _peer(row):
    return row["road"][4:].replace(" + ", " with ")  # a line that begins with + is an item of a list


def _time(row):
    return row["milliseconds"]["1"]


def times(rows, threads):
    """The table of milliseconds."""

    def fastest(road, mode=""):
        named = [row for row in rows if row["road"].startswith(road) and row["mode"].startswith(mode)]
        return min((row["milliseconds"][threads] for row in named), default=None)

    base, best = fastest("(a)", "float32"), fastest("(d)")
    yield "| road | mode | ms | / (a) | / (d) | MB |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        taken = row["milliseconds"][threads]
        ratios = " | ".join("" if other is None else f"{taken / other:.2f}" for other in (base, best))
        yield f"| {row['road']} | {row['mode']} | {taken:.2f} | {ratios} | {row['size_bytes'] / 1e6:.1f} |"


def accuracy(rows, sets):
    """The table of what each file keeps, on every set."""
    columns = " | ".join(f"{name}: agreement | SNR dB | top-1" for name in sets)
    yield f"| road | mode | {columns} |"
    yield "|---" * (2 + 3 * len(sets)) + "|"
    for row in rows:
        kept = (row["judged"][name] for name in sets)
        cells = " | ".join(f"{each['agreement']:.1%} | {each['snr_db']:.1f} | {each['top1']:.1%}" for each in kept)
        yield f"| {row['road']} | {row['mode']} | {cells} |"


def arm(rows):
    """The ARM part of the page."""
    base = {
        row["cpu"]: row["instructions"] for row in rows if row["road"].startswith("(a)") and row["mode"] == "dynamic"
    }
    if not base:
        return []
    lines = [
        "",
        "## ARM",
        "",
        "Millions of instructions of one inference, counted by qemu with one thread, and their ratio to (a) dynamic.",
        "Counts of two runs differ by less than 1 %.",
        "",
        "| road | mode | " + " | ".join(f"{cpu} | / (a) dynamic" for cpu in base) + " |",
        "|---|---|" + "---|---|" * len(base),
    ]
    for road, mode in dict.fromkeys((row["road"], row["mode"]) for row in rows):
        counts = {row["cpu"]: row["instructions"] for row in rows if (row["road"], row["mode"]) == (road, mode)}
        cells = " | ".join(f"{counts[cpu] / 1e6:.0f} | {counts[cpu] / base[cpu]:.2f}" for cpu in base)
        lines.append(f"| {road} | {mode} | {cells} |")
    return lines
