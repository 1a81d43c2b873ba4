"""Check files of settings before the parser reads them, because its errors name neither the file nor the next step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from fastencode.cli.mistakes import of_option
from fastencode.errors import InputError, nearest, require
from fastencode.files import read_text

__all__ = ["check_settings", "given_preset", "groups"]


def check_settings(arguments: Sequence[str], settings: type, command: str) -> None:
    """Check the names in ``--config`` files and in options of a whole group, such as ``--align``, and that groups are mappings.

    Parameters
    ----------
    arguments : sequence of str
        What was typed.
    settings : type
        The command's settings.
    command : str
        Name of the command.

    Raises
    ------
    InputError
        If a file cannot be read, is not YAML or no mapping; if it names no setting of the command, or leaves one without a value
        that must have one.
    """
    whole = {f"--{name}": kind for name, kind in groups(settings).items()}
    for option, value in _options(arguments, ("--config", *whole)):
        with of_option(option):
            found, kind = _mapping(value, option in whole), whole.get(option, settings)
            where = value if os.path.isfile(value) else "what is given"
            _check(found, kind, where, command, "" if kind is settings else f"{option[2:]}.")


def given_preset(arguments: Sequence[str]) -> str | None:
    """The preset that the command line or a file of settings names; None if neither does.

    Raises
    ------
    InputError
        If they name different presets. A file written by a command has every setting, so another preset would have no effect.
    """
    typed = next((value for _, value in reversed(list(_options(arguments, ("--preset",))))), None)
    for _, file in reversed(list(_options(arguments, ("--config",)))):
        found = _mapping(file, False)
        if "preset" not in found:
            continue
        if typed not in (None, found["preset"]):
            said = f"{file} says preset: {_shown(found['preset'])}"
            raise InputError(f"--preset {typed}, but {said}, and holds that one's values: leave one out")
        return None if found["preset"] is None else str(found["preset"])
    return typed


def _options(arguments: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option in wanted and (equals or place + 1 < len(arguments)):
            yield option, value if equals else arguments[place + 1]


def _mapping(given: str, is_group: bool) -> Mapping[str, Any]:
    """Settings from a file, or from text typed as an option."""
    yaml = require("yaml", "tune")
    typed = given.lstrip().startswith("{")
    if is_group and not typed and not os.path.isfile(given):
        raise InputError(f"{given!r} is no file of settings: give one, or single settings, as --help lists them")
    if not typed and not os.path.exists(given):
        raise InputError(f"{given} does not exist: give a file of settings, such as config.yaml of an earlier run")
    try:
        found = yaml.safe_load(given if typed else read_text(given))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark is not None else ""
        raise InputError(f"{given}{line} is not YAML: correct it, or give config.yaml of an earlier run") from error
    if not isinstance(found, dict):
        raise InputError(f"{given} is no table of settings: give one, such as config.yaml of an earlier run")
    return found


def _check(found: Mapping[str, Any], settings: type, where: str, command: str, before: str = "") -> None:
    known, inner = {field.name: str(field.type) for field in fields(settings)}, groups(settings)
    for whole, value in found.items():
        name, dot, rest = str(whole).partition(".")
        if name not in known:
            inside = [f"{group}.{name}" for group, kind in inner.items() if name in {field.name for field in fields(kind)}]
            close = inside or nearest(name, known)
            hint = f": there are {', '.join(known)}" if before else f": give config.yaml of an earlier {command}"
            hint = f"; did you mean {before}{close[0]}?" if close else hint
            raise InputError(f"{where} names {before}{whole}, which is no setting of {command}{hint}")
        if name in inner and dot:
            _check({rest: value}, inner[name], where, command, f"{before}{name}.")
        elif name in inner and isinstance(value, dict):
            _check(value, inner[name], where, command, f"{before}{name}.")
        elif name in inner:
            some = ", ".join(field.name for field in fields(inner[name])[:3])
            raise InputError(f"{where} says {before}{name}: {_shown(value)}: give its settings ({some}, …), or leave it out")
        elif value is None and "None" not in known[name]:
            raise InputError(f"{where} says {before}{name}: null: give a value, or leave it out")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def groups(settings: type) -> dict[str, type]:
    """Names of settings that are groups of settings → their dataclass."""
    found = {}
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default):
            found[field.name] = type(default)
    return found
