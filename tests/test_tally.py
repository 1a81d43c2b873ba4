"""What is finished of a command, and how long the rest takes: in words, on one line."""

from __future__ import annotations

import sys
import time

import pytest

from fastencode import progress
from fastencode.progress import Line
from fastencode.runs.tally import Tally


def test_kinds_are_counted_and_time_left_is_that_of_their_own_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    names = [*(f"fits/m/A/{n}" for n in range(6)), "models/a", "models/b"]
    tally = Tally(names, {"fits/m/A/0": 10.0}, jobs=2)
    assert tally.text([]) == "1 of 6 fits, 0 of 2 models, 1 reused"
    tally.made("fits/m/A/1", 30.0)
    assert tally.text([]) == "2 of 6 fits, 0 of 2 models, 1 reused, about 60 s left"  # (4 + 2) x 20 s / 2
    tally.made("models/a", 1000.0)
    assert tally.text([]) == "2 of 6 fits, 1 of 2 models, 1 reused, about 9 min left"  # (4 x 20 + 1000) / 2
    assert tally.text(["models/b"]) == "2 of 6 fits, 1 of 2 models, 1 reused, 1 not made, about 40 s left"
    for n in range(2, 6):
        tally.made(f"fits/m/A/{n}", 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + 3 * 3600)
    assert tally.text(["models/b"]) == "6 of 6 fits, 1 of 2 models, 1 reused, 1 not made, took 3.0 h"


def test_one_stage_is_named_without_a_count() -> None:
    assert Tally(["world"], {"world": 3.0}, 1).text([]) == "world, reused"
    assert Tally(["world"], {}, 1).text(["world"]) == "world, failed"


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Line() as line:
        for step in range(1, 7):
            now[0] = 25.0 * step
            line.show(f"{step} of 6")
            assert progress.row == 1, "bars of this process are drawn below the line"
    assert capsys.readouterr().out == "3 of 6\n6 of 6\n" and progress.row == 0


def test_on_a_terminal_the_line_is_rewritten(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Line() as line:
        for step in range(1, 4):
            line.show(f"{step} of 3")
    said = capsys.readouterr()
    assert said.out == "3 of 3\n" and "\r1 of 3\r2 of 3\r3 of 3\r" in said.err and "\n" not in said.err.strip()
