"""Long work shows how far it is, and a library call says nothing."""

import os
import re
import time
import warnings

import pytest
from click.testing import CliRunner

from keras_vit_plugin import progress
from keras_vit_plugin.cli import main


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(progress, "_lines", True)
    monkeypatch.setattr(progress, "FIRST_LINE", 0.05)
    monkeypatch.setattr(progress, "NEXT_LINE", 0.05)


def test_a_log_gets_lines_with_how_much_is_done_and_left(lines, capsys):
    for _ in progress.track(range(10), "Measuring int8"):
        time.sleep(0.02)
    told = capsys.readouterr().err.splitlines()
    assert 1 <= len(told) <= 5
    assert all(re.fullmatch(r"keras-vit: Measuring int8: \d of 10, about \d+ s left", line) for line in told)


def test_work_of_unknown_length_gets_lines(lines, capsys):
    with progress.stage("Converting to TFLite"):
        time.sleep(0.2)
    assert re.match(r"keras-vit: Converting to TFLite, \d+ s\n", capsys.readouterr().err)
    for _ in progress.track(iter(range(5)), "Reading"):
        time.sleep(0.02)
    assert re.search(r"Reading: \d\n", capsys.readouterr().err)


def test_what_is_within_a_stage_adds_nothing(lines, capsys):
    for _ in progress.track(range(3), "outer"):
        with progress.stage("inner"):
            assert list(progress.track(range(3), "innermost")) == [0, 1, 2]
            time.sleep(0.1)
    assert "inner" not in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        for _ in progress.track(range(3), "broken"):
            _ = 1 / 0
    with progress.stage("after"):
        time.sleep(0.1)
    assert "after" in capsys.readouterr().err


def test_quick_work_and_a_library_say_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.01)
    assert list(progress.track(range(3), "Reading")) == [0, 1, 2]
    with progress.stage("Converting"):
        time.sleep(0.05)
    monkeypatch.setattr(progress, "_lines", True)
    monkeypatch.setattr(progress, "FIRST_LINE", 60)
    assert list(progress.track(range(3), "Reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_command_within_a_process_leaves_nothing_behind():
    before, place = warnings.showwarning, os.fstat(2)
    assert CliRunner().invoke(main, ["list", "vit_digits"]).exit_code == 0
    assert not progress._lines and warnings.showwarning is before
    assert os.path.samestat(os.fstat(2), place)


def test_a_terminal_gets_a_bar(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    for _ in progress.track(range(5), "Measuring int8"):
        time.sleep(0.15)
    assert "Measuring int8" in terminal.getvalue() and "/5" in terminal.getvalue() and "left" in terminal.getvalue()
