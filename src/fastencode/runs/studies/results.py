"""Collect the finished stages of a study into tables: scores, training, probes, change and others.

A condition is the mean over its seeds, and its intervals are those of this mean. The table ``seeds`` has each seed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.errors import require
from fastencode.runs.changes import change_rows
from fastencode.runs.collected import origin_of
from fastencode.runs.engine import Stages
from fastencode.runs.fits import Records, records_of
from fastencode.runs.probing import RECORD
from fastencode.runs.studies.readings import EVERYBODY, Reading
from fastencode.runs.studies.stages import Graph
from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.mlp import MlpScores, mlp_rows
from fastencode.study.brains.tables import Key, contrast_rows, score_rows, signed_rank_rows
from fastencode.study.config import WHOLE
from fastencode.study.findings.contrasts import ENOUGH, Finding, evaluate
from fastencode.study.findings.means import mean_rows
from fastencode.study.findings.measurements import (
    BEYOND_LINEAR,
    MLP,
    Cell,
    Sample,
    measurements_of_mlp,
    measurements_of_probes,
    measurements_of_scores,
)
from fastencode.study.findings.mixed import summary_rows
from fastencode.study.findings.probe_tables import probe_rows
from fastencode.study.findings.verdicts import layer_thirds
from fastencode.study.findings.weighted import Planned
from fastencode.study.inference.blocks import interval
from fastencode.study.probes import ProbeResult, load_probe
from fastencode.tune.log import epochs

__all__ = ["Results", "collect_study"]

_NEAR = 0.05  # of the hours that an arm names: others are said


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes
    ----------
    graph : Graph
    found : Records
        Scores of all fits, by reading.
    probes : (task, reading, owner) → ProbeResult
    changes : (reading, owner) → the folder of its measures of change
    training : list of dict
        One row per run and epoch, with its ``seed``.
    missing : tuple of str
        Results that are not finished, such as "scores of P1/tuned".
    """

    graph: Graph
    found: Records
    probes: Mapping[tuple[str, Reading, str], ProbeResult]
    changes: Mapping[tuple[Reading, str], Path]
    training: list[dict[str, Any]]
    missing: tuple[str, ...] = ()
    _readings: Mapping[str, Reading] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = (*self.graph.names.readings, *self.graph.names.low_level)
        object.__setattr__(self, "_readings", {reading.name: reading for reading in known})

    @cached_property
    def scored(self) -> dict[Key, LayerScores]:
        """Scores of conditions: means over seeds."""
        return self._merged(self._plain)

    @cached_property
    def _plain(self) -> dict[Key, LayerScores]:
        """Scores of every reading and baseline, without residuals."""
        return {key: one for key, one in self.found.scores.items() if not key[0].less}

    @cached_property
    def _residual(self) -> dict[Key, LayerScores]:
        """Scores of residuals (low-level features regressed out) of every reading, by the name of the reading."""
        return {(replace(key[0], less=()), *key[1:]): one for key, one in self.found.scores.items() if key[0].less}

    def _merged(self, scores: Mapping[Key, LayerScores]) -> dict[Key, LayerScores]:
        """Scores of readings → scores of conditions: means over seeds."""
        several: dict[Key, list[LayerScores]] = {}
        for (label, who, layer), one in scores.items():
            condition, _ = self.conditions[label.source]
            several.setdefault((replace(label, source=condition), who, layer), []).append(one)
        return {key: _mean_scores(seeds) for key, seeds in several.items()}

    @property
    def n_layers(self) -> int:
        """Number of layers of the deepest model that was scored or probed."""
        scored = [layer + 1 for _, _, layer in self.found.scores]
        return max([*scored, *(len(one.score) for one in self.probes.values())], default=0)

    @cached_property
    def conditions(self) -> dict[str, tuple[str, int]]:
        """Name of a reading or baseline in fits and probes → (condition, seed)."""
        readings = {name: (reading.condition, reading.seed) for name, reading in self._readings.items()}
        return readings | {name: (name, 0) for name in self.graph.config.baselines}

    @cached_property
    def before(self) -> dict[str, str]:
        """Condition → the one that its differences are taken to: the same model as it is, or the first arm of that model."""
        of_model: dict[str, Reading] = {}
        for reading in sorted(self.graph.names.readings, key=lambda reading: reading.tuning is not None):
            of_model.setdefault(reading.model, reading)
        return {reading.condition: of_model[reading.model].condition for reading in self.graph.names.readings}

    @cached_property
    def measurements(self) -> dict[Cell, Sample]:
        """All measurements, each seed by itself."""
        probed = {(task, one.condition, _owner(owner), one.seed): found for (task, one, owner), found in self.probes.items()}
        scored = measurements_of_scores(self._plain, self.found.columns, self.conditions)
        residual = measurements_of_scores(self._residual, self.found.columns, self.conditions)
        less = {cell._replace(measure="r_residual"): sample for cell, sample in residual.items() if cell.measure == "r"}
        networks = measurements_of_mlp(self.found.mlp, self.found.columns, self.conditions)
        return {**scored, **less, **networks, **measurements_of_probes(probed)}

    @cached_property
    def layers(self) -> dict[str, set[int]]:
        """Condition → its measured layers; for a condition without results, the layers of the deepest model."""
        found: dict[str, set[int]] = {}
        for cell in self.measurements:
            if cell.measure not in (MLP, BEYOND_LINEAR):  # networks are fitted on some layers only
                found.setdefault(cell.model, set()).add(cell.layer)
        for reading in self._readings.values():
            found.setdefault(reading.condition, set(range(self.n_layers)))
        return found

    def findings(self) -> list[Finding]:
        """Values, tests and answers of the study's contrasts."""
        return evaluate(self.measurements, self.graph.config.contrasts, self.layers, self._planned())

    def _planned(self) -> dict[str, Planned]:
        """What the study should measure, finished or not."""
        names, config = self.graph.names, self.graph.config
        regions = [*dict.fromkeys(region for own in self.graph.ground.regions.values() for region in own), WHOLE]
        scored = list(dict.fromkeys(reading.condition for reading in names.readings))
        probed = [*scored, *(reading.condition for reading in names.low_level)]
        brains = dict.fromkeys(("r", "r_normalized"), Planned([*scored, *config.baselines], regions))
        if config.residualize:
            brains["r_residual"] = Planned(scored, regions)
        if config.mlp is not None:
            layers = {model: self._network_layers(model, config.mlp.layers) for model in scored}
            brains |= dict.fromkeys((MLP, BEYOND_LINEAR)[: 1 + config.mlp.linear], Planned(scored, regions, layers))
        return {**brains, **dict.fromkeys(config.probes.tasks, Planned(probed, [""]))}

    def _network_layers(self, model: str, asked: tuple[int, ...]) -> list[int]:
        """The layers of a condition that networks are fitted on."""
        found = {cell.layer for cell in self.measurements if cell.measure == MLP and cell.model == model}
        return sorted(found or asked or {self.n_layers - 1})

    def warnings(self) -> list[str]:
        """Sentences about results that are missing, and about hours that differ from those that were asked for."""
        return [*(f"missing, because it is not finished: {text}" for text in self.missing), *self._other_hours()]

    def origin(self, stages: Stages) -> dict[str, Any]:
        """Provenance of the tables: models, settings of features, digests of sounds and responses."""
        return origin_of(stages, self.found) if self.found.scores else {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of each table, by the table names of :func:`fastencode.study.report.report.write_report`."""
        scores = self.score_rows()
        regions = {row["region"] for row in scores}
        columns, frame = self.found.columns, require("pandas", "tune").DataFrame
        contrasts = contrast_rows(self.scored, columns, self.before)
        rows = {
            "scores": scores,
            "means": mean_rows(self.scored, columns, self.before) if self.scored else [],
            "contrasts": contrasts,
            "tests": signed_rank_rows(frame(scores), frame(contrasts)) if len(columns) >= ENOUGH else [],
            "training": _over_seeds(self.training, ("model", "participant", "epoch")),
            "seeds": self.seed_rows(),
            "scaling": self.scaling_rows(),
            "residuals": self._averaged_rows(self._residual),
            "summary": summary_rows(self.measurements, self.graph.config.contrasts, self.layers),
            "probes": self.probe_rows(),
            "change": self.change_rows(),
            "mlp": self.mlp_rows(),
        }
        return {name: [row for row in table if row.get("region") in {None, "", *regions}] for name, table in rows.items()}

    def score_rows(self) -> list[dict[str, Any]]:
        """One row per participant, condition, layer and region: means over seeds with their intervals."""
        return self._averaged_rows(self._plain)

    def _averaged_rows(self, scores: Mapping[Key, LayerScores]) -> list[dict[str, Any]]:
        rows = list(self._rows_of_seeds(scores))
        ends = {
            _place(row): {name: row[name] for name in row if name.endswith(("_low", "_high"))}
            for row in score_rows(self._merged(scores), self.found.columns, self.found.fit_rows)
        }
        merged = [{**row, **ends[_place(row)]} for row in _over_seeds(rows, ("model", "participant", "layer", "region"))]
        people = list(self.found.columns)
        order = list(dict.fromkeys(condition for condition, _ in self.conditions.values()))
        return sorted(merged, key=lambda row: (people.index(row["participant"]), order.index(row["model"])))

    def seed_rows(self) -> list[dict[str, Any]]:
        """One row per measurement and seed, for conditions with several seeds."""
        seeds: dict[str, set[int]] = {}
        for cell in self.measurements:
            seeds.setdefault(cell.model, set()).add(cell.seed)
        return [
            {
                "measure": cell.measure,
                "participant": cell.participant,
                "model": cell.model,
                "seed": cell.seed,
                "layer": cell.layer,
                "region": cell.region,
                "value": sample.value,
                **_ends(sample.value, sample.draws, sample.n_units, sample.correlation),
            }
            for cell, sample in self.measurements.items()
            if len(seeds[cell.model]) > 1 and cell.measure != "r_normalized" and cell.region != WHOLE
        ]

    def scaling_rows(self) -> list[dict[str, Any]]:
        """Mean r of late layers by hours of training data: one row per arm, participant, region and number of hours.

        ``hours`` are the hours that were heard in whole runs, averaged over the participants of the row's condition; ``heard``
        are the participant's own, ``asked`` those of the arm. The untuned models of these arms have 0 hours.
        """
        readings = self.graph.names.readings
        tuned = [reading for reading in readings if reading.line and reading.tuning is not None]
        before = [one for one in readings if one.tuning is None and one.model in {reading.model for reading in tuned}]
        rows = []
        for reading in (*before, *tuned):
            late = self._late(reading.condition)
            heard = self._heard(reading)
            hours = round(float(np.mean([heard[who] for _, who, _ in late])), 6) if late else 0.0
            for (_, who, _), one in late.items():
                for place, region in enumerate(self.found.columns[who]):
                    names = {"model": reading.line or reading.condition, "participant": who, "region": region, "hours": hours}
                    more = {"heard": heard[who], "asked": _asked(reading)}
                    r, draws = float(one.region[place]), one.draws[:, place]
                    rows.append({**names, **more, "r": r, **_ends(r, draws, float(one.n_blocks), True)})
        return _over_seeds(rows, ("model", "participant", "region", "hours"))

    def _heard(self, reading: Reading) -> dict[str, float]:
        """Participant → the hours that a reading learned from."""
        if reading.tuning is None:
            return dict.fromkeys(self.graph.names.participants, 0.0)
        return self.graph.heard(reading.tuning)

    def _other_hours(self) -> Iterator[str]:
        """Where whole runs make other hours than an arm names."""
        for reading in {one.condition: one for one in self.graph.names.readings if one.line}.values():
            asked, heard = _asked(reading), self._heard(reading)
            far = {who: hours for who, hours in heard.items() if abs(hours - asked) > _NEAR * asked}
            if far:
                each = ", ".join(f"{who} {hours:.3g} h" for who, hours in far.items())
                yield f"{reading.label}: whole runs make other hours than {asked:g}: {each}; tables and curves count these"

    def _late(self, condition: str) -> dict[Key, LayerScores]:
        """Scores of each participant, averaged over the late layers of a condition."""
        own = {key: one for key, one in self.scored.items() if key[0].source == condition}
        late = layer_thirds(layer for _, _, layer in own)
        chosen = set(late.get("late", late.get("only", [])))
        people: dict[Key, list[LayerScores]] = {}
        for (label, who, layer), one in own.items():
            if layer in chosen:
                people.setdefault((label, who, max(chosen)), []).append(one)
        return {key: _mean_scores(several) for key, several in people.items()}

    def probe_rows(self) -> list[dict[str, Any]]:
        """One row per task, condition, owner and layer: means over seeds with their intervals."""
        probed = {(task, one.condition, _owner(owner), str(one.seed)): found for (task, one, owner), found in self.probes.items()}
        return probe_rows(probed)

    def change_rows(self) -> list[dict[str, Any]]:
        """One row per condition, owner, layer and measure: means over seeds."""
        rows = [
            {"seed": reading.seed, **row}
            for (reading, owner), folder in self.changes.items()
            for row in change_rows({(_owner(owner), reading.condition): folder})
        ]
        return _over_seeds(rows, ("model", "participant", "layer", "measure"))

    def mlp_rows(self) -> list[dict[str, Any]]:
        """One row per participant, condition, layer and region: means over seeds with their intervals."""
        several: dict[tuple[str, str, int], list[MlpScores]] = {}
        for (label, who, layer), one in self.found.mlp.items():
            several.setdefault((who, self._readings[label.source].condition, layer), []).append(one)
        means = {
            key: replace(one[0], **{name: _mean_of(one, name) for name in ("ridge", "mlp", "linear", "draws", "epochs")})
            for key, one in several.items()
        }
        return mlp_rows(means, self.found.columns)

    def _rows_of_seeds(self, scores: Mapping[Key, LayerScores]) -> Iterator[dict[str, Any]]:
        shown = {*self.graph.config.data.regions}
        for row in score_rows(scores, self.found.columns, self.found.fit_rows):
            condition, seed = self.conditions[row["model"]]
            if row["region"] in shown if shown else row["region"] != WHOLE:
                yield {**row, "model": condition, "seed": seed}


def collect_study(stages: Stages, graph: Graph, finished: Mapping[str, Path]) -> Results:
    """Read the results of the finished stages of a study.

    Parameters
    ----------
    stages : Stages
    graph : Graph
    finished : stage → its folder
    """
    names, missing = graph.names, list[str]()
    for kind, of in (("scores", names.features), ("probes", names.probes)):
        missing += [f"{kind} of {name.partition('/')[2]}" for name in of if name not in finished]
    ends = {reading.tuning.name: reading for reading in names.readings if reading.tuning is not None and reading.epoch is None}
    training = [
        {"participant": _owner(owner), "model": ends[run.name].condition, "seed": ends[run.name].seed, **row}
        for name, (run, owner) in names.models.items()
        if name in finished
        for row in _curves(finished[name] / "log.jsonl")
    ]
    return Results(
        graph,
        records_of(stages, [name for name in finished if name.startswith(("fits/", "mlp/"))]),
        {what: load_probe(finished[name] / RECORD) for name, what in names.probes.items() if name in finished},
        {(after, owner): finished[name] for name, (_, after, owner) in names.changes.items() if name in finished},
        training,
        tuple(missing),
    )


def _asked(reading: Reading) -> float:
    return 0.0 if reading.tuning is None or reading.tuning.hours is None else reading.tuning.hours


def _owner(owner: str) -> str:
    """The column ``participant`` of tables: "" for a model that belongs to no participant."""
    return "" if owner == EVERYBODY else owner


def _curves(log: Path) -> list[dict[str, Any]]:
    """One row per epoch of a training log. The training loss before the first update is NaN."""
    names = ("epoch", "updates", "train_loss", "validation_loss", "validation_r")
    return [
        {**{name: math.nan if row[name] is None else row[name] for name in names}, "seconds": row["time"]["seconds"]}
        for row in epochs(log)
    ]


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["participant"], row["layer"], row["region"]


def _mean_scores(several: Sequence[LayerScores]) -> LayerScores:
    """Scores averaged over seeds. Bootstrap draws are averaged one by one: equal draws resample equal blocks."""
    names = ("region", "region_normalized", "draws", "draws_normalized")
    return replace(several[0], **{name: _mean_of(several, name) for name in names})


def _mean_of(several: Sequence[Any], name: str) -> Any:
    return np.mean([getattr(one, name) for one in several], axis=0)


def _ends(value: float, draws: np.ndarray, n_units: float, correlation: bool) -> dict[str, float]:
    """The 95 % interval of a number, from its bootstrap draws."""
    low, high = interval(value, draws, n_units, correlation=correlation)
    return {"low": float(low), "high": float(high)}


def _over_seeds(rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> list[dict[str, Any]]:
    """Average rows that are equal in the columns ``key``: means of floats; other columns are those of the first row."""
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(row[name] for name in key), []).append(row)
    return [
        {
            name: float(np.mean([row[name] for row in group])) if isinstance(value, float) else value
            for name, value in group[0].items()
            if name != "seed"
        }
        for group in alike.values()
    ]
