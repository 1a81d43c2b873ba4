"""Low-level features from labels with times: how many words or phones a second, and how phones are articulated.

Sources of the table: the chart of the International Phonetic Association; for the quality of General American vowels P. Ladefoged
(1999), "American English", in the Handbook of the International Phonetic Association; for the labels of TIMIT its own phone code
table. The first 22 features are those that de Heer et al. (2017) and later voxelwise models of speech use.

Axis letters: e event, n new time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import export, library_of
from fastencode.errors import InputError
from fastencode.speech.silence import SILENT
from fastencode.timing.lanczos import lanczos
from fastencode.timing.times import check_finite, check_times, float_array

__all__ = ["ARTICULATORY_FEATURES", "SILENT", "articulatory", "event_rate"]

ARTICULATORY_FEATURES = (
    *("bilabial", "labiodental", "dental", "alveolar", "postalveolar", "palatal", "velar", "glottal"),
    *("plosive", "nasal", "fricative", "affricate", "lateral", "approximant"),
    *("voiced", "unvoiced"),
    *("high", "mid", "low"),
    *("front", "central", "back"),
    *("tap", "rounded", "rhotic"),
)
"""Columns of ``articulatory``: place, manner, voicing, height and backness (22), then three more of the chart."""

# Phones of one articulation, and its features. A diphthong has those of both its ends; "rounded" is said of vowels only.
_ARTICULATION = {
    "p pcl": "unvoiced bilabial plosive",
    "b bcl": "voiced bilabial plosive",
    "t tcl": "unvoiced alveolar plosive",
    "d dcl": "voiced alveolar plosive",
    "k kcl": "unvoiced velar plosive",
    "g gcl": "voiced velar plosive",
    "q": "unvoiced glottal plosive",
    "ch": "unvoiced postalveolar affricate",
    "jh": "voiced postalveolar affricate",
    "f": "unvoiced labiodental fricative",
    "v": "voiced labiodental fricative",
    "th": "unvoiced dental fricative",
    "dh": "voiced dental fricative",
    "s": "unvoiced alveolar fricative",
    "z": "voiced alveolar fricative",
    "sh": "unvoiced postalveolar fricative",
    "zh": "voiced postalveolar fricative",
    "hh": "unvoiced glottal fricative",
    "hv": "voiced glottal fricative",
    "m em": "voiced bilabial nasal",
    "n en": "voiced alveolar nasal",
    "ng eng": "voiced velar nasal",
    "nx": "voiced alveolar nasal tap",
    "dx": "voiced alveolar tap",
    "l el": "voiced alveolar lateral approximant",
    "r": "voiced alveolar approximant rhotic",
    "w": "voiced bilabial velar approximant",
    "y": "voiced palatal approximant",
    "iy ih": "voiced high front",
    "eh": "voiced mid front",
    "ae": "voiced low front",
    "ix": "voiced high central",
    "ux": "voiced high central rounded",
    "ah ax": "voiced mid central",
    "ax-h": "unvoiced mid central",
    "er axr": "voiced mid central rhotic",
    "aa": "voiced low back",
    "ao": "voiced mid back rounded",
    "uw uh": "voiced high back rounded",
    "ey": "voiced mid high front",
    "ay": "voiced low high central front",
    "oy": "voiced mid high back front rounded",
    "aw": "voiced low high central back rounded",
    "ow": "voiced mid high back rounded",
}


def _vectors() -> NDArray[np.float32]:
    """One row for each articulation, after a row of zeros for silence."""
    vectors = np.zeros((1 + len(_ARTICULATION), len(ARTICULATORY_FEATURES)), np.float32)
    for row, features in enumerate(_ARTICULATION.values(), start=1):
        vectors[row, [ARTICULATORY_FEATURES.index(feature) for feature in features.split()]] = 1.0
    return vectors


_VECTORS = _vectors()
_ROW = {phone: row for row, phones in enumerate(_ARTICULATION, start=1) for phone in phones.split()}
_STRESS = re.compile(r"[012]$")


def articulatory(phones: Sequence[str], *, silent: frozenset[str] = SILENT) -> NDArray[np.float32]:
    """How each phone is articulated: place, manner, voicing, height, backness and lips, as zeros and ones.

    Closures that TIMIT labels apart (``tcl``) have the features of their plosive, and syllabic consonants (``en``) those of the
    consonant: where both a closure and its release are labeled, leave one of them out to count the plosive once. A diphthong has
    the features of both its ends. These features do not tell ``IY`` from ``IH``, ``UW`` from ``UH``, or ``AH`` from ``AX``.

    Parameters
    ----------
    phones : sequence of str
        ARPAbet labels with or without stress digits (``"AH0"``), or TIMIT's 61 labels; any case. ``[p.label for p in phones]``
        gives those of a TextGrid's tier.
    silent : frozenset of str
        Labels without articulation, lower case and without braces: their rows are 0. The default is ``SILENT``; add what else an
        aligner writes, for example ``SILENT | {"spn"}``.

    Returns
    -------
    ndarray, shape (len(phones), 25), float32
        Columns are ``fastencode.speech.labels.ARTICULATORY_FEATURES``.

    Raises
    ------
    InputError
        If a label is not text or not a known phone.

    See Also
    --------
    event_rate : their sums per second at scan times: ``event_rate(times, scan_times, values=articulatory(labels))``.

    References
    ----------
    W. A. de Heer, A. G. Huth, T. L. Griffiths, J. L. Gallant and F. E. Theunissen (2017), "The hierarchical cortical organization
    of human speech processing", Journal of Neuroscience 37, 6539-6557.
    F. Deniz, A. O. Nunez-Elizalde, A. G. Huth and J. L. Gallant (2019), "The representation of semantic information across human
    cerebral cortex during listening versus reading is invariant to stimulus modality", Journal of Neuroscience 39, 7722-7736.
    """
    if isinstance(phones, str):
        raise InputError(f"phones is the text {phones!r}: give a list of labels, for example [{phones!r}]")
    rows, unknown = np.zeros(len(phones), np.intp), dict[str, int]()
    for place, label in enumerate(phones):
        if not isinstance(label, str):
            raise InputError(f"phones[{place}] is {label!r}: give labels as text, for example [p.label for p in phones]")
        plain = label.strip().strip("{}<>").strip().lower()
        if plain in silent:
            continue
        rows[place] = _ROW.get(_STRESS.sub("", plain), 0)
        if not rows[place]:
            unknown.setdefault(plain, place)
    if unknown:
        first = min(unknown.values())
        raise InputError(
            f"phones[{first}] is {phones[first]!r}, which is neither ARPAbet nor a label of TIMIT: correct it, or count what is"
            f" unknown as silence with silent=SILENT | {{{', '.join(map(repr, unknown))}}}"
        )
    return _VECTORS[rows]


def event_rate(
    times: ArrayLike,
    new_times: ArrayLike,
    *,
    values: ArrayLike | None = None,
    how: Literal["count", "lanczos"] = "count",
) -> Any:
    """Events per second at new times: word rate, phone rate, or the sum of the events' features.

    Parameters
    ----------
    times : array_like, shape (n_events,)
        When each event is, in seconds, in any order: for example the onsets of words.
    new_times : array_like, shape (n_new,)
        Seconds, ascending, at least two (or none): the *middles* of scans. Each run on its own.
    values : array_like, shape (n_events, ...)
        What each event counts, for example ``articulatory(labels)``; NumPy, or torch on the CPU. None: 1.
    how : {"count", "lanczos"}
        "count" adds up the events in the interval around each new time, which reaches half-way to its neighbors (the first and
        the last as far outward as inward) and holds its start but not its end: at evenly spaced scan middles, what falls into
        each scan. "lanczos" resamples impulses at the events with :func:`fastencode.lanczos`: smoother, and negative in places.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_new, ...)
        Per second: sums divided by the length of the interval ("lanczos": by the mean step of ``new_times``). The floating dtype
        of the values, float64 without. Events outside all intervals do not count.

    Raises
    ------
    InputError
        If a time or value is not finite, new times do not ascend or are only one, lengths disagree, or ``how`` is something else.
    """
    if how not in ("count", "lanczos"):
        raise InputError(f"how={how!r}: choose 'count' or 'lanczos'")
    times_e, new_n = check_times(times, "times"), check_times(new_times, "new_times")
    values_e = np.ones(len(times_e)) if values is None else float_array(values, "values")
    if values_e.ndim == 0 or len(values_e) != len(times_e):
        raise InputError(f"values has shape {values_e.shape} for {len(times_e)} times: give one row for each event")
    check_finite(values_e, "values")
    edges = _edges(new_n)
    if how == "lanczos":
        sums_n = lanczos(values_e, times_e, new_n)
        lengths_n = np.full(len(new_n), (new_n[-1] - new_n[0]) / (len(new_n) - 1)) if len(new_n) else new_n
    else:
        sums_n, lengths_n = _sums(values_e, times_e, edges), np.diff(edges)
    rate_n = sums_n / lengths_n.reshape(-1, *[1] * (values_e.ndim - 1))
    return export(rate_n.astype(values_e.dtype, copy=False), library_of(values))


def _edges(new_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the interval around each new time begins, and where the last one ends; shape (n + 1,)."""
    if len(new_n) == 0:
        return np.zeros(1)
    if len(new_n) == 1:
        raise InputError("new_times has one entry: how long it stands for follows from the step, so give at least two")
    steps = np.diff(new_n)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0))
        raise InputError(
            f"new_times goes from {new_n[row]} to {new_n[row + 1]} at index {row + 1}: it must ascend; count run by run"
        )
    return np.concatenate([new_n[:1] - steps[0] / 2, new_n[:-1] + steps / 2, new_n[-1:] + steps[-1] / 2])


def _sums(values_e: NDArray[Any], times_e: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up the values of the events from each edge to the next, in float64."""
    interval_e = np.searchsorted(edges, times_e, side="right") - 1
    inside_e = (interval_e >= 0) & (interval_e < len(edges) - 1)
    sums_n = np.zeros((len(edges) - 1, *values_e.shape[1:]))
    np.add.at(sums_n, interval_e[inside_e], values_e[inside_e])
    return sums_n
