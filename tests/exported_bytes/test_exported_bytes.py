"""`make exported-bytes` on one case: equal trees are equal, and a case that differs is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CASE = "vit_registers_test, float32, litert"


def compare(*arguments):
    command = [sys.executable, REPOSITORY / "tests" / "exported_bytes" / "exported_bytes.py", CASE, "--workers", "1"]
    return subprocess.run([*map(str, command), *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.skipif(
    not (REPOSITORY / ".git").exists(), reason="this tree is no clone: there is no commit to compare with"
)
def test_a_tree_is_compared_with_a_commit(tmp_path):
    kept = tmp_path / "base.json"
    same = compare("--keep", kept)
    digest = json.loads(kept.read_text())[CASE]
    assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    assert same.stdout.splitlines()[-1] == "1 of 1 exports are as those of HEAD." and same.returncode == 0
    kept.write_text(json.dumps({CASE: "0" * 64}))
    other = compare("--keep", kept)
    assert other.stdout.splitlines() == [
        f"{CASE}:",
        f"    {'0' * 64}",
        f"    {digest}",
        "0 of 1 exports are as those of HEAD.",
    ]
    assert other.returncode == 1
