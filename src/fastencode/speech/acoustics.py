"""Low-level acoustic features: mel-frequency cepstra and log-mel spectra, by HTK's definition, and sound power.

Source of the definition: S. Young et al., *The HTK Book* (version 3.4), chapter 5. What it fixes, and other libraries do
otherwise: samples are on the int16 scale; pre-emphasis is applied inside each frame; the filters are triangles on the scale
``1127 ln(1 + f / 700)``, evaluated at the FFT bins without the bins at 0 Hz and at half the sample rate; a filter's power is at
least 1 before the logarithm; the cosine transform is scaled by ``sqrt(2 / n_mels)``; frames that do not fit whole are dropped.

Axis letters: f frame, s sample within a frame, k FFT bin, m mel channel, c column of the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy, export, float_dtype, library_of
from fastencode.errors import FastencodeWarning, InputError
from fastencode.timing.times import check_seconds

__all__ = ["frame_times", "log_mel", "mfcc", "sound_power"]

Floats = NDArray[np.floating[Any]]

INT16_SCALE = 32768.0
# A float signal above this cannot be a ±1 signal that overshoots after resampling; below it, an int16 signal would be inaudible.
MAX_UNIT_PEAK = 16.0
POWER_FLOOR = 1.0
DELTA_WIDTH = 2
# 1024 frames of a 512-point FFT take 4 MB of spectrum: large enough to be fast, small enough for hours of audio.
FRAMES_PER_BLOCK = 1024


@dataclass(frozen=True)
class _Framing:
    """How a signal is cut: frame length, step and FFT length, all in samples."""

    length: int
    step: int
    n_fft: int


def mfcc(
    audio: ArrayLike,
    sample_rate: float,
    *,
    n_mfcc: int = 12,
    n_mels: int = 26,
    f_min: float = 0.0,
    f_max: float | None = None,
    window: float = 0.025,
    hop: float = 0.010,
    preemphasis: float = 0.97,
    lifter: int = 22,
    energy: Literal["c0", "log"] | None = None,
    deltas: int = 0,
) -> Any:
    """Mel-frequency cepstral coefficients, by HTK's definition.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        One channel; NumPy, or torch on the CPU. Integers are taken on the int16 scale; floats are taken to lie within ±1 and
        are multiplied by 32768. Floats with a peak above 16 can only be on the int16 scale already: they are used as they are,
        with a warning.
    sample_rate : float
        In Hz.
    n_mfcc : int
        Number of cepstra, c1 to c``n_mfcc``; smaller than ``n_mels``.
    n_mels : int
        Number of mel filters.
    f_min, f_max : float
        Edges of the filter bank in Hz; ``f_max=None`` is half the sample rate.
    window, hop : float
        Frame length and step in seconds, cut down to whole samples (as HTK does).
    preemphasis : float
        Coefficient of the first difference taken inside each frame; 0 switches it off.
    lifter : int
        Cepstrum n is multiplied by ``1 + lifter / 2 * sin(pi * n / lifter)``; 0 switches it off.
    energy : {None, "c0", "log"}
        A column after the cepstra: the zeroth cepstrum (HTK's ``_0``), or the logarithm of the frame's raw energy before
        pre-emphasis and window (HTK's ``_E`` with ``RAWENERGY = T``, ``ENORMALISE = F``; digital silence gives 0, the logarithm
        of one squared quantisation step).
    deltas : int
        How many times the regression slope over ±2 frames is appended: 1 for Δ, 2 for Δ and ΔΔ.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_frames, (n_mfcc + (energy is not None)) * (1 + deltas))
        Columns are [cepstra, energy], then their deltas. float32 for float32 audio, else float64; computed in float64.

    Raises
    ------
    InputError
        If the audio is not one finite channel at least one frame long, or a setting is out of range.

    See Also
    --------
    frame_times : the time of each row.

    References
    ----------
    S. Young et al., The HTK Book, version 3.4, chapter 5.
    """
    if energy not in (None, "c0", "log"):
        raise InputError(f"energy={energy!r}: choose None, 'c0' or 'log'")
    if not 1 <= n_mfcc < n_mels:
        raise InputError(f"n_mfcc={n_mfcc} with n_mels={n_mels}: n_mfcc must lie between 1 and n_mels - 1")
    if deltas < 0 or lifter < 0:
        raise InputError(f"deltas={deltas}, lifter={lifter}: neither can be negative (0 switches it off)")
    signal, scale, framing = _prepare(audio, sample_rate, window, hop)
    filters_km = _mel_filters(n_mels, f_min, f_max, sample_rate, framing.n_fft)
    cepstra_mc = _cosine_transform(n_mfcc, n_mels, lifter)
    kept = n_mfcc + (energy == "c0")

    def reduce(raw_fs: Floats, log_mel_fm: Floats) -> Floats:
        static_fc = (log_mel_fm @ cepstra_mc)[:, :kept]  # one product for all: BLAS rounds by the number of columns
        if energy == "log":
            raw_energy_f = np.einsum("fs,fs->f", raw_fs, raw_fs)
            static_fc = np.column_stack([static_fc, np.log(np.maximum(raw_energy_f, POWER_FLOOR))])
        return static_fc

    static_fc = _by_blocks(signal, scale, framing, preemphasis, filters_km, reduce)
    columns = [static_fc]
    for _ in range(deltas):
        columns.append(_slopes(columns[-1]))
    return export(np.hstack(columns).astype(float_dtype(signal.dtype), copy=False), library_of(audio))


def log_mel(
    audio: ArrayLike,
    sample_rate: float,
    *,
    n_mels: int = 20,
    f_min: float = 0.0,
    f_max: float | None = None,
    window: float = 0.025,
    hop: float = 0.010,
    preemphasis: float = 0.0,
) -> Any:
    """Natural logarithm of the mel power spectrum: the filter bank under :func:`mfcc`.

    Parameters
    ----------
    audio, sample_rate, f_min, f_max, window, hop
        As in :func:`mfcc`.
    n_mels : int
        Number of mel filters.
    preemphasis : float
        As in :func:`mfcc`; off by default.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_frames, n_mels)
        Log power on the int16 scale, never below 0 (HTK's floor of 1). float32 for float32 audio, else float64.

    Raises
    ------
    InputError
        If the audio is not one finite channel at least one frame long, or a setting is out of range.
    """
    signal, scale, framing = _prepare(audio, sample_rate, window, hop)
    filters_km = _mel_filters(n_mels, f_min, f_max, sample_rate, framing.n_fft)
    spectrum_fm = _by_blocks(signal, scale, framing, preemphasis, filters_km, lambda raw_fs, log_mel_fm: log_mel_fm)
    return export(spectrum_fm.astype(float_dtype(signal.dtype), copy=False), library_of(audio))


def sound_power(audio: ArrayLike, sample_rate: float, *, window: float = 0.025, hop: float = 0.010) -> Any:
    """Mean squared amplitude of each frame, a constant offset included.

    Parameters
    ----------
    audio, sample_rate, window, hop
        As in :func:`mfcc`.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_frames,)
        Relative to full scale, whichever scale the audio came on: a square wave at full scale has 1, a sine 0.5, digital silence
        0 (on the int16 scale it would be 32768**2 times as much). float32 for float32 audio, else float64; summed in float64.

    Raises
    ------
    InputError
        If the audio is not one finite channel at least one frame long, or a setting is out of range.

    See Also
    --------
    frame_times : the time of each row. ``lanczos(..., normalize=True)`` brings them to scan times as weighted means.
    """
    signal, scale, framing = _prepare(audio, sample_rate, window, hop)
    blocks = _frame_blocks(signal, scale / INT16_SCALE, framing)
    power_f = np.concatenate([np.einsum("fs,fs->f", block_fs, block_fs) for block_fs in blocks]) / framing.length
    return export(power_f.astype(float_dtype(signal.dtype), copy=False), library_of(audio))


def frame_times(n_frames: int, sample_rate: float, *, window: float = 0.025, hop: float = 0.010) -> NDArray[np.float64]:
    """Time of the center of each frame of :func:`mfcc`, :func:`log_mel` and :func:`sound_power`, in s from the first sample.

    Frames step by whole samples, so at 22 050 Hz a "10 ms" hop lasts 9.977 ms: compute times here, not as ``hop * arange``.

    Parameters
    ----------
    n_frames : int
        Number of rows.
    sample_rate : float
        In Hz.
    window, hop : float
        The values given to that function, in seconds.

    Returns
    -------
    ndarray, shape (n_frames,)
    """
    framing = _framing(sample_rate, window, hop)
    centers = np.arange(n_frames) * framing.step + framing.length / 2
    return np.asarray(centers / sample_rate, dtype=np.float64)


def _framing(sample_rate: float, window: float, hop: float) -> _Framing:
    if not (isinstance(sample_rate, int | float | np.number) and np.isfinite(sample_rate) and sample_rate > 0):
        raise InputError(f"sample_rate={sample_rate}: give the audio's rate in Hz, a positive number")
    check_seconds(window=window, hop=hop)
    # The small term keeps 0.010 s at 16 kHz at 160 samples whatever the product rounds to.
    length, step = (int(seconds * sample_rate + 1e-6) for seconds in (window, hop))
    if length < 2 or step < 1:
        raise InputError(
            f"window={window} s and hop={hop} s are {length} and {step} samples at {sample_rate} Hz: need at least 2 and 1"
        )
    return _Framing(length, step, 1 << (length - 1).bit_length())


def _prepare(audio: ArrayLike, sample_rate: float, window: float, hop: float) -> tuple[NDArray[Any], float, _Framing]:
    """The checked signal (not copied), the factor to the int16 scale, and the framing."""
    framing = _framing(sample_rate, window, hop)
    signal = as_numpy(audio, "audio")
    if signal.ndim != 1:
        raise InputError(f"audio has shape {signal.shape}: give one channel, shape (n_samples,), for example audio.mean(axis=1)")
    if signal.size < framing.length:
        raise InputError(
            f"audio has {signal.size} samples, one frame needs {framing.length}: give longer audio or a shorter window"
        )
    if signal.dtype.kind not in "if":
        raise InputError(f"audio has dtype {signal.dtype}: give signed integers on the int16 scale or floats within ±1")
    low, high = float(signal.min()), float(signal.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"audio has a non-finite sample at index {int(np.argmin(np.isfinite(signal)))}: repair or cut the signal"
        )
    peak = max(-low, high)
    if signal.dtype.kind == "i":
        if peak > INT16_SCALE:
            raise InputError(
                f"{signal.dtype} audio peaks at {peak:.0f}, beyond the int16 scale: divide by its full scale to get ±1 floats"
            )
        return signal, 1.0, framing
    if peak > MAX_UNIT_PEAK:
        warnings.warn(
            f"float audio peaks at {peak:.4g}: taken to be on the int16 scale already; pass int16, or ±1 floats, to say so",
            FastencodeWarning,
            stacklevel=3,
        )
        return signal, 1.0, framing
    return signal, INT16_SCALE, framing


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)


def _mel_filters(n_mels: int, f_min: float, f_max: float | None, sample_rate: float, n_fft: int) -> Floats:
    """Triangular filters, shape (n_fft // 2 + 1, n_mels): neighbors cross at half height on the mel scale."""
    nyquist = sample_rate / 2
    f_max = nyquist if f_max is None else f_max
    if n_mels < 1:
        raise InputError(f"n_mels={n_mels}: need at least one filter")
    if not 0 <= f_min < f_max <= nyquist:
        raise InputError(
            f"f_min={f_min}, f_max={f_max}: need 0 <= f_min < f_max <= {nyquist} (half of sample_rate={sample_rate})"
        )
    edges = np.linspace(_mel(f_min), _mel(f_max), n_mels + 2)
    bin_mel = _mel(np.arange(n_fft // 2 + 1) * (sample_rate / n_fft))[:, None]
    rising = (bin_mel - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bin_mel) / np.diff(edges)[1:]
    filters_km = np.maximum(np.minimum(rising, falling), 0.0)
    # HTK's band edges in bins: never the constant, never the Nyquist bin, edges rounded to the nearest bin.
    first = max(1, int(f_min / sample_rate * n_fft + 1.5))
    last = min(n_fft // 2 - 1, int(f_max / sample_rate * n_fft - 0.5))
    filters_km[:first] = 0.0
    filters_km[last + 1 :] = 0.0
    n_empty = int((filters_km.max(axis=0) == 0).sum())
    if n_empty:
        warnings.warn(
            f"{n_empty} of {n_mels} mel filters lie between FFT bins and stay constant: use fewer filters or a longer window",
            FastencodeWarning,
            stacklevel=3,
        )
    return filters_km


def _cosine_transform(n_mfcc: int, n_mels: int, lifter: int) -> Floats:
    """Log-mel spectrum to liftered cepstra as one matrix, shape (n_mels, n_mfcc + 1); the last is the zeroth."""
    order = np.arange(1, n_mfcc + 1)
    transform_mc = np.sqrt(2.0 / n_mels) * np.cos(np.pi / n_mels * np.outer(np.arange(n_mels) + 0.5, order))
    if lifter:
        transform_mc *= 1.0 + lifter / 2.0 * np.sin(np.pi * order / lifter)
    return np.column_stack([transform_mc, np.full(n_mels, np.sqrt(2.0 / n_mels))])


def _frame_blocks(signal: NDArray[Any], scale: float, framing: _Framing) -> Iterator[Floats]:
    """Frames times ``scale``, in float64, some rows at a time."""
    frames_fs = np.lib.stride_tricks.sliding_window_view(signal, framing.length)[:: framing.step]
    for start in range(0, len(frames_fs), FRAMES_PER_BLOCK):
        block_fs = frames_fs[start : start + FRAMES_PER_BLOCK].astype(np.float64)
        block_fs *= scale
        yield block_fs


def _by_blocks(
    signal: NDArray[Any],
    scale: float,
    framing: _Framing,
    preemphasis: float,
    filters_km: Floats,
    reduce: Callable[[Floats, Floats], Floats],
) -> Floats:
    """Apply ``reduce(raw frames, log-mel spectrum)`` to blocks of frames and stack the results."""
    if not 0 <= preemphasis <= 1:
        raise InputError(f"preemphasis={preemphasis}: give a coefficient between 0 (off) and 1")
    taper = np.hamming(framing.length)
    blocks = []
    for raw_fs in _frame_blocks(signal, scale, framing):
        shaped_fs = raw_fs.copy()
        if preemphasis:
            shaped_fs[:, 1:] -= preemphasis * raw_fs[:, :-1]
            shaped_fs[:, 0] *= 1.0 - preemphasis
        shaped_fs *= taper
        spectrum_fk = scipy.fft.rfft(shaped_fs, framing.n_fft, axis=1)
        power_fk = spectrum_fk.real**2 + spectrum_fk.imag**2
        blocks.append(reduce(raw_fs, np.log(np.maximum(power_fk @ filters_km, POWER_FLOOR))))
    return np.concatenate(blocks)


def _slopes(static_fc: Floats) -> Floats:
    """Least-squares slope over ±DELTA_WIDTH frames; the first and last frame stand in for what lies outside."""
    n_frames = len(static_fc)
    padded_fc = np.pad(static_fc, ((DELTA_WIDTH, DELTA_WIDTH), (0, 0)), mode="edge")
    slopes_fc = np.zeros_like(static_fc)
    for lag in range(1, DELTA_WIDTH + 1):
        ahead = padded_fc[DELTA_WIDTH + lag : DELTA_WIDTH + lag + n_frames]
        behind = padded_fc[DELTA_WIDTH - lag : DELTA_WIDTH - lag + n_frames]
        slopes_fc += lag * (ahead - behind)
    return slopes_fc / (2 * sum(lag * lag for lag in range(1, DELTA_WIDTH + 1)))
