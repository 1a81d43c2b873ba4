"""The numbers of real data beside ours: what other people's code, or the data's authors, reached on the same files.

    python bench/real_data.py [--data ../shared/data]

Prints one line for each number, and writes bench/results/real_data.json. A number is reached if it agrees to its printed digits,
or to the tolerance that is said.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import scipy.io.wavfile
import session

import fastencode
from fastencode.data.brennan import Alice
from fastencode.study.word_rate import word_rate_study
from fastencode.timing.clean import zscore

HERE = Path(__file__).parent
HTK = {"1": {"energy": "c0", "preemphasis": 0.0}, "4": {"energy": "log", "preemphasis": 0.97}}
CATEGORIES = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")

Row = tuple[str, str, Any, Any, float]
"""Data, what, theirs, ours, how far apart they may be."""


def lanczos(folder: Path) -> Iterator[Row]:
    case = np.load(folder / "black_words.npz")
    ours = fastencode.lanczos(case["data"], case["old_times"], case["new_times"])
    yield "lanczos", "1336 words × 300 at 534 scans, largest difference", 0.0, float(np.abs(ours - case["out"]).max()), 1e-10
    yield "lanczos", "Frobenius norm", 43.34561082, float(np.linalg.norm(ours)), 5e-9
    yield "lanczos", "sum", -476.25330229, float(ours.sum()), 5e-9


def hrf(folder: Path) -> Iterator[Row]:
    case = np.load(folder / "spm_hrf.npz")
    names = ("dt", "peak_delay", "undershoot_delay", "peak_dispersion", "undershoot_dispersion", "ratio")
    apart = [
        np.abs(fastencode.hrf_kernel(**dict(zip(names, row, strict=True))) - case[f"kernel_{i}"]).max()
        for i, row in enumerate(case["params"])
    ]
    yield "hrf", f"{len(apart)} kernels of SPM, largest difference", 0.0, float(max(apart)), 1e-12
    bases = np.load(folder / "spm_bases.npz")
    for name, derivative in (("hrf", None), ("time_derivative", "time"), ("dispersion_derivative", "dispersion")):
        kernel = fastencode.hrf_kernel("spm", dt=float(bases["dt"][0]), derivative=derivative)
        yield (
            "hrf",
            f"SPM's basis set, {name.replace('_', ' ')}, largest difference",
            0.0,
            float(np.abs(kernel - bases[name]).max()),
            1e-12,
        )


def mfcc(folder: Path) -> Iterator[Row]:
    rate, audio = scipy.io.wavfile.read(folder / "test.wav")
    for number, settings in HTK.items():
        theirs = np.frombuffer((folder / f"test.wav.fea_htk.{number}").read_bytes()[12:], ">f4").reshape(-1, 39)
        ours = fastencode.mfcc(audio, rate, n_mels=23, deltas=2, **settings)
        yield (
            "mfcc",
            f"HTK's HCopy, configuration {number}, 142 × 39, largest difference",
            0.0,
            float(np.abs(ours - theirs).max()),
            5e-4,
        )


def ridge(folder: Path) -> Iterator[Row]:
    """Its penalty is the square root of ours."""
    case = dict(np.load(folder / "ridge_haxby.npz"))
    X, Y, alphas, n = case["Rstim"], case["Rresp"], case["alphas"] ** 2, len(case["Rstim"])
    both = np.vstack([X, case["Pstim"]]), np.vstack([Y, case["Presp"]])
    split = [(np.arange(n), np.arange(n, n + len(case["Pstim"])))]
    fit = fastencode.ridge_cv(*both, alphas=alphas, cv=split, scoring="pearson", fit_intercept=False)
    printed = (0.14092, 0.14090, 0.14063, 0.13783, 0.12372, 0.09298, 0.06914, 0.06093, 0.05893, 0.05848)
    for alpha, theirs, ours in zip(case["alphas"], printed, fit.cv_scores.mean(axis=1), strict=True):
        yield "ridge", f"mean r, its α {alpha:.4g}", theirs, float(ours), 5e-6
    yield (
        "ridge",
        "scores of every α and voxel, largest difference",
        0.0,
        float(np.abs(fit.cv_scores - case["ridge_corr"]).max()),
        1e-8,
    )
    weights = fastencode.ridge_cv(X, Y, alphas=[100.0], fit_intercept=False).coef
    yield "ridge", "norm of the weights at its α 10", 8.43839976, float(np.linalg.norm(weights)), 5e-9
    folds = [(np.setdiff1d(np.arange(n), held), held) for held in case["boot_valinds"]]
    options = {"alphas": alphas, "cv": folds, "scoring": "pearson", "fit_intercept": False}
    r = fastencode.pearson(case["Presp"], fastencode.ridge_cv(X, Y, **options).predict(case["Pstim"]))
    yield "ridge", "bootstrap, mean r", 0.133016, float(r.mean()), 5e-7
    yield "ridge", "bootstrap, largest r", 0.713848, float(r.max()), 5e-7
    yield "ridge", "one α for all", 10.0, float(np.sqrt(fastencode.ridge_cv(X, Y, **options, per_target=False).alpha).max()), 1e-9


def haxby(folder: Path) -> Iterator[Row]:
    """FIR encoding: boxcars at t = 2.5 k, delays 1 to 4 within runs, voxels z-scored per run, leave one run out."""
    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj) > 0
    bold = np.asarray(nibabel.load(folder / "bold.nii.gz").dataobj, dtype=float)[mask].T
    runs, times = np.repeat(np.arange(12), 121), 2.5 * np.arange(121)
    boxes = np.zeros((len(runs), len(CATEGORIES)))
    for run in range(12):
        with open(folder / f"events_run{run + 1:03d}.tsv", encoding="utf-8") as file:
            for event in csv.DictReader(file, delimiter="\t"):
                onset, duration = float(event["onset"]), float(event["duration"])
                rows = run * 121 + np.flatnonzero((times >= onset) & (times < onset + duration))
                boxes[rows, CATEGORIES.index(event["trial_type"])] = 1
    X, Y = fastencode.delay(boxes, (1, 2, 3, 4), runs=runs), zscore(bold, runs=runs)
    fit = fastencode.ridge_cv(X, Y, alphas=[1.0, 100.0], cv="runs", runs=runs, scoring="pearson")
    r = fit.cv_scores[0]
    for what, theirs, ours in (("mean", 0.16483, r.mean()), ("median", 0.11890, np.median(r)), ("largest", 0.72038, r.max())):
        yield "haxby", f"α 1, {what} r", theirs, float(ours), 5e-6
    yield "haxby", "α 1, voxel of the largest r", 85, int(r.argmax()), 0
    yield "haxby", "α 1, voxels above .2", 172, int((r > 0.2).sum()), 0
    yield "haxby", "α 100, mean r", 0.13645, float(fit.cv_scores[1].mean()), 5e-6


def alice(folder: Path) -> Iterator[Row]:
    found = word_rate_study(Alice(folder))
    r = found.predictor_correlation
    yield "alice", "word rate at offsets against the authors', r", 0.9943, r["word offsets, no clitics"], 5e-5
    yield "alice", "at onsets", 0.9885, r["word onsets"], 5e-5
    yield "alice", "sampled 1 s late", 0.957, r["word offsets, sampled 1 s late"], 5e-4
    yield "alice", "listeners with data", 27, len(found.listeners), 0
    tables = {
        "word-rate β": ((0.0962, 0.0832, 0.1344, 0.1380, 0.1306, 0.0850), found.weight, 5e-5),
        "t(26)": ((7.77, 6.48, 9.41, 8.96, 9.85, 6.95), found.t, 5e-3),
        "group mean against word rate, r": ((0.286, 0.332, 0.396, 0.432, 0.423, 0.376), found.group_correlation, 5e-4),
        "one listener against the others, r": ((0.330, 0.238, 0.423, 0.280, 0.254, 0.190), found.leave_one_out, 5e-4),
    }
    for what, (theirs, ours, digits) in tables.items():
        for region, a, b in zip(found.regions, theirs, ours, strict=True):
            yield "alice", f"{what}, {region}", a, float(b), digits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("FASTENCODE_DATA") or HERE.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the data sets (%(default)s)")
    options = parser.parse_args()
    rows, missed = [], 0
    for read in (lanczos, hrf, mfcc, ridge, haxby, alice):
        folder = options.data / read.__name__
        if not folder.is_dir():
            print(f"{read.__name__}: skipped, {folder} is not there")
            missed += 1
            continue
        for data, what, theirs, ours, apart in read(folder):
            reached = abs(ours - theirs) <= apart * (1 + 1e-9)
            missed += not reached
            print(f"{data:8} {what:62} {theirs:>14.9g} {ours:>14.9g}  {'yes' if reached else 'NO'}, within {apart:g}")
            rows.append({"data": data, "what": what, "theirs": theirs, "ours": ours, "within": apart, "reached": bool(reached)})
    session.write({"case": "real_data", **session.surroundings(0), "rows": rows}, session.RESULTS / "real_data.json")
    print(f"{sum(row['reached'] for row in rows)} of {len(rows)} reached; written: {session.RESULTS / 'real_data.json'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
