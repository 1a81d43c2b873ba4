"""How well runs are predicted that nothing is learned from: loss and correlation of every voxel, batch by batch.

Predictions of a batch are added to five sums for each voxel and thrown away.

Axis letters: r row, v voxel, q quantile.
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

__all__ = ["Sums", "Validation", "validate"]

QUANTILES = (5, 25, 50, 75, 95)


class Sums:
    """Pearson correlation of two series for each voxel from sums over their rows, in float64; missing rows do not count.

    Responses are z-scored, so that nothing is lost where sums are subtracted.
    """

    def __init__(self, n_voxels: int, device: str) -> None:
        self.sums = torch.zeros((6, n_voxels), dtype=torch.float64, device=device)

    def add(self, predicted_rv: torch.Tensor, responses_rv: torch.Tensor) -> None:
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
    """What came out, of every participant.

    Attributes
    ----------
    loss, mean_loss : participant → float
        Of the predictions, and of predicting each voxel's mean.
    r : participant → (v,) float64
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
    """Predict all rows of some runs, this process those of its part of the batches."""
    model, kind, weights, device = objective.model, objective.kind, objective.weights, objective.device
    model.training_mode(False)
    people = list(objective.people)
    sums = {who: Sums(len(model.head(who).weight), device) for who in people}
    losses = torch.zeros((len(people), 3), dtype=torch.float64, device=device)  # loss, that of the mean, and their count
    for part in (part.to(device) for batch in batches for part in batch.parts if part.learned):
        state = objective.state(part, objective.frames(part))
        for who, (rows, responses) in part.learned.items():
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
