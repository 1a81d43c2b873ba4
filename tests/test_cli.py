"""fastencode-tune as a user runs it: the whole way, stopping and going on, repeating, and holding it wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastencode
from fastencode.cli import main
from fastencode.cli.parsers import COMMANDS, options_of, settings_of
from fastencode.errors import InputError
from picture_cases import without_pictures
from process_cases import Command
from speech_cases import saved_model

for library in ("torch", "transformers", "jsonargparse", "espeakng_loader", "matplotlib"):
    pytest.importorskip(library, reason="the command needs the extra 'demo'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = {
    "probes": False,
    "world": {
        "minutes": 2.8,
        "story_minutes": 1.4,
        "test_minutes": 2.0,
        "participants": [{"name": "A", "auditory": 9, "late_language": 11, "silent": 5, "gain": 1.5, "peak_delay": 6.0}],
    },
    "tune": {"epochs": 1, "clip_seconds": 4.0},
    "align": {"bootstraps": 50},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HuBERT of two layers: three layers to read and to fit, where the shipped model has seven."""
    return saved_model(tmp_path_factory.mktemp("model") / "hubert", "hubert", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def settings(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    import yaml

    path = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model": str(model), **TINY}))
    return str(path)


@pytest.fixture(scope="module")
def finished(settings: str, tmp_path_factory: pytest.TempPathFactory, no_pictures: pytest.MonkeyPatch) -> Path:
    """One whole run in this process, its figures drawn, the reference for the others."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    no_pictures.undo()
    assert main(["demo", "--config", settings, "--out", str(out), "--jobs", "1"]) == 0
    without_pictures(no_pictures.setattr)
    return out


def test_the_demo_leaves_everything_it_promises(finished: Path) -> None:
    scores = pd.read_csv(finished / "scores.csv")
    assert set(scores["model"]) == {"pretrained", "tuned", "control", "spectrum"}
    assert (
        len(scores) == 3 * 3 * 3 + 3
        and len(pd.read_csv(finished / "residuals.csv")) == 3 * 3 * 3
        and scores["r"].between(-1, 1).all()
    )
    assert (scores["r_low"] <= scores["r_high"]).all()
    driven = scores[scores["region"] != "silent"]
    # A mean of ratios is not the ratio of means, but with like ceilings it is near.
    np.testing.assert_allclose(driven["r_normalized"], driven["r"] / driven["ceiling"], atol=0.1)
    training = pd.read_csv(finished / "training.csv")
    updates = training.groupby("model")["updates"].max()
    assert updates["tuned"] == updates["control"] == 64 // 8
    results = json.loads((finished / "results.json").read_text())
    assert len(results["verdicts"]) == 10
    assert {path.name for path in (finished / "figures").iterdir()} >= {
        "layers.png",
        "differences.png",
        "training.png",
        "picture.png",
    }
    page = (finished / "index.html").read_text(encoding="utf-8")
    assert "<html" in page and "Its repeats chose the voxels that the models were tuned on" in page


def test_checkpoints_are_tuned_above_a_frozen_cnn(finished: Path, model: Path) -> None:
    from fastencode.speech.layers import SpeechEncoder

    before = SpeechEncoder(model)
    for arm in ("tuned", "control"):
        after = SpeechEncoder(finished / "models" / "A" / arm / "model")
        assert after.cnn_hash() == before.cnn_hash()
        pairs = zip(after.model.encoder.layers[1].parameters(), before.model.encoder.layers[1].parameters(), strict=True)
        assert all(not np.array_equal(new.detach().numpy(), old.detach().numpy()) for new, old in pairs)


def test_a_second_run_reuses_every_stage(finished: Path, settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "scores.csv").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    assert main(["demo", "--config", settings, "--out", str(finished), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    n_fits = 3 * 3 * 2 + 1  # with the spectrum taken out, too, and the spectrum
    fits = f"responses, {n_fits} of {n_fits} fits, 2 of 2 change, {1 + n_fits + 2} reused\n"
    for line in ("world, reused\n", "frames, 2 of 2 models, 3 of 3 features, 6 reused\n", fits):
        assert line in said
    assert (finished / "scores.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == times


def test_stopped_and_resumed_in_two_processes_gives_the_same_numbers(finished: Path, settings: str, tmp_path: Path) -> None:
    """Ctrl-C while two processes tune; then again to the end, from what was finished; then from the config it left."""
    out = tmp_path / "run"
    arguments = ["demo", "--config", settings, "--out", str(out), "--jobs", "2"]
    command = Command(arguments, tmp_path)
    command.until(lambda: bool(list(out.glob("models/A/*.partial"))))
    assert command.tell(signal.SIGINT) == 130  # as a terminal tells every process of the group
    complaints = command.err
    assert "finished stages are kept" in complaints and "Traceback" not in complaints
    left = {path.relative_to(out).parts[0] for path in out.rglob("*.partial")}
    assert left <= {"models"} and (out / "frames" / "small" / "stage.json").exists(), "only what goes on is left unfinished"
    before = (out / "frames" / "small" / "stage.json").read_bytes()
    resumed = Command(arguments, tmp_path)
    assert resumed.end(300) == 0, resumed.err
    for line in (
        "world, reused\n",
        "\nframes, 2 of 2 models, 3 of 3 features, 1 reused, took",
    ):  # others may say something between
        assert line in resumed.out
    assert (out / "frames" / "small" / "stage.json").read_bytes() == before
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), pd.read_csv(finished / "scores.csv"))
    assert main(["demo", "--config", str(out / "config.yaml")]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), pd.read_csv(finished / "scores.csv"))


def test_other_settings_make_the_stages_that_depend_on_them_again(finished: Path, settings: str, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    kept = (out / "models" / "A" / "control" / "stage.json").read_text()
    assert main(["demo", "--config", settings, "--out", str(out), "--jobs", "1", "--align.delays", "[1,2]"]) == 0
    assert (out / "models" / "A" / "control" / "stage.json").read_text() == kept
    frames = (out / "frames" / "small" / "stage.json").read_text()
    assert (
        main(["demo", "--config", settings, "--out", str(out), "--jobs", "1", "--align.delays", "[1,2]", "--ceiling", "0.9"]) == 0
    )
    assert (out / "models" / "A" / "control" / "stage.json").read_text() != kept, "other voxels are other data"
    assert (out / "frames" / "small" / "stage.json").read_text() == frames
    changed, before = (pd.read_csv(folder / "scores.csv")["r"] for folder in (out, finished))
    assert not np.allclose(changed, before)


def test_the_demo_probes_what_layers_carry(finished: Path, settings: str, tmp_path: Path) -> None:
    """The same brains, and on the same checkpoints five tasks beside cepstra and a model that has learned nothing."""
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    sizes = {"train_speakers": 6, "validation_speakers": 2, "test_speakers": 3, "words": 18, "words_each": 18}
    speech = [word for name, value in sizes.items() for word in (f"--speech.{name}", str(value))]
    assert main(["demo", "--config", settings, "--out", str(out), "--jobs", "1", "--probes", *speech]) == 0
    assert (out / "scores.csv").read_bytes() == (finished / "scores.csv").read_bytes(), "probes change nothing about brains"
    probes = pd.read_csv(out / "probes.csv", keep_default_na=False)
    layers = probes.groupby(["task", "model", "participant"])["layer"].unique().map(list).to_dict()
    known = {("mfcc", ""): [0], ("random", ""): [0, 1, 2], ("pretrained", ""): [0, 1, 2]}
    known |= {("tuned", "A"): [0, 1, 2], ("control", "A"): [0, 1, 2]}
    tasks = ("mfcc", "word", "phonemes", "sentence_type", "sx_si")
    assert layers == {(task, *whose): found for task in tasks for whose, found in known.items()}
    assert (probes["low"] <= probes["high"]).all() and np.isfinite(probes[["score", "baseline"]].to_numpy()).all()
    units = dict(zip(probes["task"], zip(probes["n_units"], probes["unit"], strict=True), strict=True))
    alone = ("word", "sentence_type")  # of all others several speakers read texts that train has not
    assert units == {task: (3, "speakers" if task in alone else "speakers and texts") for task in tasks}
    findings = pd.read_csv(out / "findings.csv").set_index("name")
    of_brains = pd.read_csv(finished / "findings.csv").set_index("name")
    assert list(findings.index) == [*of_brains.index, "words-rise", "phonemes-kept", "cepstra-kept"]
    pd.testing.assert_frame_equal(findings.loc[of_brains.index], of_brains)
    score = probes.set_index(["task", "model", "layer"])["score"]
    for name, task, layer in (("words-rise", "word", 2), ("phonemes-kept", "phonemes", 0), ("cepstra-kept", "mfcc", 0)):
        rise = score[task, "tuned", layer] - score[task, "pretrained", layer]
        assert findings.loc[name, "value"] == pytest.approx(rise, abs=1e-9) and findings.loc[name, "unit"] == units[task][1]
    assert len(json.loads((out / "results.json").read_text())["verdicts"]) == 13
    assert (out / "figures" / "probes.png").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tune.epochs", "0"], "epochs must be positive"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--controls", "0"], "controls must be at least 1"),
        (["--minutes", "0.2"], "must be at least"),
        (["--model", "no/such-model"], "cannot be loaded"),
        (["--model", "x", "--pretrain"], "choose one"),
        (["--align.block", "500"], "--align.block=500 for test"),
        (["--align.delays", "500"], "--align.delays 500 for story"),
        (["--tune.clip-seconds", "1"], "--tune.clip-seconds=1: a clip must hold its TR, 2 s"),
        (["--ceiling", "0.9999"], "no voxel of A has a noise ceiling above 0.9999"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    arguments: list[str], why: str, finished: Path, settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished / "world", out / "world")
    (out / ".fastencode").touch()
    assert main(["demo", "--config", settings, "--out", str(out), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert why in complaint and "Traceback" not in complaint


def test_the_small_model_made_from_nothing_in_a_moment(tmp_path: Path) -> None:
    """The package's own model, of seven layers, goes the same way."""
    import yaml

    moment = {"steps": 2, "minutes": 0.5, "clip_seconds": 2.0, "clusters": 5}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "pretraining": moment}))
    out = tmp_path / "run"
    given = ["--out", str(out), "--pretrain", "--jobs", "1", "--tune.clip_seconds", "3"]
    assert main(["demo", "--config", str(tmp_path / "tiny.yaml"), *given]) == 0
    assert (out / "small-model" / "README.md").exists()
    assert sorted(set(pd.read_csv(out / "scores.csv")["layer"])) == list(range(7))


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main(["demo", "--out", str(tmp_path / "thesis.tex")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["alice", "--data", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "timecourses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("demo --zzz", "fastencode-tune demo has no option --zzz\nfastencode-tune demo --help lists all options"),
        ("demo --tune.epoch 3", "fastencode-tune demo has no option --tune.epoch; did you mean --tune.epochs?"),
        ("align --stories x --featurs y", "fastencode-tune align has no option --featurs; did you mean --features?"),
        ("align --split-hal --stories x", "did you mean --split-half?"),
        ("demo here", "fastencode-tune demo takes no 'here' here: options begin with --"),
        (
            "nonsense",
            "there is no command 'nonsense'\nchoose from demo, alice, run, train, diagnose, check, align, probe, features, "
            "doctor",
        ),
        ("algn", "there is no command 'algn'; did you mean align?\nchoose from demo"),
        ("align --stories x --delays 1 2", "no option --delays; did you mean --align.delays?"),
        ("align --stories x --test-story a --test-story b", "--test-story is given twice: give all at once, --test-story A B"),
        (
            "",
            "say what to do: demo, alice, run, train, diagnose, check, align, probe, features, doctor; for example "
            "fastencode-tune demo",
        ),
        ("align", "fastencode-tune align needs --stories"),
        ("demo --tune.epochs many", "--tune.epochs: 'many' is not a whole number"),
        ("align --stories x --align.block many", "--align.block: 'many' is not a whole number or null"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") <= 2


def test_help_and_version_load_nothing_slow() -> None:
    """Seconds of imports before a line of help: neither arrays nor models are needed to parse arguments."""
    code = (
        "import sys; sys.argv = ['fastencode-tune', *sys.argv[1:]]\n"
        "from fastencode.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'numpy', 'scipy', 'torch', 'transformers', 'numba', 'h5py', 'pandas'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    for typed in (["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)):
        subprocess.run([sys.executable, "-c", code, *typed], check=True, capture_output=True)
    module = subprocess.run([sys.executable, "-m", "fastencode", "--version"], check=True, capture_output=True, text=True)
    assert module.stdout == f"fastencode-tune {fastencode.__version__}\n"


def test_help_names_the_shorthands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in ("--fast", "--minutes", "--model", "--pretrain", "--seed", "--tune.epochs", "--world.repeats"):
        assert option in text


@pytest.mark.parametrize(
    "typed",
    ["--features a b", "--features=a,b", "--features [a,b]", "--features a,b -h", "--features [a] b", "--features=[a,b]"],
)
def test_lists_however_they_are_typed(typed: str) -> None:
    """An option given twice meant its last value only, one model of two, without a word: it is refused."""
    from fastencode.cli import _as_typed
    from fastencode.cli.settings import AlignRunConfig

    parsed = _as_typed(
        ["align", *typed.split(), "--out", "x", "--lags", "-1", "0", "--split-half", "--exclude", ""], [AlignRunConfig]
    )
    rest = ["--out", "x", "--lags=[-1,0]", "--split_half", "--exclude=[]"]
    parsed[1] = parsed[1].replace('"', "")
    assert parsed == ["align", "--features=[a,b]", *(["-h"] if "-h" in typed else []), *rest]
    for twice in (["--features=a"], ["--features", "a"]):
        with pytest.raises(InputError, match="--features is given twice: give all at once, --features A B"):
            _as_typed(["align", *typed.split(), *twice], [AlignRunConfig])


def test_names_are_text_whatever_they_look_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML takes 01 for a number, true for a truth, and "a: b" for a mapping; folders and participants are called so."""
    import jsonargparse

    from fastencode.cli import _as_typed
    from fastencode.cli.settings import AlignRunConfig

    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(AlignRunConfig)
    names = ["01", "true", "a: b", "x #y", "{c}", "it's", '"q"', "*s", "@t", "~", "größe 1", "back\\slash", "1e3", "-5"]
    given = parser.parse_args(_as_typed(["--stories", "x", "--participants", *names, "--features", *names], [AlignRunConfig]))
    assert list(given.participants) == names and [str(path) for path in given.features] == names
    given = parser.parse_args(_as_typed(["--stories", "x", "--exclude", '["a,b", "01"]', "--lags", "0, 1"], [AlignRunConfig]))
    assert list(given.exclude) == ["a,b", "01"] and list(given.lags) == [0, 1]


def test_switches_begin_as_the_settings_say() -> None:
    """And what is on by default is turned off by --no-SWITCH."""
    for command in COMMANDS:
        settings = settings_of(command)
        parser = options_of(command, settings, {})
        switches = {field.name: field.default for field in fields(settings) if field.type == "bool"}
        assert {name: parser.get_default(name) for name in switches} == switches
    parser = options_of("demo", settings_of("demo"), {})
    for name in ("probes", "fast"):
        assert parser.parse_args([f"--{name}"])[name] is True and parser.parse_args([f"--no_{name}"])[name] is False


@pytest.mark.parametrize("command", ["demo", "alice", "train", "align", "features"])
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    bare = re.findall(r"^  (--[\w.]+)(?:, --\w+)?(?: [\w\[\],.]+)?\s+\(type:", text, re.MULTILINE)
    assert bare == [] and text.count("(type:") > 10


def test_a_model_that_is_not_there_is_told_before_the_world_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--fast", "--model", "nope", "--out", str(tmp_path / "x")]) == 2
    assert "nope" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_alice_says_that_it_will_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alice", "--data", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "warning: the next release has no fastencode-tune alice: use examples/alice.py" in capsys.readouterr().err


def test_tuning_on_real_responses(shared_data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way on real BOLD, one epoch: the point is that it runs and reports; what comes out is in the README.

    The example makes everything, and the alias finds all of it finished.
    """
    out = tmp_path / "alice"
    given = ["--data", str(shared_data / "alice"), "--out", str(out), "--jobs", "1", "--controls", "1", "--model", str(model)]
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "examples")
    import_module("alice").main([*given, "--epochs", "1", "--clip-seconds", "3"])
    kinds = ("speech", "frames", "models", "features", "responses", "fits", "change")
    made = {path: path.stat().st_mtime_ns for kind in kinds for path in (out / kind).rglob("*") if path.is_file()}
    answered = json.loads((out / "results.json").read_text())
    assert main(["alice", *given, "--tune.epochs", "1", "--tune.clip_seconds", "3"]) == 0
    assert {path.relative_to(out).parts[0] for path in made} == set(kinds) and len(list(out.glob("fits/*/*/*"))) == 3 * 3
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["region"]) == {"LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"}
    assert set(scores["model"]) == {"pretrained", "tuned", "control"} and np.isfinite(scores["r"]).all()
    results = json.loads((out / "results.json").read_text())
    assert results == answered
    assert [verdict["rule"] for verdict in results["verdicts"]] == [
        "yes if the interval lies above 0 and that of tuned − control above 0, no if one of them lies below",
        "yes if the interval lies below 0.03, no if above",
        "yes if the interval lies above 0, no if below",
    ]
    r = scores[scores["layer"] >= 2].groupby("model")["r"].mean()
    differences = [r["tuned"] - r["pretrained"], r["control"] - r["pretrained"], r["tuned"] - r["control"]]
    np.testing.assert_allclose([verdict["measured"] for verdict in results["verdicts"]], differences, atol=1e-6)
    assert not (out / "seeds.csv").exists(), "one control, which scores.csv has"
    encoding = json.loads((out / "provenance.json").read_text())["encoding half"]
    assert "2127 words, 27 listeners" in encoding and "0.9943" in encoding
