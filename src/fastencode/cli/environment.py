"""Settings from environment variables: ``FASTENCODE_TUNE_TRAIN__LORA__RANK=4`` is ``fastencode-tune train --lora.rank 4``.

They become options that stand before all that was typed, so that lists, switches and mistakes are treated alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from fastencode.cli.parsers import COMMANDS
from fastencode.errors import InputError, nearest, suggestion

__all__ = ["blamed", "from_environment"]

_PREFIX = "FASTENCODE_TUNE_"


def from_environment(
    environment: Mapping[str, str], command: str, options: Iterable[str], switches: Collection[str] = ()
) -> dict[str, str]:
    """What the environment sets: variable → ``--option=value``, and of a switch ``--option`` or ``--no-option``.

    Parameters
    ----------
    environment : mapping
        Such as ``os.environ``.
    command : str
        The subcommand; variables of other subcommands are left alone.
    options : iterable of str
        Its options, such as ``--lora.rank``.
    switches : collection of str
        Those of them that take no value.

    Raises
    ------
    InputError
        If a variable names no subcommand or no setting, the nearest is named; if its value is empty; or if a
        switch is set to something that is neither true nor false.
    """
    known = {_variable(command, option): option for option in options if option not in ("-h", "--help", "--print-config")}
    found = {}
    for variable in sorted(name for name in environment if name.startswith(_PREFIX)):
        named = variable.removeprefix(_PREFIX).partition("__")[0].lower()
        if named not in COMMANDS:
            close = nearest(named, COMMANDS)
            hint = f"did you mean {_PREFIX}{close[0].upper()}__…?" if close else f"begin with {_PREFIX}{command.upper()}__"
            raise InputError(f"the environment has {variable}, which names no command of fastencode-tune: {hint}")
        if named != command:
            continue
        if variable not in known:
            hint = suggestion(variable, known, otherwise="unset it")
            raise InputError(f"the environment has {variable}, which is no setting of fastencode-tune {command}; {hint}")
        if not environment[variable]:
            raise InputError(f"{variable} is empty: give it a value, or unset it")
        option = known[variable]
        found[variable] = _switch(variable, option, environment) if option in switches else f"{option}={environment[variable]}"
    return found


def _switch(variable: str, option: str, environment: Mapping[str, str]) -> str:
    value = environment[variable].strip().lower()
    if value in ("1", "true", "yes", "on"):
        return option
    if value in ("0", "false", "no", "off"):
        return f"--no-{option[2:]}"
    raise InputError(f"{variable}={environment[variable]!r} is neither true nor false: give one of them, or unset it")


def blamed(error: str, variables: Mapping[str, str], typed: Sequence[str]) -> str:
    """An error about an option, with the variable named first if the environment set the option and nobody typed it."""
    begin = re.match(r"--[\w.-]+", error)
    if begin is None or any(word.partition("=")[0].replace("_", "-") == begin[0] for word in typed):
        return error
    for variable, option in variables.items():
        if option.partition("=")[0].replace("_", "-") == begin[0]:
            return f"{variable} sets {error}"
    return error


def _variable(command: str, option: str) -> str:
    """``--lora.rank`` of train as ``FASTENCODE_TUNE_TRAIN__LORA__RANK``."""
    return f"{_PREFIX}{command.upper()}__{option[2:].replace('-', '_').replace('.', '__').upper()}"
