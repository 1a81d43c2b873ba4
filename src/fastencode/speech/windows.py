"""Which stretches of a recording are read, and which of their frames are kept: the one place that cuts sound.

Axis letters: k stretch, n audio sample, f frame, m row kept of a stretch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.speech.config import ReadConfig

__all__ = ["Windows", "find_windows", "kept_frames"]


@dataclass(frozen=True)
class Windows:
    """Stretches of a recording: samples from ``starts`` (k,) (below 0: silence) to ``stops`` (k,); ``times`` (k,), ends in s."""

    starts: NDArray[np.intp]
    stops: NDArray[np.intp]
    times: NDArray[np.float64]

    def batches(self, size: int) -> Iterator[NDArray[np.intp]]:
        """Rows that follow one another and are equally long, at most ``size`` at a time: no model has to be told of padding."""
        edges = np.flatnonzero(np.diff(self.stops - self.starts)) + 1
        for part in np.split(np.arange(len(self.times)), edges):
            for start in range(0, len(part), size):
                yield part[start : start + size]


def find_windows(n_samples: int, sample_rate: int, config: ReadConfig) -> Windows:
    """The stretches of a recording to read.

    Raises
    ------
    InputError
        If the recording is shorter than one TR or stride: utterances are read as a whole.
    """
    count = int(n_samples / sample_rate / config.step + 1e-6)
    if not count:
        step = "TR" if config.input == "clip" else "stride"
        raise InputError(
            f"{n_samples / sample_rate:.3g} s of sound are less than one step of {config.step:g} s (the {step}): read such"
            " recordings as a whole, with input='utterance'"
        )
    times = np.arange(1, count + 1) * np.float64(config.step)
    stops = np.minimum(np.rint(times * sample_rate).astype(np.intp), n_samples)
    starts = stops - round(config.longest * sample_rate)
    return Windows(starts if config.input == "clip" else np.maximum(starts, 0), stops, times)


_HEARD = 0.025  # s: what a frame of wav2vec2 and its kin hears, and one of cepstra


def kept_frames(frame_times: NDArray[np.float64], seconds: float, config: ReadConfig) -> tuple[list[slice], NDArray[np.float64]]:
    """Which frames of a stretch are averaged for each row that is kept of it, and when these rows are.

    Parameters
    ----------
    frame_times : ndarray, shape (f,)
        The middles of the frames, in s from the start of the stretch.
    seconds : float
        Its length.
    config : ReadConfig

    Returns
    -------
    list of slice, ndarray of shape (m,)
        Times are in s from the end of the stretch, so 0 or less: the mean of the frames' middles for bins. What stands for the
        whole stretch (``"mean"``, ``"last"``) is at its end.

    Raises
    ------
    InputError
        If a bin holds no frame.
    """
    count = len(frame_times)
    if config.pooled in ("mean", "last"):
        return [slice(0 if config.pooled == "mean" else count - 1, count)], np.zeros(1)
    edges_s = _edges(seconds, config)
    edges = np.searchsorted(frame_times, edges_s - 1e-9)
    if config.input == "utterance":  # frames that hear more than 25 ms end earlier
        edges = edges[: 1 + max(1, int(np.searchsorted(edges, count)))]
    if not np.diff(edges).all():
        others = "'mean'" if config.input == "utterance" else "'mean' or 'last'"
        raise InputError(
            f"bins of {edges_s[1] - edges_s[0]:g} s do not hold a frame each, since frames come every"
            f" {np.diff(frame_times[:2]).sum():.3g} s: give longer ones (bin), or pool frames by {others}"
        )
    bins = [slice(int(start), int(stop)) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    return bins, np.array([frame_times[one].mean() for one in bins]) - seconds


def _edges(seconds: float, config: ReadConfig) -> NDArray[np.float64]:
    """Where bins begin and end, in s from the start of the stretch: of its last step, or of all of an utterance."""
    if config.input == "utterance":
        bins = max(1, int((seconds - _HEARD) / config.bin + 1e-6) + 1)
        return np.float64(config.bin) * np.arange(bins + 1)
    return seconds - config.step + np.float64(config.step / config.kept) * np.arange(config.kept + 1)
