"""The synthesizer's phones in the 61 symbols of TIMIT.

espeak-ng names its phones in the International Phonetic Alphabet. Each becomes the symbol that is nearest in sound, whatever the
spelling of the word: the West Midlands vowel of "sheep", ``ei``, becomes ``ey``. What is two phones in TIMIT, such as a vowel and
the r after it, is written as two; each gets half of the time.

Two things that TIMIT's transcribers heard are not told by the synthesizer: where the closure of a stop ends and its burst begins,
and whether an h is voiced. So ``bcl dcl gcl pcl tcl kcl``, ``hv`` and ``epi`` never occur, and a stop's label covers its closure.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeError

__all__ = ["TIMIT_PHONES", "in_timit_phones"]

_STRESS = "ˈˌ"

_SAME = "b d p t k f v s z m n l w r"
_ONE = {
    "g": "ɡ", "t": "t̪", "dx": "ɾ", "q": "ʔ", "ch": "tʃ", "jh": "dʒ", "th": "θ", "dh": "ð", "sh": "ʃ", "zh": "ʒ", "hh": "h",
    "ng": "ŋ", "en": "n̩", "el": "əl", "r": "ɹ", "y": "j ʲ", "w": "ʍ",
    "iy": "iː i", "ih": "ɪ", "ix": "ᵻ", "eh": "ɛ", "ey": "eɪ eː e ei", "ae": "æ a", "aa": "ɑː ɒ aː a: aa", "ao": "ɔː ɔ",
    "ah": "ʌ", "ax": "ə ɐ", "er": "ɜː", "axr": "ɚ ɜ əɹ", "uh": "ʊ", "uw": "uː", "ux": "ʉ ʉː", "ow": "oʊ oː o əʊ əu ʌʊ",
    "ay": "aɪ", "oy": "ɔɪ oɪ", "aw": "aʊ æʊ ʌʉ",
}  # fmt: skip
_PAIRS = {
    "aa r": "ɑːɹ", "ao r": "ɔːɹ", "eh r": "ɛɹ", "ih r": "ɪɹ", "uh r": "ʊɹ", "ux r": "ʉɹ", "ah r": "ʌɹ",
    "ih ax": "iə", "eh ax": "eə ɛə", "uh ax": "ʊə", "ao ax": "ɔə", "ow ax": "oə", "aa ax": "ɑə", "ax ih": "əɪ",
    "ay ax": "aɪə", "ay axr": "aɪɚ",
}  # fmt: skip

TIMIT_PHONES = {same: (same,) for same in _SAME.split()} | {
    ipa: tuple(symbols.split()) for symbols, spellings in (_ONE | _PAIRS).items() for ipa in spellings.split()
}
"""Phones of the English accents that speak the corpora, without marks of stress → one or two of TIMIT's symbols."""


def in_timit_phones(phones: list[Interval], start: float, end: float) -> list[Interval]:
    """Phones with TIMIT's symbols, without gaps from one time to another.

    Parameters
    ----------
    phones : list of Interval
        The synthesizer's, in the order of time, in s.
    start, end : float
        Where the sound begins and ends, in s: before the first phone and after the last stands ``h#``, between them ``pau``.

    Returns
    -------
    list of Interval
        Each begins where the one before it ends.

    Raises
    ------
    FastencodeError
        If a phone has no symbol in ``TIMIT_PHONES``.
    """
    spoken = [part for phone in phones for part in _parts(phone)]
    if not spoken:
        return [Interval(start, end, "h#")]
    filled, at = [Interval(start, spoken[0].start, "h#")], spoken[0].start
    for phone in spoken:
        filled += [Interval(at, phone.start, "pau"), Interval(max(at, phone.start), phone.end, phone.label)]
        at = max(at, phone.end)
    return [interval for interval in [*filled, Interval(at, end, "h#")] if interval.end > interval.start]


def _parts(phone: Interval) -> Iterator[Interval]:
    """One phone as one or two of TIMIT's; none for a pause."""
    ipa = phone.label.strip("_: ").lstrip(_STRESS)
    if not ipa:
        return
    if ipa not in TIMIT_PHONES:
        raise FastencodeError(f"the synthesizer's phone {ipa!r} has no symbol in TIMIT_PHONES: add the nearest of TIMIT's 61")
    symbols = TIMIT_PHONES[ipa]
    edges = [phone.start + (phone.end - phone.start) * i / len(symbols) for i in range(len(symbols) + 1)]
    for symbol, start, end in zip(symbols, edges, edges[1:], strict=False):
        yield Interval(start, end, symbol)
