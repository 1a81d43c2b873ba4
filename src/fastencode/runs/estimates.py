"""What shapes alone say of fits, before any is made: whether they can be, how they would be solved, and what they would cost."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.delayed import Matrix
from fastencode.errors import InputError
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.fits import Question
from fastencode.runs.tally import duration
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.cost import Candidate, choose
from fastencode.study.brains.design import Variant
from fastencode.study.brains.tables import delays_text
from fastencode.study.inference.blocks import check_blocks
from fastencode.threads import available_threads
from fastencode.timing.delays import delay

__all__ = ["Estimate", "check_shapes", "estimate", "fit_cost", "foresee"]

_RECORD = 4 * 8  # bytes of a voxel in the record of a fit: r, p, penalty, edge


@dataclass(frozen=True)
class Estimate:
    """The cost of fits.

    Attributes
    ----------
    plans : (rows, columns, strategy) → number of plans
        The strategy is "primal" or "dual". One plan serves all participants who heard the same stories.
    seconds : float
        Of planning and fitting on the CPU, at nominal rates: permutations, draws, partitions and reading are not counted.
    memory : int
        Bytes of the largest plan, its design, and the responses of the participant with the most.
    disk : int
        Bytes of responses and records.
    free : int
        Bytes that are free there.
    """

    plans: Mapping[tuple[int, int, str], int]
    seconds: float
    memory: int
    disk: int
    free: int


def check_shapes(question: Question, delays: Mapping[str, Sequence[tuple[int, ...]]], widths: Collection[int] = ()) -> None:
    """Check, before anything is read, what would otherwise fail at the first fit.

    Parameters
    ----------
    question : Question
        Its blocks are checked on the test runs, and its memory on plans of every set of runs that somebody heard.
    delays : setting → delays of each design
        The setting is named where a run is shorter than a delay.
    widths : collection of int
        Columns of a layer of each model. Where none is known yet, memory is not checked.

    Raises
    ------
    InputError
        If a run is shorter than a delay, a test run has fewer than two blocks, or the memory holds no plan. More memory may still
        be too little: what maps of folds and tiles of voxels take is known when they are made.
    """
    data, block, memory = question.data, question.align.block, question.resources.memory
    scored = {run: rows.stop - rows.start for run, rows in question.scored}
    used = sorted(
        {run for fit in question.heard.values() for run in fit} | scored.keys(), key=lambda run: (data.n_rows(run), run)
    )
    for name, every in delays.items():
        for some in every:
            for run in used:
                try:
                    delay(np.zeros((data.n_rows(run), 1), np.float32), some, copy=False)
                except InputError as error:
                    raise InputError(f"{name} {', '.join(map(str, some))} for {run}: {error}") from error
    try:
        check_blocks(list(scored.values()), block)
    except InputError as error:
        asked = "" if block is None else f"block={block} for "
        raise InputError(f"{asked}{', '.join(scored)}: {error}") from error
    designs = product(set(question.heard.values()), set(widths), {some for every in delays.values() for some in every})
    for fit, width, some in designs if memory is not None else ():
        _plan(question, fit, width, some, None, copied=False, memory=memory)


def estimate(
    root: Path, question: Question, fits: Sequence[Stage], widths: Mapping[str, int], responses: Sequence[str]
) -> Estimate:
    """Estimate fits from the shapes of their designs.

    Parameters
    ----------
    root : Path
        The output folder; need not exist.
    question : Question
    fits : sequence of Stage
        Those to make, of the kinds ``fits``, ``leave-one-out`` and ``predictions``.
    widths : source → columns of a layer
    responses : sequence of str
        Participants whose responses are to be made. All voxels count for all participants: how many are mapped is not known yet.
    """
    data = question.data
    voxels = {who: data.n_voxels(who) for who in question.heard}
    rows = {who: sum(data.n_rows(run) for run in fit) for who, fit in question.heard.items()}
    shared: dict[tuple[str, int], list[Stage]] = {}
    for stage in fits:
        shared.setdefault((_kind(stage), id(stage.share)), []).append(stage)
    known: dict[Any, Candidate] = {}
    plans: dict[tuple[int, int, str], int] = {}
    seconds, memory = 0.0, 0
    for (made, _), group in shared.items():
        settings, people = group[0].settings, [stage.settings["who"] for stage in group]
        stories, width, delays = question.heard[people[0]], widths[settings["source"]], tuple(settings["delays"])
        n, total = rows[people[0]], sum(voxels[who] for who in people)
        kind = (stories, width, delays, bool(settings["less"]), total)
        if kind not in known:
            known[kind] = _plan(question, stories, width, delays, total, copied=bool(settings["less"]))
        plan, columns = known[kind], width * len(delays)
        key = (n, columns, plan.name)
        times = len(stories) if made == "leave-one-out" else 1  # by about as many rows
        if made != "predictions":  # their plan is that of the fits
            plans[key] = plans.get(key, 0) + times
        seconds += times * plan.seconds
        memory = max(memory, plan.bytes + 4 * n * (columns + max(voxels[who] for who in people)))
    disk = sum(4 * voxels[who] * rows[who] for who in responses)
    disk += sum(_bytes_of(question, stage, voxels[stage.settings["who"]]) for stage in fits)
    above = next(path for path in (root, *root.absolute().parents) if path.exists())
    return Estimate(plans, seconds, memory, disk, shutil.disk_usage(above).free)


def fit_cost(question: Question, who: str, width: int) -> tuple[float, int, int]:
    """One layer of so many columns in one brain, all of whose voxels count: (seconds, bytes of memory, bytes on disk)."""
    stories, voxels = question.heard[who], question.data.n_voxels(who)
    delays, rows = tuple(question.align.delays), sum(question.data.n_rows(run) for run in stories)
    plan = _plan(question, stories, width, delays, voxels, copied=False)
    draws = 2 * 8 * question.align.bootstraps * (1 + len(question.regions[who]))
    return plan.seconds, plan.bytes + 4 * rows * (width * len(delays) + voxels), _RECORD * voxels + draws


def _kind(stage: Stage) -> str:
    return stage.name.partition("/")[0]


def _bytes_of(question: Question, stage: Stage, voxels: int) -> int:
    """What one record takes on disk at most, without headers."""
    who, tests = stage.settings["who"], question.scored
    if _kind(stage) == "predictions":  # and the responses beside them
        return sum(2 * 4 * voxels * len(range(question.data.n_rows(run))[rows]) for run, rows in tests)
    if _kind(stage) == "leave-one-out":
        return _RECORD * voxels * len(question.heard[who])
    draws = 2 * 8 * question.align.bootstraps * (1 + len(question.regions[who]))
    return (_RECORD * voxels + draws) * (1 + len(tests) * (len(tests) > 1))


def foresee(
    stages: Stages, question: Question, variants: Sequence[Variant], responses: Sequence[Stage], layers: Sequence[Stage]
) -> None:
    """Say what a command would make, how much of it is finished, and what the rest would cost.

    Parameters
    ----------
    stages : Stages
    question : Question
    variants : sequence of Variant
    responses, layers : sequence of Stage
        All that the command wants, finished or not.

    Raises
    ------
    FailedStages
        If a stage cannot be made, because a file is missing say.
    """
    missing = set(stages.missing([*responses, *layers]))
    stages.check()
    data, people = question.data, sorted(question.heard)
    fits = [stage for stage in layers if stage.name in missing and _kind(stage) not in ("partitions", "mlp")]
    new = [who for who in people if f"responses/{who}" in missing]
    test = data.test_story
    widths = {one.source.name: one.source.rows(test, 0).shape[1] for one in variants} if fits else {}
    cost = estimate(stages.root, question, fits, widths, new)
    say("dry run: nothing is made")
    for who in people:
        say(f"{who}: {data.n_voxels(who)} voxels before any is chosen, {len(question.heard[who])} stories to fit on")
    every = [stage.name for stage in (*responses, *layers)]
    for one in variants:
        count = sum(name.startswith(f"fits/{one.folder}/{people[0]}/") for name in every)
        say(f"{one.name} at delays {delays_text(one.delays)}: {count} of {one.source.n_layers} layers")
    for kind in dict.fromkeys(name.partition("/")[0] for name in every):
        left = [name in missing for name in every if name.startswith(f"{kind}/")]
        say(f"{kind}: {sum(left)} to make, {len(left) - sum(left)} finished")
    for (n, columns, strategy), count in cost.plans.items():
        say(f"{count} plan{'s' if count > 1 else ''} of {n} rows x {columns} columns, solved by the {strategy}")
    say(
        f"about {duration(cost.seconds)} of ridge on this processor at nominal rates if all voxels are chosen; permutations, "
        f"draws, reading, partitions and networks come on top\n{cost.memory / 1e9:.2g} GB of memory for each job at most, "
        f"{cost.disk / 1e9:.2g} GB on disk at most, {cost.free / 1e9:.3g} GB free"
    )


def _plan(
    question: Question,
    stories: Sequence[str],
    width: int,
    delays: tuple[int, ...],
    voxels: int | None,
    *,
    copied: bool,
    memory: str | None = None,
) -> Candidate:
    """How a design of this shape would be solved. Its values do not count."""
    labels = np.repeat(np.arange(len(stories)), [question.data.n_rows(run) for run in stories])
    design: Matrix = np.broadcast_to(np.float32(0), (len(labels), width * len(delays)))
    if not copied:
        design = delay(np.zeros((len(labels), width), np.float32), delays, runs=labels, copy=False)
    problem = Problem.check(
        design,
        alphas=question.align.alphas,
        cv=question.align.folds_of(len(stories)),
        runs=labels if len(stories) >= 2 else None,
        memory=memory,
    )
    return choose(problem, available_threads(), voxels)[0]
