"""Expectations beside what was measured: the number, its interval, the rule that decides, and yes or no."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from fastencode.errors import InputError

__all__ = ["Verdict", "layer_thirds", "verdict_table"]

WIDTH = 100


@dataclass(frozen=True)
class Verdict:
    """One expectation and whether the measurement met it.

    Parameters
    ----------
    expectation : str
        A sentence, written before the measurement: "Late layers rise in the late-language region."
    measured : float
        The number that was measured; NaN when it could not be, and then the expectation did not hold.
    low, high : float
        Its interval; NaN when there is none.
    rule : str
        The rule that decides, in words with its number: "held when the interval lies above 0.01".
    held : bool
        What the rule says.
    quantity : str
        What the number is, for example "r" or "Δr"; a quantity that begins with Δ is written with its sign.

    Raises
    ------
    InputError
        If the expectation or the rule is empty, the interval is upside down, or an unmeasured expectation is said to hold.
    """

    expectation: str
    measured: float
    low: float
    high: float
    rule: str
    held: bool
    quantity: str = "r"

    def __post_init__(self) -> None:
        # NumPy scalars are welcome, but json knows only Python's own.
        for name in ("measured", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "held", bool(self.held))
        for name in ("expectation", "rule"):
            if not str(getattr(self, name)).strip():
                raise InputError(f"a verdict needs its {name} in words, got {getattr(self, name)!r}")
        if self.low > self.high:
            raise InputError(f"interval of {self.expectation!r} is upside down: {self.low} > {self.high}")
        if self.held and math.isnan(self.measured):
            raise InputError(f"{self.expectation!r} cannot have held: nothing was measured (NaN)")

    @property
    def answer(self) -> str:
        """ "yes" or "no"."""
        return "yes" if self.held else "no"

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
    left = len("held") + 2 + number + 2
    lines = [f"held  {'measured':<{number}}  expectation", "-" * WIDTH]
    for verdict in verdicts:
        measured = [verdict.number, *textwrap.wrap(verdict.quantity, number)]
        words = textwrap.wrap(verdict.expectation, WIDTH - left) + textwrap.wrap(f"rule: {verdict.rule}", WIDTH - left)
        for answer, value, text in zip_longest([verdict.answer], measured, words, fillvalue=""):
            lines.append(f"{answer:<4}  {value:<{number}}  {text}".rstrip())
    lines += ["-" * WIDTH, f"{sum(v.held for v in verdicts)} of {len(verdicts)} expectations held"]
    return "\n".join(lines)


def layer_thirds(layers: Iterable[int]) -> dict[str, list[int]]:
    """Split layers into early, middle and late: the outer two are thirds rounded up, so they are always equally many.

    Parameters
    ----------
    layers : iterable of int
        Layer numbers, repeated or not, in any order; at least one.

    Returns
    -------
    dict of str to list of int
        ``{"early": …, "middle": …, "late": …}``; without a middle when nothing is left for it (2 or 4 layers); one layer is
        ``{"only": …}``.

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
