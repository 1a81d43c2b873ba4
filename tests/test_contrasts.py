"""Contrasts: sums by hand, names that are not measured, and how often intervals and answers are right in known worlds."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import scipy.stats

from contrast_cases import made_up, world
from fastencode.errors import InputError
from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.tables import Label
from fastencode.study.findings.contrasts import (
    Cell,
    Contrast,
    Finding,
    Sample,
    evaluate,
    finding_rows,
    part_rows,
    verdicts_of,
)
from fastencode.study.findings.measurements import NOBODY, measurements_of_probes, measurements_of_scores
from fastencode.study.findings.summary import summary
from fastencode.study.findings.weighted import Planned, contrast_problems
from fastencode.study.inference.blocks import interval, mean_draws
from fastencode.study.inference.significance import signed_rank

UP = {"tuned": 1.0, "pretrained": -1.0}


def rise(name: str = "rise", models: dict[str, float] = UP, layers: object = "late", **settings: object) -> Contrast:
    asked = {"measure": "r", "region": "region", "statement": "It rises.", "expect": "above"} | settings
    return Contrast(name=name, models=models, layers=layers, **asked)  # type: ignore[arg-type]


def cells(models: dict[str, int], people: list[str], layers: int, regions: list[str], measure: str = "r") -> list[Cell]:
    """All of them; model → number of seeds, 1 on, or 0 for seed 0 alone."""
    return [
        Cell(measure, model, seed, who, layer, region)
        for (model, n), who, layer, region in product(models.items(), people, range(layers), regions)
        for seed in (range(1, n + 1) if n else [0])
    ]


def test_what_cancels_exactly_is_zero_and_decides_nothing() -> None:
    """(a + b + c) / 3 − (a + b + c) / 3 in another order leaves some 1e-17 in float64; so do its draws."""
    before = made_up(np.random.default_rng(3), cells({"pretrained": 0}, ["A", "B"], 9, ["x"]))
    both = before | {cell._replace(model="tuned"): sample for cell, sample in before.items()}
    (finding,) = evaluate(both, [rise(layers={"late": 1, "middle": -1, "early": 0.3}, region="x")], 9)
    assert (finding.value, finding.low, finding.high, finding.p) == (0, 0, 0, 1) and finding.answer == "undecided"


def test_a_contrast_is_the_sum_by_hand() -> None:
    """Late − middle, two regions, a model of three seeds: in loops over single cells, and draws in the same loops."""
    rng = np.random.default_rng(0)
    found = made_up(rng, cells({"pretrained": 0, "tuned": 3}, ["A", "B"], 9, ["x", "y", "z"]))
    asked = rise(layers={"late": 1, "middle": -0.5}, region=["x", "z"])
    (finding,) = evaluate(found, [asked], 9)

    def by_hand(take, who: str, seeds: list[int]) -> np.ndarray:
        total = 0.0
        for model, sign in UP.items():
            for layers, weight in (((6, 7, 8), 1), ((3, 4, 5), -0.5)):
                of = seeds if model == "tuned" else [0]
                every = [take(found[Cell("r", model, s, who, k, at)]) for s in of for k in layers for at in ("x", "z")]
                total = total + sign * weight * np.mean(every, axis=0)
        return np.asarray(total)

    each = {who: float(by_hand(lambda one: one.value, who, [1, 2, 3])) for who in "AB"}
    assert finding.by_participant == pytest.approx(each)
    draws = mean_draws([by_hand(lambda one: one.draws, who, [1, 2, 3]) for who in "AB"], [20, 20])
    low, high = interval(np.mean([*each.values()]), draws, 20, correlation=False)
    assert (finding.value, finding.low, finding.high) == pytest.approx((np.mean([*each.values()]), low, high))
    for seed in (1, 2, 3):
        wanted = np.mean([by_hand(lambda one: one.value, who, [seed]) for who in "AB"])
        assert finding.by_seed[seed] == pytest.approx(wanted)
    assert (finding.unit, finding.n_units, finding.region) == ("blocks", 20, "x, z")
    assert finding.layers == "late (6 to 8) − 0.5 × middle (3 to 5)" and finding.models == "tuned − pretrained"
    (row,) = finding_rows([finding])
    assert set(row) == {field.name for field in fields(Finding)} and row["by_seed"].startswith("1 ")
    assert [(part["part"], part["which"]) for part in part_rows([finding])] == [
        *(("participant", who) for who in "AB"),
        *(("seed", seed) for seed in "123"),
    ]


def test_draws_of_two_models_are_subtracted_one_by_one() -> None:
    """Models that rise and fall together on the same blocks differ surely, although each is unsure."""
    rng = np.random.default_rng(0)
    both = rng.normal(0, 0.05, 400)
    found = {
        Cell("r", model, 0, "A", 0, "region"): Sample(value, value + both + rng.normal(0, 0.002, 400), 20, "blocks")
        for model, value in (("pretrained", 0.2), ("tuned", 0.22))
    }
    (finding,) = evaluate(found, [rise()], 1)
    half = scipy.stats.t.ppf(0.975, 19) * 0.002 * math.sqrt(2)
    assert (finding.low, finding.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-3)
    assert finding.answer == "yes"


def test_participants_are_the_unit_from_five_on_and_seeds_never_are() -> None:
    """Without noise of the test data: Student's interval of people's means over seeds, and the exact signed-rank test."""
    rng = np.random.default_rng(1)
    people = rng.normal(0.03, 0.02, 6)
    found = {}
    for cell in cells({"pretrained": 0, "tuned": 4}, [f"P{i}" for i in range(6)], 1, ["region"]):
        value = 0.2 + (people[int(cell.participant[1])] + (cell.seed - 2.5) * 0.05 if cell.model == "tuned" else 0)
        found[cell] = Sample(value, np.full(30, value), 20, "blocks", True)
    (finding,) = evaluate(found, [rise()], 1)
    half = scipy.stats.t.ppf(0.975, 5) * people.std(ddof=1) / math.sqrt(6)
    assert (finding.unit, finding.n_units) == ("participants", 6)
    assert (finding.low, finding.high) == pytest.approx((people.mean() - half, people.mean() + half))
    test = signed_rank(people)
    assert (finding.p_signed_rank, finding.p_smallest) == (test.p, 1 / 32)
    assert finding.p == finding.p_holm == pytest.approx(scipy.stats.ttest_1samp(people, 0).pvalue)
    assert finding.by_seed == pytest.approx({s: people.mean() + (s - 2.5) * 0.05 for s in (1, 2, 3, 4)})
    four = {cell: one for cell, one in found.items() if cell.participant < "P4"}
    assert evaluate(four, [rise()], 1)[0].unit == "blocks"
    (forced,) = evaluate(four, [rise(unit="participants")], 1)
    assert (forced.unit, forced.n_units, forced.p_smallest) == ("participants", 4, 0.125)
    assert "cannot reach p = .05: the smallest is 0.125" in forced.reason
    assert evaluate(found, [rise(unit="blocks")], 1)[0].n_units == 20


@pytest.mark.parametrize(("people", "rho"), [(1, 0.6), (1, 0.9), (4, 0.75), (8, 0.6), (8, 0.9)])
def test_intervals_cover_at_the_autocorrelation_of_scans(people: int, rho: float) -> None:
    """.95 intervals hold the true difference .88 to .98 of the time (``bench/contrasts.py`` has .91 to .94 of 400 worlds)."""
    held, alone = [], []
    for seed in range(100):
        measured, truth = world(
            np.random.default_rng(seed), {"pretrained": 0.5, "tuned": 0.5}, people=people, rho=rho, alike=0.8, one_for_all=True
        )
        (finding,) = evaluate(measured, [rise()], 1)
        true = 0.0 if people == 8 else float(np.mean(truth["tuned"] - truth["pretrained"]))
        held.append(finding.low <= true <= finding.high)
        values = np.array([*finding.by_participant.values()])
        if people == 8:
            alone.append(abs(values.mean()) <= scipy.stats.t.ppf(0.975, 7) * values.std(ddof=1) / math.sqrt(8))
    assert 0.88 <= np.mean(held) <= 0.98
    assert not alone or np.mean(alone) < 0.85, "a story that all hear needs no interval of its own?"


def test_a_control_that_rises_as_much_makes_no_effect() -> None:
    """Tuned and control rise alike by many errors: hardly ever "yes"; without one nearly always, and if only tuned rises."""
    answers: dict[str, list[str]] = {"control alike": [], "no control": [], "effect": []}
    for seed in range(60):
        measured, _ = world(
            np.random.default_rng(seed),
            {"pretrained": 0.4, "tuned": 0.75, "control": 0.75, "idle": 0.4},
            people=4,
            rho=0.6,
            seeds={"control": 2},
            spread=0.02,
        )
        found = evaluate(measured, [rise("a", control="control"), rise("b"), rise("c", control="idle")], 1)
        for kind, one in zip(answers, found, strict=True):
            answers[kind].append(one.answer)
        assert found[0].value == pytest.approx(found[0].control_value + found[0].over_control)
    assert answers["control alike"].count("yes") <= 6 and answers["control alike"].count("undecided") >= 45
    assert answers["no control"].count("yes") >= 57 and answers["effect"].count("yes") >= 54


@pytest.mark.parametrize("seeds", [{"tuned": 3, "control": 3}, {"tuned": 3}])
def test_a_control_that_was_unlucky_makes_no_effect(seeds: dict[str, int]) -> None:
    """Seeds move tuned and control by more than blocks do: hardly ever "yes"; of the interval of these seeds alone, often."""
    rng, answers, plain = np.random.default_rng(0), [], []
    for _ in range(200):
        found, shared = {}, rng.standard_normal(100)
        for model, value in (("pretrained", 0.1), ("tuned", 0.3), ("control", 0.3)):
            for seed in range(1, 1 + seeds.get(model, 1)):
                one = value + (0.0 if model == "pretrained" else 0.03 * rng.standard_normal())
                draws = one + 0.02 * shared + 0.004 * rng.standard_normal(100)
                found[Cell("r", model, seed, "A", 0, "region")] = Sample(one, draws, 20, "blocks")
        (finding,) = evaluate(found, [rise(control="control")], 1)
        answers.append(finding.answer)
        of = [np.mean([s.draws for c, s in found.items() if c.model == model], axis=0) for model in ("tuned", "control")]
        plain.append(finding.over_control > scipy.stats.t.ppf(0.975, 19) * np.std(of[0] - of[1], ddof=1))
    assert answers.count("yes") <= 0.06 * 200 and np.mean(plain) > 0.2


@pytest.mark.parametrize("people", [1, 6])
def test_nothing_is_found_where_there_is_nothing(people: int) -> None:
    """Hardly more than 2.5 % of answers are "yes", and of families of eight contrasts about as many hold one; alone, far more."""
    alone, together, family = [], [], []
    for seed in range(60 if people == 1 else 40):
        measured, _ = world(
            np.random.default_rng(seed),
            {"pretrained": 0.5, "tuned": 0.5},
            people=people,
            rho=0.7,
            layers=8,
            spread=0.02 * (people > 1),
        )
        found = evaluate(measured, [rise(f"{k}", layers=[k]) for k in range(8)], 8)
        alone.append([one.answer == "yes" for one in found])
        together.append([one.answer == "yes" for one in evaluate(measured, [rise(layers="all")], 8)])
        family.append(
            [one.answer == "yes" for one in evaluate(measured, [rise(f"{k}", layers=[k], family="f") for k in range(8)], 8)]
        )
    assert np.mean(alone) <= 0.06 and np.mean(together) <= 0.1
    assert np.mean(np.any(family, axis=1)) <= 0.08 < np.mean(np.any(alone, axis=1))


def one_sample(value: float, error: float, rng: np.random.Generator) -> Sample:
    draws = rng.standard_normal(200)
    return Sample(value, value + error * (draws - draws.mean()) / draws.std(ddof=1), 21, "speakers")


def test_answers_follow_from_intervals_and_families_from_holm() -> None:
    rng, half = np.random.default_rng(0), scipy.stats.t.ppf(0.975, 20)
    error = 0.1 / half  # .95 intervals reach .1 to both sides
    found = {
        Cell("word", f"m{i}", 0, NOBODY, 0): one_sample(v, error, rng) for i, v in enumerate((0.101, 0.099, -0.2, 0.12, 0.15))
    }

    def ask(model: str, **settings: object) -> Finding:
        asked = rise(models={model: 1.0}, measure="word", region="", **settings)
        return evaluate(found, [asked], 1)[0]

    assert [ask(f"m{i}").answer for i in range(3)] == ["yes", "undecided", "no"]
    assert [ask(f"m{i}", expect="below").answer for i in range(3)] == ["no", "undecided", "yes"]
    assert [ask("m0", expect="within", limit=limit).answer for limit in (0.202, 0.2)] == ["yes", "undecided"]
    assert ask("m2", expect="within", limit=0.09).answer == "no"
    nearer = ask("m0", expect="within", limit=0.202)
    assert nearer.p == pytest.approx(2 * scipy.stats.t.sf(0.101 / error, 20)) and nearer.p < 0.05, "against the nearer limit"
    assert ask("m0", limit=-0.01).answer == "yes" and ask("m0", limit=0.01).answer == "undecided"
    unasked = ask("m0", expect=None, statement="")
    assert unasked.answer == "" and unasked.verdict() is None and verdicts_of([unasked]) == []
    assert ask("m0").unit == "speakers" and ask("m0").n_units == 21 and ask("m0").by_participant == {NOBODY: pytest.approx(0.101)}
    for one in (ask("m0"), ask("m1"), ask("m2")):
        assert one.p == pytest.approx(2 * scipy.stats.t.sf(abs(one.value) / error, 20))
        verdict = one.verdict()
        assert verdict is not None and (verdict.answer, verdict.measured) == (one.answer, one.value)
    # Three in one family: .15 is beyond 1 − .05 / 3, .12 beyond 1 − .05 / 2, .101 beyond .95.
    asked = [rise(m, {m: 1.0}, measure="word", region="", family="f") for m in ("m0", "m3", "m4")]
    assert [one.answer for one in evaluate(found, asked, 1)] == ["yes"] * 3
    assert [one.level for one in evaluate(found, asked, 1)] == pytest.approx([0.95, 0.975, 1 - 0.05 / 3])
    with_m1 = [rise(m, {m: 1.0}, measure="word", region="", family="f") for m in ("m0", "m3", "m1")]
    assert [one.answer for one in evaluate(found, with_m1, 1)] == ["undecided"] * 3
    p = [ask(m).p for m in ("m0", "m3", "m1")]
    assert [one.p_holm for one in evaluate(found, with_m1, 1)] == pytest.approx(
        [max(3 * p[1], 2 * p[0]), 3 * p[1], max(2 * p[0], p[2])]
    )
    assert "The .9833 interval holds 0." in evaluate(found, with_m1, 1)[1].reason


def test_reasons_say_what_the_control_shows() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(400) * 0.001

    def of(tuned: float, control: float) -> Finding:
        values = {"pretrained": 0.2, "tuned": tuned, "control": control}
        found = {
            Cell("r", m, 0, "A", 0, "region"): Sample(v, v + shared + rng.normal(0, 0.01, 400), 20, "blocks")
            for m, v in values.items()
        }
        return evaluate(found, [rise(control="control")], 1)[0]

    too, may, more, alone = of(0.3, 0.3), of(0.24, 0.215), of(0.3, 0.4), of(0.3, 0.2)
    assert (too.answer, may.answer, more.answer, alone.answer) == ("undecided", "undecided", "no", "yes")
    assert "tuned − control holds 0. The control shows it too." in too.reason
    assert "The control may show it too." in may.reason
    assert "tuned − control lies below 0." in more.reason and "The interval lies above 0." in more.reason
    assert alone.reason == "The interval lies above 0. That of tuned − control lies above 0."
    assert too.control_low > 0 and too.over_control_low < 0 < too.over_control_high
    part = of(0.4, 0.3)
    assert part.answer == "yes" and "The control shows a part of it, too" in part.reason
    row = {**finding_rows([part])[0], "expect": "above", "limit": 0.0}
    pd = pytest.importorskip("pandas")
    _, [held] = summary(pd.DataFrame([row]), {})
    assert "The control shows +0.100" in held.findings[0].more


def test_what_is_shared_and_what_is_missing() -> None:
    """A pretrained model's probe stands for everybody; who lacks something is left out by name; nobody left is undecided."""
    people = [f"P{i}" for i in range(6)]
    rng = np.random.default_rng(0)
    found = made_up(
        rng, cells({"tuned": 2}, people, 3, [""], "word") + cells({"pretrained": 0}, [NOBODY], 3, [""], "word"), unit="speakers"
    )
    asked = rise(measure="word", region="")
    (finding,) = evaluate(found, [asked], 3)
    assert finding.unit == "participants" and list(finding.by_participant) == people
    before = found[Cell("word", "pretrained", 0, NOBODY, 2)].value
    wanted = np.mean([found[Cell("word", "tuned", seed, "P3", 2)].value for seed in (1, 2)]) - before
    assert finding.by_participant["P3"] == pytest.approx(wanted)
    less = {cell: one for cell, one in found.items() if (cell.participant, cell.layer) != ("P3", 2)}
    (without,) = evaluate(less, [asked], 3)
    assert without.n_units == 5 and "P3" not in without.by_participant
    assert "P3 is left out: tuned, layer 2 is not measured." in without.reason
    one_seed = {cell: one for cell, one in found.items() if (cell.participant, cell.seed, cell.layer) != ("P3", 2, 2)}
    assert list(evaluate(one_seed, [asked], 3)[0].by_seed) == [1]
    nan = {cell: replace(one, value=math.nan) if cell.model == "tuned" else one for cell, one in found.items()}
    (nothing,) = evaluate(nan, [asked], 3)
    assert nothing.answer == "undecided" and math.isnan(nothing.value) and nothing.n_units == 0 and "left out" in nothing.reason
    assert nothing.verdict().number == "not measured"
    planned = {"word": Planned(["tuned", "pretrained", "late"], [""])}
    (unmade,) = evaluate(found, [rise(models={"late": 1}, measure="word", region="")], 3, planned)
    assert unmade.answer == "undecided" and "late, layer 2 is not measured" in unmade.reason


def test_thirds_are_those_of_each_model_and_one_layer_is_all_of_them() -> None:
    layers = {"large": 9, "base": 6, "mfcc": 1}
    found = {
        Cell("word", model, 0, NOBODY, layer): Sample(layer / 100, np.zeros(9), 10, "speakers")
        for model, n in layers.items()
        for layer in range(n)
    }
    ask = {"measure": "word", "region": "", "expect": None}
    late, low, every, none = evaluate(
        found,
        [
            rise("late", {"large": 1, "base": -1}, **ask),
            rise("low", {"base": 1, "mfcc": -1}, "middle", **ask),
            rise("every", {"large": 1}, "all", **ask),
            rise("none", {"mfcc": 1}, {"late": 1, "middle": -1}, **ask),
        ],
        layers,
    )
    assert [one.value for one in (late, low, every, none)] == pytest.approx([0.07 - 0.045, 0.025, 0.04, 0])
    assert late.layers == "late (6 to 8)"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (rise(models={"tunde": 1}), "no condition 'tunde' in 'r'; did you mean tuned?"),
        (rise(control="contrl"), "no condition 'contrl' in 'r'; did you mean control?"),
        (rise(region="late_langauge"), "no region 'late_langauge' in 'r'; did you mean late_language?"),
        (rise(region=["auditory", "x"]), "no region 'x' in 'r'; choose from auditory, late_language, region"),
        (rise(measure="phonems", region=""), "'phonems' is not measured; did you mean phonemes?"),
        (rise(measure="phonemes", region="auditory"), "no region 'auditory' in 'phonemes'; leave it out"),
        (rise(layers="middle"), "'tuned' has 4 layers, and none of them is in the middle third"),
        (rise(layers=[1, 4]), "layer 4 of 'tuned' is not measured: choose from 0 to 3"),
    ],
)
def test_names_that_are_not_measured(asked: Contrast, said: str) -> None:
    regions = ["auditory", "late_language", "region"]
    found = made_up(np.random.default_rng(0), cells({"tuned": 0, "pretrained": 0, "control": 0}, ["A"], 4, regions))
    found |= made_up(np.random.default_rng(0), cells({"tuned": 0, "pretrained": 0}, ["A"], 4, [""], "phonemes"))
    with pytest.raises(InputError) as error:
        evaluate(found, [asked, rise("other", models={"moon": 1})], 4)
    assert said in str(error.value) and "contrast 'other': there is no condition 'moon'" in str(error.value), "both at once"
    planned = {"r": Planned(["tuned", "pretrained"], ["region"])}
    assert contrast_problems([rise(), rise()], planned, 4) == ["two contrasts are called 'rise': tables need a name for each"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": " "}, "needs its name"),
        ({"models": {}}, "models is {}; give a weight"),
        ({"models": {"tuned": 0}}, "the weight of 'tuned' must be a number other than 0"),
        ({"models": {"tuned": True}}, "the weight of 'tuned'"),
        ({"layers": "lat"}, "layers is 'lat'; did you mean late?"),
        ({"layers": {"late": 1, "mid": -1}}, "layers is 'mid'; did you mean middle?"),
        ({"layers": [2, 2]}, "give different layer numbers"),
        ({"layers": []}, "give different layer numbers"),
        ({"layers": 3}, "give different layer numbers"),
        ({"region": []}, "give the name of a region"),
        ({"region": ["x", "x"]}, "a list of different names"),
        ({"expect": "abov"}, "did you mean above?"),
        ({"unit": "people"}, "choose from auto, participants, blocks"),
        ({"limit": math.nan}, "give a finite number"),
        ({"expect": "within"}, "needs a positive one"),
        ({"statement": ""}, "before it is measured"),
        ({"control": "tuned"}, "name a condition that is none of its models"),
        ({"family": ""}, "name the family"),
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        rise(**wrong)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_what_cannot_be_paired_is_refused() -> None:
    found = made_up(np.random.default_rng(0), cells({"pretrained": 0, "tuned": 0}, ["A"], 1, ["region"]))
    tuned = Cell("r", "tuned", 0, "A", 0, "region")
    for other in ({"draws": np.zeros(49)}, {"n_units": 19.0}, {"unit": "speakers"}):
        with pytest.raises(InputError, match=r"'tuned'.*: differences need draws of the same units"):
            evaluate(found | {tuned: replace(found[tuned], **other)}, [rise()], 1)  # type: ignore[arg-type]
    few = {cell: replace(one, n_units=3.5) for cell, one in found.items()}
    (finding,) = evaluate(few, [rise(control=None)], 1)
    assert finding.answer == "undecided" and math.isnan(finding.low) and "too few blocks" in finding.reason
    nobody = {cell._replace(participant=NOBODY): one for cell, one in found.items()}
    assert "too few participants" in evaluate(nobody, [rise(unit="participants")], 1)[0].reason


def test_measurements_of_scores_and_probes() -> None:
    rng, empty = np.random.default_rng(0), {field.name: np.zeros(0) for field in fields(LayerScores)}

    def scores(normalized: float) -> LayerScores:
        given = {"region": rng.random(2), "region_normalized": np.array([normalized, math.nan]), "n_blocks": np.array(17.5)}
        return LayerScores(**empty | given | {"draws": rng.random((9, 2)), "draws_normalized": rng.random((9, 2))})

    scored = {(Label("tuned-2", (1, 2)), "A", 3): scores(0.4), (Label("pretrained", (1, 2)), "A", 3): scores(0.3)}
    found = measurements_of_scores(scored, {"A": ["x", "y"]}, {"tuned-2": ("tuned", 2)})
    one = scored[Label("tuned-2", (1, 2)), "A", 3]
    sample = found[Cell("r", "tuned", 2, "A", 3, "y")]
    assert (sample.value, sample.n_units, sample.unit, sample.correlation) == (one.region[1], 17.5, "blocks", True)
    np.testing.assert_array_equal(sample.draws, one.draws[:, 1])
    normalized = found[Cell("r_normalized", "pretrained", 0, "A", 3, "x")]
    assert normalized.value == 0.3 and not normalized.correlation
    assert sum(cell.measure == "r_normalized" for cell in found) == 2, "regions without a ceiling are not measured"
    with pytest.raises(InputError, match="scored twice"):
        measurements_of_scores(scored | {(Label("pretrained", (1,)), "A", 3): scores(0.1)}, {"A": ["x", "y"]})

    class Result:
        score, draws, n_effective, unit = np.array([0.5, 0.6]), rng.random((2, 9)), 11.5, "speakers"

    probes = measurements_of_probes({("word", "tuned", "A", 1): Result()})
    assert probes[Cell("word", "tuned", 1, "A", 1)].value == 0.6 and len(probes) == 2
    assert {one.n_units for one in probes.values()} == {11.5}
    np.testing.assert_array_equal(probes[Cell("word", "tuned", 1, "A", 0)].draws, Result.draws[0])
