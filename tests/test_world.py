"""The demo's world: speech with times, the real layout, and a truth that the data really have."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the demo's world needs the extra 'demo'")

from fastencode.data.stories import Stories
from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.study.brains.ceilings import noise_ceiling
from fastencode.world.config import REGIONS, Participant, WorldConfig
from fastencode.world.espeak import SAMPLE_RATE, Synthesizer, Voice
from fastencode.world.simulate import TEST_STORY, VALIDATION_STORY, make_world
from fastencode.world.tales import CLASSES, WORD_CLASS, speak_at, tell

SMALL = WorldConfig(
    minutes=2.8,
    story_minutes=1.4,
    test_minutes=3.0,
    repeats=6,
    participants=(
        Participant("A", auditory=12, late_language=20, silent=8, gain=1.5, peak_delay=6.0),
        Participant("B", auditory=7, late_language=9, silent=5, gain=0.7, peak_delay=5.0),
    ),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(SMALL, root, show_progress=False)
    return root


def stories(root: Path) -> Stories:
    return Stories(root, test_story=TEST_STORY, test_skip=0)


def test_words_and_phones_have_their_times() -> None:
    said = Synthesizer().speak("the farmer heard the dog. the cat missed the apple.", Voice("en-us", 160, 50))
    assert [w.label for w in said.words] == ["the", "farmer", "heard", "the", "dog", "the", "cat", "missed", "the", "apple"]
    for before, after in zip(said.words, said.words[1:], strict=False):
        assert 0 <= before.start < before.end <= after.start + 1e-9
    loud = [np.abs(said.audio[round(w.start * SAMPLE_RATE) : round(w.end * SAMPLE_RATE)]).max() for w in said.words]
    assert min(loud) > 0.02, "a word's stretch of audio is not silent"
    inside = [any(w.start - 0.02 <= p.start <= w.end for w in said.words) for p in said.phones if p.label.strip("_: ")]
    assert len(inside) > 25 and np.mean(inside) > 0.95
    again = Synthesizer().speak("the farmer heard the dog. the cat missed the apple.", Voice("en-us", 160, 50))
    np.testing.assert_array_equal(said.audio, again.audio)
    slow = Synthesizer().speak("the farmer heard the dog. the cat missed the apple.", Voice("en-us", 90, 50))
    assert len(slow.audio) > 1.3 * len(said.audio)


@pytest.mark.parametrize(("text", "voice", "why"), [("...", "en-us", "at least one word"), ("dog", "xx-nobody", "no voice")])
def test_what_cannot_be_said(text: str, voice: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Synthesizer().speak(text, Voice(voice, 160, 50))


def test_stories_hold_every_class_and_end_on_time() -> None:
    said = tell(90.0, np.random.default_rng(0))
    assert len(said.audio) == 90 * SAMPLE_RATE
    assert {WORD_CLASS[w.label] for w in said.words if w.label in WORD_CLASS} == set(CLASSES)
    assert said.words[-1].end <= 90
    same = tell(90.0, np.random.default_rng(0))
    assert same.words == said.words
    assert tell(90.0, np.random.default_rng(1)).words != said.words
    with pytest.raises(InputError, match="at least 10 seconds"):
        tell(5, np.random.default_rng(0))


def test_words_are_spoken_at_given_times() -> None:
    words = [Interval(1.0, 1.4, "apple"), Interval(3.0, 3.1, "'s"), Interval(4.0, 5.5, "mountain"), Interval(6.0, 6.2, "…")]
    audio = speak_at(words, 8.0)
    assert audio.shape == (8 * SAMPLE_RATE,)
    loud = np.abs(audio) > 0.02
    for word in (words[0], words[2]):
        assert loud[round(word.start * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)].mean() > 0.1
    assert not loud[: round(0.99 * SAMPLE_RATE)].any() and not loud[round(2 * SAMPLE_RATE) : round(2.99 * SAMPLE_RATE)].any()
    assert not loud[round(6 * SAMPLE_RATE) :].any()


def test_the_layout_is_the_real_one(world: Path) -> None:
    data = stories(world)
    assert data.participants == ["A", "B"]
    assert data.stories("A") == ["story01", "story02", TEST_STORY, VALIDATION_STORY]
    assert (data.n_voxels("A"), data.n_voxels("B")) == (40, 21)
    lengths = json.loads((world / "respdict.json").read_text())
    for name in data.stories("B"):
        response, audio = data.responses("B", name), data.audio(name)
        assert len(response) == lengths[name] - 20 == len(data.row_times(name))
        # 5 TRs before the first row and 5 after the last
        assert data.row_times(name)[-1] + 2 + 10 == pytest.approx(len(audio) / 16000, abs=2)
        assert data.words(name)[-1].end <= len(audio) / 16000
        assert len(data.phones(name)) > len(data.words(name))
    repeats = data.repeats("A", TEST_STORY, dtype=np.float64)
    assert len(repeats) == 6
    np.testing.assert_allclose(repeats.mean(0), data.responses("A", TEST_STORY, dtype=np.float64))
    assert {name: len(voxels) for name, voxels in data.rois("A").items()} == dict(zip(REGIONS, (12, 20, 8), strict=True))


def test_the_truth_is_in_the_data(world: Path) -> None:
    """Stored weights and the words' own times predict late-language voxels up to the stored ceiling; written from scratch."""
    data = stories(world)
    with h5py.File(world / "truth" / "A.h5") as file:
        ceiling, weights, center = file["ceiling"][:], file["weights/late_language"][:], file["center/late_language"][:]
    t = np.arange(0, 32, 0.01)
    from scipy.stats import gamma

    kernel = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    kernel /= kernel.sum() * 0.01
    rows = data.row_times(TEST_STORY, middle=True)
    features = np.zeros((len(rows), len(CLASSES)))
    for word in data.words(TEST_STORY):
        if word.label in WORD_CLASS:
            features[:, CLASSES.index(WORD_CLASS[word.label])] += np.interp(rows - word.start, t, kernel, left=0, right=0)
    predicted = (features - center) @ weights
    measured = data.responses("A", TEST_STORY)[:, data.rois("A")["late_language"]]
    r = np.array([np.corrcoef(predicted[:, v], measured[:, v])[0, 1] for v in range(20)])
    assert np.abs(r - ceiling[12:32]).mean() < 0.06
    assert ceiling[12:32].mean() > 0.85 and np.all(ceiling[32:] == 0)


def test_estimated_ceilings_are_near_the_true_ones(world: Path) -> None:
    for name in ("A", "B"):
        with h5py.File(world / "truth" / f"{name}.h5") as file:
            truth = file["ceiling"][:]
        estimate = noise_ceiling(stories(world).repeats(name, TEST_STORY))
        driven = truth > 0
        assert abs(np.mean(estimate[driven] - truth[driven])) < 0.06


def test_participants_differ_and_noise_is_autocorrelated(world: Path) -> None:
    data = stories(world)
    silent = data.responses("A", "story01")[:, data.rois("A")["silent"]]
    lagged = [np.corrcoef(silent[1:, v], silent[:-1, v])[0, 1] for v in range(silent.shape[1])]
    assert 0.1 < np.mean(lagged) < 0.6
    strong = data.responses("A", TEST_STORY)[:, data.rois("A")["auditory"]].var(0).mean()
    weak = data.responses("B", TEST_STORY)[:, data.rois("B")["auditory"]].var(0).mean()
    assert strong > 2 * weak


def test_the_same_seed_makes_the_same_world(world: Path, tmp_path: Path) -> None:
    make_world(SMALL, tmp_path, show_progress=False)
    for path in sorted(world.rglob("*")):
        if path.suffix in (".wav", ".TextGrid", ".json"):
            assert path.read_bytes() == (tmp_path / path.relative_to(world)).read_bytes(), path.name
        elif path.suffix == ".hf5":
            with h5py.File(path) as first, h5py.File(tmp_path / path.relative_to(world)) as second:
                np.testing.assert_array_equal(first["data"][:], second["data"][:])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"story_minutes": 0.5}, "story_minutes must be at least"),
        ({"minutes": 1.0}, "minutes must be at least one story"),
        ({"repeats": 1}, "repeats must be at least 2"),
        ({"autocorrelation": 1.0}, "autocorrelation"),
        ({"participants": ()}, "at least one"),
    ],
)
def test_impossible_worlds(settings: dict, why: str) -> None:
    with pytest.raises(InputError, match=why):
        WorldConfig(**settings)
