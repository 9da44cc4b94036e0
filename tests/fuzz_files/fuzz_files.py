"""Damaged and hostile files through every command: `make fuzz-files MINUTES=5`, and one again: `... SEED=12`."""

import argparse
import os
import signal
import sys
import time
from itertools import islice
from pathlib import Path

from campaign import FAILURES, campaign, table
from cases import NAMES, TURNS, format_of


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="default: 5, or until --cases are done")
    parser.add_argument("--cases", type=int, help="so many at most")
    parser.add_argument("--seed", type=int, help="this case alone, told in full")
    parser.add_argument("--first", type=int, help="the first of the seeds; default: another every second")
    parser.add_argument("--format", choices=NAMES, help="files of this format alone")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count()), help="cases at a time")
    parser.add_argument("--failures", type=Path, default=FAILURES, help="folder where files of faults are kept")
    parser.add_argument("--table", type=Path, help="write the table of counts, as Markdown")
    options = parser.parse_args()
    for name in ("workers", "cases"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more, got {getattr(options, name)}")
    for ended in (signal.SIGINT, signal.SIGTERM):  # so that processes and temporary folders are cleared away
        signal.signal(ended, signal.default_int_handler)
    if options.seed is not None:
        return again(options)
    first = int(time.time()) % 10**6 * 1000 if options.first is None else options.first
    minutes = 5 if options.minutes is None and options.cases is None else options.minutes
    seeds = range(first, first + (options.cases or 10**6))
    if options.format is not None:
        wide = range(first, first + len(seeds) * len(TURNS))
        seeds = list(islice((seed for seed in wide if format_of(seed) == options.format), len(seeds)))
    print(f"{len(seeds)} case(s) at most, from seed {first} on", flush=True)
    results = campaign(seeds, minutes, options.workers, options.failures, say)
    lines = table(results)
    say("\n".join(lines))
    if options.table is not None:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    faults = sum(result.is_fault for result in results)
    if faults:
        say(f"{faults} fault(s); their files are in {options.failures}")
    return int(bool(faults))


def again(options):
    """One case once more; its files are kept whatever becomes of it."""
    folder = options.failures / str(options.seed)
    (result,) = campaign([options.seed], None, 1, options.failures, say, keep_all=True)
    for name in ("stdout", "stderr"):
        say(f"--- {name} ---\n{(folder / name).read_text(errors='replace')!r}")
    say(f"{result.outcome}: {result.detail}\n{result.seconds:.2f} s, {result.memory / 1e9:.2f} GB; files in {folder}")
    return int(result.is_fault)


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
