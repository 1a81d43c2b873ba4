"""Verdicts on expectations: the measured number, its interval, the rule that decides, and the answer yes, no or undecided.

A rule compares the whole interval with a limit that was stated before the measurement. A wide interval is undecided, so that
little data does not make it easier to conclude that there is no effect.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from fastencode.errors import InputError
from fastencode.study.conditions import Condition

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Answer", "Verdict", "counted", "layer_thirds", "overfitting", "verdict_table"]

WIDTH = 100
Answer = Literal["yes", "no", "undecided"]
Number = tuple[float, float, float]
"""(value, lower end, upper end) of a measurement and its interval."""


@dataclass(frozen=True)
class Verdict:
    """One expectation and whether the measurement met it; made by :meth:`above`, :meth:`below` or :meth:`within`.

    Parameters
    ----------
    expectation : str
        A sentence, written before the measurement: "Late layers rise in the late-language region."
    measured : float
        The number that was measured; NaN when it could not be.
    low, high : float
        Its interval; NaN when there is none.
    rule : str
        The rule that decides, in words with its margin: "yes if the interval lies above 0, no if below".
    answer : {"yes", "no", "undecided"}
        What the rule says; undecided without an interval.
    quantity : str
        What the number is, for example "r" or "Δr"; a quantity that begins with Δ is written with its sign.

    Raises
    ------
    InputError
        If the expectation or the rule is empty, the interval is upside down, the answer is none of the three, or an unmeasured
        expectation is decided.
    """

    expectation: str
    measured: float
    low: float
    high: float
    rule: str
    answer: Answer
    quantity: str = "r"

    def __post_init__(self) -> None:
        # NumPy scalars are welcome, but json knows only Python's own.
        for name in ("measured", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("expectation", "rule"):
            if not str(getattr(self, name)).strip():
                raise InputError(f"a verdict needs its {name} in words, got {getattr(self, name)!r}")
        if self.low > self.high:
            raise InputError(f"interval of {self.expectation!r} is upside down: {self.low} > {self.high}")
        if self.answer not in ("yes", "no", "undecided"):
            raise InputError(f"{self.expectation!r} has the answer {self.answer!r}; give 'yes', 'no' or 'undecided'")
        if self.answer != "undecided" and math.isnan(self.measured):
            raise InputError(f"{self.expectation!r} cannot be decided: nothing was measured (NaN)")

    @classmethod
    def above(cls, expectation: str, number: Number, limit: float = 0.0, *, quantity: str = "r") -> Verdict:
        """Expects more than ``limit``: yes if the interval lies above it, no if below."""
        _, low, high = number
        rule = f"yes if the interval lies above {_plain(limit)}, no if below"
        return cls(expectation, *number, rule, _answer(low > limit, high < limit), quantity)

    @classmethod
    def below(cls, expectation: str, number: Number, limit: float, *, quantity: str = "r") -> Verdict:
        """Expects less than ``limit``: yes if the interval lies below it, no if above."""
        _, low, high = number
        rule = f"yes if the interval lies below {_plain(limit)}, no if above"
        return cls(expectation, *number, rule, _answer(high < limit, low > limit), quantity)

    @classmethod
    def within(cls, expectation: str, number: Number, margin: float, *, quantity: str = "r") -> Verdict:
        """Expects a number near 0: yes if the interval lies within ±``margin``, no if outside."""
        _, low, high = number
        rule = f"yes if the interval lies within ±{margin}, no if outside"
        return cls(expectation, *number, rule, _answer(-margin < low and high < margin, low > margin or high < -margin), quantity)

    @property
    def number(self) -> str:
        """The measured number with its interval, for example ``+0.084 [+0.061, +0.107]``."""
        if math.isnan(self.measured):
            return "not measured"
        sign = "+" if self.quantity.startswith("Δ") else ""
        text = _decimal(self.measured, sign)
        if math.isnan(self.low) or math.isnan(self.high):
            return text
        return f"{text} [{_decimal(self.low, sign)}, {_decimal(self.high, sign)}]"


def _answer(yes: bool, no: bool) -> Answer:
    return "yes" if yes else "no" if no else "undecided"


def _plain(limit: float) -> str:
    return f"{limit:g}".replace("-", "−")


def _decimal(value: float, sign: str) -> str:
    form = f"{sign}.3f" if abs(value) < 1000 else f"{sign}.4g"
    text = format(value, form).replace("-", "−")
    return "0.000" if text in ("−0.000", "+0.000") else text


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    """Plain text for a terminal, at most 100 columns: answer, number with interval, expectation, and the rule below it.

    Parameters
    ----------
    verdicts : iterable of Verdict

    Returns
    -------
    str
        Lines without a final newline; one line that says so when there are no verdicts.
    """
    verdicts = list(verdicts)
    if not verdicts:
        return "no expectation was stated"
    number = max(24, *(len(v.number) for v in verdicts))
    wide = len("undecided")
    left = wide + 2 + number + 2
    lines = [f"{'held':<{wide}}  {'measured':<{number}}  expectation", "-" * WIDTH]
    for verdict in verdicts:
        measured = [verdict.number, *textwrap.wrap(verdict.quantity, number)]
        words = textwrap.wrap(verdict.expectation, WIDTH - left) + textwrap.wrap(f"rule: {verdict.rule}", WIDTH - left)
        for answer, value, text in zip_longest([verdict.answer], measured, words, fillvalue=""):
            lines.append(f"{answer:<{wide}}  {value:<{number}}  {text}".rstrip())
    lines += ["-" * WIDTH, counted(verdicts)]
    return "\n".join(lines)


def counted(verdicts: Iterable[Verdict]) -> str:
    """One line: how many expectations held, did not hold, and are undecided."""
    answers = [verdict.answer for verdict in verdicts]
    rest = [f"{answers.count(one)} {word}" for one, word in (("no", "did not"), ("undecided", "undecided")) if one in answers]
    return f"{answers.count('yes')} of {len(answers)} expectations held" + (f" ({', '.join(rest)})" if rest else "")


def overfitting(training: pd.DataFrame, models: Sequence[Condition]) -> list[str]:
    """Report models whose training loss kept falling after their validation loss was least.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns participant, model, epoch, train_loss, validation_loss, as for ``report.write_report``.
    models : sequence of Condition

    Returns
    -------
    list of str
        A sentence for each participant and model whose validation loss was least before its last epoch while its training loss
        went on falling; one sentence that says so where there is none.
    """
    labels, said = {one.model: one.label for one in models}, []
    for (who, model), part in training.groupby(["participant", "model"], sort=False):
        part = part.sort_values("epoch").set_index("epoch")
        validation, train = part["validation_loss"].dropna(), part["train_loss"].dropna()
        if len(validation) < 2 or len(train) < 2:
            continue
        best, last = validation.idxmin(), validation.index[-1]
        since = train[train.index >= best]
        if len(since) < 2 or since.iloc[-1] >= since.iloc[0]:
            continue
        when = f"after epoch {best}" if best > 0 else "before the first update"
        least, end = _decimal(validation[best], ""), _decimal(validation[last], "")
        said.append(
            f"{who}, {labels[str(model)]}: overfitted. Its validation loss was least {when} ({least}) and is {end} at the end, "
            "while its training loss went on falling."
        )
    return said or ["No model overfitted: no validation loss was least before the last epoch while the training loss still fell."]


def layer_thirds(layers: Iterable[int]) -> dict[str, list[int]]:
    """Split layers into early, middle and late thirds. Early and late have equally many: a third of the layers, rounded up.

    Parameters
    ----------
    layers : iterable of int
        Layer numbers, repeated or not, in any order; at least one.

    Returns
    -------
    dict of str to list of int
        ``{"early": …, "middle": …, "late": …}``; without "middle" for 2 or 4 layers; ``{"only": …}`` for one layer.

    Raises
    ------
    InputError
        If there is no layer.
    """
    distinct = sorted({int(layer) for layer in layers})
    if not distinct:
        raise InputError("no layers to split: pass at least one layer number")
    if len(distinct) == 1:
        return {"only": distinct}
    third = (len(distinct) + 2) // 3
    parts = {"early": distinct[:third], "middle": distinct[third:-third], "late": distinct[-third:]}
    return {name: part for name, part in parts.items() if part}
