"""Words, voices and accents of the synthesizer's languages. All languages have words of the same semantic classes.

Nouns have one form; a sentence is "ARTICLE NOUN VERB ARTICLE NOUN AND ARTICLE NOUN" in each language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastencode.world.espeak import Voice

__all__ = ["ENGLISH", "FRENCH", "LANGUAGE_OF", "Language"]


@dataclass(frozen=True)
class Language:
    """One language.

    Attributes
    ----------
    code : str
    nouns, verbs : semantic class → words, with spaces between them
    articles : tuple of str
        The article of most nouns, and of ``feminine`` nouns.
    feminine : str
        Nouns, with spaces between them.
    conjunction : str
        Between two nouns.
    voices : tuple of Voice
        Voices of stories.
    accents : tuple of str
        Voices of corpora; none of their variants is a voice of stories.
    """

    code: str
    nouns: Mapping[str, str]
    verbs: Mapping[str, str]
    articles: tuple[str, str]
    feminine: str
    conjunction: str
    voices: tuple[Voice, ...]
    accents: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The semantic classes: of nouns, then of verbs."""
        return (*self.nouns, *self.verbs)

    @property
    def word_class(self) -> dict[str, str]:
        """Word → semantic class, verbs first."""
        return {word: name for name, words in {**self.verbs, **self.nouns}.items() for word in words.split()}

    def with_article(self, noun: str) -> str:
        """A noun and the article before it."""
        return f"{self.articles[noun in self.feminine.split()]} {noun}"


ENGLISH = Language(
    "en",
    nouns={
        "animal": "dog cat horse rabbit tiger monkey sheep eagle",
        "food": "bread cheese apple soup butter cake salad pepper",
        "tool": "hammer spanner drill ladder shovel wrench chisel bucket",
        "person": "teacher doctor farmer sailor painter soldier nurse judge",
        "place": "garden kitchen river mountain station market castle village",
        "cloth": "jacket scarf glove button pocket blanket ribbon sweater",
    },
    verbs={
        "perceive": "saw heard noticed watched",
        "move": "carried pushed dropped followed",
        "feel": "loved feared missed wanted",
    },
    articles=("the", "the"),
    feminine="",
    conjunction="and",
    voices=(
        Voice("en-us", 160, 45),
        Voice("en-us+f3", 175, 65),
        Voice("en+m3", 150, 35),
        Voice("en+f4", 185, 55),
    ),
    accents=("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"),
)

FRENCH = Language(
    "fr",
    nouns={
        "animal": "chien chat cheval lapin tigre vache chèvre canard",
        "food": "pain fromage pomme soupe beurre gâteau salade poivre",
        "tool": "marteau clé pelle perceuse ciseau seau tenaille scie",
        "person": "maître médecin fermier marin peintre soldat juge voisine",
        "place": "jardin cuisine rivière montagne gare marché château village",
        "cloth": "veste foulard gant bouton poche couverture ruban chemise",
    },
    verbs={
        "perceive": "voyait entendait remarquait regardait",
        "move": "portait poussait jetait suivait",
        "feel": "aimait craignait regrettait voulait",
    },
    articles=("le", "la"),
    feminine=(
        "vache chèvre pomme soupe salade clé pelle perceuse tenaille scie voisine cuisine rivière montagne gare veste poche"
        " couverture chemise"
    ),
    conjunction="et",
    voices=(
        Voice("fr", 160, 45),
        Voice("fr+f3", 175, 65),
        Voice("fr-be+m3", 150, 35),
        Voice("fr-ch+f4", 185, 55),
    ),
    accents=("fr", "fr-be", "fr-ch"),
)

LANGUAGE_OF = {language.code: language for language in (ENGLISH, FRENCH)}
"""Code → language: those of ``config.LANGUAGES``."""
