"""What a figure shows, as a sentence for who cannot see it: the numbers that its shapes stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.study.conditions import Condition
from fastencode.study.findings.summary import number
from fastencode.study.names import ANSWERS, display_name, measure_name, metric_name, task_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["alt_text"]

MOST = 12  # sentences; a longer text is heard to its end by nobody
Tables = Mapping[str, "pd.DataFrame"]
Labels = Mapping[str, str]


def alt_text(name: str, tables: Tables, models: Sequence[Condition]) -> str:
    """The numbers behind one figure, in sentences.

    Parameters
    ----------
    name : str
        Of the figure, as in ``captions.CAPTIONS``.
    tables : mapping of str to pandas.DataFrame
        What it was drawn from.
    models : sequence of Condition

    Returns
    -------
    str
        At most twelve sentences, and where the rest can be read.
    """
    labels = {one.model: one.label for one in models}
    of, describe = _OF[name]
    sentences = list(describe(tables, labels))
    more = f" And so on for {len(sentences) - MOST} more: see {of}.csv." if len(sentences) > MOST else ""
    return " ".join(sentences[:MOST]) + more


def _picture(tables: Tables, labels: Labels) -> Iterator[str]:
    means = tables["means"]
    yield from _peaks(means[means["versus"] == "0"], "mean", labels, "r")


def _layers(tables: Tables, labels: Labels) -> Iterator[str]:
    yield from _peaks(tables["scores"], "r", labels, "r")


def _peaks(table: pd.DataFrame, value: str, labels: Labels, unit: str) -> Iterator[str]:
    """Of each region: each model's best layer, and how high it is there."""
    for region, part in table.groupby("region", sort=False):
        said = []
        for model, own in part.groupby("model", sort=False):
            by_layer = own.groupby("layer")[value].mean().dropna()
            if len(by_layer):
                said.append(f"{labels[str(model)]} is highest at layer {by_layer.idxmax()} ({unit} {_n(by_layer.max())})")
        if said:
            yield f"{display_name(region)}: {', '.join(said)}."


def _differences(tables: Tables, labels: Labels) -> Iterator[str]:
    means = tables["means"]
    for (region, model), part in means[means["versus"] != "0"].groupby(["region", "model"], sort=False):
        part = part.dropna(subset="mean")
        if len(part):
            far = part.loc[part["mean"].abs().idxmax()]
            yield (
                f"{display_name(region)}: {labels[str(model)]} differs most at layer {far['layer']}, by {_n(far['mean'], '+')} "
                f"[{_n(far['low'], '+')}, {_n(far['high'], '+')}]."
            )


def _participants(tables: Tables, labels: Labels) -> Iterator[str]:
    for (region, model), part in tables["contrasts"].groupby(["region", "model"], sort=False):
        each = part.groupby("participant")["difference"].mean().dropna()
        if len(each):
            yield (
                f"{display_name(region)}: the mean difference of {labels[str(model)]} over layers is above 0 in "
                f"{int((each > 0).sum())} of {len(each)} participants, from {_n(each.min(), '+')} to {_n(each.max(), '+')}."
            )


def _lags(tables: Tables, labels: Labels) -> Iterator[str]:
    lags = tables["lags"]
    for (region, model), part in lags[lags["depth"] == "all"].groupby(["region", "model"], sort=False):
        by_lag = part.groupby("lag")["r"].mean().dropna()
        if len(by_lag):
            best = by_lag.idxmax()
            yield f"{display_name(region)}: {labels[str(model)]} is highest at a lag of {best} TRs (r {_n(by_lag.max())})."


def _training(tables: Tables, labels: Labels) -> Iterator[str]:
    for (who, model), part in tables["training"].groupby(["participant", "model"], sort=False):
        r = part.sort_values("epoch").set_index("epoch")["validation_r"].dropna()
        if len(r):
            yield (
                f"{display_name(who)}, {labels[str(model)]}: validation r goes from {_n(r.iloc[0])} at epoch {r.index[0]} to "
                f"{_n(r.iloc[-1])} at epoch {r.index[-1]}."
            )


def _findings(tables: Tables, labels: Labels) -> Iterator[str]:
    for _, row in tables["findings"].iterrows():
        yield f"{str(row['statement']).rstrip('. ')}: {number(row)}, {ANSWERS[row['answer']].partition(' ')[2]}."


def _probes(tables: Tables, labels: Labels) -> Iterator[str]:
    for task, part in tables["probes"].groupby("task", sort=False):
        said = []
        for model, own in part.groupby("model", sort=False):
            by_layer = own.groupby("layer")["score"].mean().dropna()
            if len(by_layer):
                where = f"at layer {by_layer.idxmax()} " if len(by_layer) > 1 else ""
                said.append(f"{labels[str(model)]} {where}{_n(by_layer.max())}")
        base = part["baseline"].mean()
        known = f"; baseline {_n(base)}" if np.isfinite(base) else ""
        if said:
            yield f"{task_name(str(task))}, highest {metric_name(part['metric'].iloc[0])}: {', '.join(said)}{known}."


def _change(tables: Tables, labels: Labels) -> Iterator[str]:
    for (measure, model), part in tables["change"].groupby(["measure", "model"], sort=False):
        by_layer = part.groupby("layer")["value"].mean().dropna()
        if len(by_layer):
            first, last = by_layer.index[0], by_layer.index[-1]
            yield (
                f"{measure_name(str(measure))}, {labels[str(model)]}: {_n(by_layer.iloc[0])} at layer {first}, "
                f"{_n(by_layer.iloc[-1])} at layer {last}."
            )


def _mlp(tables: Tables, labels: Labels) -> Iterator[str]:
    for (region, model), part in tables["mlp"].groupby(["region", "model"], sort=False):
        by_layer = part.groupby("layer")["difference"].mean().dropna()
        if len(by_layer):
            yield (
                f"{display_name(region)}, {labels[str(model)]}: the network is between {_n(by_layer.min(), '+')} and "
                f"{_n(by_layer.max(), '+')} from ridge, mean over participants."
            )


def _scaling(tables: Tables, labels: Labels) -> Iterator[str]:
    for (region, model), part in tables["scaling"].groupby(["region", "model"], sort=False):
        by_hours = part.groupby("hours")["r"].mean().dropna()
        if len(by_hours) > 1:
            yield (
                f"{display_name(region)}: {labels[str(model)]} goes from r {_n(by_hours.iloc[0])} with {by_hours.index[0]:.3g} h "
                f"to {_n(by_hours.iloc[-1])} with {by_hours.index[-1]:.3g} h."
            )
        elif len(by_hours):
            yield f"{display_name(region)}: {labels[str(model)]} has r {_n(by_hours.iloc[0])}."


def _seeds(tables: Tables, labels: Labels) -> Iterator[str]:
    for (measure, region, model), part in tables["seeds"].groupby(["measure", "region", "model"], sort=False):
        spread = part.groupby(["layer", "seed"])["value"].mean().groupby("layer").agg(lambda one: one.max() - one.min()).dropna()
        if len(spread):
            place = ", ".join(filter(None, (display_name(region), measure_name(str(measure)), labels[str(model)])))
            yield f"{place}: seeds differ by at most {_n(spread.max())}, at layer {spread.idxmax()}."


def _n(value: Any, sign: str = "") -> str:
    text = format(float(value), f"{sign}.3f" if abs(value) < 100 else f"{sign}.3g").replace("-", "−")
    return "unknown" if "nan" in text else text


# Of each figure: the table that has all its numbers, and what says them.
_OF: dict[str, tuple[str, Callable[[Tables, Labels], Iterator[str]]]] = {
    "findings": ("findings", _findings),
    "picture": ("means", _picture),
    "layers": ("scores", _layers),
    "differences": ("means", _differences),
    "participants": ("contrasts", _participants),
    "lags": ("lags", _lags),
    "probes": ("probes", _probes),
    "change": ("change", _change),
    "mlp": ("mlp", _mlp),
    "scaling": ("scaling", _scaling),
    "seeds": ("seeds", _seeds),
    "training": ("training", _training),
}
