"""The stage of one participant's responses: what ridges are fitted on and scored on, from a data set made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.stats

import reference_timing
from fastencode.errors import FastencodeWarning
from fastencode.runs import responses
from fastencode.runs.responses import load_listener, write_responses
from fastencode.study.brains.ceilings import ceiling_pvalues, noise_ceiling
from fastencode.study.inference.significance import fdr

ROWS = {"one": 40, "two": 30, "test": 36, "later": 29, "once": 33}
N_VOXELS, SKIP, REPEATS = 50, 4, 5


class Made:
    """Responses of one person, of whom half the voxels follow the stories; the largest repeat read is noted."""

    tr, test_story = 2.0, "test"

    def __init__(self, gap: bool = False, noise: float = 0.7) -> None:
        rng = np.random.default_rng(0)
        self._heard, self.widest = {}, 0
        for run, n in ROWS.items():
            signal = rng.standard_normal((n, N_VOXELS)) * (np.arange(N_VOXELS) % 2)
            self._heard[run] = signal + noise * rng.standard_normal((REPEATS, n, N_VOXELS)) + 3
        if gap:
            self._heard["test"][2, 9, 7] = np.nan

    def n_rows(self, run: str) -> int:
        return ROWS[run]

    def n_voxels(self, who: str) -> int:
        return N_VOXELS

    def usable_rows(self, run: str) -> slice:
        return slice(SKIP, ROWS[run])

    def kept(self, who: str, run: str) -> np.ndarray:
        return np.ones(ROWS[run], bool)

    def is_repeated(self, who: str, run: str) -> bool:
        return run in ("test", "later")

    def repeats(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        found = self._heard[run][:, :, slice(None) if voxels is None else voxels].astype(np.float32)
        self.widest = max(self.widest, found.shape[2])
        return found

    def responses(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        return self._heard[run][:, :, slice(None) if voxels is None else voxels].mean(axis=0).astype(np.float32)


def files(folder: Path, data: Made, tests: tuple[str, ...] = ("test",), **options: Any) -> dict[str, np.ndarray]:
    folder.mkdir()
    scored, regions = [(run, slice(SKIP, ROWS[run])) for run in tests], {"odd": np.arange(1, N_VOXELS, 2)}
    write_responses(folder, data, "A", ("one", "two"), scored, regions, threshold=0.05, **options)
    found = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return found | {name: np.array(columns) for name, columns in json.loads((folder / "regions.json").read_text()).items()}


@pytest.mark.parametrize("split_half", [False, True])
def test_repeats_are_read_by_tiles_of_voxels(split_half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Made()
    repeats = data.repeats("A", "test")[:, SKIP:]
    whole = files(tmp_path / "whole", data, split_half=split_half)
    monkeypatch.setattr(responses, "_VOXELS_READ", 8)
    data.widest = 0
    tiled = files(tmp_path / "tiled", data, split_half=split_half)
    assert data.widest == 8 and whole.keys() == tiled.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(tiled[name], values, name)
    assert whole["odd"].size > 20 and whole["all"].size < 30, "voxels that follow nothing are not mapped"
    scored = repeats[1::2] if split_half else repeats
    np.testing.assert_allclose(whole["test"], scored.mean(axis=0)[:, whole["voxels"]], atol=1e-5)
    wanted = reference_timing.noise_ceiling(scored)
    np.testing.assert_allclose(load_listener(tmp_path / "tiled").ceiling, wanted[whole["voxels"]], atol=1e-5)


def test_gaps_are_told_once_for_all_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_VOXELS_READ", 8)
    with pytest.warns(FastencodeWarning, match="A, test: 1 of 50 voxels hold values that are not finite: their noise") as told:
        found = files(tmp_path / "out", Made(gap=True), split_half=False)
    assert len([one for one in told if "not finite" in str(one.message)]) == 1 and 7 not in found["voxels"]


def test_several_test_runs_choose_voxels_together(tmp_path: Path) -> None:
    """The ceiling of all, p-values by Fisher's method; a run that was heard once has no part in it."""
    data, repeated = Made(noise=2.0), ("test", "later")
    found = files(tmp_path / "out", data, ("test", "once", "later"), split_half=False)
    repeats = {run: data.repeats("A", run)[:, SKIP:] for run in repeated}
    rows = {run: ROWS[run] - SKIP for run in ROWS}
    ceiling = reference_timing.joint_ceiling(list(repeats.values()))
    logs = [np.log(ceiling_pvalues(values)) for values in repeats.values()]
    p = scipy.stats.chi2.sf(-2 * np.sum(logs, axis=0), df=4)
    chosen = np.flatnonzero((ceiling > 0.05) & (fdr(p) <= 0.05))
    np.testing.assert_array_equal(found["voxels"], chosen)
    assert [set(chosen) != set(files(tmp_path / run, data, (run,), split_half=False)["voxels"]) for run in repeated] == [True] * 2
    assert found["test"].shape == (rows["test"] + rows["once"] + rows["later"], len(chosen))
    listener = load_listener(tmp_path / "out")
    assert listener.ceiling is None and listener.signals[1] is None and (found["spread"][1] == 1).all()
    alone = {run: part.ceiling for run, _, part in listener.each_run()}
    assert alone["once"] is None
    for run in repeated:
        np.testing.assert_allclose(alone[run], noise_ceiling(repeats[run])[chosen], atol=1e-12)
    once = files(tmp_path / "once-only", data, ("once",), split_half=False)
    assert len(once["voxels"]) == N_VOXELS, "without repeats all voxels are mapped"


class ShortStories:
    """One person, 1500 voxels and four short test stories, each heard five times; signal and noise are as autocorrelated."""

    tr, test_story = 2.0, "a"

    def __init__(self, power: float, rho: float) -> None:
        rng, self.lengths = np.random.default_rng(0), {"fit": 60, "a": 60, "b": 80, "c": 100, "d": 70}
        self.signal, self.heard = {}, {}
        for run, n in self.lengths.items():
            noise = np.sqrt(1 - rho**2) * rng.standard_normal((6, n + 100, 1500))
            series = scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 100:]
            self.signal[run], self.heard[run] = series[0], np.sqrt(power) * series[0] + series[1:]

    def n_rows(self, run: str) -> int:
        return self.lengths[run]

    def n_voxels(self, who: str) -> int:
        return 1500

    def kept(self, who: str, run: str) -> np.ndarray:
        return np.ones(self.lengths[run], bool)

    def is_repeated(self, who: str, run: str) -> bool:
        return True

    def repeats(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        return self.heard[run][:, :, voxels]

    def responses(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        return self.heard[run].mean(axis=0)[:, slice(None) if voxels is None else voxels].astype(np.float32)


@pytest.mark.parametrize(("power", "rho"), [(0.05, 0.5), (0.05, 0.7), (0.2, 0.9)])
def test_ceilings_of_several_short_stories_are_not_too_low(power: float, rho: float, tmp_path: Path) -> None:
    """The ceiling is what the signal itself correlates with the mean over repeats; the mean of the stories' own is too low."""
    data, scored = ShortStories(power, rho), [(run, slice(None)) for run in "abcd"]
    write_responses(tmp_path, data, "A", ("fit",), scored, {}, threshold=-1.0, split_half=False)
    listener = load_listener(tmp_path)
    both = [
        np.vstack([(part - part.mean(axis=0)) / part.std(axis=0) for part in (of[run] for run in "abcd")])
        for of in (data.signal, {run: heard.mean(axis=0) for run, heard in data.heard.items()})
    ]
    reached, counted = np.mean(both[0] * both[1], axis=0), listener.ceiling > 0
    assert counted.mean() > 0.9
    assert listener.ceiling[counted].mean() / reached[counted].mean() == pytest.approx(1.0, abs=0.05)
    alone = np.average([part.ceiling for *_, part in listener.each_run()], axis=0, weights=[60, 80, 100, 70])
    assert alone.mean() / reached.mean() < 0.9
