"""Every command and every line of Python in the README runs as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, pixels
from PIL import Image

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_are_what_ci_runs():
    commands = [line.split("#")[0].strip() for line in code_blocks("sh")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert set(commands) <= set((REPOSITORY / ".ci" / "run").read_text().splitlines())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder as `make demo` leaves it, and what it tells machines."""
    folder = tmp_path_factory.mktemp("readme")
    command = [Path(sys.executable).with_name("keras-vit"), "demo", "--json"]
    return folder, json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout)


@pytest.fixture(scope="module")
def after_make_demo(demo):
    return demo[0]


@pytest.mark.long
def test_the_command_line_section_runs_in_order(after_make_demo):
    script = code_blocks("sh")[1]
    assert script.count("keras-vit ") == 8
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=after_make_demo,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "vit_digits" in result.stdout and "top-1, file" in result.stdout


@pytest.mark.long
def test_the_lines_of_python_run_as_they_stand(after_make_demo):
    code, _ = code_blocks("python")
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=after_make_demo, check=True, capture_output=True, text=True
    ).stdout
    assert printed.startswith("m.tflite: int8-full for litert\n") and "of 128 images" in printed


@pytest.mark.long
def test_the_model_of_ones_own_is_trained_and_exported(tmp_path):
    for kind, low in (("dark", 0), ("bright", 128)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number, image in enumerate(pixels((24, 40, 3), 24)):
            Image.fromarray(image // 2 + np.uint8(low)).save(tmp_path / "photos" / kind / f"{number}.png")
    _, code = code_blocks("python")
    printed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("m.tflite: int8 for litert\n") and "class names: 2: bright, dark" in printed.stdout
    assert "stretch 32x32 (bilinear), RGB; stretched as Keras does" in printed.stdout


@pytest.mark.long
def test_the_numbers_of_the_demo_table_are_what_the_demo_prints(demo):
    folder, told = demo
    assert [row["mode"] for row in told["rows"]] == ["float32", "dynamic", "int8", "int8-full"]
    for row in told["rows"]:
        parity = row["parity"]
        cells = re.search(rf"\| {row['mode']} \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) \|", README).groups()
        size, accuracy, agreement, snr = map(float, cells)
        assert abs(row["size_bytes"] / 1000 - size) <= 1
        # One digit of 360 may fall otherwise on another processor.
        assert abs(parity["top1_accuracy_tflite"] * 100 - accuracy) <= 0.35
        assert abs(parity["agreement"] * 100 - agreement) <= 0.35
        assert abs(parity["snr_db"] - snr) <= (10 if row["mode"] == "float32" else 1)
    assert Image.open(folder / told["picture"]).size[0] > 500
    assert (folder / "demo-output" / "vit_digits.keras").exists()
