"""Words and phones of a transcript: which tier is which, and whether their times are seconds of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from fastencode.data.findings import Finding, warn_of
from fastencode.data.textgrid import Interval, pick_tier, read_textgrid, spoken
from fastencode.data.word_tables import read_word_table
from fastencode.errors import InputError
from fastencode.speech.silence import NON_SPEECH

__all__ = ["PHONE_TIERS", "TABLES", "WORD_TIERS", "exchanged_tiers", "spoken_labels", "word_time_findings"]

WORD_TIERS = ("word", "words", "ORT-MAU")
"""What aligners call a tier of words; the last is MAUS's."""
PHONE_TIERS = ("phone", "phones", "phoneme", "phonemes", "MAU")
"""What aligners call a tier of phones."""

TABLES = (".csv", ".tsv")
"""Suffixes of tables of words."""

_LATE = 10.0  # s: labels may go on so long after the end of a recording, whose length is often known in scans only
_BRIEF, _LONG = 0.02, 5.0  # s: half of all words last neither less nor more
_COVERED = (0.2, 1.2)  # of the recording: what words in the right unit reach
_FEW = 5  # words: fewer say nothing about units
# What times may be given in, and how many of it are a second; the likelier first.
_UNITS = {
    "milliseconds": 1000.0,
    "samples at 16 kHz": 16000.0,
    "samples at 44.1 kHz": 44100.0,
    "samples at 48 kHz": 48000.0,
    "samples at 22.05 kHz": 22050.0,
    "hundredths of a second": 100.0,
    "microseconds": 1e6,
    "minutes": 1 / 60,
    "hours": 1 / 3600,
}


def spoken_labels(
    path: Path,
    wanted: Literal["words", "phones"],
    *,
    seconds: float = 0.0,
    word_tier: str = "",
    phone_tier: str = "",
    non_speech: frozenset[str] = NON_SPEECH,
) -> list[Interval]:
    """The spoken words or phones of a transcript, after what can be told from both.

    Parameters
    ----------
    path : Path
        A TextGrid, or for words a table (:mod:`fastencode.data.word_tables`).
    wanted : {"words", "phones"}
    seconds : float
        How long the recording is; 0 if that is not known.
    word_tier, phone_tier : str
        Names of the tiers; by default those in ``WORD_TIERS`` and ``PHONE_TIERS``, or whose names end so.
    non_speech : frozenset of str
        Labels to leave out, as :func:`fastencode.data.textgrid.spoken` does.

    Raises
    ------
    InputError
        If the file is missing or damaged, has no such tier or several, or its words are more and shorter than its phones.

    Warns
    -----
    FastencodeWarning
        If the times are not seconds of the recording; see :func:`word_time_findings`.
    """
    if path.suffix.lower() in TABLES:
        if wanted == "phones":
            raise InputError(f"{path} is a table of words, without phones: give a TextGrid with a tier of phones")
        words = spoken(read_word_table(path), non_speech=non_speech)
        warn_of(word_time_findings(words, seconds, str(path)))
        return words
    tiers, found = read_textgrid(path), dict[str, list[Interval]]()
    kinds = (("words", WORD_TIERS, "word_tier", word_tier), ("phones", PHONE_TIERS, "phone_tier", phone_tier))
    for kind, names, option, given in kinds:
        try:
            found[kind] = spoken(pick_tier(tiers, *((given,) if given else names), option=option), non_speech=non_speech)
        except InputError as error:
            if kind == wanted:
                raise InputError(f"{path}: {error}") from error
    if exchanged := exchanged_tiers(found.get("words", ()), found.get("phones", ()), str(path)):
        raise InputError(str(exchanged[0]))
    warn_of(word_time_findings(found[wanted], seconds, str(path)))
    return found[wanted]


def word_time_findings(words: Sequence[Interval], seconds: float, where: str) -> list[Finding]:
    """Whether times are those of a recording: most of them lie within it, and words last as long as words do.

    Parameters
    ----------
    words : sequence of Interval
        Spoken words or phones, with times that should be s from the onset of the recording.
    seconds : float
        How long the recording is.
    where : str
        Whose they are, for the finding: a file.

    Returns
    -------
    list of Finding
        None or one, of kind ``"word times"``, with the likely unit.
    """
    if not words or not seconds > 0:
        return []
    first, last = min(word.start for word in words), max(word.end for word in words)
    typical = median(word.end - word.start for word in words)
    outside = sum(word.start > seconds + _LATE or word.end < 0 for word in words) / len(words)
    brief = len(words) >= _FEW and last < 0.1 * seconds and 0 < typical < _BRIEF
    if not outside and not brief:
        return []
    evidence = (
        f"{outside:.0%} of {len(words)} labels lie outside the recording of {seconds:.1f} s: they run from {first:g} to {last:g}"
        if outside
        else f"all {len(words)} labels lie within {first:g} … {last:g} of {seconds:.1f} s, and half of them last less than"
        f" {typical:g}"
    )
    return [Finding("word times", where, evidence, _unit(first, last, typical, seconds))]


def _unit(first: float, last: float, typical: float, seconds: float) -> str:
    """What to do, by the unit in which the labels cover the recording and last as long as words do."""
    for name, rate in _UNITS.items():
        fits = _COVERED[0] * seconds <= last / rate <= _COVERED[1] * seconds + _LATE
        if fits and (not typical or _BRIEF <= typical / rate <= _LONG):
            return f"they look like {name}: divide them by {rate:g}" if rate > 1 else f"they look like {name}: write seconds"
    if first > 0 and _COVERED[0] * seconds <= last - first <= _COVERED[1] * seconds and (not typical or typical <= _LONG):
        return (
            f"they look like clock time, or the time of a longer recording: subtract when this one begins, at most {first:g};"
            " words are counted from its onset"
        )
    return "give seconds from the onset of the recording, or check that this is its transcript"


def exchanged_tiers(words: Sequence[Interval], phones: Sequence[Interval], where: str) -> list[Finding]:
    """Whether words and phones are exchanged: there are fewer words than phones, and words last longer.

    Parameters
    ----------
    words, phones : sequence of Interval
        What is spoken of two tiers, without silences.
    where : str
        Whose they are, for the finding: a file.

    Returns
    -------
    list of Finding
        None or one, of kind ``"exchanged tiers"``; none unless words are both more and shorter.
    """
    if not words or not phones:
        return []
    lengths = [median(one.end - one.start for one in tier) for tier in (words, phones)]
    if not (len(words) > len(phones) and lengths[0] < lengths[1]):
        return []
    evidence = (
        f"{len(words)} words that last {lengths[0]:.3g} s, and {len(phones)} phones that last {lengths[1]:.3g} s (medians): words"
        " are fewer and longer than phones"
    )
    return [Finding("exchanged tiers", where, evidence, "the two tiers look exchanged; name them with word_tier and phone_tier")]
