"""The log of a tuning run: lines that are whole, cut where a state says, read back; and what is made of it: figure and card."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.tune.card import write_card
from fastencode.tune.curves import draw_curves
from fastencode.tune.log import Log, epochs, kept_epoch, read_log, updates
from tune_run_cases import log_rows, write_log


def test_lines_are_json_with_every_digit_and_null_for_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    third = 1 / 3
    with Log(path) as log:
        log.write(
            "update", update=np.int64(10), loss=third, bad=math.nan, far={"a": -math.inf}, small=np.float32(0.1), on=np.True_
        )
        assert log.size == path.stat().st_size  # while it is open: nothing waits in a buffer
        log.write("epoch", stories=("Größe", "b"), r=np.array([0.5, np.nan]))
    lines = path.read_bytes().split(b"\n")
    assert lines[-1] == b"" and len(lines) == 3
    assert b"NaN" not in path.read_bytes() and repr(third).encode() in lines[0]
    first = {
        "kind": "update",
        "update": 10,
        "loss": third,
        "bad": None,
        "far": {"a": None},
        "small": float(np.float32(0.1)),
        "on": True,
    }
    assert json.loads(lines[0]) == first
    assert read_log(path) == [first, {"kind": "epoch", "stories": ["Größe", "b"], "r": [0.5, None]}]
    assert epochs(path) == read_log(path)[1:] and updates(path) == [first]


def test_tensors_become_numbers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
    with Log(tmp_path / "log.jsonl") as log:
        loss = torch.tensor(0.25, requires_grad=True)
        log.write(
            "update", loss=loss, half=torch.tensor(0.5, dtype=torch.bfloat16), all=torch.arange(3), bad=torch.tensor(math.nan)
        )
    assert read_log(log.path) == [{"kind": "update", "loss": 0.25, "half": 0.5, "all": [0, 1, 2], "bad": None}]


def test_what_json_does_not_have_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with Log(tmp_path / "log.jsonl") as log:
        log.write("update", update=1)
        with pytest.raises(TypeError, match="object"):
            log.write("update", update=2, what=object())
        log.write("update", update=3)
    assert [row["update"] for row in read_log(log.path)] == [1, 3]


def test_a_run_that_goes_on_has_the_log_of_one_that_was_never_killed(tmp_path: Path) -> None:
    def log_updates(log: Log, first: int, last: int) -> None:
        for n in range(first, last):
            log.write("update", update=n, loss=1 / n)

    with Log(tmp_path / "whole.jsonl") as whole:
        log_updates(whole, 1, 9)
    killed = Log(tmp_path / "killed.jsonl")
    log_updates(killed, 1, 4)
    killed.sync()
    state = killed.size
    log_updates(killed, 4, 7)
    killed.close()
    with killed.path.open("ab") as file:
        file.write(b'{"kind": "upd')
    with Log(killed.path, size=state) as log:
        log_updates(log, 4, 9)
    assert killed.path.read_bytes() == whole.path.read_bytes()


def test_without_a_size_only_a_cut_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write("update", update=1, text="x" * 200_000)  # longer than what is read at once
        log.write("update", update=2)
    whole = path.read_bytes()
    for rest in (b'{"kind": "update", "upda', b"{" * 150_000, b""):
        path.write_bytes(whole + rest)
        assert [row["update"] for row in read_log(path)] == [1, 2]
        with Log(path) as log:
            assert log.size == len(whole)
        assert path.read_bytes() == whole
    path.write_bytes(b'{"kind": "upd')
    with Log(path) as log:
        assert log.size == 0 and path.read_bytes() == b""
    assert read_log(path) == []


@pytest.mark.parametrize(("size", "message"), [(10_000, "10000"), (5, "byte 5")])
def test_a_log_that_something_else_changed_is_refused_untouched(tmp_path: Path, size: int, message: str) -> None:
    with Log(tmp_path / "log.jsonl") as log:
        log.write("update", update=1)
    before = log.path.read_bytes()
    with pytest.raises(InputError, match=message):
        Log(log.path, size=size)
    assert log.path.read_bytes() == before


@pytest.mark.parametrize("damage", [b'{"kind": "update", "upd', b"[1, 2]", b'{"loss": 1}', b"", b'{"kind": "\xff"}'])
def test_a_damaged_line_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"kind": "update", "update": 1}\n' + damage + b'\n{"kind": "update", "update": 2}\n')
    with pytest.raises(InputError, match=r"log\.jsonl, line 2 is damaged"):
        read_log(path)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_log(tmp_path / "log.jsonl")


FULL = """
import resource, signal, sys
from pathlib import Path
from fastencode.errors import DiskError
from fastencode.tune.log import Log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Log(Path(sys.argv[1]))
log.write("update", update=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    log.write("update", update=2, loss=0.5)
except DiskError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))
log.write("update", update=3)
log.close()
"""


def test_a_full_disk_is_an_error_with_advice_and_leaves_whole_lines(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond 20 bytes into the second line."""
    path = tmp_path / "log.jsonl"
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120, check=True)
    assert "cannot be written" in run.stdout and "make room" in run.stdout
    assert path.read_bytes() == b'{"kind": "update", "update": 1}\n{"kind": "update", "update": 3}\n'


@pytest.mark.parametrize(
    ("ends", "kept"), [([], 2), ([{"kind": "end", "epoch_kept": 1}], 1), ([{"kind": "end", "why": "all epochs"}], 2)]
)
def test_the_kept_epoch_is_the_one_at_the_end_or_the_last(ends: list[dict[str, Any]], kept: int) -> None:
    rows = [{"kind": "epoch", "epoch": n} for n in range(3)]
    found = kept_epoch([*rows, *ends])
    assert found is not None and found["epoch"] == kept
    assert kept_epoch(ends) is None


class Writer:
    """TensorBoard's writer as far as the log knows it."""

    made: list[Writer]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.purge_step, self.scalars, self.closed = purge_step, list[tuple[str, float, int]](), False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_numbers_go_to_tensorboard_too_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made = []
    with Log(tmp_path / "log.jsonl", tensorboard=tmp_path / "board") as log:
        log.write("update", update=4, loss=0.5, learning_rate={"heads": 0.1}, stories=["a"], own_loss=math.nan)
    with Log(log.path, tensorboard=tmp_path / "board") as log:
        log.write("epoch", epoch=1, updates=8, validation_r=0.2)
    first, second = Writer.made
    assert ("update/loss", 0.5, 4) in first.scalars and ("update/learning_rate/heads", 0.1, 4) in first.scalars
    assert not [name for name, *_ in first.scalars if "stories" in name or "own_loss" in name]
    assert ("epoch/validation_r", 0.2, 8) in second.scalars
    assert (first.purge_step, second.purge_step) == (0, 5) and first.closed and second.closed


def test_without_tensorboard_nothing_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Log(tmp_path / "log.jsonl", tensorboard=tmp_path / "board") as log:
        log.write("update", update=4, loss=0.5)
    assert not (tmp_path / "board").exists() and len(read_log(log.path)) == 1


# -- curves


def _axes(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Draw, and keep the figure's panels by their titles."""
    agg = pytest.importorskip("matplotlib.backends.backend_agg", reason="figures need the extra 'report'").FigureCanvasAgg
    kept, save = [], agg.print_png
    monkeypatch.setattr(agg, "print_png", lambda self, *args, **more: (kept.append(self.figure), save(self, *args, **more)))
    draw_curves(path, path.with_suffix(".png"))
    return {ax.get_title(): ax for ax in kept[0].get_axes()}


def _curve(ax: Any, label: str) -> tuple[list[float], list[float]]:
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return list(line.get_xdata()), list(line.get_ydata())


def test_curves_show_the_numbers_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = log_rows(3, 4)
    axes = _axes(write_log(tmp_path, rows), monkeypatch)
    of_epochs = [row for row in rows if row["kind"] == "epoch"]
    for label, name in (("training", "train_loss"), ("validation", "validation_loss"), ("of predicting the mean", "mean_loss")):
        at, drawn = _curve(axes["loss"], label)
        assert at == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(drawn, [math.nan if row[name] is None else row[name] for row in of_epochs])
    assert _curve(axes["validation correlation r over voxels"], "mean")[1] == [row["validation_r"] for row in of_epochs]
    band = axes["validation correlation r over voxels"].collections[1].get_paths()[0].vertices[:, 1]
    highest = np.mean([one["quantiles"]["75"] for one in of_epochs[-1]["participants"].values()])
    assert band.max() == pytest.approx(highest, abs=1e-12)
    of_updates = [row for row in rows if row["kind"] == "update"]
    at, drawn = _curve(axes["learning rates"], "heads")
    np.testing.assert_allclose(drawn, [row["learning_rate"]["heads"] for row in of_updates])
    np.testing.assert_allclose(at, [row["update"] / 40 for row in of_updates])
    moved = axes["weight change ‖w − w₀‖ / ‖w₀‖"].get_lines()
    drawn = sorted(float(line.get_ydata()[-1]) for line in moved)
    np.testing.assert_allclose(drawn, sorted(of_epochs[-1]["weight_change"].values()))
    assert [text.get_text() for text in axes["r of participants, epoch 4"].get_yticklabels()] == ["P1", "P2", "P3"]


def test_equal_logs_but_for_times_give_equal_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra 'report'")
    slow, quick, other = tmp_path / "slow", tmp_path / "quick", tmp_path / "other"
    pictures = []
    for folder, rows in ((slow, log_rows(2, 2, seconds=90.0)), (quick, log_rows(2, 2)), (other, log_rows(2, 2, seed=1))):
        pictures.append(draw_curves(write_log(folder, rows), folder / "curves.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert b"matplotlib" not in pictures[0].lower() and b"tIME" not in pictures[0]


@pytest.mark.parametrize("what", ["no updates", "epoch 0", "no validation", "nulls", "half an epoch", "early stop", "stimulus"])
def test_runs_of_every_kind_are_drawn(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = log_rows(2, 3)
    if what == "no updates":
        rows = [row for row in rows if row["kind"] != "update"]
    elif what == "epoch 0":
        rows = rows[:1]
    elif what == "half an epoch":
        rows = rows[:4]
    elif what == "early stop":
        rows[-1] |= {"why": "early stop", "epoch_kept": 2}
    for row in rows:
        if what in ("no validation", "stimulus") and row["kind"] == "epoch":
            row |= {"mean_loss": None, "validation_r": None, "participants": {}}
            row["validation_loss"] = 3.0 if what == "stimulus" else None
        if what == "nulls":
            row |= {"loss": None, "train_loss": None, "validation_r": None, "weight_change": {}, "learning_rate": {"heads": None}}
    axes = _axes(write_log(tmp_path, rows), monkeypatch)
    labels = [line.get_label() for line in axes["loss"].get_lines()]
    assert ("_epoch kept" in labels) == (what == "early stop")
    assert ("validation" in labels) == (what != "no validation")
    legends = {title: ax.get_legend() for title, ax in axes.items()}
    assert (legends["validation correlation r over voxels"] is None) == (what in ("no validation", "stimulus"))
    assert (legends["weight change ‖w − w₀‖ / ‖w₀‖"] is None) == (what in ("epoch 0", "half an epoch", "nulls"))
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


def test_a_log_without_epochs_has_no_curves(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no line of an epoch"):
        draw_curves(write_log(tmp_path, []), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


# -- the model card

FACTS: dict[str, Any] = {
    "participants": {"P1": 12345, "P2": 7},
    "stories": {"training": ["life", "a|b"], "validation": ["souls"]},
    "updates": 120,
    "hashes": {"model": "aa", "data": {"P1/life.hf5": "bb"}},
    "versions": {"torch": "2.9"},
    "commit": "cc",
    "words": "said",
    "data set": "/home/somebody/speech",
}


def _card(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any] | None = None, base: str = "facebook/base") -> str:
    facts = {**FACTS, "end": next((row for row in rows if row["kind"] == "end"), None)}
    epochs_ = [row for row in rows if row["kind"] == "epoch"]
    return write_card(
        folder / "README.md", base_model=base, settings=settings or {"targets": "brain"}, facts=facts, epochs=epochs_
    ).read_text(encoding="utf-8")


def test_a_card_says_what_was_tuned_on_what_and_how_well(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="cards are read back with PyYAML")
    rows = log_rows(2, 3)
    text = _card(tmp_path, rows, {"targets": "brain", "seed": 3, "far": math.inf})
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {"library_name": "transformers", "base_model": "facebook/base", "tags": ["brain-tuning", "speech", "fmri"]}
    settings = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert settings == {"targets": "brain", "seed": 3, "far": None}
    facts = [
        "P1 (12,345 voxels)",
        "life, a\\|b",
        "souls",
        "120",
        "`aa`",
        "data, P1/life.hf5: `bb`",
        "torch 2.9",
        "`cc`",
        "said",
        "speech\n",
    ]
    for words in facts:
        assert words in text
    of_epochs = [row for row in rows if row["kind"] == "epoch"]
    first, last = of_epochs[0]["participants"]["P1"], of_epochs[-1]["participants"]["P1"]
    (line,) = [line for line in text.splitlines() if line.startswith("| P1 |")]
    wanted = [12345, 1.0, first["loss"], last["loss"], 0.0, last["r"]]
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:7]
    np.testing.assert_allclose([float(cell.replace(",", "")) for cell in cells], wanted, atol=5e-5)
    assert "# facebook/base, tuned on brain responses\n" in text
    assert "somebody" not in text and "Warnings" not in text and "did not beat the mean" not in text


def test_a_card_warns_of_no_learning(tmp_path: Path) -> None:
    rows = log_rows(2, 3)
    rows[-2]["participants"]["P2"]["loss"] = 1.01
    assert "did not beat the mean for P2." in _card(tmp_path, rows)
    rows[-2]["validation_loss"] = 1.0
    text = _card(tmp_path, rows)
    assert "**No learning: the model did not beat the mean.**" in text and "1.0000" in text


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({"why": "early stop", "epoch_kept": 2}, {}, "Epoch 2 of 3 was kept"),
        ({"epoch_kept": 0}, {}, "No epoch was kept"),
        ({"cnn_unchanged": False}, {}, "do not use this model"),
        ({"cnn_unchanged": False}, {"unfreeze": ["cnn"]}, "were tuned too"),
        ({"kind": "other"}, {}, "has not ended"),
    ],
)
def test_a_card_warns_of_what_else_a_user_must_know(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    rows = log_rows(1, 3)
    assert words not in _card(tmp_path, rows)
    rows[-1] |= change
    assert words in _card(tmp_path, rows, {"tune": {"targets": "brain", **settings}})


@pytest.mark.parametrize(("targets", "words"), [("permuted", "displaced"), ("model:other", "another model's features")])
def test_controls_are_called_so(tmp_path: Path, targets: str, words: str) -> None:
    text = _card(tmp_path, log_rows(), {"targets": targets})
    assert "# facebook/base, tuned on brain responses\n" not in text
    assert words in text.partition("## Scores")[0] and '"control"' in text.partition("## ")[0]


def test_of_a_folder_only_the_last_part_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret" / "mine").mkdir(parents=True)
    text = _card(tmp_path, log_rows(), base=str(tmp_path / "secret" / "mine"))
    assert "secret" not in text and "**Base model**: mine" in text and "base_model" not in text


def test_a_card_without_validation_says_so(tmp_path: Path) -> None:
    rows = log_rows(1, 2)
    for row in rows:
        row |= {"validation_loss": None, "mean_loss": None, "validation_r": None, "participants": {}}
    text = _card(tmp_path, rows)
    assert "no story was kept for validation" in text and "is not known" in text
