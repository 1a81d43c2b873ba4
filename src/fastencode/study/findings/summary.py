"""A study's findings in words: what held, what did not, what is undecided, and how much more data would decide it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fastencode.study.names import display_name, measure_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Part", "Said", "decider", "number", "quantity", "summary", "tested"]

HEADINGS = {
    "yes": "Held",
    "no": "Did not hold",
    "undecided": "Undecided",
    "": "Measured, nothing was expected",
}
FAR = 100.0  # if more than this many times as much data would be needed, no number is given


class Said(NamedTuple):
    """One finding in words: the expectation, its value, what the value is and how it was tested, and further remarks."""

    statement: str
    number: str
    quantity: str
    more: str


class Part(NamedTuple):
    """All findings with the same answer."""

    answer: str
    heading: str
    findings: list[Said]


def summary(findings: pd.DataFrame, labels: Mapping[str, str]) -> tuple[str, list[Part]]:
    """The findings in words.

    Parameters
    ----------
    findings : pandas.DataFrame
        Columns as in ``columns.TABLES["findings"]``; where they are there, ``expect`` and ``limit``.
    labels : mapping of str to str
        Model → label.

    Returns
    -------
    str
        How many expectations held, in one sentence.
    list of Part
        Findings that held, did not hold, are undecided, and have no expectation; empty parts are left out.
    """
    answers = list(findings["answer"])
    asked = [one for one in answers if one]
    counts = [(asked.count("no"), "did not"), (asked.count("undecided"), "undecided")]
    rest = ", ".join(f"{n} {words}" for n, words in counts if n)
    first = f"{asked.count('yes')} of {len(asked)} expectations held" + (f" ({rest})." if rest else ".") if asked else ""
    parts = []
    for answer, heading in HEADINGS.items():
        said = [_said(row, labels) for _, row in findings.iterrows() if row["answer"] == answer]
        if said:
            parts.append(Part(answer, heading, said))
    return first, parts


def number(row: Mapping[str, Any], prefix: str = "") -> str:
    """A finding's value with its interval: ``+0.084 [+0.061, +0.107]``; differences carry their sign.

    Parameters
    ----------
    row : mapping
        A row of ``findings``.
    prefix : str
        "control_" for the control's.
    """
    if prefix:
        value, low, high = (row[f"{prefix}{name}"] for name in ("value", "low", "high"))
    else:
        value, low, high = row["value"], row["low"], row["high"]
    if not math.isfinite(value):
        return "not measured"
    sign = "+" if "−" in row["models"] or " - " in row["models"] else ""
    return _signed(value, sign) + (f" [{_signed(low, sign)}, {_signed(high, sign)}]" if math.isfinite(low + high) else "")


def quantity(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """What a finding's number is: "correlation r, brain-tuned − pretrained, late layers, late language"."""
    layers = str(row["layers"])
    layers = f"{layers} layers" if layers[:1].isalpha() else f"layers {layers}"
    models = "".join(labels.get(part, part) for part in re.split(r"(\s[−+-]\s)", row["models"]))
    parts = (measure_name(row["measure"]), models, layers, display_name(row["region"]))
    return ", ".join(filter(None, parts))


def tested(row: Mapping[str, Any]) -> str:
    """The unit of a finding's interval and test, and its p: "n = 8 participants, p = 0.012, Holm 0.047"."""
    n = row["n_units"]
    words = [f"n\xa0=\xa0{n:.3g} {row['unit']}" if math.isfinite(n) else str(row["unit"])]
    if math.isfinite(row["p"]):
        words.append(f"p\xa0{_p(row['p'])}")
    if math.isfinite(row["p_holm"]) and row["family"]:
        words.append(f"Holm\xa0{_p(row['p_holm']).removeprefix('=').strip()}")
    return ", ".join(words)


def decider(row: Mapping[str, Any]) -> str:
    """A sentence on how much more data would decide an undecided finding; "" if the width of its interval is not the reason.

    The width of an interval is proportional to 1 / √n for n units. So ``(w / d)²`` times as many units are needed, where w is the
    distance from the value to the end of the interval beyond the limit, and d the distance from the value to the limit.
    """
    value, low, high = row["value"], row["low"], row["high"]
    if not math.isfinite(value + low + high):
        return ""
    wide = f"Its interval is {high - low:.3f} wide"
    if not _is_limited(row):
        return f"{wide}; more {row['unit']} would narrow it."
    expect, limit = row["expect"], row["limit"]
    limits = (-abs(limit), abs(limit)) if expect == "within" else (limit,)
    inside = [one for one in limits if low <= one <= high]
    if not inside:
        return ""
    shown = f"the limit{'s' if len(inside) > 1 else ''} {' and '.join(_plain(one) for one in inside)}"
    times = max(((value - low if one < value else high - value) / max(abs(value - one), 1e-12)) ** 2 for one in inside)
    if times > FAR:
        return f"{wide} and holds {shown}, which the value is next to: more {row['unit']} are not likely to decide."
    return f"{wide} and holds {shown}: about {times:.1f} times as many {row['unit']} would decide if the value stays."


def _said(row: Mapping[str, Any], labels: Mapping[str, str]) -> Said:
    more = []
    if math.isfinite(row["control_value"]) and (row["answer"] != "yes" or "The control shows a part" in str(row["reason"])):
        more.append(f"The control shows {number(row, 'control_')}.")
    deciding = decider(row) if row["answer"] == "undecided" else ""
    reason = str(row["reason"]).strip()
    if reason and (not deciding or not _is_limited(row)):  # the sentence of decider says the same with numbers
        more.append(f"{reason[0].upper()}{reason[1:].rstrip('. ')}.")
    statement = str(row["statement"]).rstrip(". ")
    return Said(statement, number(row), f"{quantity(row, labels)}; {tested(row)}", " ".join(filter(None, [*more, deciding])))


def _is_limited(row: Mapping[str, Any]) -> bool:
    """Whether a row has an expectation with a limit."""
    limit = row.get("limit")
    return row.get("expect") in ("above", "below", "within") and limit is not None and math.isfinite(limit)


def _signed(value: float, sign: str) -> str:
    text = format(value, f"{sign}.3f").replace("-", "−")
    return "0.000" if text in ("−0.000", "+0.000") else text


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _p(value: float) -> str:
    return "<\xa00.0001" if value < 1e-4 else f"=\xa0{value:.2g}"
