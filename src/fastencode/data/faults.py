"""All checks of a data set's responses in one reading, a run in memory at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from fastencode.data.checks import RunSummary, run_findings, sample_of, summarize
from fastencode.data.copies import copy_findings, repeat_findings
from fastencode.data.dataset import Dataset
from fastencode.data.findings import Finding
from fastencode.errors import FastencodeWarning

__all__ = ["response_findings"]


def response_findings(data: Dataset, runs: Mapping[str, Sequence[str]]) -> list[Finding]:
    """What is wrong with responses: of single runs, of runs and participants that are copies, of repeats and their mean.

    Parameters
    ----------
    data : Dataset
    runs : mapping of str to sequence of str
        Participant → the runs to read.

    Returns
    -------
    list of Finding
        Run by run, then copies, then repeats. Of repeats at most 64 voxels are read.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    summaries, repeated = list[RunSummary](), list[Finding]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # of values that are not finite: findings say which run has them
        for who, names in runs.items():
            for run in names:
                summaries.append(summarize(who, run, partial(_whole, data, who, run)))
                if data.is_repeated(who, run):
                    repeated += _of_repeats(data, who, run)
    return [*run_findings(summaries), *copy_findings(summaries), *repeated]


def _whole(data: Dataset, who: str, run: str) -> list[np.ndarray]:
    return [data.responses(who, run)]


def _of_repeats(data: Dataset, who: str, run: str) -> list[Finding]:
    voxels = sample_of(data.n_voxels(who))
    mean = summarize(who, run, lambda: [data.responses(who, run, voxels=voxels)])
    return repeat_findings(mean, [summarize(who, run, partial(iter, [one])) for one in data.repeats(who, run, voxels=voxels)])
