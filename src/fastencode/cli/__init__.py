"""fastencode-tune: the command, one file per subcommand. Only ``runs`` and ``cli`` know both tune and study."""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from typing import Any

from fastencode.cli.given import check_settings
from fastencode.cli.mistakes import explained, with_option
from fastencode.errors import DeviceError, FailedStages, FastencodeError, FastencodeWarning, InputError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fastencode-tune``; returns the exit status: 0 done, 1 some stages failed, 2 wrong use or bad input, 130 stopped."""
    try:
        with warnings.catch_warnings():
            plain = warnings.showwarning
            warnings.showwarning = lambda message, category, *rest, **more: (
                print(f"warning: {message}", file=sys.stderr)
                if issubclass(category, FastencodeWarning)
                else plain(message, category, *rest, **more)
            )
            return _run(arguments)
    except FastencodeError as error:
        print(f"fastencode-tune: {error}", file=sys.stderr)
        return 1 if isinstance(error, FailedStages) else 2
    except KeyboardInterrupt:
        print("\nfastencode-tune: stopped; finished stages are kept, the same command goes on from there", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from fastencode.errors import require

    jsonargparse = require("jsonargparse", "tune")
    from fastencode.cli.settings import AliceConfig, AlignRunConfig, DemoConfig, FeaturesConfig

    subcommands: dict[str, tuple[type, str]] = {
        "demo": (DemoConfig, "the whole system, small, on a world whose truth is known"),
        "alice": (AliceConfig, "the same on real brains; the next release has it as examples/alice.py only"),
        "align": (AlignRunConfig, "layers × participants × regions: how well each layer predicts each brain"),
        "features": (FeaturesConfig, "every layer of a speech model over recordings, into HDF5 files"),
    }
    strict = {"exit_on_error": False, "allow_abbrev": False}
    parser = jsonargparse.ArgumentParser(
        prog="fastencode-tune",
        description="Brain-tune speech models on fMRI and see what changes, layer by layer.",
        version=import_module("fastencode").__version__,
        **strict,
    )
    choices, known = parser.add_subcommands(required=True), {}
    for name, (settings, line) in subcommands.items():
        options = jsonargparse.ArgumentParser(description=(settings.__doc__ or "").strip().splitlines()[0], **strict)
        options.add_argument("--config", action="config", help="settings from a YAML file, such as an earlier run's config.yaml")
        switches, said = {field.name for field in fields(settings) if field.type == "bool"}, dict(_helps(settings))
        options.add_class_arguments(settings, skip=switches)
        for action in options._actions:  # jsonargparse does not see entries of two names, "tr, seconds : float"
            action.help = action.help or said.get(action.dest)
        for switch in sorted(switches):
            options.add_argument(f"--{switch}", action=jsonargparse.ActionYesNo, default=False, help=said[switch])
        options.set_defaults(_lists_of_settings(settings))
        choices.add_subcommand(name, options, help=line)
        known[name] = [string.replace("_", "-") for action in options._actions for string in action.option_strings]
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if typed and typed[0] in subcommands:
        check_settings(typed[1:], subcommands[typed[0]][0], f"fastencode-tune {typed[0]}")
    try:
        parsed = parser.parse_args(_as_typed(typed, [settings for settings, _ in subcommands.values()]))
    except argparse.ArgumentError as error:
        raise InputError(explained(str(error), typed, known)) from error
    name = parsed.subcommand
    settings = subcommands[name][0]
    try:
        chosen = parser.instantiate(parsed)[name]
        run = import_module(f"fastencode.cli.{name}").run
        run(settings(**{field.name: chosen[field.name] for field in fields(settings)}))
    except (DeviceError, InputError) as error:
        raise type(error)(with_option(str(error), known[name], typed)) from error
    return 0


def _as_typed(arguments: Sequence[str], settings: Sequence[type]) -> list[str]:
    """What is typed as what is parsed: ``--dry-run`` as ``--dry_run``, ``--lags 0,1`` and ``--lags 0 1`` as ``--lags=[0,1]``."""
    lists = {f"--{name}": text for one in settings for name, text in _lists(one)}
    found: list[str] = []
    items: dict[str, list[str]] = {}
    current = ""
    for argument in arguments:
        argument = re.sub("^--[^=]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)
        name, equals, value = argument.partition("=")
        if name in lists:
            if name in items:  # the first would be gone without a word
                option = name.replace("_", "-")
                raise InputError(f"{option} is given twice: give all at once, {option} A B")
            found.append(name)
            items[name] = [value] * bool(equals)
            current = "" if equals else name
        elif current and not argument.startswith("--") and argument != "-h":
            items[current].append(argument)
        else:
            before = name if equals else found[-1] if found and not argument else ""
            if before.startswith("--") and not value:  # a folder without a name would be this one
                raise InputError(f"{before.replace('_', '-')} is followed by nothing: give a value, or leave the option out")
            found.append(argument)
            current = ""
    return [f"{one}=[{_joined(items[one], lists[one])}]" if items.get(one) else one for one in found]


def _joined(given: Sequence[str], text: bool) -> str:
    """The inside of a YAML list. Items of text are put in quotation marks: a participant called 01 is no number."""
    parts = []
    for value in map(str.strip, given):
        if value.startswith("[") and value.endswith("]"):  # a list as YAML or JSON writes it
            parts.append(value[1:-1])
        else:
            parts += [json.dumps(part.strip(), ensure_ascii=False) if text else part for part in value.split(",") if part.strip()]
    return ",".join(part for part in parts if part.strip())


def _helps(settings: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all settings, and what their class's docstring says about them."""
    for names, text in re.findall(r"^    (\w+(?:, \w+)*) : .*\n((?:        .*\n)+)", settings.__doc__ or "", re.MULTILINE):
        yield from ((f"{prefix}{name}", " ".join(text.split())) for name in names.split(", "))
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default):
            yield from _helps(type(default), f"{prefix}{field.name}.")


def _lists(settings: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted names of the settings that are lists of plain values, and whether these are text."""
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default):
            yield from _lists(type(default), f"{prefix}{field.name}.")
        elif str(field.type).startswith(("tuple[str,", "tuple[int,", "tuple[float,", "tuple[Path,")):
            yield f"{prefix}{field.name}", str(field.type).startswith(("tuple[str,", "tuple[Path,"))


def _lists_of_settings(settings: type) -> dict[str, list[dict[str, Any]]]:
    """Defaults that are tuples of dataclasses, as dotted name → plain values: jsonargparse writes no instances."""
    found: dict[str, list[dict[str, Any]]] = {}
    for field in fields(settings):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            found |= {f"{field.name}.{name}": plain for name, plain in _lists_of_settings(type(value)).items()}
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            found[field.name] = [asdict(item) for item in value]
    return found
