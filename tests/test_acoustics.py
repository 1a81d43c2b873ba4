"""Cepstra and log-mel spectra against HTK's own output and a bin-by-bin reference; sound power against a plain loop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.io.wavfile

import fastencode
import reference_timing as reference
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech import acoustics
from fastencode.speech.acoustics import frame_times, log_mel, mfcc, sound_power

HTK = {"1": {"energy": "c0", "preemphasis": 0.0}, "4": {"energy": "log", "preemphasis": 0.97}}


def speechlike(n: int, seed: int = 0) -> np.ndarray:
    """Noise with a falling spectrum and a slow envelope, on the int16 scale."""
    rng = np.random.default_rng(seed)
    audio = np.cumsum(rng.standard_normal(n)) * (1 + np.sin(np.arange(n) / 700))
    audio -= audio.mean()
    return (audio / np.abs(audio).max() * 20_000).astype(np.int16)


@pytest.mark.parametrize("number", ["1", "4"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_equals_htk_on_a_real_recording(shared_data, number, dtype):
    rate, audio = scipy.io.wavfile.read(shared_data / "mfcc" / "test.wav")
    stored = (shared_data / "mfcc" / f"test.wav.fea_htk.{number}").read_bytes()
    expected = np.frombuffer(stored[12:], ">f4").reshape(-1, 39)
    given = audio if dtype == np.int16 else (audio / 32768).astype(dtype)
    ours = fastencode.mfcc(given, rate, n_mels=23, deltas=2, **HTK[number])
    assert ours.shape == (142, 39)
    assert ours.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-4)
    assert np.abs(fastencode.mfcc(given, rate, n_mels=24, deltas=2, **HTK[number]) - expected).max() > 0.1


@pytest.mark.parametrize(
    ("rate", "settings"),
    [
        (16_000, {}),
        (8_000, {"n_mels": 15, "f_max": 3_400.0, "f_min": 133.0, "n_mfcc": 7, "lifter": 0}),
        (22_050, {"window": 0.031, "hop": 0.0113, "preemphasis": 0.5, "deltas": 1}),
        (44_100, {"n_mels": 40, "n_mfcc": 39, "f_min": 20.0, "f_max": 20_000.0, "lifter": 30, "deltas": 3}),
    ],
)
def test_equals_a_bin_by_bin_reference(rate, settings):
    audio = speechlike(rate // 7)
    chosen = {
        "n_mels": 26,
        "n_mfcc": 12,
        "f_min": 0.0,
        "f_max": rate / 2,
        "window": 0.025,
        "hop": 0.01,
        "preemphasis": 0.97,
        "lifter": 22,
    }
    chosen |= settings
    n_deltas, n_mfcc, lifter = chosen.pop("deltas", 0), chosen.pop("n_mfcc"), chosen.pop("lifter")
    spectrum = reference.htk_log_mel(audio, rate, **chosen)
    np.testing.assert_allclose(log_mel(audio, rate, **chosen), spectrum, atol=1e-10)
    columns = [reference.htk_cepstra(spectrum, n_mfcc, lifter)]
    for _ in range(n_deltas):
        columns.append(reference.deltas(columns[-1]))
    np.testing.assert_allclose(mfcc(audio, rate, **settings), np.hstack(columns), atol=1e-9)


def test_energy_columns_stand_after_the_cepstra_and_have_deltas_too():
    audio = speechlike(4_000)
    plain, c0, log = (mfcc(audio, 16_000, energy=energy, deltas=1) for energy in (None, "c0", "log"))
    assert plain.shape[1] == 24 and c0.shape[1] == log.shape[1] == 26
    np.testing.assert_array_equal(plain[:, :12], c0[:, :12])
    np.testing.assert_array_equal(plain[:, 12:], log[:, 13:25])
    frame = audio[:400].astype(np.float64)
    assert log[0, 12] == pytest.approx(np.log(frame @ frame), abs=1e-12)
    np.testing.assert_allclose(log[:, 25:], reference.deltas(log[:, 12:13]), atol=1e-12)


def test_blocks_of_frames_do_not_show(monkeypatch):
    audio = speechlike(16_000)
    whole = mfcc(audio, 16_000, energy="log", deltas=2)
    monkeypatch.setattr(acoustics, "FRAMES_PER_BLOCK", 7)
    np.testing.assert_allclose(mfcc(audio, 16_000, energy="log", deltas=2), whole, rtol=0, atol=1e-11)


def test_read_only_maps_strides_and_one_frame(tmp_path):
    np.save(tmp_path / "a.npy", speechlike(1_601))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(log_mel(mapped, 16_000), log_mel(speechlike(1_601), 16_000))
    np.testing.assert_array_equal(log_mel(mapped[::2], 8_000), log_mel(mapped[::2].copy(), 8_000))
    assert mfcc(mapped[:400], 16_000, deltas=2).shape == (1, 36)
    assert mfcc(mapped[:559], 16_000).shape == (1, 12) and mfcc(mapped[:560], 16_000).shape == (2, 12)


def test_digital_silence_is_finite():
    assert (log_mel(np.zeros(800), 16_000) == 0).all()
    assert np.isfinite(mfcc(np.zeros(800, np.int16), 16_000, energy="log", deltas=2)).all()


def test_frame_times_follow_whole_samples():
    np.testing.assert_allclose(frame_times(3, 16_000), [0.0125, 0.0225, 0.0325])
    # At 22 050 Hz frames step by 220 samples, not 220.5: a click is found where the times say.
    rate, n = 22_050, 22_050 * 20
    audio = np.zeros(n, np.int16)
    audio[int(15 * rate)] = 20_000
    energy = mfcc(audio, rate, energy="log")[:, -1]
    times = frame_times(len(energy), rate)
    assert abs(times[energy > energy.max() / 2].mean() - 15) < 0.005


@pytest.mark.parametrize(("rate", "window", "hop"), [(16_000, 0.025, 0.010), (22_050, 0.031, 0.0113), (8_000, 0.01, 0.02)])
def test_sound_power_is_the_mean_square_of_each_frame(monkeypatch, rate, window, hop):
    audio = speechlike(rate // 3) + np.int16(900)  # an offset counts
    length, step = int(window * rate), int(hop * rate)
    starts = range(0, len(audio) - length + 1, step)
    expected = [sum((int(a) / 32768) ** 2 for a in audio[start : start + length]) / length for start in starts]
    power = sound_power(audio, rate, window=window, hop=hop)
    assert power.dtype == np.float64
    np.testing.assert_allclose(power, expected, rtol=1e-12)
    assert len(power) == len(frame_times(len(power), rate, window=window, hop=hop)) == len(starts)
    monkeypatch.setattr(acoustics, "FRAMES_PER_BLOCK", 7)
    np.testing.assert_array_equal(sound_power(audio, rate, window=window, hop=hop), power)


def test_sound_power_does_not_depend_on_the_scale_the_audio_came_on():
    audio = speechlike(4_000)
    power = sound_power(audio, 16_000)
    np.testing.assert_array_equal(sound_power(audio / 32768, 16_000), power)
    single = sound_power((audio / 32768).astype(np.float32), 16_000)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, power.astype(np.float32))
    with pytest.warns(FastencodeWarning, match="taken to be on the int16 scale already"):
        np.testing.assert_array_equal(sound_power(audio.astype(np.float64), 16_000), power)
    log_energy = mfcc(audio, 16_000, energy="log")[:, -1]
    np.testing.assert_allclose(np.log(power * 400 * 32768.0**2), log_energy, atol=1e-12)


def test_sound_power_of_known_waves():
    seconds = np.arange(32_000) / 16_000
    sine = np.sin(2 * np.pi * 200 * seconds)  # five periods in a frame
    np.testing.assert_allclose(sound_power(sine, 16_000), 0.5, atol=1e-12)
    np.testing.assert_allclose(sound_power(0.1 * sine, 16_000), 0.005, atol=1e-12)
    assert (sound_power(np.sign(sine + 1e-9), 16_000) == 1).all()
    assert (sound_power(np.zeros(800, np.int16), 16_000) == 0).all()
    growing = sound_power(seconds * sine / 2, 16_000)  # amplitude t / 2
    times = frame_times(len(growing), 16_000)
    np.testing.assert_allclose(growing, times**2 / 8, atol=1e-3)


def test_floats_on_the_int16_scale_are_used_as_they_are_with_a_warning():
    audio = speechlike(1_000)
    with pytest.warns(FastencodeWarning, match="taken to be on the int16 scale already"):
        as_floats = mfcc(audio.astype(np.float64), 16_000)
    np.testing.assert_array_equal(as_floats, mfcc(audio, 16_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfcc(audio / 20_000 * 1.3, 16_000)  # ±1 audio that overshoots after resampling


def test_empty_filters_are_named():
    with pytest.warns(FastencodeWarning, match="mel filters lie between FFT bins"):
        log_mel(speechlike(1_000), 16_000, n_mels=120)


@pytest.mark.parametrize(
    ("audio", "settings", "message"),
    [
        (np.zeros(399), {}, "399 samples, one frame needs 400"),
        (np.zeros(0), {}, "0 samples"),
        (np.zeros((800, 2)), {}, r"shape \(800, 2\): give one channel"),
        (np.where(np.arange(800) == 17, np.nan, 0.0), {}, "non-finite sample at index 17"),
        (np.where(np.arange(800) == 17, -np.inf, 0.0), {}, "non-finite sample at index 17"),
        (np.zeros(800), {"sample_rate": 0}, "sample_rate=0"),
        (np.zeros(800), {"sample_rate": "16000"}, "sample_rate=16000: give the audio's rate"),
        (np.zeros(800), {"window": np.nan}, "window=nan: give a positive number of seconds"),
        (np.zeros(800), {"hop": np.inf}, "hop=inf: give a positive number of seconds"),
        (np.zeros(800), {"sample_rate": -16_000}, "sample_rate=-16000"),
        (np.zeros(800), {"sample_rate": 50}, "are 1 and 0 samples"),
        (np.zeros(800, np.uint8), {}, "dtype uint8"),
        (np.zeros(800, complex), {}, "dtype complex128"),
        (np.full(800, 2**30, np.int32), {}, "beyond the int16 scale"),
        (np.zeros(800), {"n_mfcc": 26}, "n_mfcc=26 with n_mels=26"),
        (np.zeros(800), {"n_mfcc": 0}, "n_mfcc=0"),
        (np.zeros(800), {"f_max": 9_000}, "f_max=9000"),
        (np.zeros(800), {"f_min": 4_000, "f_max": 4_000}, "f_min=4000"),
        (np.zeros(800), {"energy": "C0"}, "energy='C0'"),
        (np.zeros(800), {"deltas": -1}, "deltas=-1"),
        (np.zeros(800), {"preemphasis": 97}, "preemphasis=97"),
    ],
)
def test_bad_input_is_named(audio, settings, message):
    settings = {"sample_rate": 16_000} | settings
    with pytest.raises(InputError, match=message):
        mfcc(audio, **settings)
    if set(settings) == {"sample_rate"}:  # what all features refuse
        with pytest.raises(InputError, match=message):
            sound_power(audio, **settings)
