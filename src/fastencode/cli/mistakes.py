"""Messages for wrong command lines: one or two lines that name the option and the next step, instead of the whole usage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fastencode.errors import InputError, nearest

__all__ = ["explained", "of_option", "with_option"]


@contextmanager
def of_option(option: str) -> Iterator[None]:
    """A context that puts the name of an option, such as ``--rois``, before the message of an :class:`InputError`."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{option}: {error}") from error


def with_option(error: str, options: Sequence[str], arguments: Sequence[str]) -> str:
    """Replace the setting at the start of an error by its option: ``alphas holds 0`` becomes ``--align.alphas holds 0``.

    If several options end with this name, the one that was typed is used. If none or several were typed, the error is unchanged.
    """
    found = re.match(r"([\w.]+)(?= |=|:)", error)
    if found is None:
        return error
    name = found[1].replace("_", "-")
    meant = {option for option in options if name in (option[2:], option[2:].rpartition(".")[2])}
    if len(meant) > 1:
        meant &= {word.partition("=")[0].replace("_", "-") for word in arguments}
    return f"{meant.pop()}{error[found.end() :]}" if len(meant) == 1 else error


def explained(error: str, arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> str:
    """Translate an error of the parser into plain words.

    Parameters
    ----------
    error : str
        Message of jsonargparse.
    arguments : sequence of str
        What was typed.
    options : subcommand → its options
    """
    command = next((word for word in arguments if word in options), None)
    name = f"fastencode-tune {command}" if command else "fastencode-tune"
    if found := re.match(r"unrecognized arguments: (\S+)", error):
        known = options[command] if command else []
        typed = found[1].partition("=")[0]
        if not typed.startswith("-"):
            return f"{name} takes no {typed!r} here: options begin with --\n{name} --help lists them"
        typed = typed.replace("_", "-")
        return f"{name} has no option {typed}{_meant(typed, known)}\n{name} --help lists all options"
    if found := re.search(r"invalid choice: '([^']*)'", error):
        return f"there is no command {found[1]!r}{_meant(found[1], list(options), cutoff=0.6)}\nchoose from {', '.join(options)}"
    if 'expected "subcommand"' in error:
        return f"say what to do: {', '.join(options)}; for example fastencode-tune demo"
    if found := re.match(r"the following arguments are required: (.+)", error):
        missing = [one.strip().removeprefix("--").removeprefix(f"{command}.") for one in found[1].split(",")]
        options_of = {option.replace("-", "_") for option in options.get(command or "", ())}
        return f"{name} needs {' and '.join(f'--{one}' if f'__{one}' in options_of else one.upper() for one in missing)}"
    if found := re.match(r"argument (--[^/: ]+)\S*: ignored explicit argument (.+)", error):
        return f"{found[1].replace('_', '-')} takes no value, {found[2]} was given: give the option alone, or leave it out"
    if found := re.match(r"argument (--[^/: ]+)\S*: expected one argument", error):
        return f"{found[1].replace('_', '-')} needs a value"
    if found := re.match(r'Parser key "([^"]+)":\s*(.*)', error, re.DOTALL):
        return f"--{found[1].partition(chr(10))[0].replace('_', '-')}: {_expected(found[2])}"
    return error


def _meant(typed: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """A suggestion of the option that was meant. ``--delays`` also suggests ``--align.delays``."""
    ends = {f"--{option.rpartition('.')[2]}": option for option in known if "." in option}
    names = {option: option for option in known}
    close = nearest(typed, {**ends, **names}, cutoff=cutoff)
    return f"; did you mean {(ends | names)[close[0]]}?" if close else ""


def _expected(text: str) -> str:
    """The value and the types that were expected, extracted from jsonargparse's report on all types it tried."""
    if found := re.search(r"the following arguments are required: (.+)", text):
        return f"each needs {found[1]}"
    given = re.search(r"(?:Given|Got) value: (.*)", text)
    kinds = list(dict.fromkeys(re.findall(r"<class '(?:[\w.]+\.)?(\w+)'>", text.partition("Given value type")[0])))
    if given and kinds:
        called = {
            "NoneType": "null",
            "int": "a whole number",
            "float": "a number",
            "tuple": f"a list, such as [{given[1].strip()}]",
            "str": "text",
        }
        words = " or ".join(called.get(kind, kind) for kind in kinds)
        return f"{given[1].strip()!r} is not {words}"
    return " ".join(text.split())
