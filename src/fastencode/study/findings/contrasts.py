"""Evaluate contrasts: each value with its interval, its test, its answer, and the reason for the answer in words.

An answer compares a whole interval with a limit that was stated before the measurement, as in ``verdicts.py``. Two more rules
prevent that something is called an effect although the control shows it, too:

- If a control is named, "yes" requires two intervals: that of the contrast beyond its limit, and that of tuned − control beyond 0
  on the same side. It would not be enough that the control's own interval includes the limit, because the difference between
  "significant" and "not significant" is not itself statistically significant (Gelman and Stern 2006). "No" requires one of the
  two intervals on the other side. Otherwise the answer is "undecided". If the tuned model or the control has several seeds, the
  interval of tuned − control includes the variance between seeds, because a control is itself one random outcome.
- The intervals of a family have the confidence levels of Holm's steps, so that the probability of any wrong answer in the
  family is at most 5 %. Without a family, the level is .95.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.config import Contrast
from fastencode.study.findings.measurements import NOBODY, Cell, Measurements, Sample
from fastencode.study.findings.verdicts import Answer, Verdict
from fastencode.study.findings.weighted import (
    Layers,
    Planned,
    Tested,
    contrast_problems,
    in_place_of,
    layers_of_measure,
    planned_of,
    tested,
    weights_of,
)
from fastencode.study.inference.families import WRONG, holm, holm_levels
from fastencode.study.inference.intervals import Estimate, freedom_of, over_participants, over_units
from fastencode.study.inference.significance import signed_rank

__all__ = ["Cell", "Contrast", "Finding", "Measurements", "Sample", "evaluate", "finding_rows", "part_rows", "verdicts_of"]

ENOUGH = 5
"""Participants from which on they are the unit, unless a contrast says otherwise."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """What one contrast found.

    Attributes
    ----------
    name, statement, measure, region, layers, models : str
        What was asked, as texts: "late (9 to 12) − middle (5 to 8)", "tuned − pretrained".
    value, low, high : float
        The mean over participants and its .95 interval. NaN where nothing was measured, or too few units.
    unit : str
        What varies from sample to sample: "participants", "blocks", "speakers" or "utterances". An interval over participants
        counts the blocks or speakers that they share, too (:func:`fastencode.study.inference.intervals.over_participants`).
    n_units : float
        How many; of blocks, those of the participant with the fewest.
    p : float
        Two-sided, against the limit, or the nearer one of "within": 1 − the level of the widest interval that leaves it out.
    p_holm : float
        p adjusted by Holm's steps over the contrasts of the family; p itself without one.
    p_signed_rank, p_smallest : float
        Exact signed-rank test over participants, against the same limit, and the smallest p that so many can reach; NaN for other
        units. It speaks of other people on this very story, or these speakers, whose chance moves all of them alike: where all
        models are the same for everybody, it is below .05 in .4 to .7 of simulations in which nothing is true
        (``bench/contrasts.py``). So no answer depends on it.
    family : str
        "" for a contrast that stands alone.
    answer : {"yes", "no", "undecided", ""}
        "" where nothing was expected.
    reason : str
        Why, in sentences.
    level : float
        Of the intervals that decided: .95, or that of the family's step.
    control_value, control_low, control_high : float
        The same contrast with the control in place of the model in question, with its .95 interval; NaN without a control.
    over_control, over_control_low, over_control_high : float
        The model in question less the control, weighted alike; where either has several seeds, the interval allows for others.
    rule, quantity : str
        For :meth:`verdict`.
    by_participant : participant → float
    by_seed : seed → float
        The mean over participants with this seed of every condition of several seeds.
    """

    name: str
    statement: str
    measure: str
    region: str
    layers: str
    models: str
    value: float
    low: float
    high: float
    unit: str
    n_units: float
    p: float
    p_holm: float
    p_signed_rank: float
    p_smallest: float
    family: str
    answer: Answer | str
    reason: str
    level: float
    control_value: float
    control_low: float
    control_high: float
    over_control: float
    over_control_low: float
    over_control_high: float
    rule: str
    quantity: str
    by_participant: Mapping[str, float]
    by_seed: Mapping[int, float]

    def verdict(self) -> Verdict | None:
        """The same as pages and terminals show it; None where nothing was expected."""
        if self.answer not in ("yes", "no", "undecided"):
            return None
        return Verdict(self.statement, self.value, self.low, self.high, self.rule, self.answer, self.quantity)


@dataclass(frozen=True)
class _Case:
    """A contrast before its family is known. ``leans``: the answer that the point estimates suggest; ``claim``: its p-value."""

    contrast: Contrast
    main: Tested
    estimates: tuple[Estimate, ...]  # of the contrast, of its control, of their difference
    unit: str
    p: float
    p_signed_rank: float
    p_smallest: float
    claim: float
    leans: Answer


def evaluate(
    measurements: Measurements,
    contrasts: Sequence[Contrast],
    n_layers: Layers,
    planned: Mapping[str, Planned] | None = None,
) -> list[Finding]:
    """Compute, test and answer contrasts.

    Seeds of a condition are averaged. Then layers, regions and models are summed with their weights in each participant, also for
    each bootstrap draw: equal draws resample the same units, so differences are paired. Finally, participants are averaged with
    equal weights. Participants for whom a measurement is missing are left out and named in ``reason``.

    Parameters
    ----------
    measurements : Cell → Sample
    contrasts : sequence of Contrast
    n_layers : int, or mapping of condition to int or to layers
        Each model's own layers are divided into thirds, so that models with different numbers of layers can be compared. The only
        layer of a model is early, middle and late at once.
    planned : measure → Planned, optional
        What should have been measured. A contrast without its planned measurements, for example after a failed stage, is
        undecided and says so. Default: what was measured.

    Returns
    -------
    list of Finding
        In the order of the contrasts.

    Raises
    ------
    InputError
        If contrasts name something that is not measured; the message lists all such names. Or if measurements cannot be paired.
    """
    planned = planned_of(measurements) if planned is None else planned
    if problems := contrast_problems(contrasts, planned, n_layers):
        raise InputError("\n".join(problems))
    layers = [layers_of_measure(planned, contrast.measure, n_layers) for contrast in contrasts]
    cases = [_case(measurements, contrast, own) for contrast, own in zip(contrasts, layers, strict=True)]
    levels, adjusted = _in_families(cases)
    return [_finding(*of_one) for of_one in zip(cases, levels, adjusted, layers, strict=True)]


def _in_families(cases: Sequence[_Case]) -> tuple[list[float], list[float]]:
    """The confidence level of each answer, and each adjusted p. Contrasts without expectation also count in their family."""
    levels, adjusted = [1 - WRONG] * len(cases), [case.p for case in cases]
    for family in {case.contrast.family for case in cases} - {None}:
        members = [place for place, case in enumerate(cases) if case.contrast.family == family]
        of_levels = holm_levels([cases[place].claim for place in members])
        for place, level, p in zip(members, of_levels, holm([cases[place].p for place in members]), strict=True):
            levels[place], adjusted[place] = float(level), float(p)
    return levels, adjusted


def _case(measurements: Measurements, contrast: Contrast, n_layers: Layers) -> _Case:
    asked = (contrast, *(in_place_of(contrast) if contrast.control is not None else ()))
    found = tested(measurements, contrast.measure, [weights_of(one, n_layers) for one in asked])
    main = found[0]
    if not main.people:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return _Case(contrast, main, (nothing,) * len(asked), "", *(math.nan,) * 4, "undecided")
    several = main.people != (NOBODY,)
    by_people = contrast.unit == "participants" or (contrast.unit == "auto" and several and len(main.people) >= ENOUGH)
    estimates = tuple(_estimate(one, which, by_people and several) for one, which in zip(asked, found, strict=True))
    if len(estimates) > 1:
        estimates = (*estimates[:2], _of_other_seeds(estimates[2], found[2]))
    p = max(estimates[0].pvalue(limit) for limit in _limits(contrast))
    ranks = _signed_rank(contrast, main) if by_people and several else (math.nan, math.nan)
    unit = "participants" if by_people else main.unit
    return _Case(contrast, main, estimates, unit, p, *ranks, *_claim(contrast, estimates))


def _estimate(contrast: Contrast, found: Tested, by_people: bool) -> Estimate:
    if by_people:
        return over_participants(found.values, found.draws, found.n_units)
    if contrast.unit == "participants":  # all models belong to no participant
        return Estimate(float(found.values.mean()), math.nan, math.nan)
    return over_units(found.values, found.draws, found.n_units, correlation=contrast.single and found.correlation)


def _of_other_seeds(over: Estimate, found: Tested) -> Estimate:
    """Tuned − control, as unsure as other seeds make it. One that has a single seed is taken to vary as the other does."""
    known = {model: one for model, one in found.of_seeds.items() if one[1] > 1}
    if not known or not math.isfinite(over.error):
        return over
    single = len(found.of_seeds) - len(known)
    of_seeds = [(variance * (1 / seeds + single), seeds - 1.0) for variance, seeds in known.values()]
    parts = [(over.error**2, over.freedom), *of_seeds]
    return replace(over, error=math.sqrt(sum(variance for variance, _ in parts)), freedom=freedom_of(parts))


def _limits(contrast: Contrast) -> tuple[float, ...]:
    """The limits to test against. With two limits, the larger p-value counts, which is that of the nearer limit."""
    return (-contrast.limit, contrast.limit) if contrast.expect == "within" else (contrast.limit,)


def _signed_rank(contrast: Contrast, found: Tested) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # the reason says so
        tests = [signed_rank(found.values - limit) for limit in _limits(contrast)]
    return max((test.p, test.smallest) for test in tests)


def _claim(contrast: Contrast, estimates: Sequence[Estimate]) -> tuple[float, Answer]:
    """The answer that the point estimates suggest, and its two-sided p: below .05 exactly if .95 intervals give this answer."""
    main = estimates[0]
    p = max(main.pvalue(limit) for limit in _limits(contrast))
    if contrast.expect == "within":
        return p, "yes" if abs(main.value) < contrast.limit else "no"
    side = -1 if contrast.expect == "below" else 1
    sides = [(side * (main.value - contrast.limit), p)]
    if contrast.control is not None and contrast.expect is not None:
        sides.append((side * estimates[2].value, estimates[2].pvalue(0.0)))
    against = [p for beyond, p in sides if beyond < 0]
    return (min(against), "no") if against else (max(p for _, p in sides), "yes")


def _finding(case: _Case, level: float, p_holm: float, n_layers: Layers) -> Finding:
    contrast, main, estimates = case.contrast, case.main, case.estimates
    answer: Answer = case.leans if case.claim < 1 - level else "undecided"
    numbers = [(one.value, *one.interval()) for one in estimates] + [(math.nan,) * 3] * (3 - len(estimates))
    models = _sum_text(contrast.models)
    return Finding(
        name=contrast.name,
        statement=contrast.statement,
        measure=contrast.measure,
        region=", ".join(contrast.regions),
        layers=_layers_text(contrast, n_layers),
        models=models,
        **dict(zip(("value", "low", "high"), numbers[0], strict=True)),
        unit=case.unit,
        n_units=_n_units(case),
        p=case.p,
        p_holm=p_holm,
        p_signed_rank=case.p_signed_rank,
        p_smallest=case.p_smallest,
        family=contrast.family or "",
        answer="" if contrast.expect is None else answer,
        reason=" ".join(_reasons(case, level)),
        level=level,
        **dict(zip(("control_value", "control_low", "control_high"), numbers[1], strict=True)),
        **dict(zip(("over_control", "over_control_low", "over_control_high"), numbers[2], strict=True)),
        rule=_rule(contrast),
        quantity=f"{'' if contrast.single else 'Δ'}{contrast.measure}, {models}",
        by_participant=dict(zip(main.people, main.values.tolist(), strict=True)),
        by_seed=dict(zip(main.seeds, main.by_seed.mean(axis=0).tolist(), strict=True)) if main.seeds else {},
    )


def _n_units(case: _Case) -> float:
    people = [who for who in case.main.people if who != NOBODY]
    return float(
        len(people) if case.unit == "participants" else case.main.n_units.min(initial=math.inf) if case.main.people else 0
    )


def _reasons(case: _Case, level: float) -> list[str]:
    """Sentences: what decided the answer, and what limits it."""
    contrast, main = case.contrast, case.main
    out = [f"{who} is left out: {why}." for who, why in main.left_out.items() if who != NOBODY]
    if not main.people:
        return [*out, *([f"Not measured: {main.left_out[NOBODY]}."] if NOBODY in main.left_out else [])]
    ends = case.estimates[0].interval(level)
    if not math.isfinite(ends[0]):
        few = "participants" if case.unit == "participants" else f"{main.unit} of the test data"
        return [*out, f"There are too few {few} for an interval."]
    at = f"The {_level(level)} interval" if level > 1 - WRONG else "The interval"
    said = [f"{at} {_place(ends, *_limits(contrast)[-1:], within=contrast.expect == 'within')}."]
    if contrast.control is not None:
        control, over = case.estimates[1:]
        shown = _place(over.interval(level), 0.0)
        said.append(f"That of {next(iter(contrast.models))} − {contrast.control} {shown}.")
        alone = _beyond(contrast, over.interval(level), 0.0)
        if contrast.expect in ("above", "below") and _beyond(contrast, ends, contrast.limit) and not alone:
            also = _beyond(contrast, control.interval(), contrast.limit)
            said.append("The control shows it too." if also else "The control may show it too.")
        elif alone and _beyond(contrast, ends, contrast.limit) and _beyond(contrast, control.interval(), contrast.limit):
            said.append("The control shows a part of it, too: what is beyond that is the difference between the two.")
    if case.p_smallest > WRONG:
        few = f"{len(main.people)} participants"
        said.append(f"A signed-rank test of {few} cannot reach p = .05: the smallest is {case.p_smallest:.3g}.")
    return [*said, *out]


def _beyond(contrast: Contrast, ends: Interval, limit: float) -> bool:
    return ends[1] < limit if contrast.expect == "below" else ends[0] > limit


def _place(ends: Interval, limit: float, *, within: bool = False) -> str:
    """The position of an interval relative to a limit, as the end of a sentence."""
    low, high = ends
    if within:
        if -limit < low and high < limit:
            return f"lies within ±{limit:g}"
        return f"lies outside ±{limit:g}" if low > limit or high < -limit else f"reaches over an end of ±{limit:g}"
    named = f"{limit:g}".replace("-", "−")
    return f"lies above {named}" if low > limit else f"lies below {named}" if high < limit else f"holds {named}"


def _level(level: float) -> str:
    return f"{level:.4f}".rstrip("0").removeprefix("0")


def _rule(contrast: Contrast) -> str:
    limit = f"{contrast.limit:g}".replace("-", "−")
    if contrast.expect is None:
        return ""
    if contrast.expect == "within":
        rule = f"yes if the interval lies within ±{limit}, no if outside"
    else:
        other = "below" if contrast.expect == "above" else "above"
        rule = f"yes if the interval lies {contrast.expect} {limit}, no if {other}"
        if contrast.control is not None:
            over = f"{next(iter(contrast.models))} − {contrast.control}"
            rule = (
                f"yes if the interval lies {contrast.expect} {limit} and that of {over} {contrast.expect} 0, "
                f"no if one of them lies {other}"
            )
    return rule if contrast.family is None else f"{rule}; at the levels of Holm's steps in the family {contrast.family!r}"


def _sum_text(weights: Mapping[str, float]) -> str:
    """Weights as a sum: "tuned − 0.5 × pretrained"."""
    parts = []
    for place, (name, weight) in enumerate(weights.items()):
        size = "" if abs(weight) == 1 else f"{abs(weight):g} × "
        sign = ("−" if weight < 0 else "") if place == 0 else (" − " if weight < 0 else " + ")
        parts.append(f"{sign}{size}{name}")
    return "".join(parts)


def _layers_text(contrast: Contrast, n_layers: Layers) -> str:
    if not contrast.depths:
        assert not isinstance(contrast.layers, str | Mapping)
        return ", ".join(map(str, contrast.layers))
    first, named = next(iter(contrast.models)), {}
    for depth, weight in contrast.depths.items():
        places = weights_of(replace(contrast, models={first: 1.0}, layers=depth, control=None), n_layers)
        layers = sorted(place.layer for place in places)
        text = f"{layers[0]} to {layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
        named[f"{depth} ({text})"] = weight
    return _sum_text(named)


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One row per finding with its attributes; ``by_participant`` and ``by_seed`` as text, such as "P1 +0.031; P2 -0.002"."""
    return [
        {
            field.name: _parts_text(value) if isinstance(value := getattr(finding, field.name), Mapping) else value
            for field in fields(finding)
        }
        for finding in findings
    ]


def _parts_text(parts: Mapping[Any, float]) -> str:
    return "; ".join(f"{name} {value:+.4g}" for name, value in parts.items() if name != NOBODY)


def part_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One row per finding and participant or seed: ``name``, ``part`` ("participant" or "seed"), ``which`` and ``value``."""
    return [
        {"name": finding.name, "part": part, "which": str(which), "value": value}
        for finding in findings
        for part, parts in (("participant", finding.by_participant), ("seed", finding.by_seed))
        for which, value in parts.items()
        if which != NOBODY
    ]


def verdicts_of(findings: Sequence[Finding]) -> list[Verdict]:
    """The verdicts of all findings with an expectation, in order."""
    return [verdict for finding in findings if (verdict := finding.verdict()) is not None]
