"""Texts of the synthesized TIMIT: sentences of three types, with the nouns and verbs of the stories.

As in TIMIT, types differ in the construction of the texts, not in how they are read. SA are two texts that all speakers read, SX
are short and similar sentences, SI have varying forms. One form of SI is as short as SX, so that length does not identify the
type. Nouns and verbs are those of ``tales.py``, and a sentence stays with one topic. Function words and adjectives, which have no
semantic class, add phones that nouns and verbs lack.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastencode.world.tales import NOUNS, VERBS, noun_of

__all__ = ["SA", "compact_sentences", "diverse_sentences", "function_words"]

SA = (
    "Our young teacher never noticed the small blue scarf behind the ladder.",
    "While the judge watched a noisy monkey, both of them followed my horse to the river.",
)
"""The two texts that every speaker reads."""

_SLOTS = {
    "det": "the this that every one his her our my some",
    "adj": "old young small large blue yellow quiet noisy thirsty early new pure",
    "prep": "near behind under beside before by",
    "conj": "while because before when if then",
    "pron": "she he they we you both",
    "adv": "today again slowly always yesterday quickly there here often never",
}
_COMPACT = ("{det} {noun} {verb} {det} {noun} and {det} {noun}", "{det} {noun} {verb} {det} {adj} {noun}")
_DIVERSE = (
    "{adv} {det} {adj} {noun} {verb} {det} {noun} {prep} {det} {adj} {noun}",
    "{conj} {det} {noun} {verb} {det} {noun}, {pron} {verb} {det} {adj} {noun}",
    "{pron} {verb} {det} {noun} {prep} {det} {noun} and {verb} {det} {adj} {noun} {adv}",
    "{adv} {pron} {verb} {det} {noun}, but {det} {adj} {noun} {verb} {det} {noun} {adv}",
    "{pron} {verb} {det} {adj} {noun} {adv}",
)


def function_words() -> list[str]:
    """Every word of the sentences that has no semantic class."""
    return sorted({"a", "and", "but", "of", "to", "them"} | {word for words in _SLOTS.values() for word in words.split()})


def compact_sentences(n_texts: int, rng: np.random.Generator) -> list[str]:
    """Draw SX texts, all different."""
    return _distinct(n_texts, lambda: _fill(str(rng.choice(_COMPACT)), rng))


def diverse_sentences(n_texts: int, rng: np.random.Generator) -> list[str]:
    """Draw SI texts, all different."""
    return _distinct(n_texts, lambda: _fill(str(rng.choice(_DIVERSE)), rng))


def _distinct(n_texts: int, draw: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n_texts:
        found[draw()] = None
    return list(found)


def _fill(form: str, rng: np.random.Generator) -> str:
    """Put words into the slots of a form; nouns of one topic mostly, as in stories."""
    topic = list(NOUNS)[int(rng.integers(len(NOUNS)))]
    words = []
    for part in form.split():
        slot = part.strip("{},")
        if slot == "noun":
            word = noun_of(topic, rng)
        elif slot == "verb":
            word = str(rng.choice(VERBS[list(VERBS)[int(rng.integers(len(VERBS)))]].split()))
        else:
            word = str(rng.choice(_SLOTS[slot].split())) if slot in _SLOTS else slot
        words.append(word + "," * part.endswith(","))
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."
