"""Naive float64 references for time kernels, acoustics, ceilings and resampling: plain loops that import nothing of ours."""

from __future__ import annotations

import math

import numpy as np
import scipy.stats


def lanczos(data, old, new, lobes=3.0, cutoff_mult=1.0):
    """The dense published form: a full matrix of weights."""
    data, old, new = (np.asarray(a, dtype=np.float64) for a in (data, old, new))
    cutoff = cutoff_mult / np.mean(np.diff(new))
    weights = np.zeros((len(new), len(old)))
    for i in range(len(new)):
        for j in range(len(old)):
            x = (new[i] - old[j]) * cutoff
            if abs(x) <= lobes:
                weights[i, j] = np.sinc(x) * np.sinc(x / lobes)
    return np.tensordot(weights, data, axes=1), weights


def hrf(t, peak=6.0, undershoot=16.0, peak_dispersion=1.0, undershoot_dispersion=1.0, ratio=6.0):
    """Difference of gamma densities, not scaled."""
    up = scipy.stats.gamma.pdf(t, peak / peak_dispersion, scale=peak_dispersion)
    return up - scipy.stats.gamma.pdf(t, undershoot / undershoot_dispersion, scale=undershoot_dispersion) / ratio


def hrf_impulses(data, times, new, duration=32.0, **parameters):
    """One event and one new time after the other; the integral of h by a fine trapezoid sum."""
    data = np.asarray(data, dtype=np.float64)
    grid = np.linspace(0, duration, 320_001)
    area = np.trapezoid(hrf(grid, **parameters), grid)
    out = np.zeros((len(new), *data.shape[1:]))
    for i in range(len(new)):
        for j in range(len(times)):
            lag = new[i] - times[j]
            if 0 <= lag <= duration:
                out[i] += data[j] * hrf(lag, **parameters) / area
    return out


def delay(X, delays, runs):
    X = np.asarray(X)
    n, p = X.shape
    out = np.zeros((n, len(delays) * p))
    for k, d in enumerate(delays):
        for t in range(n):
            if 0 <= t - d < n and runs[t] == runs[t - d]:
                out[t, k * p : (k + 1) * p] = X[t - d]
    return out


def htk_log_mel(audio, rate, n_mels, f_min, f_max, window, hop, preemphasis):
    """HTK's filter bank, bin by bin with 1-based indices as its book has it; audio on the int16 scale."""
    length, step = math.floor(window * rate + 1e-6), math.floor(hop * rate + 1e-6)
    n_fft = 2
    while n_fft < length:
        n_fft *= 2
    bin_mel = [1127 * math.log(1 + (k - 1) * rate / n_fft / 700) for k in range(1, n_fft // 2 + 2)]
    mel_lo, mel_hi = 1127 * math.log(1 + f_min / 700), 1127 * math.log(1 + f_max / 700)
    centers = [mel_lo + c / (n_mels + 1) * (mel_hi - mel_lo) for c in range(n_mels + 2)]
    k_lo = max(2, int(f_min / rate * n_fft + 2.5))
    k_hi = min(n_fft // 2, int(f_max / rate * n_fft + 0.5))
    rows = []
    for start in range(0, len(audio) - length + 1, step):
        frame = [float(v) for v in audio[start : start + length]]
        for i in range(length - 1, 0, -1):
            frame[i] -= preemphasis * frame[i - 1]
        frame[0] *= 1 - preemphasis
        frame = [v * (0.54 - 0.46 * math.cos(2 * math.pi * i / (length - 1))) for i, v in enumerate(frame)]
        spectrum = np.fft.fft(frame, n_fft)
        bank = [0.0] * (n_mels + 2)
        for k in range(k_lo, k_hi + 1):
            power = abs(spectrum[k - 1]) ** 2
            c = 0
            while c <= n_mels and centers[c + 1] < bin_mel[k - 1]:
                c += 1
            share = (centers[c + 1] - bin_mel[k - 1]) / (centers[c + 1] - centers[c])
            bank[c] += share * power
            bank[c + 1] += (1 - share) * power
        rows.append([math.log(max(b, 1.0)) for b in bank[1 : n_mels + 1]])
    return np.array(rows)


def htk_cepstra(log_mel, n_mfcc, lifter):
    n_mels = log_mel.shape[1]
    out = np.zeros((len(log_mel), n_mfcc))
    for f in range(len(log_mel)):
        for n in range(1, n_mfcc + 1):
            total = sum(log_mel[f, j - 1] * math.cos(math.pi * n / n_mels * (j - 0.5)) for j in range(1, n_mels + 1))
            out[f, n - 1] = math.sqrt(2 / n_mels) * total * (1 + lifter / 2 * math.sin(math.pi * n / lifter) if lifter else 1)
    return out


def deltas(static):
    out = np.zeros_like(static)
    last = len(static) - 1
    for f in range(len(static)):
        for lag in (1, 2):
            out[f] += lag * (static[min(f + lag, last)] - static[max(f - lag, 0)]) / 10
    return out


def noise_ceiling(repeats):
    """Schoppe et al. 2016, one voxel after the other."""
    n_repeats, _, n_voxels = repeats.shape
    out = np.zeros(n_voxels)
    for v in range(n_voxels):
        one = np.asarray(repeats[:, :, v], dtype=np.float64)
        total = np.mean([np.var(repeat, ddof=1) for repeat in one])
        signal = (n_repeats * np.var(one.mean(axis=0), ddof=1) - total) / (n_repeats - 1)
        if signal > 0:
            out[v] = 1 / math.sqrt(1 + (total / signal - 1) / n_repeats)
    return out


def joint_ceiling(stories):
    """Of several stories, each (repeats, times, voxels): the share of signal from the covariances of all pairs of repeats."""
    out = np.zeros(stories[0].shape[2])
    for v in range(len(out)):
        top = bottom = 0.0
        for story in stories:
            one = np.asarray(story[:, :, v], dtype=np.float64)
            unit = math.sqrt(np.mean([np.var(repeat, ddof=1) for repeat in one]))
            for i in range(len(one)):
                for j in range(i):
                    top += one.shape[1] / len(one) * np.cov(one[i] / unit, one[j] / unit)[0, 1]
                    bottom += one.shape[1] / len(one)
        if top > 0:
            rows = [story.shape[1] for story in stories]
            out[v] = np.average([1 / math.sqrt(1 + (bottom / top - 1) / len(story)) for story in stories], weights=rows)
    return out


def pearson(y, p):
    y, p = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    y, p = y - y.mean(), p - p.mean()
    size = math.sqrt((y @ y) * (p @ p))
    return y @ p / size if size > 0 else 0.0


def agreeing(repeats: np.ndarray) -> np.ndarray:
    """Voxels whose repeats agree, false discovery rate 5 %: every repeat turned by every number of scans against every other."""
    t, n_voxels = repeats.shape[1:]
    p = np.ones(n_voxels)
    for v in range(n_voxels):
        series = [one - one.mean() for one in repeats[:, :, v].astype(float)]
        if np.isfinite(series).all() and np.ptp(series) > 0:
            mean = sum(one @ one for one in series)
            pairs = [np.mean([(a @ np.roll(b, s)) ** 2 for s in range(t)]) for i, a in enumerate(series) for b in series[:i]]
            measured, variance = np.sum(np.sum(series, axis=0) ** 2), 4 * sum(pairs)
            p[v] = scipy.stats.gamma.sf(measured, mean**2 / variance, scale=variance / mean)
    return scipy.stats.false_discovery_control(p) <= 0.05
