"""Cases that cover every two values of any two parameters: far fewer than all combinations, and nearly as good at finding faults.

Source: D. M. Cohen, S. R. Dalal, M. L. Fredman and G. C. Patton (1997), "The AETG system: an approach to testing based on
combinatorial design", IEEE Transactions on Software Engineering 23, 437-444.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any


def pairs(*parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Cases, one value of each parameter, in which every value of every parameter meets every value of every other one.

    The same arguments give the same cases. Each case takes a pair that none had before, then for one parameter after another
    the value that makes most new pairs with those taken; the first of several.
    """
    sizes = [len(values) for values in parameters]
    if len(sizes) < 2:
        return [(value,) for values in parameters for value in values]
    missing = {(a, i, b, j) for a, b in combinations(range(len(sizes)), 2) for i in range(sizes[a]) for j in range(sizes[b])}
    cases = []

    def new_pairs(taken: dict[int, int], place: int, value: int) -> int:
        return sum(_pair(place, value, *one) in missing for one in taken.items())

    while missing:
        a, i, b, j = min(missing)
        taken = {a: i, b: j}
        for other in range(len(sizes)):
            if other not in taken:
                counts = [new_pairs(taken, other, value) for value in range(sizes[other])]
                taken[other] = counts.index(max(counts))
        missing -= {_pair(*one, *other) for one, other in combinations(taken.items(), 2)}
        cases.append(tuple(values[taken[place]] for place, values in enumerate(parameters)))
    return cases


def _pair(a: int, i: int, b: int, j: int) -> tuple[int, int, int, int]:
    return (a, i, b, j) if a < b else (b, j, a, i)
