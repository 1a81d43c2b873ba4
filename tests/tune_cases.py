"""What tests of the trainer share: a data set of tones whose responses follow from what was heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.textgrid import Interval
from fastencode.speech.audio import read_audio, write_audio

TR, RATE = 2.0, 16000
FIRST = 5  # scans before the first row


class Tones:
    """Each scan hears a low or a high tone, quiet or loud; a voxel follows the pitch, the loudness, or both, with noise.

    Participants have different voxels and heard different stories.
    """

    tr, test_story = TR, "test"

    def __init__(
        self,
        folder: Path,
        *,
        people: dict[str, int] | None = None,
        stories: dict[str, int] | None = None,
        heard: dict[str, tuple[str, ...]] | None = None,
        noise: float = 0.3,
        seed: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._describe(folder, people, stories, heard)
        (folder / "tones.json").write_text(json.dumps([self.people, self.rows, self.heard]))
        rng = np.random.default_rng(seed)
        for story, rows in self.rows.items():
            scans = rows + FIRST
            high, loud = rng.integers(0, 2, (2, scans))
            t = np.arange(scans * round(TR * RATE)) / RATE
            pitch, level = (
                np.repeat(values, round(TR * RATE)) for values in (np.where(high, 1800.0, 300.0), np.where(loud, 0.5, 0.1))
            )
            sound = level * np.sin(2 * np.pi * pitch * t) + 0.01 * rng.standard_normal(len(t))
            write_audio(folder / f"{story}.wav", sound.astype(np.float32), RATE)
            np.save(folder / f"{story}-high.npy", high)
            signal = np.stack([high, loud, high * loud], axis=1)[FIRST:].astype(float)
            for who, voxels in self.people.items():
                mix = np.random.default_rng([seed, len(who), voxels]).standard_normal((3, voxels))
                values = signal @ mix + noise * rng.standard_normal((rows, voxels))
                np.save(folder / f"{who}-{story}.npy", values.astype(np.float32))

    def _describe(
        self,
        folder: Path,
        people: dict[str, int] | None,
        stories: dict[str, int] | None,
        heard: dict[str, tuple[str, ...]] | None,
    ) -> None:
        self.folder = folder
        self.people = people or {"A": 5, "B": 3}
        self.rows = stories or {"one": 20, "two": 13, "watched": 12}
        self.heard = heard or {who: tuple(self.rows) for who in self.people}

    @classmethod
    def read(cls, folder: str) -> Tones:
        """One that was made, as it lies in a folder."""
        found = cls.__new__(cls)
        found._describe(Path(folder), *json.loads((Path(folder) / "tones.json").read_text()))
        return found

    @property
    def participants(self) -> list[str]:
        return list(self.people)

    def stories(self, who: str) -> list[str]:
        return list(self.heard[who])

    def n_rows(self, run: str) -> int:
        return self.rows[run]

    def row_times(self, run: str, *, middle: bool = False) -> np.ndarray:
        return TR * (np.arange(self.rows[run]) + FIRST + 0.5 * middle)

    def usable_rows(self, run: str) -> slice:
        return slice(0, self.rows[run])

    def recording(self, run: str) -> str:
        return run

    def sound_file(self, run: str) -> Path:
        return self.folder / f"{run}.wav"

    def words(self, run: str) -> list[Interval]:
        """What is said of each scan's pitch."""
        high = np.load(self.folder / f"{run}-high.npy")
        return [Interval(i * TR, (i + 1) * TR, "high" if one else "low") for i, one in enumerate(high)]

    def check_length(self, run: str, seconds: float, path: Path) -> None:
        """As long as its scans."""

    def n_voxels(self, who: str) -> int:
        return self.people[who]

    def responses(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        values = np.load(self.folder / f"{who}-{run}.npy")
        return values if voxels is None else values[:, np.asarray(voxels)]

    def is_repeated(self, who: str, run: str) -> bool:
        return False

    def repeats(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        raise NotImplementedError

    def split(self, run: str) -> str:
        return "train"

    def kept(self, who: str, run: str) -> np.ndarray:
        return np.ones(self.rows[run], bool)

    def mask(self, who: str) -> None:
        """Voxels lie nowhere."""

    def notes(self, who: str) -> list[str]:
        return []

    def phones(self, run: str) -> list[Interval]:
        raise NotImplementedError

    def stimulus_files(self, run: str) -> list[Path]:
        return [self.sound_file(run)]

    def rois(self, who: str, *, mask: Any = None) -> dict[str, np.ndarray]:
        return {"first": np.array([0])}

    def response_files(self, who: str, run: str) -> list[Path]:
        return [self.folder / f"{who}-{run}.npy"]


def clip(data: Tones, run: str, end: float, seconds: float = 2.0) -> np.ndarray:
    """The sound of the last seconds before a time, silence before it began."""
    sound = read_audio(data.sound_file(run), sample_rate=RATE)
    n = round(seconds * RATE)
    return np.concatenate([np.zeros(n, np.float32), sound])[round(end * RATE) :][:n]


def pooled(whole: Any, folder: Path, clips: list[np.ndarray]) -> Any:
    """Of each clip alone through transformers: the mean over frames of the last hidden state."""
    import torch
    import transformers

    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    rows = []
    for one in clips:
        inputs = extractor(one, sampling_rate=RATE, return_tensors="pt").input_values
        rows.append(whole(inputs).last_hidden_state[0].mean(dim=0))
    return torch.stack(rows)


def normal(values: np.ndarray) -> np.ndarray:
    """Each column to mean 0 and standard deviation 1."""
    return (values - values.mean(axis=0)) / values.std(axis=0)
