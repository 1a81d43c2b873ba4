"""The parser of a subcommand, made of its settings: one option for each, and for each setting inside a setting.

Only the subcommand that was typed gets its options, and only its settings are loaded: ``--help`` is then as quick as the parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fastencode.cli.given import groups
from fastencode.errors import require

__all__ = ["COMMANDS", "config_of", "helps", "list_settings", "option_names", "options_of", "settings_of"]

# Subcommand → its settings in cli/settings.py, and what it does.
COMMANDS = {
    "demo": ("DemoConfig", "the whole system, small, on a world whose truth is known"),
    "alice": ("AliceConfig", "the same on real brains; the next release has it as examples/alice.py only"),
    "run": ("RunConfig", "a study in one file: models before and after tuning, in brains and on probes, with what was expected"),
    "train": ("TrainConfig", "tune a speech model on the responses of one or many participants"),
    "diagnose": ("DiagnoseConfig", "what may have gone wrong in a run: finding, evidence, advice"),
    "check": ("CheckConfig", "what a data set holds, and everything that is wrong with it, before hours of work"),
    "align": ("AlignRunConfig", "layers × participants × regions: how well each layer predicts each brain"),
    "probe": ("ProbeRunConfig", "linear probes: which layer knows words, phones, sentence types or any other label"),
    "features": ("FeaturesConfig", "every layer of a speech model over recordings, into HDF5 files"),
    "doctor": ("DoctorConfig", "versions, devices, threads, caches and disk, and what to mend"),
}

_HINT = (
    "Every option can also come from a file (--config; --print_config shows one) or from the environment: {example}; lists with"
    " commas. What is typed counts most, then files, then the environment{last}."
)


def settings_of(command: str) -> type:
    """The dataclass of a subcommand's settings."""
    found: type = getattr(import_module("fastencode.cli.settings"), COMMANDS[command][0])
    return found


def options_of(command: str, settings: type, defaults: Mapping[str, Any]) -> Any:
    """The parser of a subcommand.

    Parameters
    ----------
    command : str
    settings : type
        A dataclass; its docstring, and those of its parts and of what it inherits from, explain the options.
    defaults : mapping
        Defaults other than the dataclass's own, by dotted names, as a preset has them.
    """
    jsonargparse = require("jsonargparse", "tune")
    said, switches = helps(settings), {field.name: field.default for field in fields(settings) if field.type == "bool"}
    places = {field.name: field.default for field in fields(settings) if field.metadata.get("positional")}
    options = jsonargparse.ArgumentParser(
        description=(settings.__doc__ or "").strip().splitlines()[0],
        epilog=_HINT.format(example=_example(command, settings), last=", then --preset" if "preset" in said else ""),
        exit_on_error=False,
        allow_abbrev=False,
    )
    for name, default in places.items():
        given = {} if default is MISSING else {"nargs": "?", "default": default}
        options.add_argument(name, type=Path, metavar=name.upper(), help=said[name], **given)
    options.add_argument("--config", action="config", help="settings from a YAML file, such as an earlier run's config.yaml")
    options.add_class_arguments(settings, skip={*switches, *places})
    for action in options._actions:  # jsonargparse does not see entries of two names, "tr, seconds : float"
        action.help = action.help or said.get(action.dest)
    for switch, default in sorted(switches.items()):
        options.add_argument(f"--{switch}", action=jsonargparse.ActionYesNo, default=default, help=said[switch])
    options.set_defaults(_plain_defaults(settings) | dict(defaults))
    for action in options._actions:
        action.required = action.required and action.dest not in defaults
    _own_first(options, settings)
    needed = [
        f"--{action.dest} {action.dest.upper()}" for action in options._actions if action.required and action.option_strings
    ]
    shown = [name.upper() if default is MISSING else f"[{name.upper()}]" for name, default in places.items()]
    options.usage = " ".join([f"fastencode-tune {command}", *shown, *needed, "[options]"])
    return options


def _own_first(options: Any, settings: type) -> None:
    """Show what the settings inherit from their first base after all else: --stories and --out before --warm_up."""
    inherited = {field.name for base in settings.__bases__[:1] if is_dataclass(base) for field in fields(base)}
    for actions in (options._actions, *(group._group_actions for group in options._action_groups)):
        actions.sort(key=lambda action: action.dest.partition(".")[0] in inherited)


def option_names(settings: type) -> list[str]:
    """All options of a subcommand, as they are typed: ``--lora.rank``."""
    return ["--config", *(f"--{name.replace('_', '-')}" for name in (*groups(settings), *_dotted(settings)))]


def _dotted(settings: type, prefix: str = "") -> Iterator[str]:
    inside = groups(settings)
    for field in fields(settings):
        if field.name in inside:
            yield from _dotted(inside[field.name], f"{prefix}{field.name}.")
        elif not field.metadata.get("positional"):
            yield f"{prefix}{field.name}"


def _example(command: str, settings: type) -> str:
    """A setting, preferably one inside another, as a variable and as an option."""
    name = {"train": "lora.rank", "align": "align.folds", "features": "read.input"}.get(command)
    name = name or next(field.name for field in fields(settings) if not field.metadata.get("positional"))
    return f"FASTENCODE_TUNE_{command.upper()}__{name.upper().replace('.', '__')} is --{name.replace('_', '-')}"


def config_of(settings: type, chosen: Any) -> Any:
    """The settings that were chosen, as jsonargparse instantiates them, as an instance."""
    return settings(**{field.name: chosen[field.name] for field in fields(settings)})


def helps(settings: type, prefix: str = "") -> dict[str, str]:
    """Dotted names of all settings → what the docstrings of their class and of those that it inherits from say about them."""
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        doc = kind.__dict__.get("__doc__") or ""
        for names, text in re.findall(r"^    (\w+(?:, \w+)*) : .*\n((?:        .*\n)+)", doc, re.MULTILINE):
            found |= {f"{prefix}{name}": " ".join(text.split()) for name in names.split(", ")}
    for name, kind in groups(settings).items():
        found |= helps(kind, f"{prefix}{name}.")
    return found


def list_settings(settings: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted names of the settings that are lists of plain values, and whether these are text."""
    inside = groups(settings)
    for field in fields(settings):
        if field.name in inside:
            yield from list_settings(inside[field.name], f"{prefix}{field.name}.")
        elif str(field.type).startswith(("tuple[str,", "tuple[int,", "tuple[float,", "tuple[Path,")):
            yield f"{prefix}{field.name}", str(field.type).startswith(("tuple[str,", "tuple[Path,"))


def _plain_defaults(settings: type) -> dict[str, list[dict[str, Any]]]:
    """Defaults that are tuples of dataclasses, as dotted name → plain values: jsonargparse writes no instances."""
    found: dict[str, list[dict[str, Any]]] = {}
    for field in fields(settings):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            found |= {f"{field.name}.{name}": plain for name, plain in _plain_defaults(type(value)).items()}
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            found[field.name] = [asdict(item) for item in value]
    return found
