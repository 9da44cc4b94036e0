"""Every command and every line of Python in the README runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import REPOSITORY, pixels
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.presets.digits import load_digits_split

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_are_what_ci_runs():
    commands = [line.split("#")[0].strip() for line in code_blocks("sh")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert set(commands) <= set((REPOSITORY / ".ci" / "run").read_text().splitlines())


def test_the_command_line_section_runs_in_order(tmp_path):
    (tmp_path / "digits").mkdir()
    (images, labels), _ = load_digits_split()
    rows = ["file,label"]
    for i, (image, label) in enumerate(zip(images[:10], labels)):
        Image.fromarray(image[..., 0]).save(tmp_path / "digits" / f"{i}.png")
        rows.append(f"{i}.png,{label}")
    (tmp_path / "digits" / "labels.csv").write_text("\n".join(rows))
    script = code_blocks("sh")[1]
    assert script.count("keras-vit ") == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "vit_digits" in result.stdout and (tmp_path / "m.tflite").exists()


def test_the_five_lines_of_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pixels((64, 48, 3), 4)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    code = code_blocks("python")[0]
    assert 'kv.build("deit_tiny_patch16_224", weights="deit_tiny.npz")' in code
    # The lines as they stand, on a tiny preset: its weights and images can be made here.
    np.savez(tmp_path / "deit_tiny.npz", **_timm_tensors_of_a_tiny_vit())
    code = code.replace("deit_tiny_patch16_224", "vit_test")
    monkeypatch.setattr(kv.export, "export_tflite", _with_wide_tolerance(kv.export.export_tflite))
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "m.tflite").exists()


def _with_wide_tolerance(export_tflite):
    return lambda *a, **k: export_tflite(*a, **k, tolerance=kv.export.Tolerance(0, 0))


def _timm_tensors_of_a_tiny_vit():
    sys.path.insert(0, str(REPOSITORY / "tests" / "checkpoints"))
    from test_checkpoints import timm_tensors

    return timm_tensors("vit_test")


def test_the_numbers_of_the_demo_table_are_what_the_demo_prints(tmp_path):
    from keras_vit_plugin.export.demo import run_demo

    rows, _, _ = run_demo(tmp_path)
    for row in rows:
        parity = row.parity
        cells = re.search(rf"\| {row.mode} \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) \|", README).groups()
        size, accuracy, agreement, snr = map(float, cells)
        assert abs(row.size_bytes / 1000 - size) <= 1
        # One digit of 360 may fall otherwise on another processor.
        assert abs(parity.top1_accuracy_tflite * 100 - accuracy) <= 0.35
        assert abs(parity.top1_agreement * 100 - agreement) <= 0.35
        assert abs(parity.snr_db - snr) <= (10 if row.mode == "float32" else 1)
