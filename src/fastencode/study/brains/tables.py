"""Tidy tables of layer scores: one row for each participant, layer and region; tests over participants; models compared.

Axis letters: v voxel, r region, b bootstrap draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import FastencodeWarning
from fastencode.study.brains.layer_scores import LayerScores, LayerShares, LeftOut
from fastencode.study.config import WHOLE
from fastencode.study.inference.blocks import interval
from fastencode.study.inference.significance import FALSE_DISCOVERIES, fdr, signed_rank

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Key",
    "Label",
    "adjusted_pvalues",
    "compared_with",
    "contrast_rows",
    "delays_text",
    "left_out_rows",
    "score_rows",
    "share_rows",
    "signed_rank_rows",
    "test_rows",
]

_GROUP = ("model", "delays", "layer", "region")


@dataclass(frozen=True)
class Label:
    """What was scored: a model's layers or a low-level feature, with which delays (in TRs), less which low-level features."""

    source: str
    delays: tuple[int, ...]
    less: tuple[str, ...] = ()
    low_level: bool = False

    @property
    def name(self) -> str:
        """What tables call it; delays have a column of their own."""
        return f"{self.source} less {'+'.join(self.less)}" if self.less else self.source

    @property
    def folder(self) -> str:
        """What files call it."""
        return f"{self.name} at {delays_text(self.delays)}".replace(" ", "-")


Key = tuple[Label, str, int]
"""Label, participant, layer."""

Found = Mapping[Key, LayerScores]
Columns = Mapping[str, Mapping[str, NDArray[np.intp]]]
"""Participant → region → columns of its responses; scores hold regions in this order."""


def delays_text(delays: Sequence[int]) -> str:
    """Delays as the tables write them."""
    return " ".join(map(str, delays))


def adjusted_pvalues(scores: LayerScores, family: NDArray[np.intp]) -> NDArray[np.float64]:
    """P-values (v,) adjusted for the false discovery rate over a family of voxels; NaN for all others."""
    adjusted = np.full(len(scores.p), np.nan)
    adjusted[family] = fdr(scores.p[family])
    return adjusted


def score_rows(found: Found, columns: Columns, fit_rows: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row for each model, participant, layer and region.

    ``fit_rows`` are the rows of responses that the participant's ridges were fitted on: not everybody need have heard as much.

    ``significant`` is the share of the region's voxels whose p-value survives a false discovery rate of 5 %; the family is all
    mapped voxels of one model at its delays, layer and participant. Intervals are those of the test story's blocks of scans, for
    this participant's voxels and ceilings as they are.
    """
    rows = []
    for (label, who, layer), scores in found.items():
        family = columns[who][WHOLE]
        adjusted = adjusted_pvalues(scores, family)
        low, high = interval(scores.region, scores.draws, float(scores.n_blocks), correlation=True)
        normalized_low, normalized_high = interval(
            scores.region_normalized, scores.draws_normalized, float(scores.n_blocks), correlation=False
        )
        for place, (region, chosen) in enumerate(columns[who].items()):
            rows.append(
                {
                    **_names(label, who, layer, region),
                    "fit_rows": fit_rows[who],
                    "n_voxels": len(chosen),
                    "r": scores.region[place],
                    "r_low": low[place],
                    "r_high": high[place],
                    "r_normalized": scores.region_normalized[place],
                    "r_normalized_low": normalized_low[place],
                    "r_normalized_high": normalized_high[place],
                    "ceiling": scores.region_ceiling[place],
                    "r_over_ceiling": scores.region_ratios[place],
                    "significant": float((adjusted[chosen] <= FALSE_DISCOVERIES).mean()),
                    "alpha_median": float(np.median(scores.alpha[chosen])),
                    "at_edge": float((scores.at_edge[chosen] != 0).mean()),
                }
            )
    return rows


def test_rows(by_test: Mapping[str, Found], columns: Columns, fit_rows: Mapping[str, int]) -> list[dict[str, Any]]:
    """The rows of :func:`score_rows` for each test story by itself, with its name in ``test_story``.

    The main table has all test stories together, each z-scored by itself: more scans make that the surest single number, and it
    is what studies with several test stories report. This one shows whether they agree.
    """
    return [{"test_story": story, **row} for story, found in by_test.items() for row in score_rows(found, columns, fit_rows)]


def left_out_rows(
    found: Mapping[Key, LeftOut], held_out: Mapping[Key, Mapping[str, int]], columns: Columns
) -> list[dict[str, Any]]:
    """Mean r of each region on each story that was left out; then, as the story ``mean``, their mean, each counting as much.

    ``standard_deviation`` is that of r over stories. Divided by the root of their number it would not be a standard error:
    stories are predicted by ridges that share most of what they were fitted on. There is no noise ceiling of stories that were
    heard once, so voxels are those that the test stories chose.

    Parameters
    ----------
    held_out : (label, participant, layer) → story → its rows
        In the order of the rows of ``r``.
    """
    rows = []
    for (label, who, layer), scores in found.items():
        stories = held_out[label, who, layer]
        for region, chosen in columns[who].items():
            names = {**_names(label, who, layer, region), "n_voxels": len(chosen)}
            r = scores.r[:, chosen].mean(axis=1)
            for (story, n_rows), value in zip(stories.items(), r, strict=True):
                rows.append({**names, "story": story, "rows": n_rows, "r": float(value), "standard_deviation": np.nan})
            mean = {"story": "mean", "rows": sum(stories.values()), "r": float(r.mean())}
            rows.append({**names, **mean, "standard_deviation": float(r.std(ddof=1))})
    return rows


def share_rows(found: Mapping[Key, LayerShares], bands: Mapping[Key, Sequence[str]], columns: Columns) -> list[dict[str, Any]]:
    """One row for each model, participant, layer, region and part: ``total``, what is ``unique`` to each band, and ``shared``.

    Means over the region's voxels of R² on the test story, in units of a single hearing (see
    :func:`fastencode.study.brains.ceilings.averaged_spread`) and not divided by a ceiling; ``band`` is ``layer`` or a low-level
    feature.
    """
    rows = []
    for (label, who, layer), shares in found.items():
        names = ("layer", *bands[label, who, layer])
        values = {("total", ""): shares.total, ("shared", ""): shares.total - shares.unique.sum(axis=0)}
        values |= {("unique", band): unique for band, unique in zip(names, shares.unique, strict=True)}
        for region, chosen in columns[who].items():
            for (part, band), value in values.items():
                rows.append(
                    {
                        **_names(label, who, layer, region),
                        "part": part,
                        "band": band,
                        "r2": float(value[chosen].mean()),
                    }
                )
    return rows


def compared_with(labels: Iterable[Label], before: Mapping[str, str] | None = None) -> dict[Label, Label]:
    """Label → what it is compared with, at the same delays.

    Parameters
    ----------
    labels : iterable of Label
    before : source → source, optional
        The model that each was tuned from; what is missing is compared with nothing. By default all are compared with the first.

    Returns
    -------
    dict
        Low-level features are compared with nothing, and nothing with itself.
    """
    labels = list(dict.fromkeys(labels))
    first = next((label.source for label in labels if not label.low_level), None)
    found = {}
    for label in labels:
        source = first if before is None else before.get(label.source)
        if source is not None and source != label.source and not label.low_level:
            found[label] = replace(label, source=source)
    return found


def contrast_rows(found: Found, columns: Columns, before: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Every model less the one it is compared with, layer by layer, where both have the layer; draws are of the same blocks.

    ``difference`` is this model's ``r`` minus that of ``versus``: above 0 where this one predicts better. ``before`` is as for
    :func:`compared_with`.
    """
    against_of = compared_with((label for label, _, _ in found), before)
    rows = []
    for (label, who, layer), scores in found.items():
        against = found.get((against_of[label], who, layer)) if label in against_of else None
        if against is None:
            continue
        difference, draws = scores.region - against.region, scores.draws - against.draws
        low, high = interval(difference, draws, float(scores.n_blocks), correlation=False)
        for place, region in enumerate(columns[who]):
            rows.append(
                {
                    **_names(label, who, layer, region),
                    "versus": against_of[label].source,
                    "difference": difference[place],
                    "low": low[place],
                    "high": high[place],
                }
            )
    return rows


def signed_rank_rows(scores: pd.DataFrame, contrasts: pd.DataFrame) -> list[dict[str, Any]]:
    """Signed-rank tests over participants of every raw score against 0, and of every difference.

    A participant counts where the region has voxels to map. ``p_smallest`` is what so many can reach at all; ``q`` is p adjusted
    for the false discovery rate over all layers and regions of one model at its delays (and of one comparison).

    Warns
    -----
    FastencodeWarning
        Once, if in some tests there are too few participants for any p below .05.
    """
    rows = _tests(scores.assign(versus="0"), "r")
    if len(contrasts):
        rows += _tests(contrasts, "difference")
    weak = [row["participants"] for row in rows if row["p_smallest"] > 0.05]
    if weak:
        where = "" if len(weak) == len(rows) else f" in {len(weak)} of {len(rows)} tests"
        few = "1 participant" if min(weak) == 1 else f"{min(weak)} participants"
        warnings.warn(
            f"{few}{where}: a signed-rank test needs at least 6 to reach p < .05; "
            "report each participant's score and interval instead",
            FastencodeWarning,
            stacklevel=2,
        )
    return rows


def _tests(table: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    rows = []
    for names, group in table.groupby([*_GROUP, "versus"], sort=False):
        values = group[column].to_numpy(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FastencodeWarning)
            test = signed_rank(values)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        rows.append(
            {
                **dict(zip((*_GROUP, "versus"), names, strict=True)),
                "participants": len(values),
                "mean": float(values.mean()),
                "standard_error": error,
                "p": test.p,
                "p_smallest": test.smallest,
            }
        )
    families: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault((row["model"], row["delays"]), []).append(row)
    for family in families.values():
        for row, q in zip(family, fdr([row["p"] for row in family]), strict=True):
            row["q"] = float(q)
    return rows


def _names(label: Label, who: str, layer: int, region: str) -> dict[str, Any]:
    return {
        "participant": who,
        "model": label.name,
        "delays": delays_text(label.delays),
        "layer": layer,
        "region": region,
    }
