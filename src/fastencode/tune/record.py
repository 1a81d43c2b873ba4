"""What a tuning run left in its folder: settings, log and heads, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from fastencode.errors import InputError, require
from fastencode.files import read_json, read_text
from fastencode.plain import plain
from fastencode.tune.config import TuneConfig
from fastencode.tune.log import Row, kept_epoch, read_log

__all__ = ["RISE", "Record", "read_settings"]

RISE = 0.02  # a loss has risen if it is by this share above its lowest: means over the same clips repeat to about 1 %
# The loss of updates jumps where LASTS lines in a row are above JUMP times the median of the BEFORE lines before: one may be.
JUMP, BEFORE, LASTS = 2.0, 20, 3


def read_settings(path: Path) -> dict[str, Any]:
    """What a run's ``config.yaml`` says; an :class:`InputError` if it is no table of settings."""
    yaml = require("yaml", "tune")
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: correct it, or remove it") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is no table of settings: correct it, or remove it")
    return found


@dataclass(frozen=True)
class Record:
    """What a run left in its folder.

    Attributes
    ----------
    folder : Path
    settings : mapping
        Those of tuning, each with its default where the run has none, and beside them what ``config.yaml`` holds.
    identity : mapping
        ``run.json``; empty where there is none.
    rows : list of dict
        The lines of the log.
    """

    folder: Path
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read the folder of a run, finished or not.

        Raises
        ------
        InputError
            If it holds the runs of several participants, no settings, or a damaged log.
        """
        log, identity, config = (folder / name for name in ("log.jsonl", "run.json", "config.yaml"))
        if not log.is_file() and (inside := sorted(path.parent for path in folder.glob("*/log.jsonl"))):
            raise InputError(f"{folder} holds a run for each participant: give one of them, such as {inside[0]}")
        if not identity.is_file() and not config.is_file():
            raise InputError(f"{folder} holds neither run.json nor config.yaml: give the folder of a tuning run")
        if not log.is_file():
            raise InputError(f"{folder} has no log.jsonl yet: its run has not begun to learn; the command that made it goes on")
        known = read_json(identity) if identity.is_file() else {}
        given = read_settings(config) if config.is_file() else {}
        settings = {**plain(TuneConfig()), **given, **(given.get("tune") or {}), **known.get("settings", {})}
        return cls(folder, settings, known, read_log(log))

    @cached_property
    def epochs(self) -> list[Row]:
        """The lines of epochs, in order; epoch 0 is the model before any update."""
        return sorted((row for row in self.rows if row["kind"] == "epoch"), key=lambda row: row["epoch"])

    @cached_property
    def tuned(self) -> list[Row]:
        """The epochs after the first update."""
        return [row for row in self.epochs if row["epoch"] > 0]

    @cached_property
    def updates(self) -> list[Row]:
        """The lines of updates."""
        return [row for row in self.rows if row["kind"] == "update"]

    @cached_property
    def end(self) -> Row | None:
        """The last line of a finished run."""
        return next((row for row in reversed(self.rows) if row["kind"] == "end"), None)

    @cached_property
    def kept(self) -> Row:
        """The line of the epoch whose model was kept; empty before the first epoch."""
        return kept_epoch(self.rows) or {}

    @cached_property
    def to_beat(self) -> tuple[float | None, str]:
        """The validation loss of a model that learned nothing, and which that is.

        Of predicting the mean; where no responses were learned, the model's own loss before the first update.
        """
        if self.targets == "stimulus":
            first = self.epochs[0] if self.epochs and self.epochs[0]["epoch"] == 0 else {}
            return first.get("validation_loss"), "before the first update"
        return self.kept.get("mean_loss"), "of predicting the mean"

    @property
    def targets(self) -> str:
        """The kind of targets, without the folder of another model."""
        return str(self.settings["targets"]).partition(":")[0]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the run was to learn or to prefer."""
        return tuple(self.settings.get("regions") or self.settings.get("prefer") or ())

    @cached_property
    def layers(self) -> dict[str, float]:
        """The weight change of each transformer layer that the loss reaches, in order; empty before the first epoch has ended."""
        top = self.settings["head_layer"]
        changes = (self.kept if self.kept.get("epoch") else (self.tuned or [{}])[-1]).get("weight_change") or {}
        inside = [name for name in sorted(changes) if name.startswith("layer-") and name != "layer-00"]
        reached = [name for name in inside if top is None or int(name.removeprefix("layer-")) <= top]
        return {name: math.nan if changes[name] is None else float(changes[name]) for name in reached}

    @cached_property
    def gradient_norms(self) -> dict[str, float]:
        """Part → Euclidean norm of its gradients, mean over the updates in the log (every ``log_every``-th), before any clip.

        Named as in the log: ``layer-00``, ``layer-01``, …, ``head``, ``other``. An update in which a part had no gradient
        does not count for it. Empty before the first update was logged.
        """
        found: dict[str, list[float]] = {}
        for row in self.updates:
            for where, norm in (row.get("gradient_norm") or {}).items():
                if norm is not None:
                    found.setdefault(where, []).append(float(norm))
        return {where: float(np.mean(norms)) for where, norms in sorted(found.items())}

    def third(self, last: bool) -> float:
        """Mean weight change of the first or last third of ``layers``; NaN where there are none."""
        values = list(self.layers.values())
        n = max(1, len(values) // 3)
        return float(np.mean(values[-n:] if last else values[:n])) if values else math.nan

    @cached_property
    def voxels(self) -> dict[str, NDArray[np.int64]]:
        """Head → the columns of the data set that it predicts, (v,) int64, of those that were saved."""
        numpy, found = require("safetensors.numpy", "tune"), {}
        for path in sorted((self.folder / "heads").glob("*.safetensors")):
            try:
                found[path.stem] = numpy.load_file(path)["voxels"]
            except (OSError, KeyError, SafetensorError) as error:
                raise InputError(f"{path} is damaged ({error}): copy it again, or tune again into another folder") from error
        return found

    @cached_property
    def unsteady(self) -> str:
        """How the training loss rises or jumps; empty if it does not."""
        losses = [(row["epoch"], row["train_loss"]) for row in self.tuned if row.get("train_loss") is not None]
        if losses:
            best, lowest = min(losses, key=lambda pair: pair[1])
            epoch, last = losses[-1]
            if last - lowest > RISE * abs(lowest):
                return f"the training loss rises from {lowest:.4g} (epoch {best}) to {last:.4g} (epoch {epoch})"
        single = [(row["update"], row["loss"]) for row in self.updates if row.get("loss") is not None]
        for k in range(1, len(single) - LASTS + 1):
            usual = float(np.median([loss for _, loss in single[max(0, k - BEFORE) : k]]))
            after = min(loss for _, loss in single[k : k + LASTS])
            if after > JUMP * abs(usual):
                return f"the loss jumps from about {usual:.4g} to {after:.4g} and more at update {single[k][0]}"
        return ""
