"""One way to open a data set, whatever its layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fastencode.data.bids import read_bids
from fastencode.data.config import DS003020_TEST, ImageSettings
from fastencode.data.dataset import Dataset
from fastencode.data.findings import Finding
from fastencode.data.narratives import read_narratives
from fastencode.data.petit_prince import read_petit_prince
from fastencode.data.recorded import Recorded
from fastencode.data.runs import Run
from fastencode.data.stories import Stories
from fastencode.data.table import read_table
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.silence import NON_SPEECH

__all__ = ["LAYOUTS", "layout_of", "open_data", "read_presentations"]

LAYOUTS = ("ds003020", "bids", "narratives", "petit-prince", "table")
"""The layouts that are read."""

_READERS: Mapping[str, Callable[[Path, ImageSettings], tuple[list[Run], list[Finding]]]] = {
    "bids": read_bids,
    "narratives": read_narratives,
    "petit-prince": read_petit_prince,
    "table": lambda path, settings: read_table(path),
}


def layout_of(path: Path) -> str:
    """Which of ``LAYOUTS`` a path has.

    Raises
    ------
    InputError
        If it is missing, or has none of them: says what was looked for.
    """
    if path.is_file():
        return "table"
    if not path.is_dir():
        raise InputError(f"{path} is not there: give a folder of data, or a table of runs")
    if any((path / folder / "preprocessed_data").is_dir() for folder in ("derivative", "")):
        return "ds003020"
    derivatives = path / "derivatives"
    if any(folder.name.startswith("afni-") for folder in (derivatives.iterdir() if derivatives.is_dir() else ())):
        return "narratives"
    if next(path.glob("derivatives/sub-*/func/sub-*_task-lpp*"), None):
        return "petit-prince"
    if derivatives.is_dir() or next(path.glob("sub-*"), None):
        return "bids"
    raise InputError(
        f"{path} has no known layout: looked for preprocessed_data (ds003020), derivatives/afni-* (Narratives), "
        "derivatives/sub-*_task-lpp* (Le Petit Prince), derivatives or sub-* (BIDS); or give a table of runs "
        '(help("fastencode.data.table"))'
    )


def read_presentations(
    path: str | os.PathLike[str], layout: str = "auto", settings: ImageSettings | None = None
) -> tuple[list[Run], list[Finding]]:
    """Every presentation that can be used, and everything that is wrong with the others; not of ds003020's layout."""
    path = Path(path)
    layout = layout_of(path) if layout == "auto" else layout
    if layout not in _READERS:
        raise InputError(f"layout is {layout!r}: choose among auto, {', '.join(_READERS)}")
    return _READERS[layout](path, settings or ImageSettings())


def open_data(
    path: str | os.PathLike[str],
    layout: str = "auto",
    *,
    tr: float | None = None,
    test_story: str | None = None,
    test_skip: int | None = None,
    settings: ImageSettings | None = None,
    non_speech: Collection[str] = NON_SPEECH,
    word_tier: str = "",
    phone_tier: str = "",
) -> Dataset:
    """Open a data set; nothing but headers is read.

    Parameters
    ----------
    path : path
        A folder, or a table of runs.
    layout : {"auto", "ds003020", "bids", "narratives", "petit-prince", "table"}
    tr : float, optional
        Repetition time in s. Of ds003020 2.0 by default; others say it themselves, and another one is an error.
    test_story : str, optional
        The run that no model is fitted on; by default ds003020's, or the first that the data set marks as test.
    test_skip : int, optional
        Rows left out at the start of the test story: 40 of ds003020's own by default, 0 of others.
    settings : ImageSettings, optional
        How images are read.
    non_speech : collection of str
        Labels that are no words.
    word_tier, phone_tier : str
        The tiers of words and of phones in all transcripts; by default found by their names.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the path has no known layout, or nothing in it can be used; says everything that is wrong.

    Warns
    -----
    FastencodeWarning
        For each presentation that cannot be used.
    """
    path = Path(path)
    layout = layout_of(path) if layout == "auto" else layout
    labels: dict[str, Any] = {"non_speech": non_speech, "word_tier": word_tier, "phone_tier": phone_tier}
    if layout == "ds003020":
        if test_skip is None and test_story not in (None, DS003020_TEST):
            test_skip = 0
        asked: dict[str, Any] = {"tr": tr, "test_story": test_story, "test_skip": test_skip}
        return Stories(path, **labels, **{name: value for name, value in asked.items() if value is not None})
    runs, problems = read_presentations(path, layout, settings)
    if not runs:
        raise InputError("\n".join([f"{path}: nothing can be used", *map(str, problems)]))
    data = Recorded(runs, root=path, test_story=test_story, test_skip=test_skip or 0, **labels)
    if tr is not None and abs(tr - data.tr) > 1e-6:
        raise InputError(f"tr is {tr:g} s, but {path} says {data.tr:g} s: leave it out, or mend the data set")
    for problem in (*problems, *data.problems):
        warnings.warn(str(problem), FastencodeWarning, stacklevel=2)
    return data
