"""What tests of a tuning run's log, figure, card and diagnosis share: the lines of a run that never was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.tune.log import Log

Row = dict[str, Any]


def write_log(folder: Path, rows: list[Row]) -> Path:
    """``log.jsonl`` in a folder, which is made."""
    with Log(folder / "log.jsonl", size=0) as log:
        for row in rows:
            log.write(**row)
    return log.path


def log_rows(
    people: int = 1, n_epochs: int = 5, layers: int = 12, per_epoch: int = 40, *, seed: int = 0, seconds: float = 60.0
) -> list[Row]:
    """The lines of a run in which all went well: linear schedule, losses that fall, late layers that move most."""
    rng = np.random.default_rng(seed)
    names = [f"P{n + 1}" for n in range(people)]
    skill = {who: 0.6 + 0.4 * rng.random() for who in names}
    last = n_epochs * per_epoch
    rows = [_epoch(0, 0, names, skill, 0.0, layers, seconds, None)]
    losses: list[float] = []
    for n in range(1, last + 1):
        share = min(n / (0.1 * last), (last - n) / (0.9 * last))
        falls = 1 - math.exp(-3 * n / last)
        losses.append(1.0 - 0.15 * falls + 0.03 * rng.standard_normal())
        if n % 5 == 0:
            norms = {f"layer-{k:02d}": (0.02 + 0.01 * k) * (1 + 0.2 * rng.random()) for k in range(1, layers + 1)}
            rows.append({
                "kind": "update", "update": n, "epoch": 1 + (n - 1) // per_epoch, "stories": ["life"], "loss": losses[-1],
                "losses": dict.fromkeys(names, losses[-1]), "learning_rate": {"backbone": 5e-5 * share, "heads": 1e-4 * share},
                "gradient_norm": {**norms, "head": 0.4 * (1 + 0.2 * rng.random())},
                "time": {"seconds": seconds / per_epoch, "waiting": 0.0, "clips_per_second": 80.0},
            })  # fmt: skip
        if n % per_epoch == 0:
            train = float(np.mean(losses[-per_epoch:]))
            rows.append(_epoch(n // per_epoch, n, names, skill, falls, layers, seconds, train))
    rows.append({"kind": "end", "why": "all epochs", "epoch_kept": n_epochs, "cnn_unchanged": True, "updates": last})
    return rows


def _epoch(
    epoch: int,
    updates: int,
    names: list[str],
    skill: dict[str, float],
    falls: float,
    layers: int,
    seconds: float,
    train: float | None,
) -> Row:
    people = {
        who: {
            "loss": 1.02 - 0.1 * skill[who] * falls, "mean_loss": 1.0, "r": 0.3 * skill[who] * falls,
            "quantiles": {str(q): 0.3 * skill[who] * falls + 0.002 * (q - 50) for q in (5, 25, 50, 75, 95)},
        }
        for who in names
    }  # fmt: skip
    means = {name: float(np.mean([one[key] for one in people.values()])) for name, key in
             (("validation_loss", "loss"), ("mean_loss", "mean_loss"), ("validation_r", "r"))}  # fmt: skip
    changes = {f"layer-{k:02d}": 0.004 * k * math.sqrt(falls) for k in range(1, layers + 1)}
    return {
        "kind": "epoch", "epoch": epoch, "updates": updates, "train_loss": train, **means, "participants": people,
        "weight_change": {**changes, "head": 0.8 * math.sqrt(falls)},
        "gradient_norm": {f"layer-{k:02d}": 0.02 + 0.01 * k for k in range(1, layers + 1)} if epoch else {},
        "time": {"seconds": seconds, "waiting": 0.1, "clips_per_second": 80.0},
    }  # fmt: skip
