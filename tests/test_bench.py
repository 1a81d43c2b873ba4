"""The benchmarks run, refuse contestants that differ, and say when one did not finish. Their numbers are not looked at."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psutil", reason="psutil is not installed")
pytest.importorskip("himalaya", reason="himalaya is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")
BENCH = Path(__file__).resolve().parents[1] / "bench"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "run.py"), *words, "--threads", "1", "--repeats", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import cases
    import compare

    yield cases, compare
    for name in ("cases", "compare"):  # names too plain to leave behind
        sys.modules.pop(name, None)


def test_a_small_case_runs_and_says_what_it_did(tmp_path):
    out = tmp_path / "result.json"
    done = run("fracridge", "--against", "himalaya", "sklearn", "--scale", "0.02", "--out", str(out), "--tmp", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["threads"] == 1 and result["machine"]["cpu"] and result["versions"]["himalaya"] and result["commit"]
    (point,) = result["points"]
    assert point["full"]["n"] == 5000 and point["run"]["n"] == 100 and "0.02" in point["cut"]
    assert point["agreement"]["himalaya"]["same_choice_or_score"] >= 0.999
    assert point["agreement"]["naive float64"]["largest_score_difference"] < 1e-4
    assert point["plan"] and point["sgemm_peak"]["gflops"] > 0
    assert set(point["contestants"]) == {"fastencode", "fastencode, planned", "himalaya", "sklearn"}
    for name, row in point["contestants"].items():
        assert row["status"] == "finished" and row["warmed_up"], name
        assert row["wall"]["q25"] <= row["wall"]["median"] <= row["wall"]["q75"]
        assert row["peak_bytes"] > row["data_bytes"] > 0 and row["times_ours"] > 0
        assert set(row["prepared"]["libraries"].values()) == {1}
    ours = point["contestants"]["fastencode"]
    assert ours["gflops"] > 0 and ours["stats"]["seconds"] and set(ours["operations"]) >= {"plan", "fit"}
    assert list(tmp_path.iterdir()) == [out], "data is left behind"


def test_who_does_not_finish_is_named(tmp_path):
    out = tmp_path / "result.json"
    done = run("fracridge", "--scale", "0.02", "--limit", "0.001", "--out", str(out), "--tmp", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (point,) = json.loads(out.read_text(encoding="utf-8"))["points"]
    assert point["contestants"]["fastencode"]["status"] == "did not finish in 0.001 s"


def test_responses_on_disk_are_measured_and_taken_away(tmp_path):
    out = tmp_path / "result.json"
    done = run("disk", "--scale", "0.0005", "--out", str(out), "--tmp", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["peak_bytes"] > result["bytes"]["X"] + result["bytes"]["coef"]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("spoil", ["alpha", "score", "coef"])
def test_contestants_that_differ_are_refused(bench, spoil):
    cases, compare = bench
    case = dataclasses.replace(cases.CASES["huth"][0].scaled(0.02), scoring="r2")
    X = cases.design(case)
    Y = np.hstack([tile for _, tile in cases.responses(case, X)])
    ours = compare.fastencode(case, X, Y, {})[0]()
    ours.extra["kept"] = np.arange(case.t)
    theirs = compare.Outcome(ours.alpha.copy(), ours.score.copy(), ours.coef.copy())
    assert compare.disagreement(case, ours, theirs)[1] == []
    if spoil == "alpha":
        worst = ours.cv_scores.argmin(axis=0)
        theirs.alpha = np.where(np.arange(case.t) % 100 == 0, case.grid[worst], ours.alpha)
    elif spoil == "score":
        theirs.score[3] += 0.01
    else:
        theirs.coef[:, 2] *= 2
    _, words = compare.disagreement(case, ours, theirs)
    assert words and ("chose" if spoil == "alpha" else spoil) in words[0]


def test_only_a_peer_that_is_off_where_we_are_right_is_timed(bench, tmp_path):
    import measure

    cases, compare = bench
    case = cases.CASES["folds"][0].scaled(0.02)
    X = cases.design(case)
    Y = np.hstack([tile for _, tile in cases.responses(case, X)])
    ours = compare.fastencode(case, X, Y, {})[0]()
    scores = {"fastencode": ours.cv_scores.copy(), "himalaya": ours.cv_scores.copy()}

    def agreement():
        rows, said = {}, []
        for number, (name, cv_scores) in enumerate(scores.items()):
            arrays = {"alpha": ours.alpha, "score": cv_scores.max(axis=0), "coef": ours.coef, "kept": np.arange(case.t)}
            np.savez(tmp_path / f"{number}.npz", cv_scores=cv_scores, **arrays)
            rows[name] = {"status": "finished", "file": f"{number}.npz"}
        return measure._agreement(case, tmp_path, X, Y, rows, said.append), "\n".join(said)

    found, said = agreement()
    assert "off_from_naive_float64" not in found["himalaya"] and "all agree" in said
    scores["himalaya"][:, 5] += 0.02
    found, said = agreement()
    assert found["himalaya"]["off_from_naive_float64"] == pytest.approx(0.02, rel=0.01) and "himalaya is off by 0.02" in said
    scores["fastencode"][:, 5], scores["himalaya"][:, 5] = scores["himalaya"][:, 5], ours.cv_scores[:, 5]
    with pytest.raises(measure.Disagreement, match="naive float64: voxel 5"):
        agreement()


def test_the_check_by_hand_can_fail(bench):
    cases, compare = bench
    case = cases.CASES["folds"][0].scaled(0.02)
    X = cases.design(case)
    Y = np.hstack([tile for _, tile in cases.responses(case, X)])
    ours = compare.fastencode(case, X, Y, {})[0]()
    index, scores = compare.naive(case, X, Y)
    np.testing.assert_allclose(ours.cv_scores[index], scores, atol=1e-5)
    other = compare.fastencode(dataclasses.replace(case, cv=5), X, Y, {})[0]()
    assert np.abs(other.cv_scores[index] - scores).max() > 1e-3


def test_every_case_is_sound(bench):
    cases, _ = bench
    for name, points in cases.CASES.items():
        for point in points:
            small = point.scaled(0.02)
            assert len(small.folds) == small.n_folds and small.p == cases.design(small).shape[1]
            assert cases.from_fields(json.loads(json.dumps(small.fields()))) == small
            assert point.name.startswith(name) and set(point.peers) <= set(cases.BOTH)
            cut, said = cases.cut(point, point.peers, 1200, 2, 12e9)
            assert cut.n <= point.n and cut.t <= point.t and (said == "full size") == (cut == point)
    assert len({point.name for points in cases.CASES.values() for point in points}) == sum(map(len, cases.CASES.values()))


def test_banded_ridge_beside_himalaya(tmp_path):
    out = tmp_path / "result.json"
    words = ["shortclips", "--runs", "4", "--scale", "0.05", "--weightings", "2", "--threads", "1", "--out", str(out)]
    command = [sys.executable, str(BENCH / "banded.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["agreement"]["largest_score_difference"] < 1e-3 and result["agreement"]["coef_difference"] < 1e-3
    assert result["full"]["weightings"] == 20 and result["run"]["weightings"] == 2 and result["run"]["folds"] == 4
    assert set(result["contestants"]) == {"banded", "banded himalaya"} and result["times_ours"] > 0


def test_the_gradient_beside_random_search_in_the_same_time(tmp_path):
    out = tmp_path / "result.json"
    words = ["--problems", "three", "--seeds", "1", "--scale", "0.1", "--threads", "1", "--out", str(out)]
    command = [sys.executable, str(BENCH / "gradient.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    (row,) = result["rows"]
    assert row["random"]["seconds"] >= max(row["gradient"]["seconds"], row["auto"]["seconds"])
    assert row["auto"]["refined"]["voxels"] > 0 and row["random"]["refined"] is None
    assert set(result["summary"]) == {"three, gradient", "three, auto"}


@pytest.mark.filterwarnings("ignore::fastencode.errors.FastencodeWarning")
def test_the_tables_of_contrasts(monkeypatch):
    """Rows of the right worlds; the numbers of so few mean nothing, but those of single draws of people by the thousand do."""
    monkeypatch.syspath_prepend(str(BENCH))
    import contrasts

    try:
        rows = {name: point(0.02 if name == "few people" else 0.001) for name, point in contrasts.POINTS.items()}
    finally:
        for name in ("contrasts", "inference", "session"):
            sys.modules.pop(name, None)
    assert {row["unit"] for row in rows["intervals"]} == {"blocks", "participants"}
    assert all(row["yes"] + row["no"] + row["undecided"] == pytest.approx(1) for row in rows["answers"])
    assert all(row["any yes, holm"] <= row["any yes, each"] for row in rows["families"])
    assert all(row["covered"] > 0.8 for row in rows["few people"])


def test_the_tables_of_inference(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCH))
    import inference

    try:
        points = ("ceiling mask", "normalized", "short stories", "control", "too few scans")
        rows = {name: inference.POINTS[name](0.02) for name in points}
        for name, found in rows.items():
            inference.show(name, found)
    finally:
        for name in ("inference", "session"):
            sys.modules.pop(name, None)
    assert all(row["now"] < 0.02 < 0.3 < row["before"] for row in rows["ceiling mask"])
    assert all(row["now"] < row["before"] for row in rows["short stories"])
    assert rows["control"][0]["blocks of two stories"] > 0 == rows["control"][1]["blocks of two stories"]
    assert [row["warned"] for row in rows["too few scans"]] == [False, False, True]
    assert "signal power" in capsys.readouterr().out
