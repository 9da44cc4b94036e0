"""Records which test runs which line: `make mutate-record`, or `TESTS="tests/layers tests/models"` for some of them."""

import argparse
import subprocess
import sys
import time

import forked_pytest
from record_lines import RECORD, RecordLines, record_path
from tree_copy import REPOSITORY, TreeCopy

LIMIT = 3600  # seconds for a test file


def test_files(paths):
    """The test files among and under paths of the repository, relative to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = []
    for path in paths:  # in the order in which they are asked for
        listed += subprocess.run([*command, path], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    return [path for path in listed if path.rpartition("/")[2].startswith("test_") and "tests/mutation" not in path]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", default=["tests"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--missing", action="store_true", help="leave out test files that have a record")
    parser.add_argument("--long", action="store_true", help="the long tests too")
    arguments = parser.parse_args()
    files = test_files(arguments.tests)
    if arguments.missing:
        files = [file for file in files if not record_path(file).exists()]
    forked_pytest.import_the_slow_packages()
    copies = [TreeCopy(f"record-{i}") for i in range(arguments.workers)]
    started, running, limits = {}, {}, {}
    RECORD.mkdir(parents=True, exist_ok=True)
    left = list(files)
    while left or started:
        while left and len(started) < arguments.workers:
            file, copy = left.pop(0), copies.pop()
            plugin = RecordLines(copy.folder, file)
            log = record_path(file).with_suffix(".log")
            chosen = ["-m", "long or not long"] if arguments.long else []
            process = forked_pytest.start(copy, ["--durations=0", *chosen, file], log, [plugin])
            started[process], running[process], limits[process] = time.monotonic(), (file, copy), LIMIT
        process, status = forked_pytest.wait(started, limits)
        file, copy = running.pop(process)
        copies.append(copy)
        seconds = time.monotonic() - started.pop(process)
        print(f"{file}: {seconds:.0f} s, exit status {status}; {len(left)} files left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
