"""The tiers of the tests: what `make test` samples, and the parts of the rest that CI runs in turn."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

TESTS = """
import pytest

@pytest.mark.parametrize("mode", ["a", "b"])
@pytest.mark.parametrize("size", range(5))
@pytest.mark.sampled(2)
def test_sampled(mode, size):
    pass

@pytest.mark.parametrize("size", range(3))
@pytest.mark.sampled(0)
def test_never_sampled(size):
    pass

@pytest.mark.long
def test_long():
    pass

def test_quick():
    pass
"""


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """The names of the tests of `TESTS` that a command line takes."""
    folder = tmp_path_factory.mktemp("tiers")
    shutil.copy(REPOSITORY / "tests" / "conftest.py", folder)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    (folder / "test_some.py").write_text(TESTS)

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *arguments, folder]
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr
        return {line.partition("::")[2] for line in result.stdout.splitlines() if "::" in line}

    return run


def test_the_tiers_hold_every_case_once(collected):
    quick, long = collected(), collected("-m", "long")
    assert not quick & long and quick | long == collected("-m", "long or not long")
    assert len(quick) == 3 and "test_quick" in quick
    sampled = [name.removeprefix("test_sampled[").removesuffix("]").split("-") for name in quick - {"test_quick"}]
    assert {mode for _, mode in sampled} == {"a", "b"} and len({size for size, _ in sampled}) == 2


@pytest.mark.long
def test_the_parts_hold_what_is_left_of_each_sample_once(collected):
    long = collected("-m", "long")
    parts = [collected("-m", "long", "--part", f"{k}/3") for k in (1, 2, 3)]
    assert set.union(*parts) == long and set.intersection(*parts) == {"test_long"}
    assert sum(map(len, parts)) == len(long) + 2
    assert all(sum(name.startswith("test_never") for name in part) == 1 for part in parts)
    assert {sum(name.startswith("test_sampled") for name in part) for part in parts} <= {2, 3}
    assert collected("--part", "2/3") == collected()  # `make test` runs the same samples each time


@pytest.mark.parametrize("part", ["4/3", "0/3", "1/0", "1"])
@pytest.mark.sampled(1)
def test_a_part_that_is_none_is_refused(part, collected):
    with pytest.raises(AssertionError, match=f"--part must be K/N with K from 1 to N, such as 1/3, got '{part}'"):
        collected("--part", part)
