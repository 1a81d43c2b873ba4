"""Cases that cover every pair of values."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from pairs import pairs


@pytest.mark.parametrize("sizes", [(3, 2), (2, 2, 2, 2, 2), (5, 2, 4, 10), (2, 2, 3, 3, 8), (2, 10, 3, 2, 2), (1, 4, 1)])
def test_every_value_meets_every_other(sizes: tuple[int, ...]) -> None:
    parameters = [[f"{name}{value}" for value in range(size)] for name, size in enumerate(sizes)]
    cases = pairs(*parameters)
    for a, b in combinations(range(len(sizes)), 2):
        assert {(case[a], case[b]) for case in cases} == set(product(parameters[a], parameters[b]))
    assert len(set(cases)) == len(cases) and cases == pairs(*parameters)
    largest, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert largest * second <= len(cases) <= 1.5 * largest * second + 2  # the first is the least there can be


def test_one_parameter_and_none() -> None:
    assert pairs([1, 2]) == [(1,), (2,)] and pairs() == [] and pairs([1, 2], []) == []
