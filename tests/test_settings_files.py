"""Files of settings of another kind, and settings without a value: what is said, by which file and option."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastencode.cli import main
from fastencode.cli.mistakes import with_option

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"title": "x", "verdicts": []}', "names title, which is no setting of fastencode-tune align: give config.yaml of an"),
        (b"world: {minutes: 3}", "names world, which is no setting of fastencode-tune align: give config.yaml of an earlier"),
        (b"delays: [1]", "names delays, which is no setting of fastencode-tune align; did you mean align.delays?"),
        (b"test_storys: [x]", "names test_storys, which is no setting of fastencode-tune align; did you mean test_story?"),
        (b"align: {fold: 3}", "names align.fold, which is no setting of fastencode-tune align; did you mean align.folds?"),
        (b"align.xyz: 3", "names align.xyz, which is no setting of fastencode-tune align: there are delays, alphas, folds"),
        (b"align: 3", "says align: 3: give its settings (delays, alphas, folds, …), or leave it out"),
        (b"align: null", "says align: null: give its settings (delays, alphas, folds, …), or leave it out"),
        (b"out: null", "says out: null: give a value, or leave it out"),
        (b"test_story: null", "says test_story: null: give a value, or leave it out"),
        (b"[1, 2]", "is no table of settings: give one, such as config.yaml of an earlier run"),
        (b"tr: 2\nlags: [1\nx: }", "line 3, is not YAML: correct it"),
        (b"tr: \xff", "is not UTF-8: see line 1"),
        (b" ", "is empty"),
    ],
)
def test_files_of_another_kind(content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "given.yaml"
    file.write_bytes(content)
    assert main(["align", "--stories", "x", "--features", "y", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fastencode-tune: --config: {file}") and told in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("none.yaml", "'none.yaml' is no file of settings: give one, or single settings, as --help lists them"),
        ("3", "'3' is no file of settings: give one, or single settings"),
        ("{fold: 3}", "what is given names align.fold, which is no setting of fastencode-tune align; did you mean align.folds?"),
        ("{folds: [", "line 1, is not YAML"),
    ],
)
def test_a_group_of_settings_that_is_none(given: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (["--align", given], [f"--align={given}"]):
        assert main(["align", "--stories", "x", "--features", "y", *typed]) == 2
        said = capsys.readouterr().err
        assert said.startswith("fastencode-tune: --align: ") and told in said and said.count("\n") == 1


def test_groups_are_still_taken_from_files_and_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong in them is told by its own name."""
    (tmp_path / "align.yaml").write_text("folds: 1\n")
    for given in (str(tmp_path / "align.yaml"), "{folds: 1}"):
        assert main(["align", "--stories", "x", "--features", "y", "--align", given]) == 2
        assert capsys.readouterr().err == "fastencode-tune: --align.folds must be at least 2, got 1\n"


def test_values_of_another_kind_are_told_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "given.yaml"
    for content, told in (
        ("participants: A", "--participants: 'A' is not a list, such as [A]"),
        ("test_story: 3", "--test-story: '3' is not text or a list"),
    ):
        file.write_text(content)
        assert main(["align", "--stories", "x", "--features", "y", "--config", str(file)]) == 2
        assert told in capsys.readouterr().err
    file.write_text("world: {participants: [{name: A}]}")
    assert main(["demo", "--config", str(file)]) == 2
    told = "--world.participants: each needs auditory, late_language, silent, gain, peak_delay\n"
    assert capsys.readouterr().err == f"fastencode-tune: {told}"


def test_an_option_is_named_only_where_one_is_meant() -> None:
    options = ["--minutes", "--world.minutes", "--tune.epochs", "--seed", "--test-skip"]
    assert with_option("epochs must be positive", options, []) == "--tune.epochs must be positive"
    assert with_option("test_skip=-1: give", options, []) == "--test-skip=-1: give"
    assert with_option("minutes must be positive", options, []) == "minutes must be positive"
    assert with_option("minutes must be", options, ["demo", "--world.minutes=0"]) == "--world.minutes must be"
    assert with_option("tune.epochs=0: give", options, []) == "--tune.epochs=0: give"
    assert with_option("seeds differ", options, []) == "seeds differ"
