"""Checks of arguments that are a truth value, a number or a source of random numbers; an ``InputError`` names a wrong value."""

from __future__ import annotations

import numpy as np

from fastencode.errors import InputError

__all__ = ["check_count", "check_flag", "check_random", "check_real_number"]


def check_flag(name: str, value: object) -> bool:
    """A Python or NumPy bool as bool; text such as ``"no"`` would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r}; pass True or False")
    return bool(value)


def check_count(name: str, value: object, what: str = "a positive integer") -> int:
    """A Python or NumPy integer of at least 1 as int; ``what`` completes "pass …" in the error."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}={value!r}; pass {what}")
    return int(value)


def check_real_number(name: str, value: object, what: str) -> float:
    """A Python or NumPy number that is not negative as float; ``what`` completes "pass …" in the error."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not value >= 0:
        raise InputError(f"{name}={value!r}; pass {what}")
    return float(value)


def check_random(value: int | np.random.Generator | None, name: str = "random_state") -> np.random.Generator:
    """``numpy.random.default_rng(value)``: a new generator for a seed, or the generator that was passed."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r}; pass None, an integer of at least 0 or a numpy.random.Generator") from error
