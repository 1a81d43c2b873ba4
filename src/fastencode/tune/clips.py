"""Clips through the frozen CNN, once: what the trainer and the alignment read instead of audio.

A run is one story or one scanner session. Its clips end at successive multiples of the TR from sound onset on, so that the clip
of a response row, and every clip before it, can be found by its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastencode.errors import InputError
from fastencode.progress import progress
from fastencode.speech.layers import SpeechEncoder, cut_clips
from fastencode.tune.model import check_tunable

__all__ = ["RunFrames", "write_frames"]


@dataclass(frozen=True)
class RunFrames:
    """CNN output of one run's clips, on disk: clip j ends at ``(j + 1) * tr`` s.

    Attributes
    ----------
    path : Path
        ``.npy`` file of shape (clips, f, c), float32.
    tr : float
        In s.
    """

    path: Path
    tr: float

    def all(self) -> np.ndarray:
        """Every clip, (clips, f, c), mapped read-only."""
        return np.load(self.path, mmap_mode="r")

    @property
    def ends(self) -> np.ndarray:
        """When each clip ends, (clips,) in s from sound onset."""
        return self.tr * np.arange(1, len(self.all()) + 1)

    def at(self, ends: np.ndarray) -> np.ndarray:
        """The clips that end at given times, (rows, f, c), in memory.

        Raises
        ------
        InputError
            If a time is no multiple of the TR or lies outside the run.
        """
        index = np.rint(np.asarray(ends) / self.tr).astype(int) - 1
        frames = self.all()
        if len(index) and (index.min() < 0 or index.max() >= len(frames)):
            raise InputError(
                f"rows end at {ends[0]:g} to {ends[-1]:g} s, but {self.path.stem} has clips from {self.tr:g} to "
                f"{len(frames) * self.tr:g} s"
            )
        if not np.allclose(self.tr * (index + 1), ends):
            raise InputError(f"rows of {self.path.stem} do not end at multiples of the TR, {self.tr:g} s")
        return np.array(frames[index])


def write_frames(
    encoder: SpeechEncoder,
    runs: dict[str, np.ndarray],
    folder: Path,
    *,
    tr: float,
    seconds: float,
    batch: int = 8,
    show_progress: bool = True,
) -> None:
    """Run the frozen CNN over every clip of every run and write ``folder/<run>.npy``.

    Parameters
    ----------
    encoder : SpeechEncoder
    runs : dict of name → audio, shape (n,), float32 at the encoder's sample rate
    folder : Path
        An existing folder.
    tr, seconds : float
        Distance of the clips' ends and length of the clips, in s.
    batch : int
        Clips at a time.
    """
    check_tunable(encoder)
    n_clips = {name: int(len(audio) / encoder.sample_rate / tr + 1e-6) for name, audio in runs.items()}
    for name, count in n_clips.items():
        if not count:
            raise InputError(
                f"run {name!r} has {len(runs[name]) / encoder.sample_rate:.2f} s of audio, less than one TR of {tr:g} s"
            )
    with (
        progress(total=sum(n_clips.values()), desc="CNN, once", unit="clip", enabled=show_progress) as bar,
        torch.inference_mode(),
    ):
        for name, audio in runs.items():
            ends = tr * np.arange(1, n_clips[name] + 1)
            parts = []
            for start in range(0, len(ends), batch):
                clips = cut_clips(
                    audio,
                    ends[start : start + batch],
                    seconds=seconds,
                    sample_rate=encoder.sample_rate,
                    normalize=encoder.normalize,
                )
                parts.append(encoder.cnn(torch.from_numpy(clips)).contiguous().numpy())
                bar.update(len(clips))
            np.save(folder / f"{name}.npy", np.concatenate(parts))
