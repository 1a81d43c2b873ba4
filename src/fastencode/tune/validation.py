"""How well the validation runs are predicted: the losses, and the Pearson correlation of every voxel, batch by batch.

A batch's predictions are added to six sums for each voxel and thrown away.

Axis letters: r row, v voxel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.tune.batches import Batch
from fastencode.tune.loss import voxel_count, voxel_loss
from fastencode.tune.objectives import Objective
from fastencode.tune.processes import Processes

__all__ = ["Sums", "Validation", "validate", "validate_own"]

QUANTILES = (5, 25, 50, 75, 95)  # of the voxels' correlations, in percent: what the log has of them
_FIRST_DRAW = 2**40  # masks of batch n are drawn as those of update 2⁴⁰ + n would be, which no training reaches


class Sums:
    """Pearson correlation of two series for each voxel from sums over their rows, in float64; missing rows do not count.

    Responses are z-scored, so that nothing is lost where sums are subtracted.
    """

    def __init__(self, n_voxels: int, device: str) -> None:
        self.sums = torch.zeros((6, n_voxels), dtype=torch.float64, device=device)

    def add(self, predicted_rv: torch.Tensor, responses_rv: torch.Tensor) -> None:
        """Add rows, both (r, v); NaN where a response is missing."""
        there = ~torch.isnan(responses_rv)
        p, y = (torch.where(there, one, 0.0).double() for one in (predicted_rv, responses_rv))
        self.sums += torch.stack([one.sum(dim=0) for one in (there.double(), p, y, p * p, y * y, p * y)])

    def correlation(self) -> NDArray[np.float64]:
        """(v,): 0 where one side is constant or nothing is there."""
        n, p, y, pp, yy, py = self.sums.cpu().numpy()
        n = np.maximum(n, 1)
        spread = (pp - p * p / n) * (yy - y * y / n)
        constant = spread <= 1e-20 * np.maximum(pp * yy, 1e-300)
        return np.where(constant, 0.0, (py - p * y / n) / np.sqrt(np.where(constant, 1.0, spread)))


@dataclass(frozen=True)
class Validation:
    """The validation of every participant who heard a validation run.

    Attributes
    ----------
    loss, mean_loss : participant → float
        Of the predictions, and of predicting 0: z-scored responses have that mean in each voxel.
    r : participant → (v,) float64
        Pearson correlation of predictions and responses over rows.
    """

    loss: dict[str, float]
    mean_loss: dict[str, float]
    r: dict[str, NDArray[np.float64]]

    @property
    def mean(self) -> dict[str, float | None]:
        """Means over participants; None without any."""
        if not self.loss:
            return {"validation_loss": None, "mean_loss": None, "validation_r": None}
        return {
            "validation_loss": float(np.mean(list(self.loss.values()))),
            "mean_loss": float(np.mean(list(self.mean_loss.values()))),
            "validation_r": float(np.mean([r.mean() for r in self.r.values()])),
        }

    def rows(self) -> dict[str, dict[str, Any]]:
        """Of each participant: loss, mean_loss, mean r and its quantiles over voxels."""
        return {
            who: {
                "loss": self.loss[who],
                "mean_loss": self.mean_loss[who],
                "r": float(r.mean()),
                "quantiles": {str(q): float(np.percentile(r, q)) for q in QUANTILES},
            }
            for who, r in self.r.items()
        }


@torch.no_grad()
def validate(objective: Objective, batches: Iterable[Batch], processes: Processes) -> Validation:
    """Predict all rows of the validation runs; each process those of its parts of the batches.

    ``batches`` are this process's. The result is that of all processes, and the same in each.
    """
    model, kind, weights, device = objective.model, objective.kind, objective.weights, objective.device
    model.training_mode(False)
    people = list(objective.people)
    sums = {who: Sums(len(model.head(who).weight), device) for who in people}
    losses = torch.zeros((len(people), 3), dtype=torch.float64, device=device)  # loss, that of the mean, and their count
    for part in (part.to(device) for batch in batches for part in batch.parts if part.targets):
        state = objective.state(part, objective.frames(part))
        for who, (rows, responses) in part.targets.items():
            head, weight = model.head(who), weights[who]
            reduced = head.reduce(state[rows])
            count = voxel_count(responses, weight, kind).double()
            loss = voxel_loss(reduced, head.weight, head.bias, responses, kind=kind, voxel_weight=weight)
            nothing = torch.zeros_like(reduced[:, :1]), torch.zeros_like(head.weight[:, :1]), None
            of_mean = voxel_loss(*nothing, responses, kind=kind, voxel_weight=weight)
            losses[people.index(who)] += torch.stack([loss.double() * count, of_mean.double() * count, count])
            sums[who].add(torch.addmm(head.bias, reduced, head.weight.T), responses)
    processes.add([losses, *(one.sums for one in sums.values())])
    heard = [(who, row) for who, row in zip(people, losses.tolist(), strict=True) if row[2] > 0]
    return Validation(
        {who: row[0] / row[2] for who, row in heard},
        {who: row[1] / row[2] for who, row in heard},
        {who: sums[who].correlation() for who, _ in heard},
    )


@torch.no_grad()
def validate_own(objective: Objective, batches: Iterable[Batch], processes: Processes) -> float:
    """The mean over clips of the model's own loss on the validation runs, under masks that are the same after every epoch."""
    objective.model.training_mode(False)
    sums = torch.zeros(2, dtype=torch.float64, device=objective.device)  # loss × clips, and clips
    for number, batch in enumerate(batches):
        for place, part in enumerate(batch.parts):
            part = part.to(objective.device)
            n = len(part.runs)
            loss = objective.own_loss(objective.frames(part), _FIRST_DRAW + number, processes.rank, place)
            sums += torch.stack([loss.double() * n, torch.tensor(float(n), device=objective.device)])
    processes.add([sums])
    return float(sums[0] / sums[1].clamp(min=1))
