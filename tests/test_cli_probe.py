"""fastencode-tune probe as a user runs it: TIMIT, Speech Commands, a manifest of digits, and bad input told at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastencode.cli import main
from fastencode.data.commands import read_commands
from speech_cases import saved_model
from task_cases import commands_like, timit_like

for library in ("torch", "transformers", "jsonargparse", "soundfile"):
    pytest.importorskip(library, reason="the command needs the extra 'tune'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'tune'")

pytestmark = pytest.mark.usefixtures("no_pictures")

COLUMNS = (
    "task metric model participant layer score low high baseline control selectivity n_train n_test n_units unit penalty at_edge"
)


def features(corpus: Path, model: Path | str, out: Path, *more: str) -> Path:
    assert (
        main(["features", "--audio", str(corpus), "--model", str(model), "--out", str(out), "--read.input", "utterance", *more])
        == 0
    )
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora, a model of random weights, and its features and the cepstra of both."""
    root = tmp_path_factory.mktemp("probe")
    model = saved_model(root / "hubert", "hubert", strides=(5, 8, 8))
    timit_like(root / "timit", speakers={"TRAIN": 5, "TEST": 4})
    commands_like(root / "commands", speakers=(5, 2, 4))
    for corpus in ("timit", "commands"):
        features(root / corpus, model, root / "features" / corpus / "tiny")
        features(root / corpus, "mfcc", root / "features" / corpus / "cepstra")
    features(root / "timit", "mfcc", root / "features" / "timit" / "frames", "--read.pool", "bins", "--read.bin", "0.02")
    return root


def command(made: Path, corpus: str, models: list[str], tasks: list[str], out: Path, *more: str) -> list[str]:
    folders = [str(made / "features" / corpus / model) for model in models]
    arguments = ["--corpus", str(made / corpus), "--features", *folders, "--tasks", *tasks, "--out", str(out)]
    return ["probe", *arguments, "--bootstraps", "100", *more]


@pytest.fixture(scope="module")
def words(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "words"
    assert main(command(made, "commands", ["tiny", "cepstra"], ["word"], out, "--control")) == 0
    return out


def test_words(words: Path) -> None:
    table = pd.read_csv(words / "probes.csv", keep_default_na=False, na_values=[""])
    assert list(table.columns) == COLUMNS.split()
    assert [(row.model, row.layer) for row in table.itertuples()] == [("tiny", 0), ("tiny", 1), ("tiny", 2), ("cepstra", 0)]
    assert set(table["n_test"]) == {24} and set(table["n_units"]) == {4} and set(table["unit"]) == {"speakers"}
    assert set(table["n_train"]) == {30 + 12}  # fitted again with the validation split, which the penalty was chosen on
    np.testing.assert_allclose(table["baseline"], 1 / 3)
    np.testing.assert_allclose(table["selectivity"], table["score"] - table["control"])
    cepstra = table[table["model"] == "cepstra"].iloc[0]
    assert cepstra["score"] > 0.9 and cepstra["control"] < 0.7 and cepstra["low"] <= cepstra["score"] <= cepstra["high"]
    targets = pd.read_csv(words / "probe_targets.csv")
    assert set(targets["target"]) == {"no", "tree", "yes"} and set(targets["metric"]) == {"f1"}


def test_what_a_run_leaves_beside_its_tables(words: Path, made: Path) -> None:
    import yaml

    settings = yaml.safe_load((words / "config.yaml").read_text())
    assert settings["tasks"] == ["word"] and settings["control"] is True and settings["bootstraps"] == 100
    found = json.loads((words / "provenance.json").read_text())
    assert found["corpus"] == {"name": "commands", "kind": "commands", "recordings": 66}
    assert set(found["models"]) == {"tiny", "cepstra"} and found["settings"]["seed"] == 0


def test_a_second_run_fits_nothing_and_its_config_repeats_it(words: Path, made: Path, tmp_path: Path) -> None:
    before = (words / "probes.csv").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in words.rglob("probe.h5")}
    assert main(["probe", "--config", str(words / "config.yaml")]) == 0
    assert (words / "probes.csv").read_bytes() == before and len(times) == 2
    assert {path: path.stat().st_mtime_ns for path in words.rglob("probe.h5")} == times
    again = tmp_path / "again"
    assert main(["probe", "--config", str(words / "config.yaml"), "--out", str(again), "--jobs", "2"]) == 0
    assert (again / "probes.csv").read_bytes() == before


def test_a_probe_that_was_removed_is_made_again_and_the_others_are_not(
    words: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(words, out)
    shutil.rmtree(out / "probes" / "word" / "tiny")
    arguments = command(made, "commands", ["tiny", "cepstra"], ["word"], out, "--control")
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "probes/word/tiny: to be made\nprobes/word/cepstra: finished\n" in said
    assert "word: classification, 3 classes; recordings train 30, validation 12, test 24; 11 speakers" in said
    assert not (out / "probes" / "word" / "tiny").exists()
    assert main(arguments) == 0
    assert (out / "probes.csv").read_bytes() == (words / "probes.csv").read_bytes()


def test_other_tasks_of_the_same_settings_stay_in_the_tables(words: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(words, out)
    assert main(command(made, "commands", ["cepstra"], ["mfcc"], out, "--control", "--mfcc-points", "2")) == 0
    table = pd.read_csv(out / "probes.csv")
    assert [*table.groupby(["task", "model"], sort=False).size().items()] == [
        (("mfcc", "cepstra"), 1),
        (("word", "cepstra"), 1),
        (("word", "tiny"), 3),
    ]
    assert main(command(made, "commands", ["cepstra"], ["mfcc"], out, "--mfcc-points", "2")) == 0
    assert set(pd.read_csv(out / "probes.csv")["task"]) == {"mfcc"}  # what was fitted with the control is of other settings


def test_all_tasks_of_timit(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ["mfcc", "phonemes", "phones", "sentence_type", "sx_si", "label:sex"]
    assert main(command(made, "timit", ["tiny", "cepstra", "frames"], tasks, tmp_path / "out", "--control")) == 0
    said = capsys.readouterr()
    table = pd.read_csv(tmp_path / "out" / "probes.csv")
    assert [name for name, _ in table.groupby("task", sort=False)] == tasks
    models = table.groupby("task")["model"].unique()
    assert list(models["phones"]) == ["frames"] and list(models["phonemes"]) == list(models["mfcc"]) == ["tiny", "cepstra"]
    best = table.set_index(["task", "model"])
    assert best.loc[("phones", "frames"), "score"].max() > 0.6  # tones in noise: cepstra know them
    assert best.loc[("phonemes", "cepstra"), "score"].max() > best.loc[("phonemes", "cepstra"), "baseline"].max() + 0.1
    assert best.loc[("phones", "frames"), "control"].max() < 0.5 and not table["control"].isna().any()
    assert set(table[table["task"] == "sentence_type"]["n_test"]) == {28} and set(table[table["task"] == "sx_si"]["n_test"]) == {
        20
    }
    targets = pd.read_csv(tmp_path / "out" / "probe_targets.csv")
    assert list(targets[targets["task"] == "mfcc"]["target"].unique()) == [*(f"c{n}" for n in range(1, 13)), "c0"]
    assert list(targets[targets["task"] == "phonemes"]["target"].unique()) == ["aa", "ae", "iy", "m", "s", "sh", "sil"]
    assert "warning: sentence_type: the two SA texts are in both splits" in said.err
    assert "phones" in said.out and "frames" in said.out and "0 speakers" not in said.out
    notes = json.loads((tmp_path / "out" / "provenance.json").read_text())["notes"]
    assert list(notes) == ["phonemes", "phones", "sentence_type"]


def test_the_published_split_warns_and_a_leak_is_allowed_by_name(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(made, "timit", ["cepstra"], ["phonemes"], tmp_path / "out")
    assert main([*arguments, "--split", "published"]) == 0
    said = capsys.readouterr().err
    assert "the published split leaks: test speakers and texts are in the training split" in said
    assert "allowed: phonemes: 9 of 9 test speakers are in the training split" in said
    table = pd.read_csv(tmp_path / "out" / "probes.csv")
    assert set(table["n_units"]) == {9} and set(table["n_train"] + table["n_test"]) == {63}
    assert len(json.loads((tmp_path / "out" / "provenance.json").read_text())["leaks that were allowed"]) == 2
    assert main([*arguments, "--allow", "texts"]) == 0  # the SA sentences
    assert "allowed: phonemes: 2 of" in capsys.readouterr().err
    assert set(pd.read_csv(tmp_path / "out" / "probes.csv")["n_test"]) == {28}


def test_a_probe_that_fails_takes_no_other_along(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two speakers of train, each with a hand of their own: no penalty can be chosen where one of them is left out."""
    tree, words = made / "commands", {"yes": "kyllä", "no": "nej", "tree": "木"}
    recordings = read_commands(tree)
    learned = sorted({one.speaker for one in recordings if one.split == "train"})[:2]
    tested = sorted({one.speaker for one in recordings if one.split == "test"})
    lines = ["audio,sana,käsi,speaker,split"]
    for one in recordings:
        if one.speaker in (*learned, *tested):
            hand = "ab"[learned.index(one.speaker) if one.split == "train" else tested.index(one.speaker) % 2]
            lines.append(f"{one.path.relative_to(tree)},{words[one.labels['word']]},{hand},{one.speaker},{one.split}")
    (tree / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out, folder = tmp_path / "out", made / "features" / "commands" / "cepstra"
    arguments = ["--features", str(folder), "--tasks", "label:käsi", "label:sana", "--out", str(out)]
    assert main(["probe", "--corpus", str(tree / "list.csv"), *arguments]) == 1
    said = capsys.readouterr()
    assert "1 stage failed\n  probes/label-käsi/cepstra: " in said.err and "label:sana" in said.out
    assert set(pd.read_csv(out / "probes.csv")["task"]) == {"label:sana"}
    assert set(pd.read_csv(out / "probe_targets.csv")["target"]) == {"kyllä", "nej", "木"}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], out: Path) -> str:
    assert main(arguments) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_everything_that_is_wrong_is_told_at_once(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    said = refused(capsys, command(made, "timit", ["tiny", "absent"], ["word", "fonemes", "label:accent", "sx_si"], out), out)
    assert "fastencode-tune: 4 things are to be mended first; nothing was made:\n" in said
    assert "\n- --features: " in said and "absent is not a folder" in said
    assert "\n- --tasks: 'fonemes' is no task: choose from mfcc, " in said
    assert "\n- no recording has a label 'word': the labels are region, sentence, sex, type" in said
    assert "\n- no recording has a label 'accent'" in said


def test_a_leaking_copy_is_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = shutil.copytree(made / "commands", tmp_path / "commands")
    listed = (tree / "testing_list.txt").read_text().split()
    lists = "".join((tree / f"{name}_list.txt").read_text() for name in ("validation", "testing"))
    train = next(path for path in sorted((tree / "yes").iterdir()) if path.name not in lists)
    shutil.copy(train, tree / listed[0])
    folder = features(tree, "mfcc", tmp_path / "cepstra")
    out = tmp_path / "out"
    arguments = ["probe", "--corpus", str(tree), "--features", str(folder), "--tasks", "word", "--out", str(out)]
    said = refused(capsys, arguments, out)
    assert f"word: 1 of 24 test sounds are in the training split: {listed[0].removesuffix('.wav')}\n" in said
    assert "--allow copies" in said
    assert main([*arguments, "--allow", "copies"]) == 0


@pytest.mark.parametrize(
    ("models", "tasks", "more", "message"),
    [
        (
            ["frames"],
            ["sx_si"],
            [],
            "no folder has one row for each recording, as sx_si asks for: add one read with --read.pool mean",
        ),
        (
            ["tiny"],
            ["phones"],
            [],
            "no folder has a row for each bin of sound, as phones asks for: add one read with --read.pool bins",
        ),
        (["tiny", "frames"], ["sx_si"], [], "frames has a row for each bin of sound, which only phones asks for"),
        (["tiny", "../commands/tiny"], ["sx_si"], [], "two feature folders share the name 'tiny'"),
        (["../commands/cepstra"], ["sx_si"], [], "is of another corpus: it has 'no/"),
        (["tiny"], ["sx_si"], ["--split", "published"], "--split: the published split exists for phonemes and phones only"),
        (["tiny"], ["sx_si"], ["--allow", "text"], "--allow names 'text', which is no leak"),
        (["tiny"], ["sx_si"], ["--mfcc-points", "0"], "--mfcc-points=0: give at least 1"),
        (["tiny"], ["sx_si"], ["--penalties", "0"], "--penalties holds 0; every penalty must be positive"),
        (["tiny"], ["sx_si"], ["--device", "cuda:x"], "cuda:x"),
        (["tiny"], ["sx_si", "sx_si"], [], "--tasks names sx_si more than once"),
        (["../../timit"], ["sx_si"], [], "timit has no corpus.h5: fill it with fastencode-tune features"),
    ],
)
def test_bad_input(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    models: list[str],
    tasks: list[str],
    more: list[str],
    message: str,
) -> None:
    assert message in refused(capsys, command(made, "timit", models, tasks, tmp_path / "out", *more), tmp_path / "out")


def test_features_of_sounds_that_changed(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = timit_like(tmp_path / "timit", speakers={"TRAIN": 2, "TEST": 2}, seed=5)
    folder = features(root, "mfcc", tmp_path / "cepstra")
    path = next(root.rglob("SX1.WAV"))
    shutil.copy(path.with_name("SX2.WAV"), path)
    out = tmp_path / "out"
    arguments = ["probe", "--corpus", str(root), "--features", str(folder), "--tasks", "sx_si", "--out", str(out)]
    assert "was made of other sounds than 1 of those in" in refused(capsys, arguments, out)


def test_real_digits_one_speaker_left_out(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cepstra of the digits of five speakers know those of the sixth far better than chance: .1."""
    lines = ["audio,label,speaker,split"]
    for path in sorted((shared_data / "speech" / "digits").glob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        lines.append(f"{path},{digit},{speaker},{'test' if speaker == 'theo' else 'train'}")
    (tmp_path / "digits.csv").write_text("\n".join(lines) + "\n")
    folder = features(tmp_path / "digits.csv", "mfcc", tmp_path / "cepstra")
    out = tmp_path / "out"
    arguments = ["--features", str(folder), "--tasks", "label:label", "number:label", "--out", str(out)]
    assert main(["probe", "--corpus", str(tmp_path / "digits.csv"), *arguments]) == 0
    assert "label:label: all test recordings are of one speaker, so there are no intervals" in capsys.readouterr().err
    table = pd.read_csv(out / "probes.csv").set_index("task")
    assert 0.3 < table.loc["label:label", "score"] < 1 and table["low"].isna().all()
    assert table.loc["label:label", "baseline"] == pytest.approx(0.1) and table.loc["number:label", "metric"] == "r2"
