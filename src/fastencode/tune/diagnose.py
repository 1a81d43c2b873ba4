"""What may have failed in a tuning run: each known way of failing, what the run says of it, and what to do.

Nothing is computed again but the hash of the frozen convolutions: everything else is in the log, the settings and the heads.
Thresholds are rules of thumb, each with its reason; a finding is a place to look at, and no proof.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.errors import InputError
from fastencode.tune.log import Row
from fastencode.tune.record import RISE, Record

__all__ = ["Finding", "diagnose", "report"]

FAR = 0.5  # weight change ‖w − w₀‖ / ‖w₀‖ of a layer from which much of what it knew is lost
NEAR = 1e-3  # weight change of late layers below which tuning left them as they were. Adam moves a weight by up to its learning
# rate in an update, and weights are about 0.04: 100 updates at 5e-5 can move them by 1e-1, at 5e-7 by 1e-3.
STILL = 1e-7  # weight change that is float32's rounding
NEAR_HEAD = 1e-2  # weight change of heads, which begin at random and must be learned from there
FLAT = 1e-3  # share by which the training loss must have fallen: heads fit a little even of noise
EARLY = 1.5  # early layers may move so many times as far as late ones: Adam moves all about alike
REACHED, ENDED = 0.8, 0.2  # shares of the set rate: the least peak, and the most at the end of a schedule that falls to 0
LOGGED = 10  # lines of updates that show a schedule
LAG = (4.0, 8.0)  # s before a scan in which what it responds to was heard: the hemodynamic response peaks after about 5 s
FEW_VOXELS, FEW_IN_REGION = 100, 20  # with fewer, noise of single voxels decides where the gradient points
GAP = 0.25  # validation loss less training loss, as a share of the loss to beat
WAITING, SECONDS = 0.02, 10.0  # share of the time that batches may be waited for; s of which a share says something

Verdict = Literal["ok", "look", "wrong", "unknown"]
_VALIDATE = "name stories for validation, and tune again"


@dataclass(frozen=True)
class Finding:
    """One way of failing.

    Attributes
    ----------
    name : str
    verdict : str
        ok; look: it may have failed; wrong: it has; unknown: the run does not say.
    evidence : str
        What the verdict rests on, with its numbers.
    advice : str
        What to do; empty where nothing is.
    """

    name: str
    verdict: Verdict
    evidence: str
    advice: str = ""


def diagnose(
    run: Path, dataset: Dataset | None = None, control: Path | None = None, *, regions: Sequence[str] = ()
) -> list[Finding]:
    """Look for everything that is known to go wrong in brain-tuning.

    Parameters
    ----------
    run : Path
        The folder of a run, finished or not: ``log.jsonl`` and ``run.json`` or ``config.yaml`` must be there.
    dataset : Dataset, optional
        What it was tuned on: its TR, and its regions, in which the voxels that were tuned on are counted.
    control : Path, optional
        The folder of a run that differs in its targets only, which were permuted or shifted.
    regions : sequence of str
        The regions of ``dataset`` that the run was to learn. By default those that its settings name (``regions``, ``prefer``),
        else all.

    Returns
    -------
    list of Finding
        One for each way of failing, in a fixed order.

    Raises
    ------
    InputError
        If ``run`` or ``control`` is no folder of a run, its log is damaged, ``control`` is no control, or the data set has no
        such region.
    """
    found = Record.read(run)
    return [
        _finished(found),
        _numbers(found),
        _learning(found),
        _model_rate(found),
        _head_rate(found),
        _schedule(found),
        _lag(found, dataset),
        _voxels(found, dataset),
        _regions(found, dataset, tuple(regions) or found.regions),
        _shuffled(found, None if control is None else Record.read(control)),
        _frozen(found),
        _gap(found),
        _still(found),
        _early(found),
        _waiting(found),
    ]


def report(findings: Sequence[Finding], width: int = 130) -> str:
    """The findings as a table of plain text: finding, verdict, evidence, advice.

    Parameters
    ----------
    findings : sequence of Finding
    width : int
        Letters in a line; evidence and advice are wrapped.

    Returns
    -------
    str
        Lines without a line break at the end.
    """
    cells = [("finding", "verdict", "evidence", "advice"), *((f.name, f.verdict, f.evidence, f.advice) for f in findings)]
    first, second = (max(len(row[column]) for row in cells) for column in (0, 1))
    third = max(20, (width - first - second - 6) // 2)
    lines = []
    for name, verdict, *texts in cells:
        evidence, advice = (textwrap.wrap(text, third) or [""] for text in texts)
        for k in range(max(len(evidence), len(advice))):
            row = [
                name if not k else "",
                verdict if not k else "",
                *(part[k] if k < len(part) else "" for part in (evidence, advice)),
            ]
            lines.append(
                "  ".join(text.ljust(size) for text, size in zip(row, (first, second, third, third), strict=True)).rstrip()
            )
    lines.insert(1, "  ".join("-" * size for size in (first, second, third, third)))
    return "\n".join(lines)


# -- whether the run is whole


def _finished(run: Record) -> Finding:
    name = "finished"
    if run.end is not None:
        return Finding(name, "ok", f"ended ({run.end.get('why')}), {run.end.get('updates')} updates")
    done = f"{len(run.tuned)} of {run.settings['epochs']} epochs are in the log, and no end"
    return Finding(name, "look", done, "give the same command again: it goes on. If it stopped with an error, read that first")


def _numbers(run: Record) -> Finding:
    name = "losses are numbers"
    for row in (*run.updates, *run.tuned):
        if bad := next(_nulls(row), None):
            place = f"update {row['update']}, epoch {row['epoch']}" if row["kind"] == "update" else f"epoch {row['epoch']}"
            stories = f", {', '.join(row['stories'])}" if row.get("stories") else ""
            advice = "look for NaN or huge values in the responses of these stories; lower the learning rates; use float32"
            return Finding(name, "wrong", f"{bad} is not a number ({place}{stories})", advice)
    if not run.updates and not run.tuned:
        return Finding(name, "unknown", "the log has no update", "wait for the first epoch")
    return Finding(name, "ok", f"{len(run.updates)} lines of updates and {len(run.tuned)} of epochs")


def _nulls(row: Row) -> Iterator[str]:
    """What is null in a line and must not be. (Validation losses may be: where nobody was validated.)"""
    for name in ("loss", "train_loss", "own_loss", "word_loss"):
        if name in row and row[name] is None:
            yield name
    for name in ("losses", "gradient_norm", "weight_change"):
        yield from (f"{name} of {key}" for key, value in (row.get(name) or {}).items() if value is None)
    for who, one in (row.get("participants") or {}).items():
        yield from (f"validation {name} of {who}" for name in ("loss", "r") if one.get(name) is None)


# -- what it learned


def _learning(run: Record) -> Finding:
    name = "learns"
    loss, (least, which) = run.kept.get("validation_loss"), run.to_beat
    if not run.tuned:
        return Finding(name, "unknown", "no epoch has ended", "wait for the first epoch")
    if loss is None or least is None:
        return Finding(name, "unknown", f"no validation loss to compare with that {which}", _VALIDATE)
    evidence = f"validation loss {loss:.4g} (epoch {run.kept['epoch']}), {which} {least:.4g}"
    behind = [
        who
        for who, one in (run.kept.get("participants") or {}).items()
        if one.get("loss") is not None and one.get("mean_loss") is not None and one["loss"] >= one["mean_loss"]
    ]
    if run.targets in ("permuted", "shifted"):
        return Finding(name, "ok", f"{evidence}; targets are {run.targets}: a control need not beat it")
    if loss >= least:
        advice = (
            "check that sound and responses belong together (lag, TR, order of stories), then voxels and learning rates below"
        )
        return Finding(name, "look" if run.end is None else "wrong", evidence, advice)
    if behind:
        advice = "compare their noise ceilings and voxels with those of the others"
        return Finding(name, "look", f"{evidence}, but not for {', '.join(behind)}", advice)
    return Finding(name, "ok", evidence)


def _model_rate(run: Record) -> Finding:
    name, rate = "learning rate, speech model", f"learning_rate {run.settings['learning_rate']:g}"
    if run.settings["trained"] == "head":
        return Finding(name, "ok", "only the head was to learn")
    late, farthest = run.third(last=True), max(run.layers.values(), default=math.nan)
    if math.isnan(farthest):
        return Finding(name, "unknown", "no weight change is logged", "wait for the first epoch")
    moved = f"{rate}: late layers moved by {late:.2g} of their norm, at most {farthest:.2g}"
    far = run.settings["trained"] == "full" and farthest > FAR  # adapters begin at 0 and move far
    if run.unsteady or far:
        evidence = "; ".join(part for part in (run.unsteady, moved) if part)
        return Finding(name, "wrong" if run.unsteady and far else "look", evidence, "too high: divide learning_rate by 3")
    if late < NEAR:
        advice = f"too low: late layers are what tuning is to change. Multiply learning_rate by 3 until they move by {NEAR:g}"
        return Finding(name, "wrong", moved, f"{advice} or more; with few updates, give more epochs")
    return Finding(name, "ok", moved)


def _head_rate(run: Record) -> Finding:
    name, rate = "learning rate, heads", f"head_learning_rate {run.settings['head_learning_rate']:g}"
    losses = [row["train_loss"] for row in run.tuned if row.get("train_loss") is not None]
    if run.unsteady:
        steady = run.settings["trained"] == "head" or max(run.layers.values(), default=0.0) <= FAR
        verdict: Verdict = "wrong" if steady and run.settings["trained"] != "lora" else "look"
        return Finding(name, verdict, f"{run.unsteady}; {rate}", "too high: divide head_learning_rate by 3")
    moved = (run.kept.get("weight_change") or {}).get("head") if run.kept.get("epoch") else None
    if moved is not None and moved < NEAR_HEAD:
        return Finding(name, "wrong", f"{rate}: heads moved by {moved:.2g} of their norm", "too low: multiply it by 10")
    if len(losses) < 2:
        if moved is not None:
            return Finding(name, "ok", f"{rate}: heads moved by {moved:.2g} of their norm")
        return Finding(name, "unknown", f"{len(losses)} epochs with a training loss: two are compared", "give more epochs")
    evidence = f"{rate}: training loss {losses[0]:.4g} in the first epoch, {losses[-1]:.4g} in the last"
    if losses[0] - min(losses) < FLAT * abs(losses[0]):
        return Finding(name, "wrong", evidence, "too low: multiply head_learning_rate by 10; heads begin at random")
    return Finding(name, "ok", evidence)


def _schedule(run: Record) -> Finding:
    name, kind = "schedule", run.settings["schedule"]
    if len(run.updates) < LOGGED:
        return Finding(name, "unknown", f"{len(run.updates)} lines of updates: {LOGGED} show it", "lower log_every")
    parts, bad = [], False
    for group, setting in (("backbone", "learning_rate"), ("heads", "head_learning_rate")):
        rates = [(row.get("learning_rate") or {}).get(group) for row in run.updates]
        known = [rate / run.settings[setting] for rate in rates if rate is not None]
        if known:
            stays = run.end is not None and run.end.get("why") != "early stop" and kind in ("linear", "miscounted")
            bad |= max(known) < REACHED or (stays and known[-1] > ENDED)
            parts.append(f"{group} up to {max(known):.0%} of its rate, {known[-1]:.0%} at the last line")
    evidence = f"{kind}: {'; '.join(parts) or 'no rates are logged'}"
    if not parts:
        return Finding(name, "unknown", evidence, "tune again with this version")
    advice = "rates never got where they were set, or stayed there: choose schedule=linear, or more epochs"
    return Finding(name, "look" if bad else "ok", evidence, advice if bad else "")


# -- what it learned from


def _lag(run: Record, dataset: Dataset | None) -> Finding:
    name, tr = "lag", run.settings.get("tr") if dataset is None else dataset.tr
    tr = (run.identity.get("about") or {}).get("tr") if tr is None else tr
    low, high = LAG
    if run.targets == "stimulus":
        return Finding(name, "ok", "no responses were learned")
    if tr is None:
        given = f"clip_seconds={run.settings['clip_seconds']:g}, head={run.settings['head']}; the TR is not known"
        return Finding(name, "unknown", given, "give the data set, too")
    if run.settings["head"] == "delays":
        spans = [((delay - 1) * tr, delay * tr) for delay in run.settings["delays"]]
        given, setting = f"delays {', '.join(f'{delay * tr:g}' for delay in run.settings['delays'])} s", "delays"
    else:
        spans = [(0.0, run.settings["clip_seconds"] - tr)]
        given, setting = f"clips of {run.settings['clip_seconds']:g} s, of which {tr:g} s are the scan", "clip_seconds"
    heard = sum(max(0.0, min(high, end) - max(low, start)) for start, end in spans) / (high - low)
    evidence = f"{given}: {heard:.0%} of the {low:g} to {high:g} s before a scan, to which it responds"
    if heard > 1 - 1e-6:
        return Finding(name, "ok", evidence)
    advice = f"give {setting} that reach {high:g} s before the scan" + (
        "" if setting == "delays" else f": {high + tr:g} s or more"
    )
    return Finding(name, "look" if heard > 1e-6 else "wrong", evidence, advice)


def _voxels(run: Record, dataset: Dataset | None) -> Finding:
    name = "voxels"
    if run.targets == "stimulus":
        return Finding(name, "ok", "no responses were learned")
    if not run.voxels:
        return Finding(name, "unknown", "there are no heads yet", "wait for the end of the run")
    evidence = ", ".join(f"{who} {len(index):,}" for who, index in run.voxels.items())
    for who, index in run.voxels.items():
        known = math.inf if dataset is None or who == "shared" else dataset.n_voxels(who)
        if len(index) and index.max() >= known:
            return Finding(
                name, "wrong", f"{who} was tuned on voxel {index.max()}, of {known} in the data set", "give the run's own data"
            )
    few = [who for who, index in run.voxels.items() if len(index) < FEW_VOXELS]
    if few and run.targets != "model":
        advice = f"fewer than {FEW_VOXELS} of {', '.join(few)}: lower the least noise ceiling, or name larger regions"
        return Finding(name, "look", evidence, advice)
    return Finding(name, "ok", evidence)


def _regions(run: Record, dataset: Dataset | None, regions: tuple[str, ...]) -> Finding:
    name = "voxels of the target regions"
    if run.targets == "stimulus":
        return Finding(name, "ok", "no responses were learned")
    if dataset is None or not run.voxels:
        missing = "no data set is given" if dataset is None else "there are no heads yet"
        return Finding(
            name, "unknown", missing, "give the data set that the run was tuned on" if dataset is None else "wait for the end"
        )
    counts: dict[tuple[str, str], int] = {}
    for who in list(run.kept.get("participants") or {}) or [who for who in run.voxels if who != "shared"]:
        areas, index = dataset.rois(who), run.voxels.get(who, run.voxels.get("shared"))
        if lost := [region for region in regions if region not in areas]:
            raise InputError(f"{who} has no region {lost[0]!r}: there are {', '.join(areas) or 'none'}")
        if index is not None:
            counts |= {(who, region): len(np.intersect1d(areas[region], index)) for region in regions or areas}
    if not counts:
        return Finding(name, "unknown", "the data set has no regions", "give it a folder of regions (rois)")
    few = {key: n for key, n in counts.items() if n < FEW_IN_REGION}
    shown = [f"{region} of {who} {n}" for (who, region), n in sorted((few or counts).items(), key=lambda item: item[1])]
    evidence = ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
    if not few:
        return Finding(name, "ok", evidence)
    advice = "late layers change for what late regions respond to: lower the least noise ceiling, or prefer these regions"
    return Finding(name, "look" if any(counts.values()) else "wrong", evidence, advice)


def _shuffled(run: Record, control: Record | None) -> Finding:
    name = "shuffled targets"
    if run.targets != "brain":
        return Finding(
            name, "unknown", f"targets are {run.targets}: this run is a control", "diagnose the tuned run, with this as control"
        )
    if control is None:
        advice = "tune again with the same settings but targets=permuted, into another folder, and give that as control"
        return Finding(name, "unknown", "no control is given", advice)
    if control.targets not in ("permuted", "shifted"):
        raise InputError(f"{control.folder} has targets={control.targets}: give a run whose targets are permuted or shifted")
    own, other = run.kept.get("participants") or {}, control.kept.get("participants") or {}
    pairs = {who: (own[who].get("r"), other[who].get("r")) for who in own if who in other}
    known = {who: (r, chance) for who, (r, chance) in pairs.items() if r is not None and chance is not None}
    if not known:
        return Finding(name, "unknown", "both runs have no participant with validation r", _VALIDATE)
    mean, chance = (float(np.mean([pair[k] for pair in known.values()])) for k in (0, 1))
    evidence = f"validation r {mean:.4f}, of the control {chance:.4f}"
    if run.kept.get("updates") != control.kept.get("updates"):
        evidence += f" (after {run.kept.get('updates')} and {control.kept.get('updates')} updates)"
    behind = [who for who, (r, shuffled) in known.items() if r <= shuffled]
    if mean <= chance:
        advice = "the responses taught nothing that displaced ones do not: check lag, order of stories, and voxels"
        return Finding(name, "wrong", evidence, advice)
    if behind:
        return Finding(name, "look", f"{evidence}, but not for {', '.join(behind)}", "look at these participants' data")
    if run.kept.get("updates") != control.kept.get("updates"):
        return Finding(name, "look", evidence, "give the control as many updates: the same epochs, no early stop")
    return Finding(name, "ok", evidence)


# -- what moved


def _frozen(run: Record) -> Finding:
    name = "frozen CNN"
    if "cnn" in run.settings["unfreeze"]:
        return Finding(name, "ok", "unfreeze=cnn: it was to change")
    model, before = run.folder / "model", run.identity.get("frozen")
    said = None if run.end is None else run.end.get("cnn_unchanged")
    advice = "do not use this model: tune again; if it happens again, report it"
    if said is False:
        return Finding(name, "wrong", "the log's last line says that it changed", advice)
    if not model.is_dir() or before is None:
        missing = "there is no model yet" if not model.is_dir() else "run.json has no hash of it"
        return Finding(
            name, "unknown", missing, "wait for the end of the run" if not model.is_dir() else "tune again with this version"
        )
    from fastencode.speech.layers import SpeechEncoder

    try:
        now = SpeechEncoder(model).cnn_hash()
    except InputError as error:
        return Finding(name, "wrong", str(error), "the model was changed or damaged after the run: make it again")
    if now != before:
        return Finding(name, "wrong", f"hash {now[:12]} in model/, {before[:12]} before the run", advice)
    return Finding(name, "ok", f"model/ has the hash it had before the run, {now[:12]}")


def _gap(run: Record) -> Finding:
    name = "training and validation"
    rows = [row for row in run.tuned if row.get("validation_loss") is not None and row.get("train_loss") is not None]
    least, which = run.to_beat
    if not rows or not least:
        return Finding(name, "unknown", f"no epoch has both losses, and that {which}", _VALIDATE)
    if run.targets in ("permuted", "shifted"):
        return Finding(name, "ok", f"targets are {run.targets}: what a control learns does not carry over")
    kept = next((row for row in rows if row["epoch"] == run.kept["epoch"]), rows[-1])
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    gap = (kept["validation_loss"] - kept["train_loss"]) / least
    evidence = f"training {kept['train_loss']:.4g}, validation {kept['validation_loss']:.4g} (epoch {kept['epoch']})"
    if kept["validation_loss"] - best["validation_loss"] > RISE * abs(best["validation_loss"]):
        evidence += f", but validation {best['validation_loss']:.4g} after epoch {best['epoch']}"
        return Finding(
            name, "wrong", evidence, "overfitting: set patience, or keep that epoch's model; fewer epochs; more stories"
        )
    if gap > GAP:
        return Finding(
            name, "look", evidence, "the model learns its stories by heart: more stories, fewer voxels of noise, weight decay"
        )
    return Finding(name, "ok", evidence)


def _still(run: Record) -> Finding:
    name = "layers that did not move"
    if run.settings["trained"] == "head":
        return Finding(name, "ok", "only the head was to learn")
    if not run.layers:
        return Finding(name, "unknown", "no weight change is logged", "wait for the first epoch")
    still = [layer for layer, change in run.layers.items() if not change > STILL]
    if still:
        advice = "no gradient reached them: check lora.targets, head_layer and learning_rate, and that adapters are in the model"
        return Finding(name, "wrong", ", ".join(still), advice)
    top = run.settings["head_layer"]
    above = "" if top is None else f"; the head reads layer {top}, layers above were to stay"
    return Finding(name, "ok", f"all {len(run.layers)} moved{above}")


def _early(run: Record) -> Finding:
    name = "early layers are kept"
    early, late = run.third(last=False), run.third(last=True)
    if run.settings["trained"] == "head":
        return Finding(name, "ok", "only the head was to learn")
    if math.isnan(early) or math.isnan(late):
        return Finding(name, "unknown", "no weight change is logged", "wait for the first epoch")
    evidence = f"the first third moved by {early:.2g} of its norm, the last by {late:.2g}"
    if early > EARLY * late:
        return Finding(
            name, "look", evidence, "see whether early layers still hold sound: probe MFCCs before and after; lower learning_rate"
        )
    return Finding(name, "ok", evidence)


def _waiting(run: Record) -> Finding:
    name = "waiting for data"
    times = [row["time"] for row in run.tuned if (row.get("time") or {}).get("seconds")]
    seconds, waited = (sum(one.get(key) or 0.0 for one in times) for key in ("seconds", "waiting"))
    if seconds < SECONDS:
        return Finding(name, "unknown", f"{seconds:.1f} s are logged: too few to tell", "wait for more epochs")
    evidence = f"{waited / seconds:.1%} of {seconds:.0f} s"
    if waited > WAITING * seconds:
        return Finding(name, "look", evidence, "put the run's folder, where its cache lies, on a faster disk")
    return Finding(name, "ok", evidence)
