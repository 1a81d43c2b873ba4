"""The command on whole corpora: one file, whatever kills it; what cannot be read; cepstra and random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastencode.cli import main
from fastencode.errors import FailedStages, InputError
from fastencode.runs.features import find_sounds, read_corpus
from fastencode.speech.audio import write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import open_packed
from fastencode.threads import limit_threads
from reader_cases import commands_tree, timit_tree
from speech_cases import saved_model

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
for library in ("transformers", "soundfile", "soxr", "jsonargparse"):
    pytest.importorskip(library, reason="recordings need the extra 'tune'")

torch.set_num_threads(1)

COMMAND = [sys.executable, "-c", "import sys; from fastencode.cli import main; sys.exit(main())"]
UTTERANCE = ["--read.input", "utterance"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model", "hubert")


def test_corpora_of_every_kind(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees = {"timit": timit_tree(tmp_path / "timit", upper=False), "commands": commands_tree(tmp_path / "commands")}
    sizes = {"timit": 20, "commands": 10}
    for kind, root in trees.items():
        given = ["features", "--audio", str(root), "--model", str(model), "--out", str(tmp_path / "out" / kind), *UTTERANCE]
        assert main([*given, "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert f"{sizes[kind]} recordings, read as {kind}" in told and not (tmp_path / "out").joinpath(kind).exists()
        assert f"{sizes[kind]} of them not read yet: {sizes[kind]} whole recordings, 3 layers of 16" in told
        assert main(given) == 0
        assert f"{sizes[kind]} rows of {sizes[kind]} recordings are in" in capsys.readouterr().out
        with open_packed(tmp_path / "out" / kind / "corpus.h5") as packed:
            assert packed.names[0] == {"timit": "TEST/DR1/FAKS0/SA1", "commands": "no/012c8314_nohash_0"}[kind]
        assert main([*given, "--dry-run"]) == 0 and "0 of them not read yet" in capsys.readouterr().out
        assert main(["features", "--config", str(tmp_path / "out" / kind / "config.yaml")]) == 0
    given = ["features", "--audio", str(trees["commands"]), "--model", str(model), *UTTERANCE, "--words", "yes", "tree"]
    assert main([*given, "--kind", "commands", "--out", str(tmp_path / "out" / "words")]) == 0
    with open_packed(tmp_path / "out" / "words" / "corpus.h5") as packed:
        assert {name.split("/")[0] for name in packed.names} == {"yes", "tree"} and len(packed.names) == 5


def test_cepstra_and_random_weights_are_models_too(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["features", "--audio", str(commands_tree(tmp_path / "commands")), *UTTERANCE]
    for name, options in (("mfcc", ["mfcc"]), ("0", [str(model), "--random-weights", "0"]), ("own", [str(model)])):
        assert main([*given, "--out", str(tmp_path / name), "--model", *options]) == 0
        capsys.readouterr()
        assert main([*given, "--out", str(tmp_path / name), "--model", *options, "--dry-run"]) == 0
        assert ("cepstra" if name == "mfcc" else "3 layers of 16") in capsys.readouterr().out
    rows = {}
    for name in ("mfcc", "0", "own"):
        with open_packed(tmp_path / name / "corpus.h5") as packed:
            rows[name] = packed.rows(0)
    assert rows["mfcc"].shape == (10, 78) and rows["0"].shape == rows["own"].shape == (10, 16)
    assert np.abs(rows["0"] - rows["own"]).max() > 0.01
    told = json.loads((tmp_path / "0" / "provenance.json").read_text(encoding="utf-8"))["model"]
    assert told == {"name": str(model), "random_weights": 0, "sha256": SpeechEncoder(model, random_weights=0).hash()}
    assert json.loads((tmp_path / "mfcc" / "provenance.json").read_text(encoding="utf-8"))["model"] == {"name": "mfcc"}
    assert main([*given, "--out", str(tmp_path / "0"), "--model", str(model), "--random-weights", "1"]) == 2
    assert "was made with model=" in capsys.readouterr().err


def test_random_weights(tmp_path: Path) -> None:
    """Of the checkpoint's shape; the seed alone decides them; its own weights need not be there."""
    for family in ("wav2vec2", "wavlm", "whisper"):
        saved = saved_model(tmp_path / family, family)
        own, before = SpeechEncoder(saved), torch.get_rng_state()
        drawn = [SpeechEncoder(saved, random_weights=seed) for seed in (0, 0, 1)]
        assert torch.equal(torch.get_rng_state(), before)
        assert drawn[0].hash() == drawn[1].hash() != drawn[2].hash() and own.hash() != drawn[0].hash()
        shapes = [{name: value.shape for name, value in one.model.state_dict().items()} for one in (own, drawn[0])]
        assert shapes[0] == shapes[1] and not drawn[0].model.training
        assert (drawn[0].n_layers, drawn[0].normalize) == (own.n_layers, own.normalize)
        for path in saved.glob("*.safetensors"):
            path.unlink()
        half = SpeechEncoder(saved, random_weights=0, dtype="bfloat16")
        name, value = next((name, value) for name, value in drawn[0].model.state_dict().items() if value.ndim == 2)
        assert torch.equal(half.model.state_dict()[name], value.bfloat16())
    for seed in (-1, 1.5, True, "a"):
        with pytest.raises(InputError, match="random_weights=.*give a seed"):
            SpeechEncoder(saved, random_weights=seed)


def test_a_damaged_recording_among_good_ones(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = commands_tree(tmp_path / "commands")
    bad = root / "no" / "012c8314_nohash_0.wav"
    bad.write_bytes(bad.read_bytes()[:1000])
    given = ["features", "--audio", str(root), "--model", str(model), "--out", str(tmp_path / "out"), *UTTERANCE]
    for options in (["--dry-run"], [], []):
        assert main([*given, *options]) == 1
        told = capsys.readouterr()
        assert "1 of 10 recordings cannot be read\n  no/012c8314_nohash_0: " in told.err and "is truncated" in told.err
        assert "Traceback" not in told.err
    assert "corpus.h5 holds all others; to have these too, replace them, delete it" in told.err
    assert "no/012c8314_nohash_0: failed, " in told.out
    with open_packed(tmp_path / "out" / "corpus.h5") as packed:
        assert len(packed.names) == 9 and "no/012c8314_nohash_0" not in packed.names
    bad.unlink()
    assert main(given) == 0, "left out, nothing is missing"


def test_long_lists_of_what_cannot_be_read_are_cut(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for k in range(120):
        (bad / f"{k:03}.wav").write_text("no sound")
    sounds = find_sounds(bad)
    with pytest.raises(InputError, match=r"(?s)none of 120 recordings can be read\n  000: .*  and 110 more\ngive others"):
        read_corpus(sounds, SpeechEncoder(model), tmp_path / "out" / "corpus.h5", ReadConfig("utterance"))
    assert capsys.readouterr().out.count("failed, ") == 10
    write_audio(bad / "good.wav", 0.1 * np.sin(np.arange(8000.0)), 16000)
    with pytest.raises(FailedStages, match=r"(?s)120 of 121 recordings cannot be read\n  000: .*\n  099: .*  and 20 more\n"):
        read_corpus(find_sounds(bad), None, tmp_path / "out" / "corpus.h5", ReadConfig("utterance"))


def test_wrong_use_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = commands_tree(tmp_path / "commands")
    (tmp_path / "empty").mkdir()
    given = ["features", "--audio", str(root), "--model", str(model), "--out", str(tmp_path / "out")]
    for options, said in (
        (["--words", "yes"], "--words=('yes',) is for whole recordings: add --read.input utterance"),
        (["--kind", "commands"], "--kind='commands' is for whole recordings"),
        (["--model", "mfcc"], "--model='mfcc' is for whole recordings"),
        ([*UTTERANCE, "--model", "mfcc", "--random-weights", "1"], "--random-weights=1: cepstra have no weights"),
        ([*UTTERANCE, "--random-weights", "-1"], "--random-weights=-1: give a seed"),
        ([*UTTERANCE, "--kind", "comands"], "--audio: kind='comands': did you mean commands"),
        ([*UTTERANCE, "--words", "maybe"], "has no folder for ['maybe']"),
        ([*UTTERANCE, "--audio", str(tmp_path / "empty")], "--audio: " + str(tmp_path / "empty") + " holds no audio files"),
        ([*UTTERANCE, "--read.pool", "newest"], "pool='newest' is not for input='utterance': choose 'mean' or 'bins'"),
        (["--read.input", "uterance"], "input='uterance': choose 'clip', 'window' or 'utterance'"),
        (["--read.tr", "1"], "(the TR): read such recordings as a whole, with input='utterance'"),
    ):
        assert main([*given, *options]) == 2, options
        told = capsys.readouterr().err
        assert said in told and "Traceback" not in told, told
    assert not (tmp_path / "out").exists()


def test_a_kill_costs_a_batch_and_no_bit(tmp_path: Path) -> None:
    """The command, killed while it writes, given again: byte by byte the file of an undisturbed run."""
    saved, root = saved_model(tmp_path / "saved", "wav2vec2"), tmp_path / "sounds"
    rng = np.random.default_rng(1)
    for k in range(60):
        (root / f"{k % 7}").mkdir(parents=True, exist_ok=True)
        samples = int(rng.choice([16000, 24000]))
        write_audio(root / f"{k % 7}" / f"{k}.wav", 0.1 * rng.standard_normal(samples).clip(-5, 5), 16000)
    given = ["features", "--audio", str(root), "--model", str(saved), "--batch", "2", *UTTERANCE, "--out"]
    partial = tmp_path / "killed" / "corpus.h5.partial"
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as many threads here and there: equal bits
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen([*COMMAND, *given, str(partial.parent)], env=alone, **quiet)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and written(partial) < 6:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = written(partial)
    assert 6 <= kept < 60, "the command was not killed on its way"
    with limit_threads(1):
        assert main([*given, str(partial.parent)]) == 0
        assert main([*given, str(tmp_path / "whole")]) == 0
    assert not partial.exists()
    assert (partial.parent / "corpus.h5").read_bytes() == (tmp_path / "whole" / "corpus.h5").read_bytes()


def written(partial: Path) -> int:
    """Rows that are in a file on its way, as another process sees them."""
    try:
        with h5py.File(partial, locking=False) as file:
            return int((file["checks"][:] != 0).sum())
    except OSError:
        return 0
