"""What is told when the command is typed wrong: one or two lines that name the option and the next step, not the whole usage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

__all__ = ["explained"]


def explained(error: str, arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> str:
    """The parser's error in plain words.

    Parameters
    ----------
    error : str
        As jsonargparse says it.
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
        return f"there is no command {found[1]!r}{_meant(found[1], list(options))}\nchoose from {', '.join(options)}"
    if 'expected "subcommand"' in error:
        return f"say what to do: {', '.join(options)}; for example fastencode-tune demo"
    if found := re.match(r"the following arguments are required: (.+)", error):
        missing = [one.strip().removeprefix("--").removeprefix(f"{command}.") for one in found[1].split(",")]
        return f"{name} needs {' and '.join(f'--{one}' for one in missing)}"
    if found := re.match(r'Parser key "([^"]+)":\s*(.*)', error, re.DOTALL):
        return f"--{found[1].partition(chr(10))[0]}: {_expected(found[2])}"
    return error


def _meant(typed: str, known: Sequence[str]) -> str:
    """A question after the option that was meant; ``--delays`` is close to ``--align.delays``, too."""
    ends = {f"--{option.rpartition('.')[2]}": option for option in known if "." in option}
    names = {option: option for option in known}
    close = get_close_matches(typed, {**ends, **names}, n=1, cutoff=0.5)
    return f"; did you mean {(ends | names)[close[0]]}?" if close else ""


def _expected(text: str) -> str:
    """Types and the value, out of a report on every one of them."""
    given = re.search(r"(?:Given|Got) value: (.*)", text)
    kinds = list(dict.fromkeys(re.findall(r"<class '(?:[\w.]+\.)?(\w+)'>", text.partition("Given value type")[0])))
    if given and kinds:
        words = " or ".join({"NoneType": "null"}.get(kind, kind) for kind in kinds)
        return f"{given[1].strip()!r} is not {words}"
    return " ".join(text.split())
