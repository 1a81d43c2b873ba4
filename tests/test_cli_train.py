"""fastencode-tune train as it is typed, set in files, in the environment and by presets; what the trainer is then given.

The trainer itself is a stand-in here, but for its signature.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastencode.cli import main
from fastencode.cli.environment import from_environment
from fastencode.cli.parsers import COMMANDS, helps, option_names, options_of, settings_of
from fastencode.cli.settings import TrainConfig
from fastencode.errors import InputError
from fastencode.runs.config import LessonsConfig
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.presets import PRESETS, preset

yaml = pytest.importorskip("yaml", reason="the command needs the extra 'tune'")
pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the trainer was asked for."""
    found: dict[str, Any] = {}

    def train(choice: LessonsConfig, config: TuneConfig, model: str, out: Path, **more: Any) -> list[Path]:
        begun = more.pop("begun")
        found.update(choice=choice, config=config, model=model, out=out, **more)
        folders = [out / who for who in choice.participants] if more["each"] else [out]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            begun(folder)
        return folders

    def say_cost(choice: LessonsConfig, config: TuneConfig, model: str, out: Path, **more: Any) -> None:
        found.update(dry=choice, config=config, model=model, out=out, **more)

    module = ModuleType("fastencode.runs.training")
    module.__dict__.update(train=train, say_cost=say_cost)
    monkeypatch.setitem(sys.modules, "fastencode.runs.training", module)
    for variable in [name for name in os.environ if name.startswith("FASTENCODE_TUNE_")]:
        monkeypatch.delenv(variable)
    return found


def printed(*typed: str) -> dict[str, Any]:
    """What --print_config prints, read again."""
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as stopped:
        main(["train", *typed, "--print_config"])
    assert stopped.value.code == 0
    found: dict[str, Any] = yaml.safe_load(out.getvalue())
    return found


def test_what_is_typed_reaches_the_trainer(asked: dict[str, Any], tmp_path: Path) -> None:
    typed = "--stories d --model small --participants 01 02 --validation a,b --exclude c --regions IFG AG --prefer IFG --tr 1.5"
    more = "--lora.rank 4 --lora.targets q_proj --trained lora --keep 1 2 --epochs 3 --head-layer 9 --device cpu --fast-dev-run 3"
    out = tmp_path / "run"
    assert main(["train", *typed.split(), *more.split(), "--prefer-weight", "2", "--rois", "r", "--out", str(out)]) == 0
    choice = LessonsConfig(
        Path("d"),
        ("01", "02"),
        ("a", "b"),
        ("c",),
        tr=1.5,
        regions=("IFG", "AG"),
        prefer=("IFG",),
        prefer_weight=2,
        rois=Path("r"),
    )
    assert asked["choice"] == choice
    lora = LoraConfig(rank=4, targets=("q_proj",))
    assert asked["config"] == TuneConfig(epochs=3, trained="lora", lora=lora, head_layer=9, keep=(1, 2))
    assert type(asked["config"]) is TuneConfig, "settings of data and folders do not decide what a run is"
    assert (asked["model"], asked["out"], asked["device"]) == ("small", out, "cpu")
    assert (asked["each"], asked["extend_epochs"], asked["fast_dev_run"]) == (False, False, 3)


def test_the_config_that_a_run_leaves_repeats_it(asked: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "--stories", "d", "--preset", "brainwavlm", "--epochs", "2", "--keep", "1", "--out", str(out)]) == 0
    first = dict(asked)
    asked.clear()
    assert main(["train", "--config", str(out / "config.yaml")]) == 0
    assert asked == first and first["config"].epochs == 2 and first["config"].bottleneck == 100
    assert main(["train", "--stories", "d", "--model", "m", "--participants", "A", "B", "--each", "--out", str(out)]) == 0
    alone = yaml.safe_load((out / "B" / "config.yaml").read_text())
    assert alone["participants"] == ["B"] and alone["each"] is False and alone["out"] == str(out / "B")


def test_a_dry_run_trains_nothing(asked: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "--stories", "d", "--model", "m", "--dry-run", "--each", "--out", str(out)]) == 0
    assert asked["dry"].stories == Path("d") and asked["each"] and "choice" not in asked and not out.exists()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_value_of_a_preset_is_printed_and_read_again(name: str, asked: dict[str, Any], tmp_path: Path) -> None:
    found = printed("--stories", "d", "--preset", name)
    config = tmp_path / "printed.yaml"
    config.write_text(yaml.safe_dump(found))
    assert set(found) == {field.name for field in fields(TrainConfig)}
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "run")]) == 0
    assert asked["config"] == preset(name).config() and asked["model"] == preset(name).model
    choice = asked["choice"]
    assert (choice.validation, choice.exclude) == (preset(name).validation, preset(name).exclude)
    assert choice.ceiling == preset(name).ceiling
    assert printed("--config", str(config)) == found


def test_what_counts_most(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed, then files, then the environment, then the preset, then defaults; each setting by itself, in groups too."""
    file = tmp_path / "given.yaml"
    file.write_text("epochs: 7\nbatch: 7\nseed: 7\nlora: {rank: 7, alpha: 7}\nkeep: [7]\n")
    for name, value in {"SEED": "5", "BATCH": "5", "WORDS": "5", "LORA__ALPHA": "5", "LORA__DROPOUT": "0.5", "KEEP": "5"}.items():
        monkeypatch.setenv(f"FASTENCODE_TUNE_TRAIN__{name}", value)
    monkeypatch.setenv("FASTENCODE_TUNE_TRAIN__EACH", "yes")
    monkeypatch.setenv("FASTENCODE_TUNE_TRAIN__PARTICIPANTS", "01,A")
    monkeypatch.setenv("FASTENCODE_TUNE_ALIGN__TR", "of another command")
    found = printed("--stories", "d", "--preset", "followup-lora", "--config", str(file), "--seed", "3", "--lora.rank", "3")
    assert (found["seed"], found["epochs"], found["batch"], found["words"]) == (3, 7, 7, 5)
    assert found["lora"] == {"rank": 3, "alpha": 7, "dropout": 0.5, "targets": ["q_proj", "k_proj", "v_proj", "out_proj"]}
    assert found["learning_rate"] == 1e-4 and found["schedule"] == "linear" and found["trained"] == "lora"
    assert found["keep"] == [7] and found["each"] is True and found["participants"] == ["01", "A"]
    monkeypatch.setenv("FASTENCODE_TUNE_TRAIN__EACH", "0")
    assert printed("--stories", "d", "--model", "m", "--each")["each"] is True
    assert printed("--stories", "d", "--model", "m")["each"] is False


def test_a_preset_from_a_file_or_the_environment(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "given.yaml"
    file.write_text("stories: d\npreset: brainwavlm\nepochs: 2\nkeep: []\n")
    found = printed("--config", str(file))
    assert (found["epochs"], found["bottleneck"], found["keep"]) == (2, 100, [])
    monkeypatch.setenv("FASTENCODE_TUNE_TRAIN__PRESET", "interspeech2025")
    assert printed("--stories", "d")["learning_rate"] == 5e-5
    monkeypatch.setenv("FASTENCODE_TUNE_TRAIN__CONFIG", str(file))
    monkeypatch.delenv("FASTENCODE_TUNE_TRAIN__PRESET")
    assert printed()["bottleneck"] == 100


MISTAKES = [
    ("--presett x", "fastencode-tune train has no option --presett; did you mean --preset?"),
    ("--lora.ranks 3", "fastencode-tune train has no option --lora.ranks; did you mean --lora.rank?"),
    ("--rank 3", "did you mean --lora.rank?"),
    ("--preset interspech2025", "--preset: there is no preset 'interspech2025': did you mean interspeech2025?"),
    ("--epochs 0", "--epochs must be positive, got 0"),
    ("--lora.dropout 1", "--lora.dropout must be 0 or more and below 1, got 1"),
    ("--clip-seconds 1 --tr 2", "--clip-seconds=1: a clip must hold its TR, 2 s"),
    ("--ceiling 1", "--ceiling=1: give a number below 1"),
    ("--tr 0", "--tr=0: give the repetition time"),
    ("--prefer-weight 0", "--prefer-weight=0: give a number above 0"),
    ("--fast-dev-run -1", "--fast-dev-run=-1: give a number of updates"),
    ("--fast-dev-run 3 --dry-run", "--fast-dev-run makes updates, dry_run makes nothing"),
    ("--each --shared-head", "--shared-head shares a head among the participants"),
    ("--patience 2", "--patience=2 waits for a lower validation loss: name stories for validation"),
    ("--participants A A", "--participants names A more than once"),
    ("--validation wheretheressmoke", "--validation names wheretheressmoke, the test story"),
    ("--validation a --exclude a", "--exclude names a, which is for validation"),
    ("--regions A --prefer B", "--prefer names B, which is none of the regions that are tuned on"),
    ("--head delays", "--head=delays reads consecutive scans, order='shuffled' mixes them: give order=contiguous"),
    ("--model=", "--model is followed by nothing"),
    ("here", "fastencode-tune train takes no 'here' here: options begin with --"),
]


@pytest.mark.parametrize(("typed", "told"), MISTAKES)
def test_mistakes(typed: str, told: str, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--stories", "d", "--model", "m", *typed.split()]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") <= 2 and not asked


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("epoch: 3", "names epoch, which is no setting of fastencode-tune train; did you mean epochs?"),
        ("rank: 3", "names rank, which is no setting of fastencode-tune train; did you mean lora.rank?"),
        ("lora: {ranks: 3}", "names lora.ranks, which is no setting of fastencode-tune train; did you mean lora.rank?"),
        ("preset: brainwav", "--preset: there is no preset 'brainwav': did you mean brainwavlm?"),
    ],
)
def test_mistakes_in_files(
    content: str, told: str, asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.yaml"
    file.write_text(content)
    assert main(["train", "--stories", "d", "--model", "m", "--config", str(file)]) == 2
    assert told in capsys.readouterr().err and not asked


def test_a_preset_that_a_file_would_undo(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    for before in ("brainwavlm", "null"):
        file.write_text(f"stories: d\nmodel: m\npreset: {before}\n")
        assert main(["train", "--config", str(file), "--preset", "interspeech2025"]) == 2
        said = capsys.readouterr().err
        assert f"--preset interspeech2025, but {file} says preset: {before}" in said and not asked


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (
            "TRAIN__EPOCH",
            "3",
            "_EPOCH, which is no setting of fastencode-tune train; did you mean FASTENCODE_TUNE_TRAIN__EPOCHS?",
        ),
        ("TRAIN__LORA__RANKS", "3", "did you mean FASTENCODE_TUNE_TRAIN__LORA__RANK?"),
        (
            "TRIAN__EPOCHS",
            "3",
            "_EPOCHS, which names no command of fastencode-tune: did you mean FASTENCODE_TUNE_TRAIN__…?",
        ),
        ("TRAIN__EPOCHS", "many", "FASTENCODE_TUNE_TRAIN__EPOCHS sets --epochs: 'many' is not a whole number"),
        ("TRAIN__LORA__RANK", "0", "FASTENCODE_TUNE_TRAIN__LORA__RANK sets --lora.rank must be positive, got 0"),
        ("TRAIN__EACH", "maybe", "FASTENCODE_TUNE_TRAIN__EACH='maybe' is neither true nor false"),
        ("TRAIN__OUT", "", "FASTENCODE_TUNE_TRAIN__OUT is empty: give it a value, or unset it"),
    ],
)
def test_mistakes_in_the_environment(
    variable: str,
    value: str,
    told: str,
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"FASTENCODE_TUNE_{variable}", value)
    assert main(["train", "--stories", "d", "--model", "m"]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and not asked


def test_variables_are_those_of_the_options() -> None:
    """Of every command, every option once; and what is typed wins, so an error then names the option."""
    for command in COMMANDS:
        names = option_names(settings_of(command))
        made = {f"FASTENCODE_TUNE_{command.upper()}__{name[2:].replace('-', '_').replace('.', '__').upper()}" for name in names}
        assert len(made) == len(names)
        found = from_environment(dict.fromkeys(made, "x"), command, names)
        assert {option.partition("=")[0] for option in found.values()} == set(names)
    with pytest.raises(InputError, match="no setting of fastencode-tune align"):
        from_environment({"FASTENCODE_TUNE_ALIGN__HELP": "x"}, "align", ["--help"])


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_setting_is_an_option_with_a_line_of_help(command: str) -> None:
    settings = settings_of(command)
    said, parser = helps(settings), options_of(command, settings, {})
    positional = {field.name for field in fields(settings) if field.metadata.get("positional")}
    known = {name[2:].replace("-", "_") for name in option_names(settings)}
    actions = {action.dest: action for action in parser._actions}
    groups = {name.partition(".")[0] for name in known if "." in name}
    assert (known | positional) - {"config"} <= set(actions)
    for name in (known | positional) - groups - {"config"}:
        assert said[name] and actions[name].help, name
    assert f"FASTENCODE_TUNE_{command.upper()}__" in parser.epilog
    option = parser.epilog.partition(" is ")[2].partition(";")[0]
    assert option in option_names(settings), "an example that is no option"


def test_the_own_settings_of_train_come_first() -> None:
    parser = options_of("train", TrainConfig, {})
    shown = [action.dest for action in parser._actions]
    assert shown.index("stories") < shown.index("model") < shown.index("out") < shown.index("epochs") < shown.index("lora.rank")


@dataclass(frozen=True)
class Finding:
    """As tune.diagnose has it."""

    name: str
    verdict: str
    evidence: str
    advice: str


def _told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def diagnose(run: Path, dataset: Any = None, control: Path | None = None) -> list[Finding]:
        found.update(run=run, dataset=dataset, control=control)
        return [Finding("CNN", "ok", "bit-equal", "")]

    def report(findings: list[Finding]) -> str:
        return "\n".join(f"{one.name}: {one.evidence}" for one in findings)

    module = ModuleType("fastencode.tune.diagnose")
    module.__dict__.update(diagnose=diagnose, report=report)
    monkeypatch.setitem(sys.modules, "fastencode.tune.diagnose", module)
    return found


def test_diagnose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found, run = _told(monkeypatch), tmp_path / "run"
    assert main(["diagnose"]) == 2 and "fastencode-tune diagnose needs RUN\n" in capsys.readouterr().err
    assert main(["diagnose", str(run)]) == 2
    assert f"RUN: {run} is not a folder: give one that fastencode-tune train has filled" in capsys.readouterr().err
    run.mkdir()
    assert main(["diagnose", str(run)]) == 0
    assert capsys.readouterr().out == "CNN: bit-equal\n" and found == {"run": run, "dataset": None, "control": None}
    assert main(["diagnose", str(run), "--control", str(run / "none")]) == 2
    assert "--control: " in capsys.readouterr().err
    assert main(["diagnose", str(run), "--stories", str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err
    (run / "config.yaml").write_text("tr: 1.5\ntest_story: last\nepochs: 3\n")
    assert main(["diagnose", str(run), "--stories", str(tmp_path)]) == 2
    assert "--stories: " in capsys.readouterr().err
    (tmp_path / "preprocessed_data").mkdir()
    (tmp_path / "respdict.json").write_text('{"last": 40}')
    assert main(["diagnose", str(run), "--stories", str(tmp_path), "--control", str(run)]) == 0
    assert (found["dataset"].tr, found["dataset"].test_story, found["control"]) == (1.5, "last", run)


def test_launchers_start_the_command_as_a_module() -> None:
    """torchrun -m fastencode.cli."""
    run = subprocess.run([sys.executable, "-m", "fastencode.cli", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("fastencode-tune ")


def test_the_stand_in_takes_what_the_trainer_takes() -> None:
    pytest.importorskip("torch", reason="the trainer needs the extra 'tune'")
    from fastencode.runs import training

    given = ["choice", "config", "model", "out", "each", "device"]
    assert list(signature(training.say_cost).parameters) == given
    assert list(signature(training.train).parameters) == [*given, "extend_epochs", "fast_dev_run", "begun"]
