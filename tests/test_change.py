"""How far a model is from the one before: weights against the log of a tuning run, the stage against its parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.runs.changes import MEASURES, ChangeConfig, change_rows, change_stage, measure_change
from fastencode.runs.engine import Stages
from fastencode.speech.store import FeatureFile
from fastencode.speech.weights import weight_change
from fastencode.study.dimension import participation_ratio, twonn_decimated
from fastencode.study.representation import cross_validated_cca, linear_cka
from fastencode.tune.record import Record
from speech_cases import saved_model, torch
from tune_run_cases import log_rows, write_log

ROWS, SECONDS = 400, 0.5
SMALL = ChangeConfig(rows=400, apart=2.0, gap=2.0, components=3, folds=4)


def features(path: Path, values: np.ndarray, seconds: float = SECONDS) -> Path:
    """A finished file of features, (t, layers, d)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = seconds * np.arange(len(values))
    with FeatureFile(path, times, values.shape[1:], np.dtype(np.float32), {"model": "made up"}) as file:
        file.write(np.arange(len(values)), values)
    return path


@pytest.fixture
def layers() -> tuple[np.ndarray, np.ndarray]:
    """Two layers before and after: the first stays but for a rotation, the second is mixed with noise."""
    rng = np.random.default_rng(0)
    before = rng.standard_normal((ROWS, 2, 6)).astype(np.float32)
    after = before.copy()
    after[:, 0] = before[:, 0] @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    after[:, 1] += rng.standard_normal((ROWS, 6))
    return before, after


# -- weights


@pytest.mark.parametrize(("family", "stable"), [("wav2vec2", False), ("hubert", True), ("whisper", False)])
def test_weight_change_of_scaled_layers_is_the_scale(tmp_path: Path, family: str, stable: bool) -> None:
    """One block is scaled by 1.5 and another weight moved by hand: the rest is exactly 0."""
    from transformers import AutoModel

    before = saved_model(tmp_path / "before", family, stable=stable)
    model = AutoModel.from_pretrained(before)
    with torch.no_grad():
        for value in model.encoder.layers[1].parameters():
            value *= 1.5
    model.save_pretrained(tmp_path / "after")
    shutil.copy(before / "preprocessor_config.json", tmp_path / "after")
    found = weight_change(before, tmp_path / "after")
    assert found["layer-02"] == pytest.approx(0.5, rel=1e-6)
    wanted = {"cnn", "layer-00", "layer-01", "layer-02", "norm"}
    wanted -= {"layer-00"} if family == "whisper" else set() if stable else {"norm"}
    assert set(found) == wanted
    assert {value for where, value in found.items() if where != "layer-02"} == {0.0}


def test_models_of_two_kinds_are_refused(tmp_path: Path) -> None:
    first, second = saved_model(tmp_path / "one", "wav2vec2"), saved_model(tmp_path / "other", "wav2vec2", stable=True)
    with pytest.raises(InputError, match="two kinds"):
        weight_change(first, second)


def test_gradient_norms_are_means_over_logged_updates(tmp_path: Path) -> None:
    rows = log_rows(layers=3)
    norms = [row["gradient_norm"] for row in rows if row["kind"] == "update"]
    del norms[0]["layer-02"]  # a part that had no gradient in one update
    write_log(tmp_path, rows)
    (tmp_path / "run.json").write_text("{}")
    found = Record.read(tmp_path).gradient_norms
    assert list(found) == ["head", "layer-01", "layer-02", "layer-03"]
    for where in ("layer-02", "layer-03"):
        logged = [one[where] for one in norms if where in one]
        assert found[where] == pytest.approx(sum(logged) / len(logged))
        assert len(logged) == len(norms) - (where == "layer-02")


# -- the stage


def test_the_stage_writes_what_its_parts_say(tmp_path: Path, layers: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = layers
    stages = Stages(tmp_path / "out")
    given = [{"test": features(tmp_path / name / "test.h5", values)} for name, values in (("a", before), ("b", after))]
    model = saved_model(tmp_path / "model", "wav2vec2")
    log = write_log(tmp_path / "run", log_rows(layers=1))
    (log.parent / "run.json").write_text("{}")
    stage = change_stage("change/tuned/P1", *given, model, model, log.parent, (), config=SMALL)
    folder = stages.run(stage)
    rows = change_rows({("P1", "tuned"): folder})
    assert {row["measure"] for row in rows} == set(MEASURES)
    value = {(row["measure"], row["layer"]): row["value"] for row in rows}
    for layer in range(2):
        X, Y = before[:, layer], after[:, layer]
        assert value["cka", layer] == pytest.approx(linear_cka(X, Y))
        assert value["cka_debiased", layer] == pytest.approx(linear_cka(X, Y, debiased=True))
        assert value["cca", layer] == pytest.approx(cross_validated_cca(X, Y, n_components=3, n_folds=4, gap=4).score)
        assert value["participation_ratio", layer] == pytest.approx(participation_ratio(Y))
        assert value["twonn", layer] == pytest.approx(twonn_decimated(Y, 4).value)
        assert value["weight_change", layer] == 0
    assert value["cka", 0] == pytest.approx(1, abs=1e-6)
    assert value["cka", 1] < 0.7
    assert ("gradient_norm", 0) not in value  # that layer learned nothing
    assert value["gradient_norm", 1] == pytest.approx(Record.read(log.parent).gradient_norms["layer-01"])
    assert rows[0] == {"participant": "P1", "model": "tuned", "layer": 0, "measure": "cka", "value": value["cka", 0]}
    written = json.loads((folder / "change.json").read_text())
    assert (written["rows"], written["seconds"], written["notes"]) == (ROWS, SECONDS, [])
    assert written["parts"]["weight_change"]["cnn"] == 0
    assert written["parts"]["gradient_norm"]["head"] > 0


def test_rows_are_thinned_in_time_and_runs_follow_one_another(tmp_path: Path, layers: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = layers
    pairs = {"one": (before[:250], after[:250]), "other": (before[250:], after[250:])}
    given = [{run: features(tmp_path / str(k) / f"{run}.h5", pair[k]) for run, pair in pairs.items()} for k in (0, 1)]
    (tmp_path / "out").mkdir()
    measure_change(tmp_path / "out", *given, "unused", None, None, ChangeConfig(rows=100, apart=2, gap=2, folds=2))
    written = json.loads((tmp_path / "out" / "change.json").read_text())
    kept = np.r_[0:250:4, 250:400:4]
    assert (written["rows"], written["seconds"]) == (len(kept), 4 * SECONDS)
    assert written["measures"]["cka"][1] == pytest.approx(linear_cka(before[kept, 1], after[kept, 1]))
    assert written["measures"]["weight_change"] == [None, None]
    assert written["parts"] == {}


def test_a_collapsed_layer_is_noted_and_the_others_are_measured(
    tmp_path: Path, layers: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    before, after = layers
    after[:, 1] = 3.0
    given = [{"test": features(tmp_path / name / "test.h5", values)} for name, values in (("a", before), ("b", after))]
    measure_change(tmp_path, *given, "unused", None, None, SMALL)
    written = json.loads((tmp_path / "change.json").read_text())
    assert [written["measures"][name][1] for name in ("cka", "cka_debiased", "cca", "participation_ratio", "twonn")] == [None] * 5
    assert written["measures"]["cka"][0] == pytest.approx(1, abs=1e-6)
    assert len(written["notes"]) == 5
    assert "layer 1 has no twonn: all columns of X are constant" in capfd.readouterr().out
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "change.json").write_text("{}")
    with pytest.raises(InputError, match="no measures"):
        change_rows({("", "x"): tmp_path / "x"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values[:-1], "other times"),
        (lambda values: values[:, :1], "different numbers of layers"),
    ],
)
def test_features_that_do_not_match_are_refused(
    tmp_path: Path, layers: tuple[np.ndarray, np.ndarray], change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    before, after = {"t": features(tmp_path / "a.h5", layers[0])}, {"t": features(tmp_path / "b.h5", change(layers[1]))}
    with pytest.raises(InputError, match=message):
        measure_change(tmp_path, before, after, "unused", None, None, SMALL)


def test_settings_and_runs_are_checked_when_the_stage_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="same runs"):
        change_stage("change/x", {"a": tmp_path}, {"b": tmp_path}, "m", None, None, ())
    for wrong in ({"rows": 10}, {"folds": 1}, {"apart": float("nan")}, {"gap": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ChangeConfig(**wrong)
