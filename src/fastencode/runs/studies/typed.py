"""Build dataclasses from plain values, as a YAML file holds them. All problems are found, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fastencode.errors import InputError, nearest, require, suggestion

__all__ = ["merged", "problems_of", "typed"]

Settings = TypeVar("Settings")


def typed(kind: type[Settings], given: Any, where: str = "") -> Settings:
    """Build a dataclass, and the dataclasses inside it, from plain values.

    Parameters
    ----------
    kind : type
        A dataclass.
    given : Any
        Mappings, lists, text and numbers.
    where : str
        Prefix of the places in error messages.

    Raises
    ------
    InputError
        If there are problems; the message has one line for each.
    """
    problems, found = problems_of(kind, given, where)
    if found is None or problems:
        raise InputError("\n".join(problems))
    return found


def problems_of(kind: type[Settings], given: Any, where: str = "") -> tuple[list[str], Settings | None]:
    """The problems that :func:`typed` would raise, one line each, and the settings; None if they cannot be built.

    A misspelt key is taken for the most similar one, so that further problems inside it are found in the same pass.
    """
    pydantic = require("pydantic", "tune")
    problems = list(_unknown(kind, given, where))
    try:
        return problems, pydantic.TypeAdapter(kind).validate_python(_mended(kind, given))
    except pydantic.ValidationError as error:
        return [*problems, *(_line(one, where) for one in error.errors(include_url=False))], None


def merged(settings: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A dataclass as nested mappings, updated with ``changes``; inner mappings are updated key by key."""
    return _merge(asdict(settings), changes)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merge(below[name], value) if isinstance(value, Mapping) and isinstance(below.get(name), Mapping) else value
        for name, value in above.items()
    }
    return {**below, **both}


def _unknown(kind: Any, given: Any, where: str) -> Iterator[str]:
    """A problem for each unknown key, at any depth."""
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
    """The same values with misspelt keys replaced by the most similar free ones, and other unknown keys dropped, at any depth."""
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
    """The type inside an optional or a tuple, and whether it is a tuple."""
    if get_origin(hint) in (Union, UnionType):
        return next(((one, False) for one in get_args(hint) if is_dataclass(one)), (None, False))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def _joined(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _line(error: Mapping[str, Any], where: str) -> str:
    """One problem as a line: its place, what is wrong, and the value."""
    place = where
    for part in error["loc"]:
        place = f"{place}[{part + 1}]" if isinstance(part, int) else _joined(place, part)
    if error["type"] == "value_error":  # raised by our own checks, which name the value
        said = str(error["ctx"]["error"])
        return f"{place}: {said}" if place else said
    said = {"missing": "is missing"}.get(error["type"], error["msg"].replace("Input should be", "give"))
    shown = repr(error["input"])
    return f"{place}: {said}" + ("" if error["type"] == "missing" else f", got {shown if len(shown) < 60 else shown[:57] + '…'}")
