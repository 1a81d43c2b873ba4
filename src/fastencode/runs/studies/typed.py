"""Build dataclasses from plain values, as a YAML file holds them. All problems are found, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    So that what is wrong besides can be found at once, a misspelt setting counts as the one that is nearest, and one of a wrong
    type is left at its default.
    """
    pydantic = require("pydantic", "tune")
    problems = list(_unknown(kind, given, where))
    adapter, left = pydantic.TypeAdapter(kind), _mended(kind, given)
    while True:
        try:
            return problems, adapter.validate_python(left)
        except pydantic.ValidationError as error:
            errors = error.errors(include_url=False)
        problems += [line for line in _lines(errors, left, where) if line not in problems]
        smaller = left
        for place in dict.fromkeys(_place(one["loc"], left) for one in errors):
            if _place(place, smaller) == place:  # nothing around it is gone
                smaller = _without(smaller, place)
        if smaller == left:
            return problems, None
        left = smaller


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


_NOUNS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "dict_type": "settings, as name: value",
    "dataclass_type": "settings, as name: value",
    "str": "text",
    "list[int]": "a list of whole numbers",
    "list[str]": "a list of text",
    "dict[str,float]": "weights, as name: number",
}
"""What is wanted: by pydantic's name of an error, or of one of several types that a setting may have."""


def _lines(errors: Sequence[Mapping[str, Any]], given: Any, where: str) -> list[str]:
    """A line for each setting that is wrong: where it is, what is wanted, what was given."""
    found: dict[str, tuple[Any, list[str]]] = {}
    lines = []
    for error in errors:
        place = _place(error["loc"], given)
        shown = where
        for part in place:
            shown = f"{shown}[{part + 1}]" if isinstance(part, int) else _joined(shown, part)
        if error["type"] == "value_error":  # what our own checks say names the value
            said = str(error["ctx"]["error"])
            lines.append(f"{shown}: {said}" if shown else said)
        elif error["type"] == "missing":
            lines.append(f"{_joined(shown, error['loc'][-1])}: is missing")
        else:
            of_several = str(error["loc"][len(place)]) if len(error["loc"]) > len(place) else ""
            noun = _NOUNS.get(of_several) or _NOUNS.get(error["type"]) or error["msg"]
            nouns = found.setdefault(shown, (_at(given, place), []))[1]
            nouns += [noun] * (noun not in nouns)
    for shown, (value, nouns) in found.items():
        text = repr(value)
        quoted = (
            ": put it in quotation marks"
            if nouns == ["text"] and value is not None and not isinstance(value, list | tuple | Mapping)
            else ""
        )
        wanted = ", or ".join(nouns)
        lines.append(f"{shown}: give {wanted}, got {text if len(text) < 60 else text[:57] + '…'}{quoted}")
    return lines


def _place(loc: Sequence[Any], given: Any) -> tuple[Any, ...]:
    """The keys of ``loc`` that lead to something given; names of types that pydantic adds do not."""
    found: list[Any] = []
    for part in loc:
        inside = (isinstance(given, Mapping) and part in given) or (
            isinstance(given, list | tuple) and isinstance(part, int) and 0 <= part < len(given)
        )
        if not inside:
            break
        given = given[part]
        found.append(part)
    return tuple(found)


def _at(given: Any, place: Sequence[Any]) -> Any:
    for part in place:
        given = given[part]
    return given


_NEEDED = ("name", "measure", "models")
"""What items of a study's lists cannot be without."""


def _without(given: Any, place: Sequence[Any]) -> Any:
    """The same without the innermost named setting around a place. Items stay in their lists, because problems number them: one
    whose own check complains keeps no more than it needs.
    """
    if not place:
        return given
    value = _at(given, place)
    if isinstance(place[-1], int) and isinstance(value, Mapping):
        return _changed(given, place, {name: one for name, one in value.items() if name in _NEEDED})
    named = max(depth for depth, part in enumerate(place) if not isinstance(part, int))
    return given if place[named] in _NEEDED else _changed(given, place[: named + 1], None)


def _changed(given: Any, place: Sequence[Any], value: Any) -> Any:
    """The same with another value at a place; None: without that key."""
    if not place:
        return value
    first, *rest = place
    if isinstance(given, Mapping):
        kept = {name: one for name, one in given.items() if name != first}
        return kept if value is None and not rest else {**given, first: _changed(given[first], rest, value)}
    return [_changed(one, rest, value) if number == first else one for number, one in enumerate(given)]
