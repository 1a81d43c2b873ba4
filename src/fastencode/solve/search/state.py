"""The state of a search over weightings of bands: settings, what is found so far, what every voxel gets.

A candidate takes over a voxel if its score, at its own best penalty, exceeds the best so far by more than a tie (docs/solver.md,
sections 7 and 8).

Legend: i = candidates, b = bands, v = voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.errors import InputError
from fastencode.solve.score.choose import edges_of, tie_tolerance
from fastencode.solve.score.ends import Freedom, no_ends

__all__ = ["WINDOW", "Chosen", "Found", "Settings"]

# Early stopping looks at the gain of the last WINDOW candidates.
WINDOW = 10


@dataclass(frozen=True)
class Settings:
    """How responses are scored.

    Attributes
    ----------
    scoring : str
    per_target : bool
        False takes one weighting and one penalty for all voxels.
    skip_nan : bool
    early_stopping : float or None
        Least gain of the mean best score over the last ``WINDOW`` candidates to go on.
    steps : int
        Evaluations of each voxel that a refinement may take afterwards (``refine.py``).
    """

    scoring: str
    per_target: bool
    skip_nan: bool
    early_stopping: float | None
    steps: int = 0


@dataclass(eq=False)
class Found:
    """Where a search stands.

    Attributes
    ----------
    scores_iv : (i, v)
        Held-out score of every candidate tried, each voxel at its best penalty.
    alphas_iv : (i, v) int16
        Index of that penalty.
    which_v, chosen_v : (v,) int
        Candidate and penalty of each voxel.
    best_v : (v,) float64
    variance_v : (v,) float64
    ends_ev : (4, v) float64
        Scores of that candidate at the ends of the grid (``score/ends.py``).
    bad_v : (v,) bool
        Voxels that hold NaN or infinite values.
    mean_i : list of float
        Mean over voxels of the best score after each candidate.
    freedoms : list of Freedom
        Of the candidates that were planned here; those of a checkpoint are not among them.
    """

    scores_iv: NDArray[Any]
    alphas_iv: NDArray[np.int16]
    which_v: NDArray[np.intp]
    chosen_v: NDArray[np.intp]
    best_v: F64
    variance_v: F64
    bad_v: NDArray[np.bool_]
    ends_ev: F64
    mean_i: list[float] = field(default_factory=list)
    freedoms: list[Freedom] = field(default_factory=list)
    account: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, candidates: int, n_voxels: int, dtype: np.dtype[Any]) -> Found:
        """Nothing tried yet."""
        return cls(
            np.full((candidates, n_voxels), np.nan, dtype=dtype),
            np.zeros((candidates, n_voxels), dtype=np.int16),
            np.zeros(n_voxels, dtype=np.intp),
            np.zeros(n_voxels, dtype=np.intp),
            np.full(n_voxels, -np.inf),
            np.zeros(n_voxels),
            np.zeros(n_voxels, dtype=bool),
            no_ends(n_voxels),
        )

    def arrays(self, candidates_ib: F64) -> dict[str, NDArray[Any]]:
        """The state and the candidates tried, by name, for :meth:`take_up`."""
        tried = self.tried
        return {
            "candidates": candidates_ib[:tried],
            "scores": self.scores_iv[:tried],
            "alphas": self.alphas_iv[:tried],
            "which": self.which_v,
            "chosen": self.chosen_v,
            "best": self.best_v,
            "variance": self.variance_v,
            "bad": self.bad_v,
            "ends": self.ends_ev,
            "mean": np.array(self.mean_i),
        }

    def take_up(self, kept: dict[str, NDArray[Any]], candidates_ib: F64) -> None:
        """Take over the state of an earlier search of the same data, whose candidates are the first of these.

        Raises
        ------
        InputError
            If its candidates are others, or more than these.
        """
        lacking = [name for name in self.arrays(candidates_ib) if name not in kept and name != "ends"]  # of earlier versions
        if lacking:
            raise InputError(f"the checkpoint is damaged, it lacks {', '.join(lacking)}; delete it or name another file")
        before = kept["candidates"]
        tried = len(before)
        if tried > len(candidates_ib):
            raise InputError(
                f"the checkpoint holds {tried} candidates and this search is of {len(candidates_ib)}; pass n_iter={tried} or "
                "more (or as many gammas), or name another file"
            )
        alike = np.isclose(before, candidates_ib[:tried], rtol=1e-6, atol=0.0).all(axis=1)
        if not alike.all():
            i = int(np.argmin(alike))
            raise InputError(
                f"candidate {i} in the checkpoint is {before[i].tolist()} and here {candidates_ib[i].tolist()}; pass the same "
                "gammas or random_state, concentration and search as before (a grid cannot be extended), or name another file"
            )
        candidates_ib[:tried] = before  # equal traces may differ from them in the last digit
        self.scores_iv[:tried], self.alphas_iv[:tried] = kept["scores"], kept["alphas"]
        self.which_v, self.chosen_v, self.best_v = kept["which"], kept["chosen"], kept["best"]
        self.ends_ev = kept.get("ends", self.ends_ev)
        self.variance_v, self.bad_v, self.mean_i = kept["variance"], kept["bad"], kept["mean"].tolist()

    @property
    def tried(self) -> int:
        """Number of candidates tried."""
        return len(self.mean_i)

    def take(self, scores_v: F64, ends_ev: F64, settings: Settings) -> None:
        """Let the last candidate, whose scores and penalties were just written, take over the voxels that it scores better;
        ``ends_ev`` are its scores at the ends of the grid."""
        i, good = self.tried, ~self.bad_v
        if settings.per_target:
            better = scores_v > self.best_v + tie_tolerance(settings.scoring, self.variance_v)
        else:
            mean, before = (values[good].mean() if good.any() else 0.0 for values in (scores_v, self.best_v))
            variance = self.variance_v[good].mean() if good.any() else 1.0
            better = np.full(len(good), mean > before + tie_tolerance(settings.scoring, variance))
        self.which_v[better], self.chosen_v[better] = i, self.alphas_iv[i, better]
        self.best_v[better], self.ends_ev[:, better] = scores_v[better], ends_ev[:, better]
        self.mean_i.append(float(self.best_v[good].mean()) if good.any() else 0.0)

    def choice(self, alphas: F64, candidates_ib: F64) -> Chosen:
        """The best candidate and penalty of every voxel."""
        gammas_bv = np.ascontiguousarray(candidates_ib[self.which_v].T)
        edge_v = edges_of(self.chosen_v, len(alphas))
        unsolved_v = np.zeros(len(edge_v))
        return Chosen(self.which_v.copy(), gammas_bv, alphas[self.chosen_v], self.best_v.copy(), edge_v, unsolved_v)

    def gain(self) -> float:
        """Gain in the mean best score by the last ``WINDOW`` candidates; infinite while fewer were tried."""
        return self.mean_i[-1] - self.mean_i[-1 - WINDOW] if self.tried > WINDOW else np.inf


@dataclass(eq=False)
class Chosen:
    """Weights of bands, penalty and score of every voxel.

    Attributes
    ----------
    which_v : (v,) int
        Its candidate; −1 where it has penalties of its own.
    gammas_bv : (b, v) float64
    alpha_v : (v,) float64
    score_v : (v,) float64
    edge_v : (v,) int8
        −1 and +1 where the penalty is at the lower or upper edge of the grid.
    unsolved_v : (v,) float64
        Part of the residual that is left where the system of a held-out score was not solved to its tolerance; 0 elsewhere.
    """

    which_v: NDArray[np.intp]
    gammas_bv: F64
    alpha_v: F64
    score_v: F64
    edge_v: NDArray[np.int8]
    unsolved_v: F64
