"""Targets that must not teach a model anything about brains: the controls of brain-tuning."""

from __future__ import annotations

import numpy as np

from fastencode.errors import InputError

__all__ = ["permute_blocks"]

_ROUNDS = 10_000


def permute_blocks(n_rows: int, *, block: int = 15, min_move: int = 10, rng: np.random.Generator) -> np.ndarray:
    """Reorder rows in contiguous blocks, each of which moves far.

    Responses taken in this order keep their autocorrelation inside a block and lose every relation to what was heard.

    Parameters
    ----------
    n_rows : int
        Rows of all training runs, one after the other.
    block : int
        Rows in a block (15 TRs in the published control); the last block may be shorter.
    min_move : int
        Least number of places every block moves (10 there); lowered to a third of the number of blocks where there are few.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_rows,), int
        ``responses[order]`` are the control's targets.

    Raises
    ------
    InputError
        If there are fewer than three blocks.
    """
    if block < 1:
        raise InputError(f"block must be at least 1 row, got {block}")
    n_blocks = -(-n_rows // block)
    if n_blocks < 3:
        raise InputError(
            f"{n_rows} rows make {n_blocks} blocks of {block}: a control needs at least 3; give more rows or a smaller block"
        )
    source = _far_derangement(n_blocks, min(min_move, n_blocks // 3), rng)
    blocks = np.array_split(np.arange(n_rows), np.arange(block, n_rows, block))
    return np.concatenate([blocks[i] for i in source])


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
