"""``fastencode-tune run``: every number of its tables from the files that it leaves; kills, clusters and failures."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.stats

import reference

pytest.importorskip("torch", reason="a study needs the extra 'tune'")
pytest.importorskip("transformers", reason="a study needs the extra 'tune'")
pytest.importorskip("jsonargparse", reason="a study needs the extra 'tune'")
pytest.importorskip("pandas", reason="a study needs the extra 'tune'")
pytest.importorskip("yaml", reason="a study needs the extra 'tune'")
pytest.importorskip("soundfile", reason="a study needs the extra 'tune'")
pytest.importorskip("sklearn", reason="a study needs the extra 'tune'")
pytest.importorskip("matplotlib", reason="a study needs the extra 'report'")

import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, r2_score

import study_cases as cases
from fastencode.data.corpora import open_corpus
from fastencode.data.stories import Stories
from fastencode.runs.studies import study as studies
from fastencode.runs.studies.reading import read_study
from fastencode.runs.studies.stages import Graph, ground_of
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import extract_packed
from fastencode.speech.store import read_features
from process_cases import Command
from reference_timing import lanczos

HERE = Path(__file__).parent


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def file(ground: Path) -> Path:
    return cases.written(ground / "study.yaml", cases.study(ground))


@pytest.fixture(scope="module")
def whole(file: Path) -> Path:
    """The study, never interrupted."""
    assert cases.run(file, file.parent / "whole") == 0
    return file.parent / "whole"


@pytest.fixture(scope="module")
def little(ground: Path) -> Path:
    """The file of a study that takes even less; the folder beside it was never interrupted."""
    file = cases.written(ground / "little.yaml", cases.little_study(ground))
    assert cases.run(file, file.with_suffix("")) == 0
    return file


@pytest.fixture(scope="module")
def arms(ground: Path) -> Path:
    """One participant more, and every kind of arm."""
    assert cases.run(cases.written(ground / "arms.yaml", cases.arms_study(ground)), ground / "arms") == 0
    return ground / "arms"


def reading(model: str, seed: int | None = None) -> str:
    return model if seed is None else f"{model}-seed-{seed}"


def by_hand(ground: Path, out: Path, who: str, owner: str, name: str, layer: int) -> np.ndarray:
    """Test correlations of every voxel: ridge at the recorded penalties, in float64, of the features that were left."""
    stories = Stories(ground / "brains", test_story="test", test_skip=0)
    (record,) = out.glob(f"fits/{name}-at-0-1/{who}/layer-{layer:02d}/layer.h5")
    with h5py.File(record) as file:
        alphas = file["alpha"][:]

    def design(run: str) -> np.ndarray:
        read = read_features(out / f"features/{owner}/{name}/{run}.h5")
        rows, _ = lanczos(read.values[:, layer].astype(float), read.times, stories.row_times(run, middle=True))
        rows = (rows - rows.mean(0)) / rows.std(0)
        return np.hstack([rows, np.vstack([np.zeros((1, rows.shape[1])), rows[:-1]])])

    def normal(run: str) -> np.ndarray:
        rows = stories.responses(who, run, dtype=np.float64)
        return (rows - rows.mean(0)) / rows.std(0)

    X, Y = (np.vstack([of(run) for run in ("one", "two")]) for of in (design, normal))
    predicted = np.stack([Ridge(alpha).fit(X, y).predict(design("test")) for alpha, y in zip(alphas, Y.T, strict=True)], axis=1)
    measured = stories.responses(who, "test", dtype=np.float64)
    return np.array([reference.pearson(measured[:, v], predicted[:, v]) for v in range(measured.shape[1])])


def check_scores(ground: Path, out: Path, seeds: dict[str, list[int]], owners: Callable[[str, str], str]) -> pd.DataFrame:
    """Every row of scores.csv: means of voxels, then of seeds; intervals from the draws that were left."""
    scores = cases.table(out, "scores")
    for (who, model, layer), part in scores.groupby(["participant", "model", "layer"]):
        names = [reading(model, seed) for seed in seeds.get(model, [None])]
        r = np.mean([by_hand(ground, out, who, owners(model, who), name, layer) for name in names], axis=0)
        records = [h5py.File(next(out.glob(f"fits/{name}-at-0-1/{who}/layer-{layer:02d}/layer.h5"))) for name in names]
        regions = json.loads((ground / f"brains/rois/{who}.json").read_text())
        assert part["region"].tolist() == list(regions)
        for place, row in enumerate(part.itertuples()):
            chosen = regions[row.region]
            assert (row.n_voxels, row.fit_rows) == (len(chosen), 30)
            np.testing.assert_allclose(row.r, r[chosen].mean(), atol=2e-4)
            # the first region is all voxels
            draws = np.mean([one["draws"][:, 1 + place] for one in records], axis=0)
            half = scipy.stats.t.ppf(0.975, records[0]["n_blocks"][()] - 1) * np.arctanh(draws).std(ddof=1)
            ends = np.tanh(np.arctanh(row.r) + np.array([-half, half]))
            np.testing.assert_allclose([row.r_low, row.r_high], ends, rtol=1e-6)
            np.testing.assert_allclose(row.alpha_median, np.mean([np.median(one["alpha"][:][chosen]) for one in records]))
    return scores


def test_every_score_is_that_of_a_ridge_by_hand(ground: Path, whole: Path, arms: Path) -> None:
    scores = check_scores(ground, whole, {"control": [1, 2]}, lambda model, who: "everybody" if model == "pretrained" else who)
    assert len(scores) == 3 * 3 * 2 and scores["r"].std() > 0.001
    shared = ("pretrained", "together")
    scores = check_scores(ground, arms, {}, lambda model, who: "everybody" if model in shared else who)
    assert len(scores) == 2 * 8 * 2 * 2
    names = ["pretrained", "tuned-epoch-1", "tuned", "together", "short-0.009h", "short-0.0167h", "cnn", "copy"]
    assert list(dict.fromkeys(scores["model"])) == names and set(scores["layer"]) == {0, 2}


def test_models_above_one_cnn_share_its_frames(ground: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of a corpus are byte for byte those of its sounds; a tuned CNN and one reading alone read sounds."""
    made = sorted(path.relative_to(whole).as_posix() for path in whole.glob("corpus-frames/*/*"))
    assert made == ["corpus-frames/commands/tiny", "corpus-frames/timit/tiny"]
    for corpus, owner, name, model in (
        ("commands", "everybody", "pretrained", ground / "model"),
        ("timit", "A", "tuned", whole / "models/A/tuned/model"),
    ):
        sounds, again = open_corpus(ground / corpus).sounds, ground / f"{corpus}-heard.h5"
        extract_packed(sounds, SpeechEncoder(model), again, ReadConfig("utterance"), show_progress=False)
        assert (whole / f"pooled/{corpus}/{owner}/{name}/corpus.h5").read_bytes() == again.read_bytes()
    settings = cases.study(ground)
    arms = [*settings["arms"][:2], {"name": "cnn", "tune": {"unfreeze": ["cnn"]}}]

    def frames_read(arms: list[dict[str, Any]], **probes: Any) -> dict[str, list[str]]:
        given = {**settings, "arms": arms, "probes": {**settings["probes"], **probes}}
        _, config = read_study(str(cases.written(ground / "s.yaml", given)))
        assert config is not None
        config, stories = config.resolved(), Stories(ground / "brains", test_story="test", test_skip=0)
        stages = Graph(ground / "out", config, ground_of(config, stories)).making()
        return {one.name: [read for read in one.reads if "corpus-" in read] for one in stages if "pooled/timit/" in one.name}

    frames = ["corpus-frames/timit/tiny"]
    assert frames_read(arms) == {
        "pooled/timit/everybody/pretrained": frames, "pooled/timit/A/tuned": frames, "pooled/timit/A/cnn": [],
    }  # fmt: skip
    assert frames_read(arms, frames=1e-6) == {name: [] for name in frames_read(arms)}
    assert frames_read(arms[:1]) == {"pooled/timit/everybody/pretrained": []}


def labels_of(ground: Path, task: str, name: str) -> Any:
    """What the files of the corpora say of a recording."""
    if task == "word":
        return name.split("/")[0]
    phones = [line.split()[2] for line in (ground / "timit" / f"{name}.PHN").read_text().splitlines()]
    return name.rsplit("/", 1)[1][:2] if task == "sx_si" else set(phones) - {"h#"}


def split_of(ground: Path, task: str, name: str) -> str:
    if task != "word":
        return name.split("/")[0].lower()
    lists = {part: (ground / "commands" / f"{part}_list.txt").read_text().split() for part in ("testing", "validation")}
    return next(({"testing": "test"}.get(part, part) for part, lines in lists.items() if f"{name}.wav" in lines), "train")


def probed(ground: Path, packed: Path, task: str, layer: int, penalty: float, targets: dict[str, np.ndarray]) -> float:
    """The score of an independent fit at a penalty."""
    with h5py.File(packed) as file:
        names, values = [one.decode() for one in file["names"][:]], file["features"][:, layer].astype(float)
    kept = [k for k, name in enumerate(names) if task == "word" or "/SA" not in name]
    train = np.array([split_of(ground, task, names[k]) != "test" for k in kept])
    X = values[kept]
    X = (X - X[train].mean(0)) / X[train].std(0)
    if task == "mfcc":
        truth = np.array([targets[names[k]] for k in kept])
        mean, spread = truth[train].mean(0), truth[train].std(0)
        fit = Ridge(penalty).fit(X[train], (truth[train] - mean) / spread)
        return r2_score(truth[~train], fit.predict(X[~train]) * spread + mean)
    labels = [labels_of(ground, task, names[k]) for k in kept]
    two = task == "sx_si"  # of two classes scikit-learn has one vector of weights, w, for ours, w / 2 and -w / 2
    classifier = LogisticRegression(C=(1 + two) / penalty, tol=1e-10, max_iter=5000)
    if task != "phonemes":
        y = np.array(labels)
        return accuracy_score(y[~train], classifier.fit(X[train], y[train]).predict(X[~train]))
    y = np.array([[phone in one for phone in cases.PHONES] for one in labels])
    predicted = [classifier.fit(X[train], one[train]).predict(X[~train]) for one in y.T]
    silence = np.ones((1, (~train).sum()), bool)  # on every row: right without a fit
    return f1_score(np.vstack([y[~train].T, silence]).T, np.vstack([*predicted, silence]).T, average="macro")


def test_every_probe_is_that_of_scikit_learn_at_its_penalty(ground: Path, whole: Path) -> None:
    table = cases.table(whole, "probes")
    assert len(table) == 4 * 3 * 3
    made = np.load(whole / "targets/mfcc/targets.npy")  # in the order of the corpus, without sentences that all read
    order = [name for name in open_corpus(ground / "timit").recordings if "/SA" not in name]
    targets = dict(zip(order, made, strict=True))
    scores = []
    for row in table.itertuples():
        corpus = "commands" if row.task == "word" else "timit"
        owner = "everybody" if row.model == "pretrained" else "A"
        assert row.participant == ("" if owner == "everybody" else owner)
        seeds = [None] if row.model != "control" else [1, 2]
        found, penalties = [], []
        for seed in seeds:
            name = reading(row.model, seed)
            with h5py.File(whole / f"probes/{row.task}/{owner}/{name}/probe.h5") as file:
                penalties.append(float(file["penalty"][row.layer]))
            packed = whole / f"pooled/{corpus}/{owner}/{name}/corpus.h5"
            found.append(probed(ground, packed, row.task, row.layer, penalties[-1], targets))
        np.testing.assert_allclose(row.score, np.mean(found), atol=1e-3 if row.task == "mfcc" else 1e-9, err_msg=str(row))
        assert row.penalty == np.median(penalties)
        assert (row.n_units, row.unit) == {"commands": (4, "speakers"), "timit": (3, "speakers and texts")}[corpus]
        scores += found
    assert len({round(score, 6) for score in scores}) >= 12


def expected(out: Path, measure: str, weights: dict[tuple[str, int], float], regions: list[str]) -> dict[str, float]:
    """Participant → a weighted sum of the rows of scores.csv or probes.csv, a participant's own or everybody's."""
    if measure == "r":
        rows = cases.table(out, "scores").query("region in @regions").groupby(["participant", "model", "layer"])["r"].mean()
    else:
        rows = cases.table(out, "probes").query("task == @measure").set_index(["participant", "model", "layer"])["score"]
    people = sorted({who for who, _, _ in rows.index} - {""})
    return {
        who: sum(weight * rows.get((who, *place), rows.get(("", *place))) for place, weight in weights.items()) for who in people
    }


def test_findings_are_sums_of_scores_and_answers_follow_from_intervals(whole: Path, arms: Path) -> None:
    late, every = {2: 1.0}, {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}
    raised = {"tuned": 1, "pretrained": -1}
    asked: dict[str, tuple[Path, str, dict[str, int], dict[int, float], list[str]]] = {
        "brains": (whole, "r", raised, late, ["high"]),
        "words": (whole, "word", raised, every, [""]),
        "depth": (whole, "r", {"tuned": 1}, {2: 1.0, 0: -1.0}, ["low", "high"]),
        "both": (arms, "r", raised, late, ["low"]),
        "cnn": (arms, "r", {"cnn": 1}, {0: 0.5, 2: 0.5}, ["high"]),
    }
    findings = pd.concat([cases.table(out, "findings") for out in (whole, arms)]).set_index("name")
    assert set(findings.index) == set(asked)
    for name, (out, measure, models, layers, regions) in asked.items():
        row = findings.loc[name]

        def of(models: dict[str, int], out=out, measure=measure, layers=layers, regions=regions) -> dict[str, float]:
            places = {(model, k): w * v for model, w in models.items() for k, v in layers.items()}
            return expected(out, measure, places, regions)

        each = of(models)
        np.testing.assert_allclose(row["value"], np.mean([*each.values()]), atol=1e-12)
        parts = cases.table(out, "parts").query("name == @name and part == 'participant'").set_index("which")["value"].to_dict()
        assert parts == pytest.approx(each, abs=1e-12)
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["p"] < 0.05) == (row["low"] > 0 or row["high"] < 0)
        if name not in ("brains", "words"):
            assert row["answer"] == ""
            continue
        control = of({"control": 1, "pretrained": -1})["A"]
        np.testing.assert_allclose([row["control_value"], row["over_control"]], [control, row["value"] - control], atol=1e-12)
        yes = row["low"] > 0 and row["over_control_low"] > 0
        no = row["high"] < 0 or row["over_control_high"] < 0
        assert row["answer"] == ("yes" if yes else "no" if no else "undecided")


def cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Linear CKA from Gram matrices (Kornblith et al. 2019)."""
    n = len(X)
    H = np.eye(n) - 1 / n
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    return float((K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum()))


def test_change_is_cka_of_the_features_of_the_test_story(whole: Path, arms: Path) -> None:
    counted = 0
    for out, seeds in ((whole, {"control": [1, 2]}), (arms, {})):
        table = cases.table(out, "change").query("measure == 'cka'")
        before = read_features(out / "features/everybody/pretrained/test.h5").values.astype(float)
        for row in table.itertuples():
            names = [reading(row.model, seed) for seed in seeds.get(row.model, [None])]
            files = [out / f"features/{row.participant or 'everybody'}/{name}/test.h5" for name in names]
            after = [read_features(path).values.astype(float) for path in files]
            found = np.mean([cka(before[:, row.layer], one[:, row.layer]) for one in after])
            np.testing.assert_allclose(row.value, found, atol=1e-5)
            counted += 1
        assert table["value"].min() < 0.9999
    assert counted == 2 * 3 + (2 * 6 + 1) * 3


def test_seeds_stand_apart_and_their_means_in_the_tables(whole: Path) -> None:
    seeds = cases.table(whole, "seeds").query("model == 'control'")
    assert set(seeds["seed"]) == {1, 2} and set(cases.table(whole, "seeds")["model"]) == {"control"}
    scores = cases.table(whole, "scores").set_index(["participant", "model", "layer", "region"])["r"]
    probes = cases.table(whole, "probes").set_index(["task", "participant", "model", "layer"])["score"]
    groups = seeds.groupby(["measure", "participant", "layer", "region"])
    assert len(groups) == 3 * 2 + 4 * 3
    for (measure, who, layer, region), part in groups:
        assert len(part) == 2
        key = (who, "control", layer, region) if measure == "r" else (measure, who, "control", layer)
        np.testing.assert_allclose((scores if measure == "r" else probes)[key], part["value"].mean(), atol=1e-12)
        assert (part["low"].isna() | (part["low"] <= part["value"])).all()


def run_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stage.json").read_text())["settings"]


def test_what_each_arm_learned_from(arms: Path) -> None:
    heard = {path.parent.name: run_of(path.parent)["runs"][0] for path in arms.glob("models/A/*/stage.json")}
    assert heard["short-0.009h"] == {"A": ["one"]} and heard["short-0.0167h"] == {"A": ["one", "two"]} == heard["tuned"]
    assert run_of(arms / "models/everybody/together")["runs"][0] == {"A": ["one", "two"], "B": ["one", "two"]}
    assert sorted(path.stem for path in (arms / "models/everybody/together/heads").iterdir()) == ["A", "B"]
    assert not (arms / "models/A/together").exists() and not (arms / "models/everybody/tuned").exists()
    scaling, scores = cases.table(arms, "scaling"), cases.table(arms, "scores").query("layer == 2")
    named = scores.set_index(["model", "participant", "region"])["r"]
    for row in scaling[scaling["hours"] > 0].itertuples():
        r = named[f"short-{row.asked:g}h", row.participant, row.region]
        np.testing.assert_allclose(row.r, r, atol=1e-12)
        assert row.low < row.r < row.high
        scans = {0.009: cases.ROWS["one"], 0.0167: cases.ROWS["one"] + cases.ROWS["two"]}[row.asked]
        assert (row.heard, row.hours) == pytest.approx((2 * scans / 3600,) * 2, abs=1e-6)
    assert len(scaling[scaling["hours"] > 0]) == 2 * 2 * 2


def test_epochs_are_read_along_training_and_only_a_free_cnn_changes(arms: Path) -> None:
    training = cases.table(arms, "training").query("model == 'tuned' and participant == 'A'")
    assert training["epoch"].tolist() == [0, 1, 2]
    weights = cases.table(arms, "change").query("measure == 'weight_change' and participant == 'A' and layer == 2")
    moved = weights.set_index("model")["value"]
    assert 0 < moved["tuned-epoch-1"] != moved["tuned"] > 0
    parts = {
        path.parent.name: json.loads(path.read_text())["parts"]["weight_change"] for path in arms.glob("change/A/*/change.json")
    }
    assert {name for name, one in parts.items() if one["cnn"] > 0} == {"cnn"}
    imitated = run_of(arms / "models/A/copy")["imitates"]
    assert imitated["random"] and imitated["model"] == run_of(arms / "models/A/tuned")["model"]
    losses = {name: cases.table(arms, "training").query("model == @name")["train_loss"].iloc[-1] for name in ("copy", "cnn")}
    assert losses["copy"] != losses["cnn"]


def kill(file: Path, out: Path, jobs: int, begun: Callable[[], bool], folder: Path) -> None:
    """Give the command, and kill all of its processes as soon as something has begun."""
    command = Command(["run", str(file), "--out", str(out), "--jobs", str(jobs)], folder)
    command.until(begun)
    assert command.tell(signal.SIGKILL) == -signal.SIGKILL


def finished(out: Path, kind: str = "*") -> dict[str, int]:
    """The stages that are finished, and when they were."""
    found = [path for path in out.glob(f"{kind}/**/stage.json") if not path.parent.name.endswith(".partial")]
    return {path.parent.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in found}


def test_a_study_killed_three_times_ends_in_the_same_tables(little: Path, tmp_path: Path) -> None:
    out, whole = little.parent / "killed", little.with_suffix("")

    def filled(pattern: str) -> Callable[[], bool]:
        return lambda: any(path.stat().st_size > 0 for path in out.glob(pattern))

    before: dict[str, int] = {}
    everything = finished(whole)
    for kind, jobs, pattern in (
        ("models", 2, "models/A/*.partial/log.jsonl"),
        ("pooled", 1, "pooled/*/*/*.partial"),
        ("probes", 1, "probes/*/*/*.partial"),
    ):
        kill(little, out, jobs, filled(pattern), tmp_path)
        now = finished(out)
        assert before.items() <= now.items(), "what was finished stays"
        assert set(finished(out, kind)) < set(finished(whole, kind)), f"all {kind} were finished before the kill"
        assert not (out / "index.html").exists()
        before = now
    assert 0 < len(before) < len(everything) and set(finished(out, "pooled")) == set(finished(whole, "pooled"))
    assert cases.run(little, out) == 0
    assert before.items() <= finished(out).items() and finished(out).keys() == everything.keys()
    assert cases.tables(out) == cases.tables(whole)
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_a_dask_cluster_of_two_workers_makes_the_same_tables(little: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'fastencode-neuro[dask]'")
    quiet = {"dashboard_address": ":0", "host": "127.0.0.1", "silence_logs": 60}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **quiet) as cluster:
        assert cases.run(little, little.parent / "dask", "--scheduler", cluster.scheduler_address) == 0
    assert finished(little.parent / "dask").keys() == finished(little.with_suffix("")).keys()
    assert cases.tables(little.parent / "dask") == cases.tables(little.with_suffix(""))


def test_a_run_that_diverges_takes_only_its_own_along(
    ground: Path, whole: Path, tmp_path: Path, pictures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    given = cases.study(ground)
    given["arms"].append({"name": "wild", "label": "too fast", "tune": {"learning_rate": 1e30, "schedule": "constant"}})
    lost = {"models": {"wild": 1, "pretrained": -1}, "statement": "It learns", "expect": "above"}
    given["contrasts"] += [
        {"name": "lost r", "measure": "r", "region": "low", **lost},
        {"name": "lost words", "measure": "word", **lost},
        {"name": "in place", "measure": "r", "region": "low", **lost, "models": {"tuned": 1}, "control": "wild"},
    ]
    assert cases.run(cases.written(tmp_path / "study.yaml", given), out) == 1
    said = capsys.readouterr()
    assert "models/A/wild: failed, " in said.out and "missing: scores of A/wild\n" in said.out
    assert "1 stage failed\n  models/A/wild: " in said.err and "because models/A/wild failed" in said.err
    assert not [name for name in finished(out) if "wild" in name]
    for name, key in (("scores", "model"), ("probes", "model"), ("change", "model"), ("findings", "name")):
        found, before = cases.table(out, name), cases.table(whole, name)
        pd.testing.assert_frame_equal(found[found[key].isin(before[key])][before.columns], before)
        assert set(found[key]) - set(before[key]) == ({"lost r", "lost words", "in place"} if name == "findings" else set())
    findings = cases.table(out, "findings").set_index("name")
    for name in ("lost r", "lost words", "in place"):
        assert findings.loc[name, "answer"] == "undecided" and "wild" in findings.loc[name, "reason"], name
        assert "not measured" in findings.loc[name, "reason"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "missing, because it is not finished: scores of A/wild" in page
    assert "It learns" in page and "r rises" in page
    assert cases.run(tmp_path / "study.yaml", out) == 1, "given again, it is tried again"


def test_a_sound_that_is_removed_after_the_checks_takes_its_corpus_along(
    ground: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = shutil.copytree(whole, tmp_path / "out"), shutil.copytree(ground / "commands", tmp_path / "commands")
    given = cases.study(ground)
    given["probes"]["corpora"]["commands"] = str(moved)
    check = studies.check_tasks

    def check_and_remove(*arguments: Any) -> Any:
        found = check(*arguments)
        next(moved.glob("yes/*.wav")).unlink()
        return found

    monkeypatch.setattr(studies, "check_tasks", check_and_remove)
    assert cases.run(cases.written(tmp_path / "study.yaml", given), out) == 1
    said = capsys.readouterr()
    assert "corpus-frames/commands/tiny: failed, " in said.out and "yes" in said.out
    assert "missing: probes of word/A/tuned\n" in said.out and "missing: scores" not in said.out
    probes, before = cases.table(out, "probes"), cases.table(whole, "probes")
    pd.testing.assert_frame_equal(probes, before.query("task != 'word'").reset_index(drop=True))
    assert (out / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    words = cases.table(out, "findings").set_index("name").loc["words"]
    assert words["answer"] == "undecided" and "not measured" in words["reason"] and np.isnan(words["value"])
    assert "probes of word" in (out / "index.html").read_text(encoding="utf-8")
    monkeypatch.undo()
    shutil.copytree(ground / "commands", moved, dirs_exist_ok=True)
    assert cases.run(tmp_path / "study.yaml", out) == 0
    assert cases.tables(out) == cases.tables(whole)
