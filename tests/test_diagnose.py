"""What may have failed in a tuning run: each finding turns from ok when a good run is spoiled in one way, and no other does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.plain import plain
from fastencode.tune.config import TuneConfig
from fastencode.tune.diagnose import Finding, diagnose, report
from tune_run_cases import log_rows, write_log

pytest.importorskip("safetensors", reason="heads are read back with safetensors")

Row = dict[str, Any]
ALWAYS_UNKNOWN = {"voxels of the target regions", "shuffled targets", "frozen CNN"}  # without data set, control and model


class Regions:
    """As much of a data set as a diagnosis asks."""

    tr = 2.0

    def __init__(self, **rois: Any) -> None:
        self._rois = {name: np.asarray(list(voxels)) for name, voxels in rois.items()}

    def n_voxels(self, who: str) -> int:
        return 5000

    def rois(self, who: str) -> dict[str, np.ndarray]:
        return self._rois


def run_of(
    folder: Path,
    rows: list[Row] | None = None,
    *,
    voxels: int = 500,
    more: dict[str, Any] | None = None,
    frozen: str | None = None,
    **settings: Any,
) -> Path:
    """A run's folder, made by hand: 2 participants, 5 epochs, 12 layers."""
    from safetensors.numpy import save_file

    write_log(folder, log_rows(2) if rows is None else rows)
    settings = {"learning_rate": 5e-5, "head_learning_rate": 1e-4, **settings}  # those of the log
    identity = {"settings": plain(TuneConfig(**settings)), "about": {"tr": 2.0}, "frozen": frozen, **(more or {})}
    (folder / "run.json").write_text(json.dumps(identity), encoding="utf-8")
    (folder / "heads").mkdir(exist_ok=True)
    for who in ("P1", "P2"):
        head = {"weight": np.zeros((voxels, 4), np.float32), "voxels": np.arange(voxels, dtype=np.int64)}
        save_file(head, folder / "heads" / f"{who}.safetensors")
    return folder


def found_in(run: Path, *args: Any, **more: Any) -> dict[str, Finding]:
    findings = diagnose(run, *args, **more)
    assert len({one.name for one in findings}) == len(findings)
    assert all(one.evidence and bool(one.advice) == (one.verdict != "ok") for one in findings)
    return {one.name: one for one in findings}


def not_ok(found: dict[str, Finding]) -> dict[str, str]:
    return {name: one.verdict for name, one in found.items() if one.verdict != "ok"}


def test_a_good_run_is_ok(tmp_path: Path) -> None:
    assert not_ok(found_in(run_of(tmp_path))) == dict.fromkeys(ALWAYS_UNKNOWN, "unknown")


def epochs_of(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "epoch"]


def updates_of(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "update"]


def unfinished(rows: list[Row]) -> None:
    del rows[-1]


def null_loss(rows: list[Row]) -> None:
    updates_of(rows)[7] |= {"loss": None, "stories": ["souls"]}


def null_gradient(rows: list[Row]) -> None:
    updates_of(rows)[7]["gradient_norm"]["head"] = None


def null_epoch(rows: list[Row]) -> None:
    epochs_of(rows)[2]["train_loss"] = None


def no_learning(rows: list[Row]) -> None:
    for row in epochs_of(rows):
        row["mean_loss"] = 0.9


def no_learning_yet(rows: list[Row]) -> None:
    no_learning(rows)
    unfinished(rows)


def one_learns_nothing(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["participants"]["P2"]["loss"] = 1.01


def rising(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["train_loss"] = 1.02 * epochs_of(rows)[-2]["train_loss"] + 0.01


def jumping(rows: list[Row]) -> None:
    for row, loss in zip(updates_of(rows)[20:23], (2.5, 2.9, 2.6), strict=True):
        row["loss"] = loss


def one_odd_batch(rows: list[Row]) -> None:
    for row in updates_of(rows)[20:22]:
        row["loss"] = 2.5


def rising_far(rows: list[Row]) -> None:
    rising(rows)
    epochs_of(rows)[-1]["weight_change"]["layer-12"] = 0.6


def far(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["weight_change"]["layer-12"] = 0.6


def near(rows: list[Row]) -> None:
    for row in epochs_of(rows):
        row["weight_change"] = {name: 1e-3 * change for name, change in row["weight_change"].items() if name != "head"}


def heads_near(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["weight_change"]["head"] = 0.005


def flat(rows: list[Row]) -> None:
    for row in epochs_of(rows)[1:]:
        row["train_loss"] = 0.95
        del row["weight_change"]["head"]


def never_reached(rows: list[Row]) -> None:
    for row in updates_of(rows):
        row["learning_rate"]["backbone"] *= 0.5


def never_ended(rows: list[Row]) -> None:
    for row in updates_of(rows)[-4:]:
        row["learning_rate"] = {"backbone": 4e-5, "heads": 8e-5}


def overfitted(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["validation_loss"] = 0.99
    epochs_of(rows)[-2]["validation_loss"] = 0.93


def by_heart(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["train_loss"] = 0.4


def still(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["weight_change"]["layer-07"] = 0.0


def early_moved(rows: list[Row]) -> None:
    epochs_of(rows)[-1]["weight_change"] |= {f"layer-{k:02d}": 0.08 for k in range(1, 5)}


def waited(rows: list[Row]) -> None:
    for row in epochs_of(rows):
        row["time"]["waiting"] = 2.0


RATES = ("learning rate, speech model", "learning rate, heads")
SPOILED: list[tuple[Callable[[list[Row]], None], dict[str, str], str]] = [
    (unfinished, {"finished": "look"}, "5 of 5 epochs"),
    (null_loss, {"losses are numbers": "wrong"}, "update 40, epoch 1, souls"),
    (null_gradient, {"losses are numbers": "wrong"}, "gradient_norm of head"),
    (null_epoch, {"losses are numbers": "wrong"}, "epoch 2"),
    (no_learning, {"learns": "wrong"}, "of predicting the mean 0.9"),
    (no_learning_yet, {"learns": "look", "finished": "look"}, "of predicting the mean 0.9"),
    (one_learns_nothing, {"learns": "look"}, "P2"),
    (rising, dict(zip(RATES, ("look", "wrong"), strict=True)), "rises from"),
    (jumping, dict(zip(RATES, ("look", "wrong"), strict=True)), "2.5 and more at update 105"),
    (one_odd_batch, {}, ""),
    (rising_far, dict(zip(RATES, ("wrong", "look"), strict=True)), "at most 0.6"),
    (far, {RATES[0]: "look"}, "at most 0.6"),
    (near, {RATES[0]: "wrong"}, "learning_rate 5e-05"),
    (heads_near, {RATES[1]: "wrong"}, "0.005"),
    (flat, {RATES[1]: "wrong"}, "0.95"),
    (never_reached, {"schedule": "look"}, "backbone up to 50%"),
    (never_ended, {"schedule": "look"}, "heads up to 100% of its rate, 80% at the last"),
    (overfitted, {"training and validation": "wrong"}, "0.93 after epoch 4"),
    (by_heart, {"training and validation": "look"}, "training 0.4"),
    (still, {"layers that did not move": "wrong"}, "layer-07"),
    (early_moved, {"early layers are kept": "look"}, "0.08"),
    (waited, {"waiting for data": "look"}, "3.3% of 300 s"),
]


@pytest.mark.parametrize(("spoil", "verdicts", "evidence"), SPOILED, ids=[spoil.__name__ for spoil, *_ in SPOILED])
def test_a_run_that_was_spoiled_is_found_out(
    tmp_path: Path, spoil: Callable[[list[Row]], None], verdicts: dict[str, str], evidence: str
) -> None:
    rows = log_rows(2)
    spoil(rows)
    found = found_in(run_of(tmp_path, rows))
    assert not_ok(found) == {**dict.fromkeys(ALWAYS_UNKNOWN, "unknown"), **verdicts}
    assert not verdicts or any(evidence in found[name].evidence for name in verdicts)


def test_the_rates_of_the_good_run_are_those_that_were_set(tmp_path: Path) -> None:
    """With other settings the same log shows a schedule that was never reached."""
    assert found_in(run_of(tmp_path, learning_rate=5e-4))["schedule"].verdict == "look"


@pytest.mark.parametrize(
    ("settings", "verdict", "share"),
    [
        ({"clip_seconds": 10.0}, "ok", "100%"),
        ({"clip_seconds": 8.0}, "look", "50%"),
        ({"clip_seconds": 6.0}, "wrong", "0%"),
        ({"head": "delays", "order": "contiguous", "delays": (1, 2, 3, 4), "clip_seconds": 2.0}, "ok", "100%"),
        ({"head": "delays", "order": "contiguous", "delays": (3,)}, "look", "50%"),
        ({"head": "delays", "order": "contiguous", "delays": (0, 1)}, "wrong", "0%"),
    ],
)
def test_clips_and_delays_must_hold_what_a_scan_responds_to(
    tmp_path: Path, settings: dict[str, Any], verdict: str, share: str
) -> None:
    one = found_in(run_of(tmp_path, **settings))["lag"]
    assert one.verdict == verdict and f"{share} of the 4 to 8 s" in one.evidence


def test_the_tr_comes_from_the_data_set_or_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="config.yaml is read with PyYAML")
    run = run_of(tmp_path, more={"about": {}}, clip_seconds=9.0)
    assert found_in(run)["lag"].verdict == "unknown"
    assert found_in(run, Regions(A1=range(50)))["lag"].verdict == "look"
    (run / "config.yaml").write_text("tr: 1.0\n", encoding="utf-8")
    assert found_in(run)["lag"].verdict == "ok"


@pytest.mark.parametrize(("voxels", "verdict"), [(500, "ok"), (99, "look"), (5001, "wrong")])
def test_voxels_are_counted(tmp_path: Path, voxels: int, verdict: str) -> None:
    assert found_in(run_of(tmp_path, voxels=voxels), Regions(A1=range(50)))["voxels"].verdict == verdict


def test_voxels_of_regions_are_counted(tmp_path: Path) -> None:
    run, name = run_of(tmp_path), "voxels of the target regions"
    data = Regions(A1=range(50), AG=range(495, 600), far=range(4000, 4100))
    assert found_in(run, data, regions=["A1"])[name].verdict == "ok"
    one = found_in(run, data, regions=["A1", "AG"])[name]
    assert one.verdict == "look" and "AG of P1 5, AG of P2 5" in one.evidence
    assert found_in(run, data, regions=["far"])[name].verdict == "wrong"
    assert found_in(run, data)[name].evidence.startswith("far of P1 0")  # all of them
    assert found_in(run, Regions())[name].verdict == "unknown"
    with pytest.raises(InputError, match="no region 'V1': there are A1, AG, far"):
        diagnose(run, data, regions=["V1"])


def test_regions_that_the_settings_name_are_the_target(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="config.yaml is read with PyYAML")
    run = run_of(tmp_path)
    (run / "config.yaml").write_text("regions: []\nprefer: [A1]\n", encoding="utf-8")
    assert found_in(run, Regions(A1=range(50), far=range(4000, 4100)))["voxels of the target regions"].verdict == "ok"


def shuffled_rows(r: float) -> list[Row]:
    rows = log_rows(2)
    for one in epochs_of(rows)[-1]["participants"].values():
        one["r"] = r
    return rows


@pytest.mark.parametrize(("r", "verdict"), [(0.01, "ok"), (0.21, "look"), (0.4, "wrong")])
def test_a_run_must_beat_its_control(tmp_path: Path, r: float, verdict: str) -> None:
    run = run_of(tmp_path / "run", shuffled_rows(0.1) if verdict == "wrong" else None)
    own = sorted(one["r"] for one in epochs_of(log_rows(2))[-1]["participants"].values())
    assert own[0] < 0.21 < sum(own) / 2  # one participant is below the second control, the mean above
    control = run_of(tmp_path / "control", shuffled_rows(r), targets="permuted")
    assert found_in(run, control=control)["shuffled targets"].verdict == verdict
    assert found_in(control)["shuffled targets"].verdict == "unknown"  # a control has none
    with pytest.raises(InputError, match="targets=brain"):
        diagnose(run, control=run)


def test_a_control_with_other_updates_is_no_fair_one(tmp_path: Path) -> None:
    rows = shuffled_rows(0.01)
    epochs_of(rows)[-1]["updates"] = 100
    one = found_in(run_of(tmp_path / "run"), control=run_of(tmp_path / "control", rows, targets="permuted"))["shuffled targets"]
    assert one.verdict == "look" and "200 and 100 updates" in one.evidence


def test_a_control_is_not_blamed_for_learning_nothing(tmp_path: Path) -> None:
    rows = log_rows(2)
    no_learning(rows)
    by_heart(rows)
    found = found_in(run_of(tmp_path, rows, targets="permuted"))
    assert not_ok(found) == dict.fromkeys(ALWAYS_UNKNOWN, "unknown")


def test_what_the_settings_kept_still_may_stay(tmp_path: Path) -> None:
    rows = log_rows(2)
    for row in epochs_of(rows):
        row["weight_change"] |= {"layer-11": 0.0, "layer-12": 0.0}
    assert found_in(run_of(tmp_path, rows))["layers that did not move"].verdict == "wrong"
    assert found_in(run_of(tmp_path, rows, head_layer=10))["layers that did not move"].verdict == "ok"
    for row in epochs_of(rows):
        row["weight_change"] = {}
    for trained, verdict in (("full", "unknown"), ("head", "ok")):
        found = found_in(run_of(tmp_path, rows, trained=trained))
        names = ("layers that did not move", "early layers are kept", "learning rate, speech model")
        assert {found[name].verdict for name in names} == {verdict}


def test_adapters_may_move_far(tmp_path: Path) -> None:
    rows = log_rows(2)
    far(rows)
    assert found_in(run_of(tmp_path, rows, trained="lora"))["learning rate, speech model"].verdict == "ok"


def test_a_changed_cnn_is_found(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="models are read with torch")
    from fastencode.speech.layers import SpeechEncoder
    from speech_cases import saved_model

    saved_model(tmp_path / "model", "wav2vec2")
    before = SpeechEncoder(tmp_path / "model").cnn_hash()
    assert found_in(run_of(tmp_path, frozen=before))["frozen CNN"].verdict == "ok"
    assert found_in(run_of(tmp_path, frozen="0" * 64))["frozen CNN"].verdict == "wrong"
    assert found_in(run_of(tmp_path, frozen="0" * 64, unfreeze=("cnn",)))["frozen CNN"].verdict == "ok"
    rows = log_rows(2)
    rows[-1]["cnn_unchanged"] = False
    assert found_in(run_of(tmp_path, rows, frozen=before))["frozen CNN"].verdict == "wrong"
    (tmp_path / "model" / "config.json").unlink()
    assert found_in(run_of(tmp_path, frozen=before))["frozen CNN"].verdict == "wrong"


def test_a_run_that_has_just_begun_is_unknown_not_wrong(tmp_path: Path) -> None:
    for n in (0, 1, 3):
        found = found_in(run_of(tmp_path, log_rows(2)[:n]))
        assert "wrong" not in not_ok(found).values()
        assert found["finished"].verdict == "look" and found["early layers are kept"].verdict == "unknown"


def test_a_run_without_validation_says_what_it_lacks(tmp_path: Path) -> None:
    rows = log_rows(2)
    for row in epochs_of(rows):
        row |= {"validation_loss": None, "mean_loss": None, "validation_r": None, "participants": {}}
    found = found_in(run_of(tmp_path, rows))
    for name in ("learns", "training and validation"):
        assert found[name].verdict == "unknown" and "validation" in found[name].advice


@pytest.mark.parametrize(("loss", "verdict"), [(3.0, "ok"), (3.6, "wrong")])
def test_tuning_on_stories_alone_is_compared_with_the_model_before(tmp_path: Path, loss: float, verdict: str) -> None:
    rows = log_rows(2)
    for row in epochs_of(rows):
        row |= {"validation_loss": loss if row["epoch"] else 3.5, "mean_loss": None, "validation_r": None, "participants": {}}
        row["train_loss"] = 3.4 - 0.1 * row["epoch"] if row["epoch"] else None
    found = found_in(run_of(tmp_path, rows, targets="stimulus", clip_seconds=2.0))
    assert found["learns"].verdict == verdict and "before the first update 3.5" in found["learns"].evidence
    assert {found[name].verdict for name in ("lag", "voxels", "voxels of the target regions", "training and validation")} == {
        "ok"
    }


def test_a_run_of_seconds_says_nothing_of_waiting(tmp_path: Path) -> None:
    rows = log_rows(2, seconds=1.0)
    waited(rows)
    assert found_in(run_of(tmp_path, rows))["waiting for data"].verdict == "unknown"


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither run.json nor config.yaml"):
        diagnose(tmp_path)
    run_of(tmp_path / "P1")
    with pytest.raises(InputError, match=r"a run for each participant: give one of them, such as .*P1"):
        diagnose(tmp_path)
    (tmp_path / "P1" / "log.jsonl").unlink()
    with pytest.raises(InputError, match=r"has no log\.jsonl yet"):
        diagnose(tmp_path / "P1")


def test_a_report_is_an_aligned_table_that_holds_every_word() -> None:
    findings = [Finding("a", "ok", "all is well"), Finding("longer name", "unknown", "many words " * 20, "do this " * 12)]
    lines = report(findings, width=90).splitlines()
    assert lines[0].split() == ["finding", "verdict", "evidence", "advice"] and set(lines[1]) == {"-", " "}
    assert max(map(len, lines)) <= 90
    starts = [lines[0].index(word) for word in ("verdict", "evidence", "advice")]
    for line in lines[1:]:
        assert all(line[start - 2 : start].strip() == "" for start in starts)
    for text, place in ((findings[1].evidence, slice(*starts[1:])), (findings[1].advice, slice(starts[2], None))):
        assert " ".join(line[place].strip() for line in lines[3:]).split() == text.split()


def test_a_run_of_the_trainer_is_understood(tmp_path: Path) -> None:
    """The names in a real run's folder are the ones that are looked for: nothing is unknown but what was not given."""
    pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
    import torch

    from fastencode.speech.layers import SpeechEncoder
    from fastencode.tune.trainer import brain_tune
    from speech_cases import saved_model
    from tune_cases import Tones

    torch.set_num_threads(1)
    data = Tones(tmp_path / "tones")
    model = saved_model(tmp_path / "model", "wav2vec2", strides=(5, 8, 8))
    config = TuneConfig(epochs=4, batch=4, learning_rate=3e-3, head_learning_rate=1e-2, clip_seconds=2.0, log_every=1)
    runs = {}
    for targets in ("brain", "permuted"):
        settings = TuneConfig(**{**plain(config), "lora": config.lora, "targets": targets, "min_move": 2, "block": 3})
        out = tmp_path / targets
        runs[targets] = brain_tune(SpeechEncoder(model), data, settings, out, validation=["watched"], show_progress=False)
    found = found_in(runs["brain"], data, runs["permuted"])
    assert [name for name, one in found.items() if one.verdict == "unknown"] == ["waiting for data"]  # it took seconds
    good = ("finished", "losses are numbers", "learns", "schedule", "frozen CNN", "shuffled targets")
    assert {found[name].verdict for name in good} == {"ok"}
    assert found["lag"].verdict == "wrong" and found["voxels"].verdict == "look"  # 2 s of sound; 5 voxels
    assert math.isfinite(float(found["early layers are kept"].evidence.rsplit("by ", 1)[1]))
