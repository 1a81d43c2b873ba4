"""``fastencode-tune run``: what is wrong with a study is said before anything is made, all of it; --dry-run and --template."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch", reason="a study needs the extra 'tune'")
pytest.importorskip("transformers", reason="a study needs the extra 'tune'")
pytest.importorskip("jsonargparse", reason="a study needs the extra 'tune'")
pytest.importorskip("pandas", reason="a study needs the extra 'tune'")
pytest.importorskip("soundfile", reason="a study needs the extra 'tune'")

import study_cases as cases
from fastencode.runs.engine import Stages
from fastencode.runs.studies.reading import read_study, template_names
from fastencode.runs.studies.stages import given_stages
from fastencode.runs.studies.study import check_start

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.ground(tmp_path_factory.mktemp("ground"))


def refused(given: Any, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """What the command says of a study that it does not begin: a line for each problem. Nothing is written."""
    file = cases.written(folder / "study.yaml", given)
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert cases.run(file, folder / "out", "--jobs", "1", *options) == 2
    assert sorted(folder.rglob("*")) == before
    said = capsys.readouterr().err.split("fastencode-tune: ", 1)[1].strip()
    return [line.removeprefix("- ") for line in said.splitlines() if not line.endswith("nothing was made:")]


Change = Callable[[dict[str, Any], Path], Any]


def manifest(given: dict[str, Any], folder: Path, rows: list[tuple[str, str, str, str]], task: str = "label:mood@mine") -> None:
    """A corpus of recordings with a speaker, a split and a mood."""
    (folder / "mine").mkdir(exist_ok=True)
    for name, *_ in rows:
        if not name.startswith("no"):
            cases.write_audio(folder / "mine" / name, cases.noise(hash(name) % 1000, 1600), 16000)
    lines = ["audio,speaker,split,mood", *(",".join(row) for row in rows)]
    (folder / "mine" / "list.csv").write_text("\n".join(lines) + "\n")
    given["probes"]["corpora"]["mine"] = str(folder / "mine" / "list.csv")
    given["probes"]["tasks"] = [task]
    given["contrasts"] = []


def moods(test: str, train: str = "sad") -> list[tuple[str, str, str, str]]:
    one = [(f"{n}.wav", f"s{n}", "train", train if n % 2 else "glad") for n in range(4)]
    return [*one, ("4.wav", "s4", "test", "glad"), ("5.wav", "s5", "test", test)]


def without_story(given: dict[str, Any], folder: Path) -> None:
    """A copy of the brains in which B did not hear the test story, and one region is empty."""
    copy = shutil.copytree(given["data"]["stories"], folder / "brains")
    (copy / "preprocessed_data/B/test.hf5").unlink()
    given["data"] |= {"stories": str(copy), "participants": []}


def without_sound(given: dict[str, Any], folder: Path) -> None:
    copy = shutil.copytree(given["data"]["stories"], folder / "brains")
    for name in ("one", "test"):
        (copy / f"stimuli/{name}.wav").unlink()
    given["data"]["stories"] = str(copy)


def with_short_sound(given: dict[str, Any], folder: Path) -> None:
    copy = shutil.copytree(given["data"]["stories"], folder / "brains")
    cases.write_audio(copy / "stimuli/test.wav", cases.noise(0, 16000 * 30), 16000)
    given["data"]["stories"] = str(copy)


def with_empty_region(given: dict[str, Any], folder: Path) -> None:
    copy = shutil.copytree(given["data"]["stories"], folder / "brains")
    (copy / "rois/A.json").write_text(json.dumps({"low": [0, 1], "high": []}))
    given["data"]["stories"] = str(copy)


def with_copies(given: dict[str, Any], folder: Path) -> None:
    """A test sound that is a training sound, and a test speaker who is one of training."""
    manifest(given, folder, [*moods("sad"), ("6.wav", "s1", "test", "sad")])
    shutil.copy(folder / "mine/1.wav", folder / "mine/5.wav")


def at(*place: Any, value: Any) -> Change:
    """One setting is another."""

    def change(given: dict[str, Any], _: Path) -> None:
        inner: Any = given
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    return change


def arm(**settings: Any) -> Change:
    return lambda given, _: given["arms"].append({"name": "more", **settings})


def contrast(**settings: Any) -> Change:
    usual = {"name": "c", "measure": "r", "region": "low", "models": {"tuned": 1}}
    return lambda given, _: given["contrasts"].append({**usual, **settings})


MISTAKES: dict[str, tuple[Change, list[str]]] = {
    "misspelt": (
        at("data", "test_storie", value="test"),
        [r"data\.test_storie: there is no such setting; did you mean test_story\?"],
    ),
    "misspelt, nothing near": (at("zebra", value=1), [r"zebra: there is no such setting; choose from title"]),
    "no model": (at("models", "tiny", value="/nowhere/model"), [r"models\.tiny: .*/nowhere/model"]),
    "no such key of models": (arm(model="tinny", tune={}), [r"arms\[4\]\.model: there is no model 'tinny'; did you mean tiny\?"]),
    "imitates nobody": (arm(tune={}, imitates="big"), [r"arms\[4\]\.imitates: there is no model 'big'"]),
    "misspelt setting of tuning": (arm(tune={"epoch": 2}), [r"arms\[4\]\.tune: epoch: .*did you mean epochs\?"]),
    "one name twice": (arm(name="tuned"), [r"two arms are called 'tuned'"]),
    "mixed seeds": (arm(tune={}, seeds=[1, "two"]), [r"arms\[4\]\.seeds\[2\]: give a whole number.*'two'"]),
    "mixed participants": (
        at("data", "participants", value=["A", 2]),
        [r"data\.participants\[2\]: give text, got 2: put it in"],
    ),
    "epochs": (arm(tune={}, epochs=[1, 9]), [r"arms\[4\]\.tune: epochs of more names 9, but there are epochs 0 .* to 2"]),
    "hours": (arm(tune={}, hours=[0.01, 4.0]), [r"arms\[4\]\.hours: 4, but A has 0\.0167 h to tune on"]),
    "nobody": (at("data", "participants", value=["A", "Bea"]), [r"data\.participants: there is no 'Bea'"]),
    "no test story": (without_story, [r"B has no responses to the test run 'test', only to one, two, watched: leave B out"]),
    "no sound": (without_sound, [r"one: .*one\.wav", r"test: .*test\.wav"]),
    "short sound": (with_short_sound, [r"test: .*test\.wav lasts 30\.0 s, but a scan ends at 57 s"]),
    "no story": (
        at("data", "validation", value=["wached"]),
        [r"data\.validation: no participant has responses to 'wached'; did you mean watched\?"],
    ),
    "no data": (at("data", "stories", value="/nowhere/data"), [r"data\.stories: /nowhere/data is not there"]),
    "empty region": (
        with_empty_region,
        [r"contrasts\[1\]\.region: A has no region 'high'", r"contrasts\[3\]\.region: A has no region 'high'"],
    ),
    "no region": (at("data", "regions", value=["hihg"]), [r"data\.regions: A has no region 'hihg'; did you mean high\?"]),
    "layers": (at("layers", value=[0, 7]), [r"models\.tiny: layers names 7, but the model has layers 0 to 2"]),
    "no condition": (contrast(models={"tuned": 1, "pretraind": -1}), [r"contrasts\[4\]: .*'pretraind'.*pretrained"]),
    "no control": (contrast(control="controls"), [r"contrasts\[4\]: .*'controls'.*control"]),
    "no region of a contrast": (
        contrast(region="hgih"),
        [r"contrasts\[4\]\.region: A has no region 'hgih'; did you mean high\?"],
    ),
    "no measure": (
        contrast(measure="wrod", region=""),
        [r"contrasts\[4\]\.measure: 'wrod' is not measured; did you mean word\?"],
    ),
    "no layer": (contrast(layers=[1, 5]), [r"contrasts\[4\]: layer 5 of 'tuned' is not measured"]),
    "two contrasts": (contrast(name="brains"), [r"contrasts\[1\]: two contrasts are called", r"contrasts\[4\]: two contrasts"]),
    "no task": (at("probes", "tasks", value=["word", "phoneme"]), [r"probes\.tasks: .*'phoneme'.*phonemes"]),
    "no corpus": (at("probes", "tasks", value=["word", "label:mood@mine"]), [r"probes\.tasks: .* needs the corpus 'mine'"]),
    "corpus not there": (at("probes", "corpora", "timit", value="/nowhere/timit"), [r"probes\.corpora\.timit: .*/nowhere/timit"]),
    "one class": (
        lambda given, folder: manifest(given, folder, moods("glad")),
        [r"probes\.tasks, label:mood@mine: label:mood: the split test has one class, 'glad'"],
    ),
    "class not in train": (
        lambda given, folder: manifest(given, folder, moods("angry")),
        [r"probes\.tasks, label:mood@mine: label:mood: 1 test classes are not in the training split \(angry\)"],
    ),
    "labels of mixed type": (
        lambda given, folder: manifest(given, folder, moods("sad", train="1.5")),
        [r"probes\.tasks, label:mood@mine: .*1\.5"],
    ),
    "missing sounds of a corpus": (
        lambda given, folder: manifest(given, folder, [*moods("sad"), ("no1.wav", "s6", "test", "sad")]),
        [r"mine: .*no1\.wav"],
    ),
    "one speaker to learn from": (
        lambda given, folder: manifest(
            given, folder, [(name, "s0" if part == "train" else who, part, mood) for name, who, part, mood in moods("sad")]
        ),
        [r"probes\.tasks, label:mood@mine: label:mood: all .*, but penalties are chosen on held-out speakers"],
    ),
    "head beyond the model": (arm(tune={"head_layer": 9}), [r"arms\[4\]\.tune: head_layer=9: tiny has layers 0 .* to 2"]),
    "too few blocks": (
        arm(tune={"targets": "permuted", "block": 1000}),
        [r"arms\[4\]\.tune, A: runs of 16, 14 rows make 0 blocks of 1000"],
    ),
    "shifted too far": (
        arm(tune={"targets": "shifted", "shift_seconds": 1e5}),
        [r"arms\[4\]\.tune, A: run 'one' has 16 rows: moved by 50000"],
    ),
    "no words to learn": (
        arm(tune={"word_weight": 1.0}),
        [r"arms\[4\]\.tune: .*one\.TextGrid", r"arms\[4\]\.tune: .*two\.TextGrid"],
    ),
    "no words to score": (
        at("baselines", value=["word_rate"]),
        [rf"baselines, word_rate: .*{run}\.TextGrid" for run in ("one", "two", "test")],
    ),
    "clips longer than sounds": (
        arm(tune={"clip_seconds": 1e6}),
        [r"arms\[4\]\.tune: clip_seconds=1e\+06, but the longest sound"],
    ),
    "no model to imitate": (arm(tune={"targets": "model:/nowhere"}), [r"arms\[4\]\.tune: model '/nowhere'"]),
    "one permutation twice": (arm(tune={"targets": "permuted"}, seeds=[0, 1]), [r"arms\[4\]\.tune: seeds 0 and 1 are one run"]),
    "setting of all arms": (at("tune", "epoch", value=2), [r"tune\.epoch: there is no such setting; did you mean epochs\?"]),
    "no preset": (at("preset", value="best"), [r"preset: there is no preset 'best'"]),
    "case of arms": (arm(name="TUNED", tune={}), [r"tuned and TUNED are one folder where case does not count"]),
    "unfinished by its name": (arm(name="a.partial", tune={}), [r"arms\[4\]: the arm's name 'a\.partial' ends as folders do"]),
    "long name": (arm(name="x" * 200, tune={}), [r"arms\[4\]: the arm's name 'x{57}…': use up to 100"]),
    "arm like a baseline": (
        lambda given, _: given.update(baselines=["spectrum"]) or given["arms"].append({"name": "spectrum"}),
        [r"an arm is called 'spectrum', as one of baselines is"],
    ),
    "model outside": (
        lambda given, _: given.update(models={**given["models"], "..": given["models"]["tiny"]}, contrasts=[]),
        [r"models: the name '\.\.': use up to 100"],
    ),
    "baseline twice": (at("baselines", value=["spectrum", "spectrum"]), [r"baselines names spectrum twice"]),
    "layer twice": (at("layers", value=[2, 2]), [r"layers names 2 twice"]),
    "task twice": (at("probes", "tasks", value=["word", "word"]), [r"probes: tasks names word twice"]),
    "no corpus after @": (
        at("probes", "tasks", value=["word@"]),
        [r"probes\.tasks: 'word@' names no corpus after @", r"contrasts\[2\]\.measure"],
    ),
    "nothing left to score": (at("data", "test_skip", value=20), [r"data\.test_skip=20 leaves 4 rows of the test run 'test'"]),
    "no such ceiling": (at("data", "scored", value=2), [r"data: scored=2: no noise ceiling is above 1"]),
    "no folder of regions": (at("data", "rois", value="/nowhere"), [r"data\.rois: /nowhere is no folder"]),
    "no regions": (
        lambda given, folder: given["data"].update(rois=str(given["data"]["stories"])),
        [r"data\.rois: .*brains has no regions of A"],
    ),
    "data is nothing": (at("data", value=None), [r"data: give settings, as name: value, got None"]),
    "no TR": (at("data", "tr", value=0), [r"data: tr=0: give the repetition time"]),
    "seed": (at("seed", value=-1), [r"seed=-1: give a whole number, 0 or more"]),
    "kinds of layers": (
        contrast(layers=2),
        [r"contrasts\[4\]\.layers: give text, or a list of whole numbers, or weights, as name: number, got 2"],
    ),
    "weights": (
        contrast(models={"tuned": 1, "pretrained": -2}),
        [r"contrasts\[4\]\.models: weights sum to -1: let them sum to 0, a difference, or to 1, a mean"],
    ),
    "region of a probe": (contrast(measure="word"), [r"contrasts\[4\]\.region: word is a probe's task, which has no region"]),
    "leaks": (with_copies, [r"label:mood@mine: .*speaker", r"label:mood@mine: .*(same sound|copies|sound)"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_at_the_start(name: str, ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, patterns = MISTAKES[name]
    given = cases.study(ground)
    change(given, tmp_path)
    lines = refused(given, tmp_path, capsys)
    for pattern in patterns:
        assert any(re.match(f".*{pattern}", line) for line in lines), (pattern, lines)
    if name not in ("leaks",):
        assert len(lines) == len(patterns), lines


def test_a_corpus_of_another_kind(ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = cases.study(ground)
    given["probes"]["corpora"] = {"timit": str(ground / "commands"), "commands": str(ground / "timit")}
    lines = refused(given, tmp_path, capsys)
    for task in ("word", "phonemes", "sx_si"):
        assert any(line.startswith(f"probes.tasks, {task}: ") for line in lines), lines


def test_all_problems_are_said_at_once(ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = cases.study(ground)
    several = ("misspelt", "no such key of models", "no story", "no region", "no task", "corpus not there")
    for name in several:
        MISTAKES[name][0](given, tmp_path)
    lines = refused(given, tmp_path, capsys)
    for name in several:
        for pattern in MISTAKES[name][1]:
            assert any(re.match(f".*{pattern}", line) for line in lines), (pattern, lines)
    assert refused(given, tmp_path, capsys, "--dry-run") == lines


def test_a_wrong_type_hides_no_other_problem(ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = cases.study(ground)
    given["seed"], given["tune"]["epoch"] = "x", 2
    given["arms"][2]["seeds"] = [1, 1]
    given["models"]["tiny"] = "/nowhere"
    given["probes"]["tasks"] = ["wrod"]
    given["data"]["validation"] = ["wached"]
    found = [line.partition(":")[0] for line in refused(given, tmp_path, capsys)]
    assert sorted(found) == ["arms[3]", "data.validation", "models.tiny", "probes.tasks", "seed", "tune.epoch"]


@pytest.mark.parametrize("line", ["  test_skip: 5", "title: again", "? [a, b]\n: 1"])
def test_a_key_that_stands_twice(line: str, ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_dump(cases.study(ground), sort_keys=False)
    (tmp_path / "study.yaml").write_text(
        text.replace("  test_skip: 0", f"  test_skip: 0\n{line}") if line[0] == " " else text + line
    )
    assert cases.run(tmp_path / "study.yaml", tmp_path / "out", "--dry-run") == 2
    said = capsys.readouterr().err
    assert re.search(r"study\.yaml, line \d+: not valid YAML \((test_skip|title) is given twice|unhashable key", said), said


@pytest.mark.parametrize(
    ("study", "out", "why"),
    [
        ("nowhere.yaml", "out", "nowhere.yaml is neither a file nor a study that ships with fastencode"),
        ("folder", "out", "folder is neither a file nor a study"),
        ("study.yaml", "study.yaml", "study.yaml is a file: choose another output folder"),
        ("study.yaml", "full", "full holds other files: choose an empty or new output folder"),
    ],
)
def test_files_and_folders_that_cannot_be(
    study: str, out: str, why: str, ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/other.txt").write_text("mine")
    cases.written(tmp_path / "study.yaml", cases.study(ground))
    before = sorted(tmp_path.rglob("*"))
    assert cases.run(tmp_path / study, tmp_path / out) == 2
    assert why in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


def rows_of(said: str) -> dict[str, list[str]]:
    """The table of --dry-run: kind of stage → what stands in its row."""
    lines = said.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("stages "))
    end = next(place for place, line in enumerate(lines) if line.startswith("about "))
    assert lines[head].split() == ["stages", "to", "make", "finished", "time", "memory", "disk", "read"]
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 : end]}


def test_a_dry_run_on_a_folder_makes_nothing(ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = cases.written(tmp_path / "study.yaml", cases.study(ground))
    assert cases.run(file, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    rows = rows_of(said)
    counts = {
        "frames": 1,
        "models": 3,
        "features": 4,
        "fits": 4 * 3,
        "corpus-frames": 2,
        "pooled": 2 * 4,
        "probes": 4 * 4,
        "change": 3,
    }
    assert {kind: int(row[0]) for kind, row in rows.items()} == counts and all(row[1] == "0" for row in rows.values())
    for kind in ("frames", "models", "features", "fits"):
        assert re.search(r"\d (s|min|h) +\d+ MB +\d+ MB", " ".join(rows[kind])), rows[kind]
    assert said.rstrip().endswith("dry run: nothing was made") and "GB free" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.yaml"]


def test_a_template_is_accepted_on_the_demo_before_and_after_its_world_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("espeakng_loader", reason="the demo's world needs the extra 'demo'")
    assert cases.main(["run", "--template"]) == 0
    file = tmp_path / "study.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert cases.run(file, tmp_path / "out", "--dry-run") == 0
    before = rows_of(capsys.readouterr().out)
    assert before["world"][:2] == ["1", "0"] and int(before["models"][0]) >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.yaml"]
    participant = {"name": "A", "auditory": 3, "late_language": 3, "silent": 3, "gain": 2.0, "peak_delay": 5.0}
    world = {"minutes": 1.4, "story_minutes": 1.4, "test_minutes": 1.4, "repeats": 2, "participants": [participant]}
    given = {**yaml.safe_load(file.read_text(encoding="utf-8")), "world": world, "data": {"stories": "demo"}}
    given["tune"] = {**(given.get("tune") or {}), "block": 8}  # of such a short world three blocks are permuted
    problems, study = read_study(cases.written(file, given))
    assert study is not None and not problems
    Stages(tmp_path / "out").run(next(given_stages(study.resolved())))
    made = sorted(tmp_path.rglob("*"))
    assert cases.run(file, tmp_path / "out", "--dry-run") == 0
    after = rows_of(capsys.readouterr().out)
    assert after["world"][:2] == ["0", "1"] and int(after["models"][0]) < int(before["models"][0])
    assert sorted(tmp_path.rglob("*")) == made


def test_every_template_passes_the_checks_on_the_demo(tmp_path: Path) -> None:
    for name in template_names():
        problems, study = read_study(name, {"data": {"stories": "demo"}})
        assert study is not None and not problems
        config = study.resolved()
        missing = [key for key, model in config.models.items() if model.removeprefix("random:") != "small"]
        found, _, data = check_start(Stages(tmp_path / "out"), config)
        assert data is None
        assert [line for line in found if not any(line.startswith(f"models.{key}: ") for key in missing)] == [], name
