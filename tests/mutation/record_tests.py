"""Records which test runs which line: `make mutate-record`, or `TESTS="tests/layers tests/models"` for some of them."""

import argparse
import subprocess
import sys
import time

import forked_pytest
from arguments import positive
from record_lines import RECORD, RecordLines, record_path
from tree_copy import REPOSITORY, TreeCopy

LIMIT = 3600  # seconds for a test file
RECORDED = (0, 1, 5)  # exit statuses of pytest: all tests passed, some failed, all are long


def test_files(paths):
    """The test files among and under paths of the repository, relative to it.

    Raises:
        ValueError: a path holds none; names it.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = {}
    for path in paths:  # in the order in which they are asked for, each once
        listed = subprocess.run([*command, path], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
        found = [
            file
            for file in listed
            if file.rpartition("/")[2].startswith("test_") and file.endswith(".py") and "tests/mutation" not in file
        ]
        if not found:
            raise ValueError(f"{path!r} holds no test file to record: name test files, or folders of them.")
        files |= dict.fromkeys(found)
    return list(files)


def parsed():
    """The arguments of the command line, and the test files that they name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", default=["tests"])
    parser.add_argument("--workers", type=positive, default=1)
    parser.add_argument("--missing", action="store_true", help="leave out test files that have a record")
    parser.add_argument("--long", action="store_true", help="the long tests too")
    arguments = parser.parse_args()
    try:
        return arguments, test_files(arguments.tests)
    except ValueError as error:
        parser.error(str(error))


def main():
    arguments, files = parsed()
    if arguments.missing:
        files = [file for file in files if not record_path(file).exists()]
        if not files:
            print("Every test file has a record.")
            return 0
    forked_pytest.import_the_slow_packages()
    copies = [TreeCopy(f"record-{i}") for i in range(arguments.workers)]
    started, running, limits, failed = {}, {}, {}, []
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
        if status not in RECORDED:
            failed.append(file)
    if failed:
        print(f"Not recorded: {', '.join(failed)}. Their logs are in {RECORD}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
