"""What drives the late-language region in each of three worlds, by ridge regressions that share no code with the package."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the demo's world needs the extra 'demo'")

from scipy.stats import gamma

from fastencode.data.stories import Stories
from fastencode.errors import InputError
from fastencode.world.config import LATE_FOLLOWS, Participant, WorldConfig
from fastencode.world.simulate import TEST_STORY, make_world
from fastencode.world.tales import CLASSES, WORD_CLASS

ONE = (Participant("A", auditory=15, late_language=25, silent=10, gain=1.5, peak_delay=6.0),)
STEP = 0.05  # s


def config(late_follows: str) -> WorldConfig:
    settings = {"minutes": 9.0, "story_minutes": 3.0, "test_minutes": 3.0, "participants": ONE}
    return WorldConfig(**settings, late_follows=late_follows)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {name: tmp_path_factory.mktemp(name) for name in LATE_FOLLOWS}
    for name, root in roots.items():
        make_world(config(name), root, show_progress=False)
    return roots


def stories(root: Path) -> Stories:
    return Stories(root, test_story=TEST_STORY, test_skip=0)


def at_rows(series: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A series in steps of STEP (time, columns) through the double-gamma response with its peak near 5 s, at the rows' times."""
    t = np.arange(0, 32, STEP)
    kernel = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    smooth = np.stack([np.convolve(column, kernel)[: len(series)] for column in series.T], axis=1)
    return smooth[np.round(rows / STEP).astype(int)]


def heard(data: Stories, story: str) -> dict[str, np.ndarray]:
    """Word classes and a log spectrum of 20 bands, both from the files that a user has."""
    rows, audio = data.row_times(story, middle=True), data.audio(story)
    words = np.zeros((len(audio) // 800 + 1, len(CLASSES)))
    for word in data.words(story):
        if word.label in WORD_CLASS:
            words[round(word.start / STEP), CLASSES.index(WORD_CLASS[word.label])] += 1
    frames = (audio[: len(audio) // 800 * 800] * 32768.0).reshape(-1, 800) * np.hamming(800)
    power, hertz = np.abs(np.fft.rfft(frames)) ** 2, np.fft.rfftfreq(800, 1 / 16000)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 22) / 2595) - 1)  # even in mel
    bands = [power[:, (hertz >= low) & (hertz <= high)].mean(1) for low, high in zip(edges, edges[2:], strict=False)]
    return {"meaning": at_rows(words, rows), "spectrum": at_rows(np.log(np.maximum(np.stack(bands, axis=1), 1.0)), rows)}


def centered(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(axis=0)


def predicted(root: Path, feature: str, region: str) -> float:
    """Mean r on the test story of ridge regressions on what was heard in training stories, over a region's voxels."""
    data = stories(root)
    training = [story for story in data.stories("A") if story != TEST_STORY]
    voxels = data.rois("A")[region]
    X = np.concatenate([centered(heard(data, story)[feature]) for story in training])
    Y = np.concatenate([centered(data.responses("A", story, dtype=np.float64)[:, voxels]) for story in training])
    sd = X.std(0)
    X, Z = X / sd, centered(heard(data, TEST_STORY)[feature]) / sd
    weights = np.linalg.solve(X.T @ X + 10 * np.eye(X.shape[1]), X.T @ Y)
    truth = data.responses("A", TEST_STORY, dtype=np.float64)[:, voxels]
    return float(np.mean([np.corrcoef(Z @ w, y)[0, 1] for w, y in zip(weights.T, truth.T, strict=True)]))


@pytest.mark.parametrize("world", LATE_FOLLOWS)
def test_only_what_drives_the_late_region_predicts_it(worlds: dict[str, Path], world: str) -> None:
    r = {feature: predicted(worlds[world], feature, "late_language") for feature in ("meaning", "spectrum")}
    for feature, score in r.items():
        if feature == world:
            assert score > 0.7, r
        else:
            assert abs(score) < (0.35 if world != "nothing" else 0.15), r
    # The auditory region is the same in all.
    assert predicted(worlds[world], "spectrum", "auditory") > 0.7
    assert abs(predicted(worlds[world], "spectrum", "silent")) < 0.15


@pytest.mark.parametrize("world", LATE_FOLLOWS)
def test_ceilings_are_high_in_all(worlds: dict[str, Path], world: str) -> None:
    """Repeats agree as much where nothing that is heard predicts them: correlations of two halves, stepped up to all repeats."""
    repeats = stories(worlds[world]).repeats("A", TEST_STORY, dtype=np.float64)
    half = [np.corrcoef(repeats[:2].mean(0)[:, v], repeats[2:4].mean(0)[:, v])[0, 1] for v in range(15, 40)]
    with h5py.File(worlds[world] / "truth" / "A.h5") as file:
        ceiling = file["ceiling"][15:40]
        assert json.loads(file.attrs["config"])["late_follows"] == world
    assert np.mean(half) > 0.6
    assert ceiling.mean() > 0.85


def test_sound_and_layout_are_the_same_in_all(worlds: dict[str, Path]) -> None:
    first = {
        p.relative_to(worlds["meaning"]): p for p in worlds["meaning"].rglob("*") if p.suffix in (".wav", ".TextGrid", ".json")
    }
    assert len(first) == 12
    for world in ("nothing", "spectrum"):
        for name, path in first.items():
            assert (worlds[world] / name).read_bytes() == path.read_bytes()


def test_a_misspelt_drive() -> None:
    with pytest.raises(InputError, match="late_follows is 'sense': choose one of meaning, nothing, spectrum"):
        WorldConfig(late_follows="sense")
