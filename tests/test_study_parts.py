"""Parts of a study without its hours: networks beside ridge, corpora of words, hours of stories by arm, the long demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="studies need the extra 'tune'")
pytest.importorskip("yaml", reason="studies need the extra 'tune'")
pytest.importorskip("torch", reason="studies need the extra 'tune'")

from fastencode.cli.demo import demo_study, small_models
from fastencode.cli.settings import DemoConfig
from fastencode.errors import FastencodeWarning, InputError
from fastencode.runs.fits import Records
from fastencode.runs.studies.checks import check_study
from fastencode.runs.studies.config import MlpSettings, StudyConfig
from fastencode.runs.studies.names import Names
from fastencode.runs.studies.readings import models_of, readings_of
from fastencode.runs.studies.results import Results
from fastencode.runs.studies.stages import given_stages
from fastencode.runs.studies.typed import problems_of
from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.mlp import MlpScores
from fastencode.study.brains.tables import Label, contrast_rows
from fastencode.study.conditions import OWN, reference_label
from fastencode.study.config import AlignConfig, Contrast, MlpConfig
from fastencode.study.findings.contrasts import evaluate
from fastencode.study.findings.means import mean_rows
from fastencode.study.findings.measurements import BEYOND_LINEAR, MLP, Cell, Sample, measurements_of_mlp
from fastencode.study.findings.weighted import Planned
from fastencode.world.config import Participant, WorldConfig

REGIONS = {"auditory": np.arange(3), "late_language": np.arange(2)}
LAYERS, DRAWS = 6, 40
PERSON = {"name": "A", "auditory": 3, "late_language": 3, "silent": 2, "gain": 1.5, "peak_delay": 6.0}
SPEECH = {"train_speakers": 4, "validation_speakers": 1, "test_speakers": 2, "words": 18, "words_each": 9}
SPOKEN_TASKS = ["label:class@words", "label:speaker@words"]


def study(**given: Any) -> StudyConfig:
    problems, made = problems_of(StudyConfig, given)
    assert made is not None, problems
    return made.resolved()


def network(rng: np.random.Generator, *, linear: bool = True) -> MlpScores:
    """Made-up scores of two regions."""
    means = rng.uniform(0, 0.5, (3, 2))
    draws = means + 0.01 * rng.standard_normal((DRAWS, 3, 2))
    if not linear:
        means[2], draws[:, 2] = np.nan, np.nan
    none = np.zeros(3)
    rest = {name: np.zeros((2, 1)) for name in ("hidden", "weight_decay", "epochs")}
    return MlpScores(*means, draws, none, none, np.array(20.0), np.array(4), **rest, inner=np.zeros((2, 1, 2)))


def scores(rng: np.random.Generator, mean: float) -> LayerScores:
    """Made-up scores of two regions; the second is twice the first."""
    found = {name: np.zeros(0) for name in LayerScores.__dataclass_fields__}
    region = np.array([mean, 2 * mean])
    draws = region + 0.01 * rng.standard_normal((DRAWS, 2))
    found |= {"region": region, "region_normalized": region, "draws": draws, "draws_normalized": draws}
    return LayerScores(**{**found, "n_blocks": np.array(20.0)})


def results(config: StudyConfig, people: tuple[str, ...], found: Records) -> Results:
    """Whole runs make .4 h where .5 are asked for, and 2 h where 2 are; the second participant hears .05 h more."""
    heard = {0.5: 0.4, 2.0: 2.0}
    graph = SimpleNamespace(
        names=Names(config, people),
        config=config,
        heard=lambda run: {who: heard[run.hours] + 0.05 * place for place, who in enumerate(people)},
    )
    return Results(graph, found, {}, {}, [])  # type: ignore[arg-type]


# networks


def test_settings_of_a_network_are_those_of_its_layers_and_of_nothing_else() -> None:
    made = study(mlp={"layers": [2, 4], "hidden": [8], "seeds": [0, 1]}).mlp
    assert isinstance(made, MlpSettings) and made.layers == (2, 4)
    assert made.network == MlpConfig(hidden=(8,), seeds=(0, 1)) and type(made.network) is MlpConfig
    assert problems_of(StudyConfig, {"mlp": {"layers": [1, 1]}})[0] == [
        "mlp: layers=(1, 1): give different layer numbers from 0 on"
    ]
    assert problems_of(StudyConfig, {"mlp": {"layrs": [1]}})[0] == ["mlp.layrs: there is no such setting; did you mean layers?"]


def test_a_network_is_measured_against_ridge_and_against_itself_without_its_nonlinearity() -> None:
    rng = np.random.default_rng(0)
    one, other = network(rng), network(rng, linear=False)
    of = {"t-1": ("tuned", 1), "p": ("plain", 0)}
    found = measurements_of_mlp({(Label("t-1", (1,)), "P", 3): one, (Label("p", (1,)), "P", 3): other}, {"P": REGIONS}, of)
    assert len(found) == 6 and not [cell for cell in found if cell.measure == BEYOND_LINEAR and cell.model == "plain"]
    cell = Cell(MLP, "tuned", 1, "P", 3, "late_language")
    assert found[cell].value == one.mlp[1] - one.ridge[1] and not found[cell].correlation and found[cell].n_units == 20
    np.testing.assert_array_equal(found[cell].draws, [draw[1][1] - draw[0][1] for draw in one.draws])
    np.testing.assert_array_equal(found[cell._replace(measure=BEYOND_LINEAR)].draws, one.draws[:, 1, 1] - one.draws[:, 2, 1])


def test_a_network_that_adds_nothing_gains_exactly_zero() -> None:
    """Region means of equal predictions may differ in the last bit, as products of matrices are added up in another order."""
    one = network(np.random.default_rng(2))
    near = replace(one, mlp=np.nextafter(one.ridge, 1))
    near.draws[:, 1] = np.nextafter(near.draws[:, 0], 1)
    value, draws = near.gain("ridge", 1)
    assert value == 0 and not draws.any() and near.mlp[1] != near.ridge[1]
    assert near.gain("linear", 1)[0] == near.mlp[1] - near.linear[1] != 0


def test_thirds_of_a_measure_are_cut_of_the_layers_that_it_has() -> None:
    draws = np.zeros(DRAWS)
    found = {Cell(MLP, "m", 0, "P", layer, "x"): Sample(layer / 10, draws, 20, "blocks") for layer in (3, 4, 5)}
    asked = Contrast("c", MLP, {"m": 1}, "late", "x")
    planned = {MLP: Planned(["m"], ["x"], {"m": [3, 4, 5]})}
    (one,) = evaluate(found, [asked], 12, planned)
    assert one.value == pytest.approx(0.5) and one.layers == "late (5)"
    (unmeasured,) = evaluate(found, [asked], 12, {MLP: Planned(["m"], ["x"])})
    assert np.isnan(unmeasured.value) and unmeasured.n_units == 0  # thirds of 12 layers are others


def test_networks_of_seeds_are_averaged_and_answer_contrasts() -> None:
    rng = np.random.default_rng(1)
    arms = [{"name": "pretrained"}, {"name": "tuned", "tune": {}, "seeds": [0, 1]}]
    asked = [{"name": "c", "measure": MLP, "region": "late_language", "models": {"tuned": 1, "pretrained": -1}}]
    config = study(arms=arms, contrasts=asked, mlp={"layers": [4]}, probes={"tasks": []})
    mlps = {(Label(name, (1,)), "P", 4): network(rng) for name in ("pretrained", "tuned-seed-0", "tuned-seed-1")}
    before, first, second = mlps.values()
    ridges = {(label, "P", layer): scores(rng, 0.1) for label, *_ in mlps for layer in range(LAYERS)}
    found = results(config, ("P",), Records(ridges, {}, {}, {"P": REGIONS}, {"P": 100}, mlp=mlps))
    rows = {(row["model"], row["region"]): row for row in found.mlp_rows()}
    assert len(rows) == 4
    row = rows["tuned", "late_language"]
    assert row["r_mlp"] == pytest.approx((first.mlp[1] + second.mlp[1]) / 2) and row["layer"] == 4
    object.__setattr__(found.graph, "ground", SimpleNamespace(regions={"P": REGIONS}))
    (finding,) = found.findings()
    gain = [one.mlp[1] - one.ridge[1] for one in (first, second, before)]
    assert finding.value == pytest.approx((gain[0] + gain[1]) / 2 - gain[2])


def test_a_contrast_of_networks_that_nobody_fits_is_refused() -> None:
    asked = [{"name": "c", "measure": MLP, "region": "silent", "models": {"pretrained": 1}}]
    (line,) = check_study(study(contrasts=asked, probes={"tasks": []}))
    assert line == "contrasts[1].measure: 'mlp' is not measured without mlp: add it to the study"
    beyond = [{**asked[0], "measure": BEYOND_LINEAR}]
    (line,) = check_study(study(contrasts=beyond, probes={"tasks": []}, mlp={"linear": False}))
    assert "is not measured without mlp.linear" in line
    assert check_study(study(contrasts=beyond, probes={"tasks": []}, mlp={})) == []


def test_a_dry_run_of_a_world_that_is_not_made_names_every_kind_of_stage(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="studies need the extra 'tune'")
    from fastencode.runs.studies.foreseen import foresee_study
    from speech_cases import saved_model

    config = study(
        world={"minutes": 1.4, "story_minutes": 1.4, "test_minutes": 1.4, "participants": [PERSON]},
        models={"tiny": str(saved_model(tmp_path / "tiny", "wav2vec2"))},
        arms=[{"name": "pretrained"}, {"name": "tuned", "tune": {"clip_seconds": 2.0}, "hours": [0.02]}],
        mlp={"layers": [0, 1]},
        probes={"tasks": SPOKEN_TASKS, "corpora": {"words": "demo"}, "low_level": False},
    )
    found = foresee_study(tmp_path / "out", config, None)
    assert {one.kind: one.count for one in found} == {
        "world": 1, "corpora": 1, "frames": 1, "models": 1, "features": 2, "fits": 2 * 3, "mlp": 2 * 2, "corpus-frames": 1,
        "pooled": 2, "probes": 4, "change": 1,
    }  # fmt: skip
    assert all(0 < one.cost.seconds < 1000 for one in found), found
    shared = next(one for one in found if one.kind == "corpus-frames")
    # 48 speakers say 30 words of a second each; a frame of 8 channels every 40 samples
    assert shared.cost.disk == pytest.approx(48 * 30 * (16000 / 40) * 8 * 4, rel=0.01)
    assert not (tmp_path / "out").exists()
    config = replace(config, probes=replace(config.probes, frames=0.0))
    without = {one.kind: one.cost for one in foresee_study(tmp_path / "out", config, None)}
    assert "corpus-frames" not in without and without["pooled"].disk == pytest.approx(2 * 48 * 30 * 3 * 16 * 4)


def test_work_that_is_tried_in_part_counts_as_a_whole() -> None:
    """Times by a clock that counts calls: of rows beyond those that are tried, only the ratio of sizes is left."""
    from fastencode.runs.studies import rehearsal

    with pytest.MonkeyPatch.context() as patch:
        ticks = iter(range(10_000))
        patch.setattr(rehearsal, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
        assert rehearsal.probing("classification", 600, 8, 2, control=False) == 1.0
        # 5e6 values are tried: 5e6 / (50 * 100) = 1000 rows of 4000
        assert rehearsal.probing("regression", 4000, 50, 100, control=False) == 4.0
        assert rehearsal.change(800, 4) == 2.0 and rehearsal.change(10**6, 4) == 10.0
        align = AlignConfig(bootstraps=20, delays=(1,), alphas=(1.0, 10.0), folds=2)
        assert rehearsal.fit(50, 40, 4, 900, 1, align)[1] == 3.0
        one = rehearsal.network(400, 40, 4, 300, 1, align, MlpConfig(epochs=1, patience=1))
        assert one == 1.0
        many = rehearsal.network(1200, 40, 4, 300, 1, align, MlpConfig(epochs=1, patience=1))
        assert many == pytest.approx(3.0)


# corpora


def test_corpora_of_words_are_spoken_once() -> None:
    tasks = ["word", "label:class@words", "label:class@unheard_words", "phonemes"]
    corpora = {"timit": "demo", "commands": "demo", "words": "demo", "unheard_words": "demo"}
    config = study(probes={"tasks": tasks, "corpora": corpora, "low_level": False})
    assert [stage.name for stage in given_stages(config)] == ["world", "corpora/commands", "corpora/timit"]
    (line,) = check_study(study(probes={"tasks": ["label:a@mine"], "corpora": {"mine": "demo"}}))
    assert "probes.corpora.mine: only timit, commands, words, unheard_words can be made (demo)" in line
    french = study(probes={"tasks": ["phonemes", "word"], "speech": {"language": "fr"}})
    assert check_study(french) == [
        "probes.tasks: phonemes: the synthesized TIMIT is English only; use phonemes@commands, or leave it out"
    ]


# hours


def test_hours_are_one_line_for_each_arm_and_what_it_is_tuned_from_has_none() -> None:
    arms = [
        {"name": "pretrained"},
        {"name": "tuned", "label": "T", "tune": {}, "hours": [0.5, 2], "seeds": [0, 1], "epochs": [1]},
    ]
    config = study(arms=arms, probes={"tasks": []})
    rng, means = np.random.default_rng(2), {"pretrained": 0.1}
    for hours, mean in (("0.5", 0.2), ("2", 0.3)):
        for seed in (0, 1):
            means[f"tuned-{hours}h-seed-{seed}"] = mean + 0.02 * seed
            means[f"tuned-{hours}h-seed-{seed}-epoch-1"] = 0.9
    scored = {
        (Label(name, (1,)), who, layer): scores(rng, mean if layer >= 4 else 0.0)
        for name, mean in means.items()
        for who in "PQ"
        for layer in range(LAYERS)
    }
    found = results(config, ("P", "Q"), Records(scored, {}, {}, {"P": REGIONS, "Q": REGIONS}, {"P": 9, "Q": 9}))
    rows = {(row["model"], row["participant"], row["region"], row["hours"]): row["r"] for row in found.scaling_rows()}
    assert {key[0] for key in rows} == {"pretrained", "tuned"} and len(rows) == 3 * 2 * 2
    each = {(row["participant"], row["asked"]): (row["heard"], row["hours"]) for row in found.scaling_rows()}
    assert (
        each["Q", 2.0] == pytest.approx((2.05, 2.025))
        and each["P", 0.5] == pytest.approx((0.4, 0.425))
        and each["P", 0.0] == (0, 0)
    )
    (said,) = found.warnings()
    assert said == "T, 0.5 h: whole runs make other hours than 0.5: P 0.4 h, Q 0.45 h; tables and curves count these"
    for who in "PQ":
        line = [rows["pretrained", who, "auditory", 0.0], *(rows["tuned", who, "auditory", hours] for hours in (0.425, 2.025))]
        assert line == pytest.approx([0.1, 0.21, 0.31])
        assert rows["tuned", who, "late_language", 2.025] == pytest.approx(0.62)
    known = {one.model: one.label for one in models_of(readings_of(config))}
    assert known["tuned"] == "T" and next(iter(known)) == "pretrained"
    without = study(arms=[{"name": "pretrained"}, {"name": "tuned", "tune": {}}], probes={"tasks": []})
    assert results(without, ("P",), Records({}, {}, {}, {}, {})).scaling_rows() == []


# several models


def test_each_model_is_compared_with_itself_before_tuning() -> None:
    """Two models in one study: hubert-tuned − hubert-pretrained, by hand; never one model less another one."""
    arms = [{"name": "tuned", "tune": {}, "seeds": [0, 1]}, {"name": "pretrained"}]
    config = study(models={"small": "small", "hubert": "random:small"}, arms=arms, probes={"tasks": []})
    rng = np.random.default_rng(3)
    means = {"small-pretrained": 0.1, "hubert-pretrained": 0.3}
    means |= {
        f"{model}-tuned-seed-{seed}": means[f"{model}-pretrained"] + 0.05 for model in ("small", "hubert") for seed in (0, 1)
    }
    scored = {(Label(name, (1,)), who, 0): scores(rng, mean) for name, mean in means.items() for who in "PQ"}
    found = results(config, ("P", "Q"), Records(scored, {}, {}, {"P": REGIONS, "Q": REGIONS}, {"P": 9, "Q": 9}))
    columns = found.found.columns
    means_of = [row for row in mean_rows(found.scored, columns, found.before) if row["versus"] != "0"]
    for rows, value in ((contrast_rows(found.scored, columns, found.before), "difference"), (means_of, "mean")):
        assert {(row["model"], row["versus"]) for row in rows} == {
            (f"{model}-tuned", f"{model}-pretrained") for model in ("small", "hubert")
        }
        assert all(row[value] == pytest.approx(0.05 if row["region"] == "auditory" else 0.1) for row in rows)
    conditions = models_of(readings_of(config))
    assert reference_label(["small-pretrained", "hubert-pretrained"], conditions) == OWN
    assert reference_label(["0", "small-pretrained"], conditions) == "small, pretrained"


# the long demo


def test_the_long_demo_asks_each_question_of_three_models() -> None:
    config = DemoConfig(full=True).resolved()
    assert config == config.resolved() and (config.seeds, config.controls, len(config.world.participants)) == (3, 3, 4)
    stages = small_models(config)
    assert [stage.name for stage in stages] == ["small-models/hubert", "small-models/whisper"]
    assert [stage.settings["pretraining"].family for stage in stages] == ["hubert", "whisper"]
    made = {stage.name: Path("out", stage.name) for stage in stages}
    found = demo_study(config, made)
    assert dict(found.models) == {"small": "small", "hubert": "out/small-models/hubert", "whisper": "out/small-models/whisper"}
    names = Names(found.resolved(), [who.name for who in found.world.participants])
    assert len(names.models) == 3 * 4 * (3 + 3) and len(names.features) == 3 + len(names.models)
    short = demo_study(DemoConfig().resolved(), {})
    assert len(found.contrasts) == 3 * len(short.contrasts)
    conditions = {reading.condition for reading in names.readings} | {*found.baselines}
    for one in found.contrasts:
        assert {*one.models, *([one.control] if one.control else [])} <= conditions
    of_hubert = next(one for one in found.contrasts if one.name == "hubert-late-rise")
    assert dict(of_hubert.models) == {"hubert-tuned": 1, "hubert-pretrained": -1} and of_hubert.control == "hubert-control"


def test_the_demo_keeps_its_names_and_what_is_given_counts_more_than_full() -> None:
    short = demo_study(DemoConfig(seeds=2).resolved(), {})
    assert dict(short.models) == {"small": "small"} and short.contrasts[0].models.keys() == {"tuned", "pretrained"}
    assert [arm.seeds for arm in short.arms] == [(0,), (0, 1), (1,)]
    one = (Participant("A", 1, 1, 1, 1.0, 5.0),)
    given = DemoConfig(full=True, seeds=2, controls=4, world=WorldConfig(participants=one)).resolved()
    assert (given.seeds, given.controls, given.world.participants) == (2, 4, one)
    again = DemoConfig(pretrain=True).resolved()
    (stage,) = small_models(again)
    assert stage.name == "small-model" and demo_study(again, {stage.name: Path("made")}).models == {"small": "made"}
    with pytest.raises(InputError, match="full brings models of its own"):
        replace(again, full=True)


# all of it


def test_a_study_fits_networks_of_chosen_layers_and_probes_words_and_speakers(tmp_path: Path) -> None:
    for library in ("espeakng_loader", "soundfile", "transformers"):
        pytest.importorskip(library, reason="the demo's world needs the extra 'demo'")
    from fastencode.runs.engine import Stages
    from fastencode.runs.studies.study import run_study
    from speech_cases import saved_model

    given = {
        "world": {"minutes": 1.4, "story_minutes": 1.4, "test_minutes": 1.4, "participants": [PERSON]},
        "models": {"tiny": str(saved_model(tmp_path / "tiny", "wav2vec2"))},
        "tune": {"clip_seconds": 2.0},
        "align": {"bootstraps": 20, "delays": [1, 2], "alphas": [1.0, 100.0], "folds": 2},
        "arms": [{"name": "pretrained"}],
        "mlp": {"layers": [1], "hidden": [4], "weight_decays": [0.01], "epochs": 2, "held_out": 0.3},
        "probes": {"tasks": SPOKEN_TASKS, "corpora": {"words": "demo"}, "low_level": False, "speech": SPEECH},
        "contrasts": [{"name": "c", "measure": "mlp", "region": "auditory", "layers": "all", "models": {"pretrained": 1}}],
    }
    stages = Stages(tmp_path / "out")
    with pytest.warns(FastencodeWarning, match="a fifth of each speaker's recordings"):
        found = run_study(stages, study(**given))
    stages.check()
    assert sorted(found.found.mlp) == [(Label("pretrained", (1, 2)), "A", 1)] and len(found.found.scores) == 3
    rows = found.tables()["mlp"]
    assert {(row["layer"], row["region"]) for row in rows} == {(1, name) for name in ("auditory", "late_language", "silent")}
    (finding,) = found.findings()
    assert finding.layers == "all (1)" and finding.value == next(row["difference"] for row in rows if row["region"] == "auditory")
    by_task = {row["task"]: row for row in found.tables()["probes"]}
    speakers, words = by_task["label:speaker@words"], by_task["label:class@words"]
    assert (speakers["n_train"], speakers["n_test"], speakers["unit"]) == (7 * 7, 7 * 2, "utterances")
    assert (words["n_train"], words["n_test"], words["unit"]) == (5 * 9, 2 * 9, "speakers")
