"""Settings of plain values, as a YAML file holds them: every problem is found, each with its place and the nearest name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fastencode.errors import InputError, nearest, require, suggestion

__all__ = ["merged", "problems_of", "typed"]

Settings = TypeVar("Settings")


def typed(kind: type[Settings], given: Any, where: str = "") -> Settings:
    """Make a dataclass, and those inside it, of plain values.

    Parameters
    ----------
    kind : type
        A dataclass.
    given : Any
        Mappings, lists, text and numbers.
    where : str
        What the problems' places begin with.

    Raises
    ------
    InputError
        If anything is wrong: all of it, a line for each problem.
    """
    problems, found = problems_of(kind, given, where)
    if found is None or problems:
        raise InputError("\n".join(problems))
    return found


def problems_of(kind: type[Settings], given: Any, where: str = "") -> tuple[list[str], Settings | None]:
    """What :func:`typed` would complain of, a line for each problem, and the settings, None where they cannot be made.

    A misspelt setting counts as the one that is nearest, so that what is wrong besides can be found at once.
    """
    pydantic = require("pydantic", "tune")
    problems = list(_unknown(kind, given, where))
    try:
        return problems, pydantic.TypeAdapter(kind).validate_python(_mended(kind, given))
    except pydantic.ValidationError as error:
        return [*problems, *(_line(one, where) for one in error.errors(include_url=False))], None


def merged(settings: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass as plain mappings, with others in their place, those of inner mappings one by one."""
    return _merge(asdict(settings), changes)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merge(below[name], value) if isinstance(value, Mapping) and isinstance(below.get(name), Mapping) else value
        for name, value in above.items()
    }
    return {**below, **both}


def _unknown(kind: Any, given: Any, where: str) -> Iterator[str]:
    """Keys that no setting has, at any depth."""
    if not is_dataclass(kind) or not isinstance(given, Mapping):
        return
    hints, known = get_type_hints(kind), [field.name for field in fields(kind)]
    for name, value in given.items():
        place = _joined(where, name)
        if name not in known:
            yield f"{place}: there is no such setting; {suggestion(name, known)}"
            continue
        inner, repeated = _inside(hints[name])
        for number, one in enumerate(value if repeated and isinstance(value, list | tuple) else [value]):
            yield from _unknown(inner, one, f"{place}[{number + 1}]" if repeated else place)


def _mended(kind: Any, given: Any) -> Any:
    """The same with each misspelt key as the nearest that is not given, and without those that are near none, at any depth."""
    if not is_dataclass(kind) or not isinstance(given, Mapping):
        return given
    hints, free = get_type_hints(kind), [field.name for field in fields(kind) if field.name not in given]
    found = {}
    for key, value in given.items():
        name = key if key in hints else next(iter(nearest(key, free)), None)
        if name is not None:
            inner, repeated = _inside(hints[name])
            several = repeated and isinstance(value, list | tuple)
            found[name] = [_mended(inner, one) for one in value] if several else _mended(inner, value)
    return found


def _inside(hint: Any) -> tuple[Any, bool]:
    """The dataclass that a type holds, if it holds one, and whether it holds several."""
    if get_origin(hint) in (Union, UnionType):
        return next(((one, False) for one in get_args(hint) if is_dataclass(one)), (None, False))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def _joined(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _line(error: Mapping[str, Any], where: str) -> str:
    """One problem as a line: where it is, what is wrong, what was given."""
    place = where
    for part in error["loc"]:
        place = f"{place}[{part + 1}]" if isinstance(part, int) else _joined(place, part)
    if error["type"] == "value_error":  # what our own checks say names the value
        said = str(error["ctx"]["error"])
        return f"{place}: {said}" if place else said
    said = {"missing": "is missing"}.get(error["type"], error["msg"].replace("Input should be", "give"))
    shown = repr(error["input"])
    return f"{place}: {said}" + ("" if error["type"] == "missing" else f", got {shown if len(shown) < 60 else shown[:57] + '…'}")
