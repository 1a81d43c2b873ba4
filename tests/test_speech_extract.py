"""Layers of whole recordings: equal to one window at a time, the same bits after a kill, never written over other files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from fastencode.cli import main
from fastencode.errors import InputError
from fastencode.runs.features import find_sounds
from fastencode.speech import reading, store
from fastencode.speech.audio import read_audio, write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import estimate, extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.store import FeatureFile, read_features
from fastencode.speech.windows import find_windows, kept_frames
from fastencode.threads import limit_threads
from speech_cases import LIMITED, saved_model

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
transformers = pytest.importorskip("transformers", reason="speech models need the extra 'tune'")
for library in ("soundfile", "soxr", "jsonargparse"):
    pytest.importorskip(library, reason="recordings need the extra 'tune'")

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

RATE = 16000
WINDOW = ReadConfig(input="window", context=0.4, stride=0.1)
CLIP = ReadConfig(input="clip", tr=0.5, seconds=0.8, bin=0.2)
MEAN = ReadConfig(input="clip", tr=0.5, seconds=0.8, pool="mean")
COMMAND = [sys.executable, "-c", "import sys; from fastencode.cli import main; sys.exit(main())"]


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("one", 1.53), ("two", 0.75)):
        write_audio(folder / f"{name}.wav", 0.1 * rng.standard_normal(int(seconds * RATE)).clip(-5, 5), RATE)
    return find_sounds(folder)


def one_at_a_time(folder: Path, sound: Path, config: ReadConfig) -> tuple[np.ndarray, np.ndarray]:
    """Each window alone through transformers' own feature extractor and model: (t, l, d), and when each row is, (t,)."""
    audio = read_audio(sound)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    step, length = (config.tr, config.seconds) if config.input == "clip" else (config.stride, config.context + config.stride)
    whisper = model.config.model_type == "whisper"
    hop, middle = (320, 0) if whisper else (40, 20)  # samples from frame to frame, and to the middle of the first
    rows, times = [], []
    for k in range(1, int(len(audio) / RATE / step + 1e-9) + 1):
        stop = round(k * step * RATE)
        start = stop - round(length * RATE)
        clip = audio[max(start, 0) : stop]
        if config.input == "clip":
            clip = np.concatenate([np.zeros(max(-start, 0), np.float32), clip])
        inputs = extractor(clip, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            if whisper:
                hidden = model.encoder(**inputs, output_hidden_states=True).hidden_states
                hidden = [layer[:, : -(-len(clip) // 320)] for layer in hidden]
            else:
                hidden = model(**inputs, output_hidden_states=True).hidden_states
        frames = torch.stack([layer[0] for layer in hidden], dim=1).numpy()
        if config.pooled == "newest":
            at = stop - len(clip) + middle + hop * np.arange(len(frames))  # the middle of each frame, in samples of the recording
            n_bins = {0.5: 3, 0.1: 1}[step]
            for b in range(n_bins):
                inside = (at >= stop - step * RATE * (n_bins - b) / n_bins) & (
                    at < stop - step * RATE * (n_bins - b - 1) / n_bins
                )
                rows.append(frames[inside].mean(0))
                times.append(at[inside].mean() / RATE)
        else:
            rows.append(frames[-1] if config.pooled == "last" else frames.mean(0))
            times.append(k * step)
    return np.stack(rows), np.array(times)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "config",
    [WINDOW, CLIP, MEAN, ReadConfig("window", context=0.3, pool="mean"), ReadConfig("window", context=0.3, pool="newest")],
    ids=["window", "clip", "mean", "window-mean", "window-newest"],
)
@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "whisper"])
def test_rows_are_those_of_one_window_at_a_time(
    tmp_path: Path, sounds: dict[str, Path], family: str, config: ReadConfig, batch: int
) -> None:
    saved = saved_model(tmp_path / "model", family)
    paths = extract_features(sounds, SpeechEncoder(saved), tmp_path / "out", config, batch=batch, show_progress=False)
    for name, sound in sounds.items():
        found, (wanted, times) = read_features(paths[name]), one_at_a_time(saved, sound, config)
        kept = slice(None, -1) if family == "whisper" else slice(None)  # transformers gives Whisper's last layer after the norm
        assert found.values.dtype == np.float32 and found.values.shape == wanted.shape
        np.testing.assert_allclose(found.values[:, kept], wanted[:, kept], atol=2e-5)
        np.testing.assert_allclose(found.times, times, atol=1e-9)
    assert len(read_features(paths["one"]).times) == int(1.53 / config.step) * config.kept


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "whisper"])
def test_layers_of_kept_frames_are_those_of_the_sound(tmp_path: Path, sounds: dict[str, Path], family: str) -> None:
    """And of frames that are kept, each clip's are those of the clip alone; the CNN is not run for them again."""
    saved = saved_model(tmp_path / "model", family)
    encoder, quiet = SpeechEncoder(saved), {"show_progress": False}
    frames = extract_frames(sounds, encoder, tmp_path / "frames", CLIP, **quiet)
    whole = extract_features(sounds, encoder, tmp_path / "whole", CLIP, **quiet)
    clip = np.pad(read_audio(sounds["one"]), (RATE, 0))[round(1.2 * RATE) : 2 * RATE]
    inputs = transformers.AutoFeatureExtractor.from_pretrained(saved)(clip, sampling_rate=RATE, return_tensors="pt")
    model, kept = transformers.AutoModel.from_pretrained(saved).eval(), read_features(frames["one"])
    if family != "whisper":
        with torch.inference_mode():
            wanted = model.feature_extractor(inputs.input_values)[0].T.numpy()
        np.testing.assert_allclose(kept.values[1], wanted, atol=2e-5)
    np.testing.assert_array_equal(kept.times, [0.5, 1.0, 1.5])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", lambda *_: pytest.fail("the CNN was run again"))
        again = extract_features(sounds, encoder, tmp_path / "again", CLIP, frames=frames, **quiet)
    assert all(again[name].read_bytes() == whole[name].read_bytes() for name in sounds)
    other = SpeechEncoder(saved_model(tmp_path / "other", family, seed=9))
    for model_, config, given, said in (
        (other, CLIP, frames, r"was made with cnn='"),
        (encoder, ReadConfig("clip", tr=0.5, seconds=0.7), frames, r"seconds=0\.8, now it is 0\.7"),
        (encoder, CLIP, {"one": frames["one"]}, "there are no frames of 'two'"),
        (encoder, CLIP, {"one": frames["one"], "two": frames["one"]}, "was made with audio="),
    ):
        with pytest.raises(InputError, match=said):
            extract_features(sounds, model_, tmp_path / "refused", config, frames=given, **quiet)
    with pytest.raises(InputError, match="input='window': frames of the CNN are kept of clips and utterances only"):
        extract_frames(sounds, encoder, tmp_path / "x", WINDOW, **quiet)


def test_some_layers_and_their_numbers(tmp_path: Path, sounds: dict[str, Path]) -> None:
    encoder = SpeechEncoder(saved_model(tmp_path / "model", "hubert"))
    path = extract_features(sounds, encoder, tmp_path / "out", CLIP, show_progress=False)["one"]
    whole, some = read_features(path), read_features(path, layers=(0, -1))
    assert some.layers == (0, 2) and whole.layers == (0, 1, 2)
    np.testing.assert_array_equal(some.values, whole.values[:, [0, 2]])
    assert whole.key["model"] == encoder.hash() and whole.key["tr"] == 0.5 and "stride" not in whole.key
    for layers in ((3,), (-4,), (), 1, [1.0], ["a"], slice(2), [[0]]):
        with pytest.raises(InputError, match="has layers 0 to 2; give a list of some"):
            read_features(path, layers=layers)
    for layers in ((1, 1), (2, 0), (0, -3)):
        with pytest.raises(InputError, match="ascending, each once"):
            read_features(path, layers=layers)


def test_finished_files_are_kept_and_never_written_over(
    tmp_path: Path, sounds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = saved_model(tmp_path / "model", "hubert")
    encoder = SpeechEncoder(saved)
    paths = extract_features(sounds, encoder, tmp_path / "out", CLIP, show_progress=False)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths.values()}
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", lambda *_: pytest.fail("a finished file was read again"))
        assert extract_features(sounds, encoder, tmp_path / "out", CLIP, show_progress=False) == paths
    other = SpeechEncoder(saved_model(tmp_path / "other", "hubert", seed=9))
    for config, model, stored, said in (
        (ReadConfig("clip", tr=0.5, seconds=0.7, bin=0.2), encoder, "float32", r"seconds=0\.8, now it is 0\.7"),
        (WINDOW, encoder, "float32", r"bin=0\.2, now it is None"),
        (CLIP, other, "float32", "model='"),
        (CLIP, encoder, "float16", "stored='float32', now it is 'float16'"),
    ):
        with pytest.raises(InputError, match=said + ".*choose another folder, or delete the file"):
            extract_features(sounds, model, tmp_path / "out", config, stored=stored, show_progress=False)
    write_audio(sounds["two"], np.zeros(12000) + 0.1 * np.sin(np.arange(12000)), RATE)
    with pytest.raises(InputError, match="two.h5 was made with audio="):
        extract_features(sounds, encoder, tmp_path / "out", CLIP, show_progress=False)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths.values()} == before


def test_a_kill_costs_a_batch_and_no_bit(tmp_path: Path) -> None:
    """The command, killed while it writes, given again: the file of an undisturbed run, and what was there was not read again."""
    saved = saved_model(tmp_path / "model", "wav2vec2")
    sound = tmp_path / "long.wav"
    write_audio(sound, 0.1 * np.random.default_rng(1).standard_normal(12 * RATE).clip(-5, 5), RATE)
    options = ["--audio", str(sound), "--model", str(saved), "--read.input", "window", "--read.context", "3", "--batch", "3"]
    out = tmp_path / "killed"
    partial = out / "long.h5.partial"
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as many threads here and there: equal bits
    process = subprocess.Popen([*COMMAND, "features", *options, "--out", str(out)], env=alone, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and written(partial) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = written(partial)
    assert 20 <= kept < 120, "the command was not killed on its way"
    calls = []
    cnn = SpeechEncoder.cnn
    with pytest.MonkeyPatch.context() as patch, limit_threads(1):
        patch.setattr(SpeechEncoder, "cnn", lambda self, clips: calls.append(len(clips)) or cnn(self, clips))
        assert main(["features", *options, "--out", str(out)]) == 0
        resumed = sum(calls)
        assert main(["features", *options, "--out", str(tmp_path / "whole")]) == 0
    assert not partial.exists() and resumed <= 120 - kept + 3
    ours, theirs = (read_features(folder / "long.h5") for folder in (out, tmp_path / "whole"))
    assert ours.values.tobytes() == theirs.values.tobytes() and ours.key == theirs.key
    assert (ours.times == theirs.times).all()


def written(partial: Path) -> int:
    """Rows that are in a file on its way, as another process sees them."""
    try:
        with h5py.File(partial, locking=False) as file:
            return int((file["checks"][:] != 0).sum())
    except OSError:
        return 0


def test_a_row_that_does_not_fit_its_check_sum_is_read_again(tmp_path: Path) -> None:
    """As after a power failure: the sum reached the disk, the row did not."""
    times, values = np.arange(5.0), np.random.default_rng(2).standard_normal((5, 2, 3)).astype(np.float32)
    path = tmp_path / "a.h5"
    with FeatureFile(path, times, (2, 3), np.dtype("f4"), {"a": 1}) as file:
        file.write(np.array([0, 2, 3]), values[[0, 2, 3]])
    with h5py.File(tmp_path / "a.h5.partial", "r+") as file:
        file["features"][2, 1, 1] += 1e-3
    with FeatureFile(path, times, (2, 3), np.dtype("f4"), {"a": 1}) as file:
        assert file.missing.tolist() == [1, 2, 4]
        file.write(file.missing, values[file.missing])
    np.testing.assert_array_equal(read_features(path).values, values)
    with h5py.File(path) as file:
        assert file["features"].shape == (5, 2, 3) and json.loads(file.attrs["key"]) == {"a": 1}


def test_a_file_on_its_way_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, shape, dtype = tmp_path / "a.h5", (2, 3), np.dtype("f4")
    times = np.arange(4.0)
    with FeatureFile(path, times, shape, dtype, {"a": 1}) as file:
        with pytest.raises(InputError, match=r"a\.h5\.partial is being written by process \d+ on .*: wait for it"):
            FeatureFile(path, times, shape, dtype, {"a": 1})
        with pytest.raises(ValueError, match=r"2 rows of \(2, 3\) were expected"):
            file.write(np.array([0, 1]), np.zeros((2, 3, 2)))
        file.write(np.array([0]), np.ones((1, 2, 3)))
        assert sorted(found.name for found in tmp_path.iterdir()) == [".a.h5.lock", "a.h5.partial"]
        file.write(np.array([1]), np.ones((1, 2, 3)))
    assert [found.name for found in tmp_path.iterdir()] == ["a.h5.partial"]
    with FeatureFile(path, times, shape, dtype, {"a": 1}) as file:
        assert file.missing.tolist() == [2, 3]
    with pytest.raises(InputError, match=r"a\.h5 is not finished: give the command that began it once more"):
        read_features(path)
    with pytest.raises(InputError, match="was made with a=1, now it is 2"):
        FeatureFile(path, times, shape, dtype, {"a": 2})

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with FeatureFile(path, times, shape, dtype, {"a": 1}) as file, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(InputError, match="No space left on device.*make room, and the same command goes on"):
            file.write(np.array([2]), np.ones((1, 2, 3)))
    with FeatureFile(path, times, shape, dtype, {"a": 1}) as file:
        assert file.missing.tolist() == [2, 3]
    (tmp_path / "a.h5.partial").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="is damaged .*: delete it"):
        FeatureFile(path, times, shape, dtype, {"a": 1})
    path.write_bytes(b"nor this")
    with pytest.raises(InputError, match="does not hold features"):
        read_features(path)
    with pytest.raises(InputError, match="does not exist"):
        read_features(tmp_path / "nothing.h5")
    with pytest.raises(InputError, match="is not a folder"):
        FeatureFile(tmp_path / "nowhere" / "a.h5", times, shape, dtype, {})


def test_what_does_not_fit_the_file_is_said(tmp_path: Path, sounds: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SpeechEncoder(saved_model(tmp_path / "model", "hubert"))
    half = extract_features(sounds, encoder, tmp_path / "half", CLIP, stored="float16", show_progress=False)
    full = extract_features(sounds, encoder, tmp_path / "full", CLIP, show_progress=False)
    for name in sounds:
        np.testing.assert_array_equal(read_features(half[name]).values, read_features(full[name]).values.astype(np.float16))
    layers = SpeechEncoder.layers
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "layers", lambda self, frames: [layer * 1e6 for layer in layers(self, frames)])
        with pytest.raises(InputError, match=r"layer 0 at 0\.08.* s holds values beyond float16"):
            extract_features(sounds, encoder, tmp_path / "large", CLIP, stored="float16", show_progress=False)
    monkeypatch.setattr(reading.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(InputError, match="GB left: store float16"):
        extract_features(sounds, encoder, tmp_path / "none", CLIP, show_progress=False)


def test_windows_by_hand() -> None:
    found = find_windows(1000, 100, ReadConfig("window", stride=2.0, context=3.0))
    assert found.starts.tolist() == [0, 0, 100, 300, 500] and found.stops.tolist() == [200, 400, 600, 800, 1000]
    assert [rows.tolist() for rows in found.batches(2)] == [[0], [1], [2, 3], [4]]
    found = find_windows(999, 100, ReadConfig("clip", tr=2.0, seconds=5.0))
    assert found.starts.tolist() == [-300, -100, 100, 300] and found.times.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert [rows.tolist() for rows in found.batches(3)] == [[0, 1, 2], [3]]
    assert len(find_windows(60 * 16000, 16000, ReadConfig("clip", tr=2.0045)).times) == 29


def test_kept_frames_by_hand() -> None:
    """Frames every 20 ms of a clip of 1 s: of its last .4 s two bins of 10 frames, of .3 s .15 s with 8 and 7."""
    at = 0.01 + 0.02 * np.arange(50)
    kept, since = kept_frames(at, 1.0, ReadConfig("clip", tr=0.4, seconds=1.0, bin=0.2))
    assert kept == [slice(30, 40), slice(40, 50)]
    np.testing.assert_allclose(since, [-0.3, -0.1])
    kept, _ = kept_frames(at, 1.0, ReadConfig("clip", tr=0.3, seconds=1.0, bin=0.2))
    assert kept == [slice(35, 42), slice(42, 50)]
    for pool, wanted in (("mean", slice(0, 50)), ("last", slice(49, 50))):
        kept, since = kept_frames(at, 1.0, ReadConfig("clip", tr=0.4, seconds=1.0, pool=pool))
        assert kept == [wanted] and since.tolist() == [0.0]
    with pytest.raises(InputError, match=r"bins of 0\.01 s do not hold a frame each"):
        kept_frames(at, 1.0, ReadConfig("clip", tr=0.4, seconds=1.0, bin=0.01))


def test_bad_settings(tmp_path: Path, sounds: dict[str, Path]) -> None:
    for settings, said in (
        ({"input": "story"}, "input='story'"),
        ({"pool": "max"}, "pool='max'"),
        ({"tr": 0.0}, "tr=0.0"),
        ({"stride": float("nan")}, "stride=nan"),
        ({"bin": 0.0}, "bin=0.0"),
        ({"tr": 3.0, "seconds": 2.0}, "seconds=2.0: a clip must hold its TR of 3 s"),
    ):
        with pytest.raises(InputError, match=said):
            ReadConfig(**settings)
    hubert = SpeechEncoder(saved_model(tmp_path / "model", "hubert"))
    whisper = SpeechEncoder(saved_model(tmp_path / "whisper", "whisper"))
    for chosen, encoder, config, options, said in (
        (sounds, hubert, CLIP, {"batch": 0}, "batch=0"),
        (sounds, hubert, CLIP, {"stored": "bfloat16"}, "stored='bfloat16'"),
        ({}, hubert, CLIP, {}, "no recordings"),
        (sounds, hubert, ReadConfig("clip", tr=0.5, seconds=0.8, bin=0.001), {}, "do not hold a frame each"),
        (sounds, hubert, ReadConfig("clip", tr=1.0), {}, "two.wav: 0.75 s of sound are less than one step of 1 s"),
        (sounds, hubert, ReadConfig("window", stride=0.001), {}, "shorter than one frame"),
        (sounds, whisper, ReadConfig("window", context=30.0), {}, "longer than the 30 s"),
        ({"a": tmp_path / "a.wav"}, hubert, CLIP, {}, "a.wav does not exist"),
    ):
        for run in (extract_features, estimate):
            with pytest.raises(InputError, match=said):
                run(chosen, encoder, tmp_path / "out", config, **options)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match="text.wav cannot be decoded"):
        extract_features({"text": tmp_path / "text.wav"}, hubert, tmp_path / "out", CLIP)


def test_the_cost_is_said_first(tmp_path: Path, sounds: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    saved = saved_model(tmp_path / "model", "hubert")
    out = tmp_path / "out"
    options = ["--audio", str(sounds["one"].parent), "--model", str(saved), "--out", str(out), "--read.tr", "0.5"]
    assert main(["features", *options, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "2 recordings, 2 of them not read yet: 4 windows of 10 s, 3 layers of 16" in printed
    assert "hours on cpu in float32" in printed and not out.exists()
    for more in ([], ["--dry-run"]):
        assert main(["features", *options, "--out", str(saved / "config.json"), *more]) == 2
        assert "config.json is a file: choose another folder" in capsys.readouterr().err
    assert main(["features", *options]) == 0
    assert "2 files of features are in" in capsys.readouterr().out
    assert main(["features", *options, "--dry-run"]) == 0
    assert "0 of them not read yet: 0 windows" in capsys.readouterr().out
    for more in ([], ["--dry-run"]):  # what the run will refuse is not estimated
        assert main(["features", *options, "--read.seconds", "5", *more]) == 2
        assert "was made with seconds=10.0, now it is 5.0" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"config\.json is a file"):
        extract_features(sounds, SpeechEncoder(saved), saved / "config.json", WINDOW, show_progress=False)
    cost = estimate(sounds, SpeechEncoder(saved), tmp_path / "new", WINDOW)
    assert cost.windows == {"one": 15, "two": 7} and cost.bytes == 22 * 3 * 16 * 4 and cost.seconds > 0


def test_the_store_needs_no_reader_of_ours(tmp_path: Path, sounds: dict[str, Path]) -> None:
    """Plain HDF5: one slice is one layer over time."""
    encoder = SpeechEncoder(saved_model(tmp_path / "model", "hubert"))
    path = extract_features(sounds, encoder, tmp_path / "out", WINDOW, show_progress=False)["one"]
    with h5py.File(path) as file:
        assert set(file) == {"features", "times", "checks"} and file["features"].chunks is None
        np.testing.assert_array_equal(file["features"][:, 1], read_features(path, layers=(1,)).values[:, 0])
        assert store._there(file).all()


def test_the_same_features_are_the_same_bytes(tmp_path: Path, sounds: dict[str, Path]) -> None:
    encoder = SpeechEncoder(saved_model(tmp_path / "model", "hubert"))
    first = extract_features(sounds, encoder, tmp_path / "a", CLIP, show_progress=False)
    time.sleep(1.1)  # HDF5 writes down times of day in whole seconds
    second = extract_features(sounds, encoder, tmp_path / "b", CLIP, show_progress=False)
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in sounds)


def test_a_full_disk_is_said_before_the_first_row(tmp_path: Path, sounds: dict[str, Path]) -> None:
    """Files may have no more than a few bytes: no traceback, nothing left, and with room the same command does it."""
    options = ["features", "--audio", str(sounds["one"].parent), "--out", str(tmp_path / "out"), "--read.tr", "0.5"]
    options += ["--model", str(saved_model(tmp_path / "model", "hubert"))]
    done = subprocess.run([sys.executable, "-c", LIMITED, "1000", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "one.h5.partial cannot be written (File too large): make room" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert main(options) == 0
    (tmp_path / "out" / "one.h5").unlink()
    (tmp_path / "out" / "one.h5.partial").mkdir()
    with pytest.raises(InputError, match=r"one\.h5\.partial is a folder"):
        extract_features(sounds, SpeechEncoder(tmp_path / "model"), tmp_path / "out", ReadConfig("clip", tr=0.5))
