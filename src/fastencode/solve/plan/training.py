"""Training rows of a fold decomposed by themselves, where the condition of all rows forbids the rest (docs/solver.md, 3 and 8).

Legend: t = time, m = test rows, r = directions, s = a fold's own directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastencode.arrays import F64
from fastencode.devices import Array, Device
from fastencode.solve.plan.basis import ACCURACY, Basis, hidden_by_rounding, resolution, rounding_of
from fastencode.solve.plan.directions import eigh, eigh_beside
from fastencode.solve.plan.graded import graded_svd
from fastencode.solve.plan.leave_out import Left

__all__ = ["Training", "decompose_train", "in_directions"]


@dataclass(frozen=True, eq=False)
class Training:
    """The training rows decomposed: predictions at α = rows_ms @ diag((λ + τ) / (λ + α)) @ rotate_st @ training responses.

    The matrices lie on the basis' device.
    """

    lam: F64
    rows_ms: Array
    rotate_st: Array


def decompose_train(basis: Basis, left: Left, alphas: F64, dtype: np.dtype[Any]) -> Training:
    """Decompose the training rows' smaller Gram, or the rows themselves where rounding of the Gram would show in predictions.

    A test row g times as long as the training rows magnifies rounding errors of weights g times.
    """
    (train, held), device = _own_rows(basis, left, alphas, dtype), basis.device
    longer = _times_longer(held, train, device)
    dual = train.shape[0] <= train.shape[1]
    if dual and basis.center:
        lam, vectors = eigh_beside(train @ train.T, basis.root_t[left.train], device)
    else:
        lam, vectors = eigh(train @ train.T if dual else train.T @ train, device)
    if hidden_by_rounding(lam, alphas, dtype, longer * rounding_of(lam)):
        smallest, tolerance = resolution(alphas, dtype)
        found = graded_svd(device.get(train), smallest / longer, tolerance)
        shrunk = np.sqrt(found.size**2 + basis.tau)
        rows = (held @ device.put(found.V)) / device.put(shrunk)
        return Training(found.size**2, rows, device.put(found.U.T * (found.size / shrunk)[:, None]))
    # All directions are kept: test rows may be long in one that is short in training rows.
    lam = np.maximum(lam, 0.0)
    shrunk_s = device.put(np.sqrt(lam + basis.tau))
    if dual:
        return Training(lam, (held @ train.T) @ vectors / shrunk_s, (vectors / shrunk_s).T)
    return Training(lam, (held @ vectors) / shrunk_s, (vectors / shrunk_s).T @ train.T)


def _times_longer(held: Array, train: Array, device: Device) -> float:
    """The length of the longest test row over the mean length of training rows; at least 1."""
    longest = float(device.xp.max(device.dots(held.T, held.T)))
    mean = float(device.xp.sum(device.dots(train.T, train.T))) / train.shape[0]
    return float(np.sqrt(max(1.0, longest / mean))) if mean else 1.0


def _own_rows(basis: Basis, left: Left, alphas: F64, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """(training rows, test rows) about the mean of the training rows, in whichever coordinates keep their digits.

    In the directions kept, a row is off by rounding of √λ_top. Where that shows at the smallest penalty, rows of X are taken: a
    column in large units that is constant in the training rows is zero there then.
    """
    root, eps = basis.root_t, float(np.finfo(np.float64).eps)
    if basis.X is None or eps * basis.top <= 0.01 * ACCURACY[dtype.itemsize] * float(alphas[0]):
        return in_directions(basis, left)
    train, held = (np.asarray(basis.X[rows], dtype=np.float64) for rows in (left.train, left.test))
    if basis.center:  # about the first row: a constant column becomes exactly zero
        first = train[0].copy()
        train, held = train - first, held - first
        mean = (root[left.train] ** 2) @ train / left.mass
        train, held = train - mean, held - mean
    scale, put = 1.0 if basis.scale_p is None else basis.scale_p, basis.device.put
    return put(train * root[left.train, None] * scale), put(held * root[left.test, None] * scale)


def in_directions(basis: Basis, left: Left) -> tuple[Array, Array]:
    """(training rows, test rows) of X̌ V, about the mean of the training rows: (·, r) each."""
    put, root = basis.device.put, basis.root_t
    shrunk = put(np.sqrt(basis.lam + basis.tau))
    train, held = basis.rows(left.train) * shrunk, basis.rows(left.test) * shrunk
    if basis.center:
        mean = (put(root[left.train]) @ train / left.mass)[None, :]
        train, held = train - put(root[left.train, None]) * mean, held - put(root[left.test, None]) * mean
    return train, held
