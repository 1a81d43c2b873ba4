"""Responses on disk that are larger than the memory a fit may use: what its process takes at most."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import compare
import numpy as np
import session
from numpy.lib.format import open_memmap
from threadpoolctl import threadpool_limits

ALLOWED = 0.5e9  # bytes beyond X and the weights
_CASE = cases.Case("disk", "generated", 6000, (125,), 0, (0, 4, 10), 5, runs=12, delays=4, seed=8, peers=())


def run(options: Any, say: Any) -> dict[str, Any]:
    """Generate Y, fit it in a process of its own, compare a few voxels with float64 by hand, take the file away."""
    size = options.gigabytes * 1e9 * options.scale
    case = replace(_CASE, n=_CASE.n if size > 1e9 else 600)
    case = replace(case, t=max(600, int(size / (4 * case.n))))
    with tempfile.TemporaryDirectory(dir=options.tmp, prefix="fastencode-bench-") as name:  # removed on errors too
        folder = Path(name)
        free, wanted = shutil.disk_usage(folder).free, 4 * case.n * case.t
        if free < 1.05 * wanted + 2e9:
            room = f"{folder.parent} has {free / 1e9:.1f} GB free"
            raise SystemExit(f"Y takes {wanted / 1e9:.1f} GB and {room}; pass --tmp or --scale")
        say(f"disk: {case.shape()}, Y of {wanted / 1e9:.2f} GB as {options.format}")
        with threadpool_limits(options.threads):
            few = _generate(case, folder, options)
        session.write(case.fields(), folder / "case.json")
        given = {"threads": options.threads, "memory": options.memory, "precision": options.precision}
        given["stored"] = str(folder / ("Y.npy" if options.format == "memmap" else "Y.h5"))
        worker = session.Contestant(folder, "fastencode", given)
        try:
            worker.ask("prepare", options.limit)
            answer = worker.ask("run", options.limit, save=str(folder / "found.npz"))
        finally:
            worker.end()
        checked = _check(case, folder, few)
    return _report(case, options, answer, checked, say)


def _generate(case: cases.Case, folder: Path, options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Write X and Y; the numbers and values of a few voxels."""
    X = cases.design(case)
    np.save(folder / "X.npy", X)
    few = np.unique(np.linspace(0, case.t - 1, 8).astype(int))
    kept = np.empty((case.n, len(few)), dtype=case.dtype)

    def fill(Y: Any) -> None:
        for first, tile in cases.responses(case, X):
            Y[:, first : first + tile.shape[1]] = tile
            here = (few >= first) & (few < first + tile.shape[1])
            kept[:, here] = tile[:, few[here] - first]

    if options.format == "memmap":
        Y = open_memmap(folder / "Y.npy", mode="w+", dtype=case.dtype, shape=(case.n, case.t))
        fill(Y)
        Y.flush()
    else:
        import h5py

        with h5py.File(folder / "Y.h5", "w") as file:
            fill(file.create_dataset("Y", (case.n, case.t), dtype=case.dtype, chunks=(case.n, min(64, case.t))))
    return few, kept


def _check(case: cases.Case, folder: Path, few: tuple[np.ndarray, np.ndarray]) -> float:
    """Largest difference of our scores from float64 by hand."""
    by_hand = compare.naive(case, np.load(folder / "X.npy"), few[1])
    assert by_hand is not None
    with np.load(folder / "found.npz") as found:
        ours = found["cv_scores"][np.ix_(by_hand[0], few[0])]
    apart = float(np.abs(ours - by_hand[1]).max())
    if not apart <= 1e-3:
        raise SystemExit(f"disk: scores differ from float64 by hand by {apart:.3g}; memory is not worth reporting")
    return apart


def _report(case: cases.Case, options: Any, answer: dict[str, Any], checked: float, say: Any) -> dict[str, Any]:
    memory, bytes_X, bytes_Y, bytes_coef = answer["memory"], 4 * case.n * case.p, 4 * case.n * case.t, 4 * case.p * case.t
    # A memory map's pages count as resident while nobody else wants them: what the process holds itself is what matters.
    peak = memory["peak_without_files"] if options.format == "memmap" and memory["peak_without_files"] else memory["peak"]
    allowed = bytes_X + bytes_coef + ALLOWED
    say(
        f"  peak {peak / 1e9:.2f} GB of {allowed / 1e9:.2f} (X {bytes_X / 1e9:.2f}, weights {bytes_coef / 1e9:.2f} and 0.5); "
        f"Y {bytes_Y / 1e9:.2f} GB, memory={options.memory}, {answer['wall']:.1f} s, {bytes_Y / 1e6 / answer['wall']:.0f} MB/s"
    )
    return {
        "run": case.shape(),
        "format": options.format,
        "memory_argument": options.memory,
        "bytes": {"X": bytes_X, "Y": bytes_Y, "coef": bytes_coef},
        "resident": memory,
        "peak_bytes": peak,
        "allowed_bytes": allowed,
        "within": bool(peak <= allowed),
        "wall": answer["wall"],
        "cpu": answer["cpu"],
        "largest_score_difference_from_naive": checked,
        "stats": answer["stats"],
    }
