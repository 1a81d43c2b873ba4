"""Targets that must not teach a model anything about brains: the controls of brain-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastencode.errors import InputError

__all__ = ["permute_blocks"]

_ROUNDS = 10_000


def permute_blocks(n_rows: Sequence[int], *, block: int = 15, min_move: int = 10, rng: np.random.Generator) -> np.ndarray:
    """Reorder rows in blocks of consecutive rows of one run, each of which moves far.

    Responses taken in this order keep their autocorrelation inside a block and lose every relation to what was heard. Every run
    is cut into blocks from its first row on, and blocks change places, also between runs. What is left at the end of a run takes
    the first rows of a block from far away: these are used twice, and as many rows at the ends of runs are not used.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each training run, in the order in which their rows follow each other.
    block : int
        Rows in a block (15 TRs in the published control).
    min_move : int
        Least number of places every block moves (10 there); lowered to a third of the number of blocks where there are few.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (sum of n_rows,), int
        ``responses[order]`` are the control's targets.

    Raises
    ------
    InputError
        If there are fewer than three whole blocks.
    """
    if block < 1:
        raise InputError(f"block must be at least 1 row, got {block}")
    edges = np.cumsum([0, *n_rows])
    first = np.concatenate([np.arange(start, stop - block + 1, block) for start, stop in zip(edges[:-1], edges[1:], strict=True)])
    n_blocks = len(first)
    if n_blocks < 3:
        raise InputError(
            f"runs of {', '.join(map(str, n_rows))} rows make {n_blocks} blocks of {block}: a control needs at least 3; give more"
            " rows or a smaller block"
        )
    distance = min(min_move, n_blocks // 3)
    order = np.empty(edges[-1], dtype=np.intp)
    for place, source in zip(first, first[_far_derangement(n_blocks, distance, rng)], strict=True):
        order[place : place + block] = source + np.arange(block)
    for run, stop in enumerate(edges[1:]):
        rest = n_rows[run] % block
        if rest:
            here = np.searchsorted(first, stop - rest)  # the number of blocks before these rows
            far = np.flatnonzero((np.arange(n_blocks) - here >= distance) | (here - 1 - np.arange(n_blocks) >= distance))
            order[stop - rest : stop] = first[rng.choice(far)] + np.arange(rest)
    return order


def _far_derangement(n: int, distance: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation with ``|p[i] - i| >= distance``: shuffle, then swap what is too near with partners that suit both."""
    places = np.arange(n)
    permutation = rng.permutation(n)
    for _ in range(_ROUNDS):
        near = np.flatnonzero(np.abs(permutation - places) < distance)
        if not len(near):
            return permutation
        i = rng.choice(near)
        suits = (np.abs(permutation - i) >= distance) & (np.abs(permutation[i] - places) >= distance)
        j = rng.choice(np.flatnonzero(suits)) if suits.any() else rng.integers(n)
        permutation[[i, j]] = permutation[[j, i]]
    raise InputError(f"found no order of {n} blocks in which each moves by {distance}: lower min_move")
