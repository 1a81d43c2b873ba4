"""fastencode-tune: the command, one file per subcommand. Only ``runs`` and ``cli`` know both tune and study."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from fastencode.cli.environment import blamed, from_environment
from fastencode.cli.given import check_settings, given_preset
from fastencode.cli.mistakes import explained, of_option, with_option
from fastencode.cli.parsers import COMMANDS, config_of, list_settings, option_names, options_of, settings_of
from fastencode.errors import (
    DeviceError,
    FailedStages,
    FastencodeError,
    FastencodeWarning,
    InputError,
    JobsWritten,
    StudyError,
    require,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fastencode-tune``; returns the exit status.

    0: done, or job scripts are written. 1: some stages failed, or ``doctor`` found something wrong.
    2: wrong use or bad input. 130: stopped.
    """
    try:
        with warnings.catch_warnings():
            plain = warnings.showwarning
            warnings.showwarning = lambda message, category, *rest, **more: (
                print(f"warning: {message}", file=sys.stderr)
                if issubclass(category, FastencodeWarning)
                else plain(message, category, *rest, **more)
            )
            return _run(arguments)
    except JobsWritten as written:
        print(f"fastencode-tune: {written}")
        return 0
    except FastencodeError as error:
        print(f"fastencode-tune: {error}", file=sys.stderr)
        return 1 if isinstance(error, FailedStages) else 2
    except KeyboardInterrupt:
        print("\nfastencode-tune: stopped; finished stages are kept, the same command goes on from there", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    typed = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in typed if word in COMMANDS), None)
    parser, settings, variables, known = _parser(command, typed)
    kinds = [settings] if settings is not None else []
    words = _as_typed(typed, kinds)
    if command is not None:
        words[typed.index(command) + 1 : typed.index(command) + 1] = _as_typed(list(variables.values()), kinds)
    try:
        parsed = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise InputError(blamed(explained(str(error), typed, known), variables, typed)) from error
    assert settings is not None  # the parser has ended otherwise
    name = parsed.subcommand
    try:
        config = config_of(settings, parser.instantiate(parsed)[name])
        done = import_module(f"fastencode.cli.{name}").run(config)
    except StudyError:
        raise
    except (DeviceError, InputError) as error:
        raise type(error)(blamed(with_option(str(error), known[name], typed), variables, typed)) from error
    return done if type(done) is int else 0


def _parser(command: str | None, typed: Sequence[str]) -> tuple[Any, type | None, dict[str, str], dict[str, list[str]]]:
    """The parser, the settings of the subcommand, what the environment sets, and subcommand → its options.

    Subcommands that were not typed have no options: ``--help`` would load the settings of all of them.
    """
    jsonargparse = require("jsonargparse", "tune")
    strict = {"exit_on_error": False, "allow_abbrev": False}
    parser = jsonargparse.ArgumentParser(
        prog="fastencode-tune",
        description="Brain-tune speech models on fMRI and see what changes, layer by layer.",
        version=import_module("fastencode").__version__,
        **strict,
    )
    choices, settings, variables = parser.add_subcommands(required=True), None, {}
    known: dict[str, list[str]] = {name: [] for name in COMMANDS}
    for name, (_, line) in COMMANDS.items():
        if name != command:
            choices.add_subcommand(name, jsonargparse.ArgumentParser(**strict), help=line)
            continue
        settings = settings_of(name)
        if not {"-h", "--help"} & set(typed):
            switches = {f"--{field.name.replace('_', '-')}" for field in fields(settings) if field.type == "bool"}
            variables = from_environment(os.environ, name, option_names(settings), switches)
        given = [*variables.values(), *typed[typed.index(name) + 1 :]]
        check_settings(given, settings, f"fastencode-tune {name}")
        options = options_of(name, settings, _preset(settings, given))
        choices.add_subcommand(name, options, help=line)
        known[name] = [string.replace("_", "-") for action in options._actions for string in action.option_strings]
    return parser, settings, variables, known


def _preset(settings: type, given: Sequence[str]) -> dict[str, Any]:
    """The defaults that a preset sets, by dotted names; none for settings without presets."""
    name = given_preset(given) if "preset" in {field.name for field in fields(settings)} else None
    if name is None:
        return {}
    with of_option("--preset"):
        found: dict[str, Any] = import_module("fastencode.tune.presets").preset(name).flat()
        return found


def _as_typed(arguments: Sequence[str], settings: Sequence[type]) -> list[str]:
    """What is typed as what is parsed: ``--dry-run`` as ``--dry_run``, ``--lags 0,1`` and ``--lags 0 1`` as ``--lags=[0,1]``."""
    lists = {f"--{name}": text for one in settings for name, text in list_settings(one)}
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
