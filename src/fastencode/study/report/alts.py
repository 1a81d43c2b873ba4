"""Alternative texts of figures: the numbers that a figure shows, in sentences."""

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

MOST = 12  # sentences: nobody listens to a longer text
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


def _curves(table: pd.DataFrame, keys: list[str], value: str, by: str = "layer") -> Iterator[tuple[tuple[str, ...], pd.Series]]:
    """The keys of each group of rows, and its mean ``value`` at each layer; groups without values are skipped."""
    for key, part in table.groupby(keys, sort=False):
        means = part.groupby(by)[value].mean().dropna()
        if len(means):
            yield tuple(map(str, key)), means


def _peaks(table: pd.DataFrame, value: str, labels: Labels, unit: str) -> Iterator[str]:
    """For each region, the best layer of each model and its score."""
    said: dict[str, list[str]] = {}
    for (region, model), by_layer in _curves(table, ["region", "model"], value):
        best = f"{labels[model]} is highest at layer {by_layer.idxmax()} ({unit} {_n(by_layer.max())})"
        said.setdefault(region, []).append(best)
    for region, each in said.items():
        yield f"{display_name(region)}: {', '.join(each)}."


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
    for (region, model), each in _curves(tables["contrasts"], ["region", "model"], "difference", by="participant"):
        yield (
            f"{display_name(region)}: the mean difference of {labels[model]} over layers is above 0 in "
            f"{int((each > 0).sum())} of {len(each)} participants, from {_n(each.min(), '+')} to {_n(each.max(), '+')}."
        )


def _lags(tables: Tables, labels: Labels) -> Iterator[str]:
    lags = tables["lags"]
    for (region, model), by_lag in _curves(lags[lags["depth"] == "all"], ["region", "model"], "r", by="lag"):
        yield f"{display_name(region)}: {labels[model]} is highest at a lag of {by_lag.idxmax()} TRs (r {_n(by_lag.max())})."


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
    for (measure, model), by_layer in _curves(tables["change"], ["measure", "model"], "value"):
        yield (
            f"{measure_name(measure)}, {labels[model]}: {_n(by_layer.iloc[0])} at layer {by_layer.index[0]}, "
            f"{_n(by_layer.iloc[-1])} at layer {by_layer.index[-1]}."
        )


def _mlp(tables: Tables, labels: Labels) -> Iterator[str]:
    for (region, model), by_layer in _curves(tables["mlp"], ["region", "model"], "difference"):
        yield (
            f"{display_name(region)}, {labels[model]}: the network − ridge is between {_n(by_layer.min(), '+')} and "
            f"{_n(by_layer.max(), '+')}, mean over participants."
        )


def _scaling(tables: Tables, labels: Labels) -> Iterator[str]:
    for (region, model), by_hours in _curves(tables["scaling"], ["region", "model"], "r", by="hours"):
        first, last = by_hours.iloc[0], by_hours.iloc[-1]
        if len(by_hours) > 1:
            ends = f"goes from r {_n(first)} with {by_hours.index[0]:.3g} h to {_n(last)} with {by_hours.index[-1]:.3g} h"
        else:
            ends = f"has r {_n(first)}"
        yield f"{display_name(region)}: {labels[str(model)]} {ends}."


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
