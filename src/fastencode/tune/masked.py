"""What masked prediction needs, whoever does it: spans of masked frames, and clusters of frames to predict.

Axis letters: b clip, f frame, n point, c dimension, k cluster.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.errors import InputError

__all__ = ["fit_clusters", "nearest_cluster", "span_mask"]

_ROUNDS = 30  # of k-means at most


def span_mask(draws_bf: NDArray, share: float, length: int) -> NDArray[np.bool_]:
    """Spans of masked frames, which may overlap.

    Parameters
    ----------
    draws_bf : ndarray, shape (b, f)
        Uniform on [0, 1): a span begins at each frame whose draw is below 1 − (1 − share)^(1 / length).
    share : float
        Frames that are masked, on average, after the first ``length``; between 0 and 1.
    length : int
        Frames in a span; fewer at the end of a clip.

    Returns
    -------
    ndarray, shape (b, f), bool
        At least one frame of each clip: the first, where no span begins.
    """
    starts_bf = draws_bf < 1 - (1 - share) ** (1 / length)
    mask_bf = np.zeros_like(starts_bf)
    for lag in range(min(length, mask_bf.shape[1])):
        mask_bf[:, lag:] |= starts_bf[:, : mask_bf.shape[1] - lag]
    mask_bf[:, 0] |= ~mask_bf.any(axis=1)  # a clip without any mask would teach nothing
    return mask_bf


@torch.no_grad()
def fit_clusters(points_nc: torch.Tensor, clusters: int, seed: int) -> torch.Tensor:
    """Centers by k-means (Lloyd 1982), from a k-means++ start (Arthur and Vassilvitskii 2007).

    Distances are matrix products. SciPy's k-means forms them one by one: for 10 000 points of 768 dimensions and 100 clusters
    it took nine times as long on one core.

    Parameters
    ----------
    points_nc : tensor, shape (n, c), float32
    clusters : int
    seed : int
        The same seed gives the same centers on the same device and number of threads.

    Returns
    -------
    tensor, shape (clusters, c), float32

    Raises
    ------
    InputError
        If fewer points differ than there are clusters, or a point is not finite.
    """
    if not torch.isfinite(points_nc).all():
        raise InputError("frames hold NaN or infinity: check the sound that they were made of")
    rng = np.random.default_rng([seed, 14])
    centers_kc = _spread_centers(points_nc, clusters, rng)
    labels_n = nearest_cluster(points_nc, centers_kc)
    for _ in range(_ROUNDS):
        # Sums by a product: additions at an index come in any order on a card.
        member_nk = torch.nn.functional.one_hot(labels_n, clusters).to(points_nc.dtype)
        count_k1 = member_nk.sum(dim=0)[:, None]
        centers_kc = torch.where(count_k1 > 0, member_nk.T @ points_nc / count_k1.clamp(min=1), centers_kc)
        before_n, labels_n = labels_n, nearest_cluster(points_nc, centers_kc)
        if torch.equal(before_n, labels_n):
            break
    return centers_kc


def _spread_centers(points_nc: torch.Tensor, clusters: int, rng: np.random.Generator) -> torch.Tensor:
    """Each next center is a point drawn in proportion to the square of its distance from the nearest center so far."""
    chosen = [int(rng.integers(len(points_nc)))] if len(points_nc) else []
    square_n = torch.full_like(points_nc[:, 0], torch.inf)
    while chosen and len(chosen) < clusters:
        square_n = torch.minimum(square_n, ((points_nc - points_nc[chosen[-1]]) ** 2).sum(dim=1))
        sums_n = square_n.double().cumsum(dim=0).cpu().numpy()
        if not sums_n[-1] > 0:
            break
        chosen.append(int(np.searchsorted(sums_n, rng.random() * sums_n[-1], side="right")))
    if len(chosen) < clusters:
        raise InputError(f"only {len(chosen)} of {len(points_nc)} frames differ, fewer than {clusters} clusters: give more sound")
    return points_nc[chosen]


def nearest_cluster(points_nc: torch.Tensor, centers_kc: torch.Tensor) -> torch.Tensor:
    """The index of the nearest center of each point, (n,) int64; the first of those that are as near."""
    # argmin over k of |x - c|^2 = |x|^2 - 2 x c + |c|^2
    return torch.addmm((centers_kc**2).sum(dim=1), points_nc, centers_kc.T, alpha=-2).argmin(dim=1)
