"""What is measured: the workloads as data, and how each one's arrays are made.

Legend: t = time (rows), p = features, v = voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fastencode import chunk_bootstrap

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

BOTH = ("himalaya", "sklearn")
# Nominal rates for guessing what a peer will take, operations per second of one core: products, and decompositions in float32.
PRODUCTS, DECOMPOSITIONS = 5e10, 1.5e10
_TILE = 2048


@dataclass(frozen=True)
class Case:
    """One workload.

    Attributes
    ----------
    name : str
    source : str
        Where the shape comes from.
    n : int
        Rows.
    features : tuple of int
        Columns of each band before delays; ``p`` is their sum times ``delays``.
    t : int
        Voxels at full size.
    alphas : (start, stop, number)
        Powers of ten, as ``numpy.logspace`` takes them.
    cv : int, "runs", "bootstrap" or "one"
        Contiguous blocks; leave one of ``runs`` runs out; chunks drawn at random; leave one row out.
    data : {"normal", "bold"}
        Standard normal features, weights and noise, or features with a realistic spectrum and voxels of every signal-to-noise.
    noise : float
        Standard deviation of the noise of "normal" data, in units of the signal's.
    peers : tuple of str
        The peers that can run it.
    weightings : int
        For banded ridge: candidate weights of the bands to try.
    """

    name: str
    source: str
    n: int
    features: tuple[int, ...]
    t: int
    alphas: tuple[float, float, int]
    cv: int | str
    delays: int = 1
    runs: int = 1
    scoring: str = "r2"
    dtype: str = "float32"
    fit_intercept: bool = True
    data: str = "bold"
    noise: float = 1.0
    seed: int = 0
    peers: tuple[str, ...] = BOTH
    note: str = ""
    weightings: int = 0

    @property
    def p(self) -> int:
        """Features, delayed copies included."""
        return sum(self.features) * self.delays

    @property
    def grid(self) -> NDArray[np.float64]:
        """The penalties: weights on ‖b‖²."""
        return np.logspace(*self.alphas)

    @property
    def widths(self) -> list[int]:
        """Columns of each band, delayed copies included: bands stand side by side."""
        return [width * self.delays for width in self.features]

    @property
    def gammas(self) -> NDArray[np.float64]:
        """(weightings, bands): equal weights, then Dirichlet samples that prefer few bands and uniform ones by turns."""
        rng, bands = np.random.default_rng([self.seed, 2]), len(self.features)
        samples = [rng.dirichlet(np.full(bands, 0.1 if i % 2 else 1.0)) for i in range(self.weightings - 1)]
        return np.array([np.full(bands, 1 / bands), *samples])

    @property
    def run_of_row(self) -> NDArray[np.intp]:
        """The run of every row; runs are as equal as can be."""
        return np.arange(self.n) * self.runs // self.n

    @property
    def folds(self) -> list[Fold]:
        """The held-out rows, as explicit indices: the same for every contestant."""
        rows = np.arange(self.n)
        if self.cv == "bootstrap":
            chunk = max(1, min(40, self.n // 24))
            return chunk_bootstrap(self.n, 15, chunk, max(1, self.n // chunk // 5), random_state=self.seed)
        if self.cv == "runs":
            tests = [np.flatnonzero(self.run_of_row == run) for run in range(self.runs)]
        else:
            tests = np.array_split(rows, self.n if self.cv == "one" else int(self.cv))
        return [(np.setdiff1d(rows, test), test) for test in tests]

    @property
    def n_folds(self) -> int:
        """How many folds there are, without making them."""
        return {"bootstrap": 15, "runs": self.runs, "one": self.n}.get(str(self.cv)) or int(self.cv)

    def scaled(self, by: float) -> Case:
        """The same case, every size times ``by``; penalties shrink with the rows, so that they stay where they matter."""
        if by == 1:
            return self
        least = 3 * max(8, self.runs) if self.cv in ("one", "bootstrap") else 3 * self.n_folds
        return replace(
            self,
            n=max(math.ceil(self.n * by), least),
            features=tuple(max(2, round(f * by)) for f in self.features),
            t=max(8, round(self.t * by)),
            alphas=(self.alphas[0] + math.log10(by), self.alphas[1] + math.log10(by), self.alphas[2]),
        )

    def shape(self) -> dict[str, Any]:
        """The shape as the results carry it."""
        return {"n": self.n, "p": self.p, "t": self.t, "folds": self.n_folds, "alphas": self.alphas[2]}

    def fields(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def from_fields(fields: dict[str, Any]) -> Case:
    """The case that :meth:`Case.fields` described."""
    return Case(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


_DELAYED = {"delays": 4, "data": "bold"}
_SWEEP = Case("", "sweep", 3000, (250,), 10_000, (0, 6, 20), 5, runs=10, seed=7, **_DELAYED)
_STORY = Case(
    "story", "ds003020: 24 stories, a 768-wide layer", 9000, (768,), 25_000, (1, 4, 15), "runs", runs=24, scoring="pearson",
    seed=4, peers=("himalaya",), **_DELAYED,
)  # fmt: skip
_LOO = Case("loo", "RidgeCV(alpha_per_target=True)", 3000, (1000,), 5000, (-1, 5, 20), "one", scoring="neg_mean_squared_error",
            dtype="float64", seed=6, peers=("sklearn",), note="the dtype scikit-learn computes in")  # fmt: skip

CASES: dict[str, tuple[Case, ...]] = {
    "himalaya": (
        Case("himalaya", "himalaya benchmarks/benchmark_backends.py", 2400, (1000,), 30_000, (-3, 20, 20), 3, fit_intercept=False,
             data="normal", noise=0.5 / math.sqrt(1000), seed=42, note="3000 rows, of which the source fits 2400"),
    ),
    "huth": (
        Case("huth", "alexhuth/ridge README", 1000, (2000,), 20_000, (0, 6, 20), 5, scoring="pearson", data="normal", seed=1,
             note="the source states the shape only"),
    ),
    "shortclips": (
        Case("shortclips", "voxelwise_tutorials 05 and 09", 3600, (1705, 6555), 84_000, (1, 20, 20), "runs", runs=12, seed=3,
             peers=("himalaya",), note="plain ridge on both bands stacked", **_DELAYED),
    ),
    "story": (_STORY,),
    "story_boot": (replace(_STORY, name="story_boot", cv="bootstrap"),),
    "fracridge": (
        Case("fracridge", "fracridge, Fig. 3", 5000, (5000,), 1000, (-1, 5, 20), 5, data="normal", seed=5,
             note="the source states the shape only"),
    ),
    "loo": (_LOO, replace(_LOO, name="loo-float32", dtype="float32", note="scikit-learn converts to float64")),
    "alphas": tuple(replace(_SWEEP, name=f"alphas-{a}", alphas=(0, 6, a)) for a in (10, 20, 50, 100, 200)),
    "voxels": tuple(replace(_SWEEP, name=f"voxels-{v}", t=v) for v in (1000, 3000, 10_000, 30_000, 100_000)),
    "features": tuple(replace(_SWEEP, name=f"features-{p}", features=(p // 4,), t=5000) for p in (100, 300, 1000, 3000, 10_000)),
    "folds": tuple(replace(_SWEEP, name=f"folds-{k}", cv=k) for k in (3, 6, 12, 24)),
}  # fmt: skip

# What bench/banded.py measures, at full size.
BANDED: dict[str, Case] = {
    "shortclips": replace(CASES["shortclips"][0], weightings=20, note="voxelwise_tutorials 09: two bands, random search"),
    "speech": Case("speech", "spectral, articulatory and a model's layer, 24 stories", 9000, (80, 100, 768), 20_000, (1, 6, 20),
                   "runs", runs=24, seed=8, peers=("himalaya",), weightings=20, **_DELAYED),
}  # fmt: skip
_BANDED_SWEEP = Case("", "sweep", 1200, (60, 60), 4000, (0, 6, 20), 6, seed=9, peers=("himalaya",), weightings=6, **_DELAYED)
BANDED_SWEEP: dict[str, tuple[Case, ...]] = {
    "folds": tuple(replace(_BANDED_SWEEP, name=f"folds-{k}", cv=k) for k in (3, 6, 12, 24)),
    "weightings": tuple(replace(_BANDED_SWEEP, name=f"weightings-{k}", weightings=k) for k in (2, 6, 12)),
    "alphas": tuple(replace(_BANDED_SWEEP, name=f"alphas-{k}", alphas=(0, 6, k)) for k in (5, 10, 20, 40)),
    "bands": tuple(replace(_BANDED_SWEEP, name=f"bands-{k}", features=(120 // k,) * k) for k in (2, 4, 8)),
    "voxels": tuple(replace(_BANDED_SWEEP, name=f"voxels-{k}", t=k) for k in (1000, 4000, 16_000)),
}


def guess(case: Case, peer: str, threads: int) -> float:
    """Seconds that a peer should need for one fit, at nominal rates and at its best: good to a factor of about two."""
    n, p, v, n_alphas, folds = case.n, case.p, case.t, case.alphas[2], case.n_folds
    test = n * 0.2 if case.cv == "bootstrap" else n / folds
    train, low = n - test, min(n - test, p)
    if peer == "himalaya" and p > train:  # by its kernel form
        decompose = (folds + 1) * 9 * train**3
        refit = n_alphas * 2 * n * n * (n + v) + 2 * n * p * (n + v)
        products = folds * n_alphas * (2 * train**3 + 2 * test * train * (train + v)) + refit
    elif peer == "himalaya":
        decompose = (folds + 1) * (6 * max(train, p) * low**2 + 20 * low**3)
        products = folds * n_alphas * (2 * p * low * train + 2 * test * train * (p + v)) + n_alphas * 2 * p * n * (low + v)
    elif case.cv == "one":
        decompose, products = 6 * n * p * p + 20 * low**3, n_alphas * 4 * n * min(n, p) * v
    else:
        decompose = folds * n_alphas * low**3 / 3
        products = folds * n_alphas * 2 * (train * p * low + train * p * v + test * p * v)
    slower = 2 if case.dtype == "float64" or case.cv == "one" else 1
    return slower * (products / PRODUCTS + decompose / DECOMPOSITIONS) / threads


def cut(case: Case, peers: tuple[str, ...], seconds: float, threads: int, memory: float) -> tuple[Case, str]:
    """The largest slice of a case that the peers should fit once, one after the other, within ``seconds`` and ``memory`` bytes.

    Voxels go while they are what costs, otherwise rows (whole runs at a time where there are runs), down to a quarter.
    """

    def total(case: Case) -> float:
        return sum(guess(case, peer, threads) for peer in peers)

    def needs(case: Case) -> float:  # every contestant has its copy of X and Y; the peers' weights exist two or three times
        item = np.dtype(case.dtype).itemsize
        return item * ((len(peers) + 2) * case.n * (case.p + case.t) + 3 * case.p * case.t)

    small = case
    while needs(small) > memory and small.t > 100:
        small = replace(small, t=int(small.t * 0.95))
    while total(small) > seconds and small.t > 100:
        without = total(replace(small, t=1))
        if without > 0.4 * seconds and small.n > case.n // 4 and (case.cv != "runs" or small.runs > 4):
            if case.cv == "runs":
                small = replace(small, n=small.n // small.runs * (small.runs - 1), runs=small.runs - 1)
            else:
                small = replace(small, n=int(small.n * 0.95))
        else:
            small = replace(small, t=int(small.t * 0.95))
    if small == case:
        return case, "full size"
    return small, (
        f"cut from {case.n} rows and {case.t} voxels to {small.n} and {small.t}, so that {' and '.join(peers) or 'it'} should "
        f"fit once within {seconds:.0f} s on {threads} threads and all contestants within {memory / 1e9:.0f} GB"
    )


def _smooth(rng: np.random.Generator, case: Case, columns: int) -> NDArray[np.float32]:
    """Series that are smooth in time: white noise with a spectrum that falls from a few scans on."""
    noise = np.fft.rfft(rng.standard_normal((case.n, columns), dtype=np.float32), axis=0)
    frequency = np.fft.rfftfreq(case.n)[:, None]
    return np.fft.irfft(noise / np.sqrt(1 + (frequency / 0.1) ** 2), n=case.n, axis=0).astype(np.float32)


def _delayed(base: NDArray[np.float32], case: Case) -> NDArray[np.float32]:
    """Columns at delays 1, 2, … scans, side by side; zeros where a run begins."""
    if case.delays == 1:
        return base
    out = np.zeros((case.delays, *base.shape), dtype=base.dtype)
    runs = case.run_of_row
    for k in range(case.delays):
        same = np.flatnonzero(runs[k + 1 :] == runs[: -k - 1]) if case.n > k + 1 else np.empty(0, dtype=np.intp)
        out[k, same + k + 1] = base[same]
    return np.concatenate(list(out), axis=1)


def design(case: Case) -> NDArray[Any]:
    """X of a case, (n, p). The same case always makes the same one."""
    rng = np.random.default_rng(case.seed)
    if case.data == "normal":
        return rng.standard_normal((case.n, case.p), dtype=np.float32).astype(case.dtype)
    bands = []
    for width in case.features:
        rank = min(case.n, width, 1000)
        latent = _smooth(rng, case, rank) * (1 + np.arange(rank, dtype=np.float32)) ** -0.75  # a power law over directions
        band = latent @ rng.standard_normal((rank, width), dtype=np.float32)
        band += 0.05 * band.std() * rng.standard_normal(band.shape, dtype=np.float32)
        bands.append(_delayed((band - band.mean(axis=0)) / band.std(axis=0), case))
    return np.concatenate(bands, axis=1).astype(case.dtype)


def responses(case: Case, X: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first voxel, tile of Y) over all voxels: signal plus noise."""
    rng = np.random.default_rng([case.seed, 1])
    X = X.astype(np.float32, copy=False)
    if case.data == "normal":
        for first in range(0, case.t, _TILE):
            width = min(_TILE, case.t - first)
            signal = X @ rng.standard_normal((case.p, width), dtype=np.float32)
            spread = np.float32(case.noise * math.sqrt(case.p))
            yield first, (signal + spread * rng.standard_normal(signal.shape, dtype=np.float32)).astype(case.dtype)
        return
    # Weights that voxels share in part, as maps of a brain do; two fifths of the voxels are noise, the others anything.
    shared = X @ rng.standard_normal((case.p, 64), dtype=np.float32)
    shared /= shared.std(axis=0)
    for first in range(0, case.t, _TILE):
        width = min(_TILE, case.t - first)
        share = rng.beta(1, 4, width) * (rng.random(width) > 0.4)
        signal = shared @ (rng.standard_normal((64, width)) * (np.arange(1, 65)[:, None] ** -0.5)).astype(np.float32)
        signal *= (np.sqrt(share) / np.maximum(signal.std(axis=0), 1e-20)).astype(np.float32)
        noise = rng.standard_normal(signal.shape, dtype=np.float32) * np.sqrt(1 - share).astype(np.float32)
        yield first, (signal + noise).astype(case.dtype)


def write(case: Case, folder: Path) -> tuple[Path, Path]:
    """Make X and Y of a case into ``X.npy`` and ``Y.npy``, tile by tile."""
    X = design(case)
    np.save(folder / "X.npy", X)
    Y = open_memmap(folder / "Y.npy", mode="w+", dtype=case.dtype, shape=(case.n, case.t))
    for first, tile in responses(case, X):
        Y[:, first : first + tile.shape[1]] = tile
    Y.flush()
    return folder / "X.npy", folder / "Y.npy"
