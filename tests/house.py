"""The house as data: which room may import what, and a reader of imports that sees through lazy ones.

A module is named from the package's root, without ``fastencode``: ``solve.ridge``, ``arrays``, ``kernels``; the package's own
``__init__`` is the empty name. Imports count wherever they stand, inside functions and under TYPE_CHECKING too, and so do
``import_module("x")`` and ``errors.require("x", ...)`` with a literal name.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

PACKAGE = "fastencode"
BASE = (
    "arguments", "arrays", "delayed", "devices", "errors", "files", "launch", "limits", "locks", "plain", "progress", "streams",
    "style", "threads",
)  # fmt: skip
CORE_LIBRARIES = ("h5py", "llvmlite", "numba", "numpy", "scipy", "threadpoolctl", "tqdm")


class Rule(NamedTuple):
    """For modules matching `who`: our rooms they may import (None = any but `not_ours`), and libraries they may not.

    Every room may import itself. Names and patterns are matched against a module and all packages around it.
    """

    who: tuple[str, ...]
    why: str
    ours: tuple[str, ...] | None = None
    not_ours: tuple[str, ...] = ()
    not_libraries: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


HEAVY = ("torch", "transformers", "sklearn", "matplotlib")

RULES = (
    Rule(("kernels",), "kernels import nothing of ours", ours=(), not_libraries=HEAVY),
    Rule(BASE, "the base files import only each other and kernels", ours=(*BASE, "kernels")),
    Rule(("solve", "timing"), "solve and timing stand on base files and kernels", ours=(*BASE, "kernels"), not_libraries=HEAVY),
    Rule(("speech",), "speech stands on base files, kernels and timing", ours=(*BASE, "kernels", "timing")),
    Rule(("world",), "world stands on data, speech, timing and base files", ours=(*BASE, "kernels", "data", "speech", "timing")),
    Rule(
        ("*",),
        "only runs, cli and what makes the small model may import world",
        not_ours=("world",),
        but=("runs", "cli", "tune.pretrain"),
    ),
    Rule(("estimators",), "estimators wrap solvers and timing and know no other room", ours=(*BASE, "solve", "timing")),
    Rule(("*",), "nobody builds on estimators", not_ours=("estimators",)),
    Rule(("tune",), "tune never imports the solvers", not_ours=("solve",)),
    Rule(("*",), "only runs and cli may import study and tune", not_ours=("study", "tune"), but=("runs", "cli")),
    Rule(("*",), "only cli may import runs", not_ours=("runs",), but=("cli",)),
    Rule(("*",), "nobody imports cli", not_ours=("cli",), but=("__main__",)),
    Rule(
        ("*",),
        "only figures, report and the curves of a tuning run draw",
        not_libraries=("matplotlib",),
        but=("study.figures", "study.report.report", "tune.curves"),
    ),
    Rule(("*",), "name the room, not the whole package", not_ours=("",), but=("cli",)),
)

# The rooms within a room, in the order in which data go through them, with single files where their place matters. Each imports
# itself and those before it. The doors beside them (ridge, banded, partition and the fits they return; representation, word_rate)
# import all.
ROOMS = {
    "solve": ("given", "plan", "score", "weights", "search"),
    "study": (
        "config", "conditions", "names", "columns", "inference", "brains", "probing", "probes", "findings", "figures", "report",
    ),
}  # fmt: skip

# Optional libraries are imported inside functions. Excepted, a module or a room: what subclasses a library's classes or is
# nothing without it, and is itself loaded only on demand.
AT_MODULE_LEVEL: dict[str, tuple[str, ...]] = {"estimators": ("sklearn",), "tune": ("safetensors", "torch")}


class Import(NamedTuple):
    """One import: the module named (ours without ``fastencode.``), whether it is ours, its line, whether loading runs it."""

    name: str
    ours: bool
    line: int
    at_module_level: bool


def modules(root: Path) -> dict[str, Path]:
    """Every Python module of the package in the checkout: name → file."""
    found = {}
    for prefix, folder in (((), root / "src" / PACKAGE), (("kernels",), root / "kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = [*prefix, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty where there is none."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def drawn(picture: str) -> set[str]:
    """The paths of all files that a picture of folders shows.

    A line begins with names: those of files, or that of a folder, whose files are further to the right on this line and on the
    lines below. What follows the names is their description; a line that begins with none goes on with it.
    """
    found, around = set(), list[tuple[int, str]]()
    for line in picture.splitlines():
        indent = len(line) - len(line.lstrip())
        around = [(column, folder) for column, folder in around if column < indent]
        for name in line.split():
            if re.fullmatch(r"[\w/]+/", name):
                around.append((indent, name))
            elif re.fullmatch(r"\w+\.\w+", name):
                found.add("".join(folder for _, folder in around) + name)
            else:
                break
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _walk(node: ast.AST, at_module_level: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(child)
        yield child, at_module_level and not deferred
        yield from _walk(child, at_module_level and not deferred)


def _literal_import(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if name not in ("__import__", "import_module", "require") or not call.args:
        return None
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def imports(source: str, module: str, is_package: bool, homes: Mapping[str, str], known: frozenset[str]) -> list[Import]:
    """Every import of a module.

    Parameters
    ----------
    source : str
        The module's text.
    module : str
        Its name; relative imports start there.
    is_package : bool
        Whether it is an ``__init__.py``.
    homes : mapping of str to str
        The lazy table of the package: ``from fastencode import ridge_cv`` is an import of ``solve.ridge``.
    known : frozenset of str
        The modules that exist, which tells ``from ..solve import ridge`` (a module) from a function's name.
    """
    here = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    found: list[Import] = []

    def add(dotted: str, line: int, top: bool) -> None:
        ours = dotted == PACKAGE or dotted.startswith(PACKAGE + ".")
        found.append(Import(dotted[len(PACKAGE) + 1 :] if ours else dotted, ours, line, top))

    for node, top in _walk(ast.parse(source), True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node.lineno, top)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (1 if is_package else 0)
            start = ".".join(here[: len(here) - up]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if base == PACKAGE and alias.name in homes:
                    add(f"{PACKAGE}.{homes[alias.name]}", node.lineno, top)
                elif whole.removeprefix(PACKAGE + ".") in known or (base == PACKAGE and alias.name.startswith("__")):
                    add(whole, node.lineno, top)
                else:
                    add(base, node.lineno, top)
        elif isinstance(node, ast.Call) and (name := _literal_import(node)):
            if name.startswith("."):
                up = len(name) - len(name.lstrip(".")) - (1 if is_package else 0)
                name = ".".join((*here[: len(here) - up], name.lstrip(".")))
            add(name, node.lineno, top)
    return found


def out_of_order(module: str, found: list[Import]) -> list[str]:
    """What a module in a room within a room imports of a later one or of a door, one line each."""
    parts = module.split(".")
    rooms = ROOMS.get(parts[0], ())
    if len(parts) < 2 or parts[1] not in rooms:
        return []
    before = rooms[: rooms.index(parts[1]) + 1]
    later = [
        item for item in found if item.ours and item.name.startswith(f"{parts[0]}.") and item.name.split(".")[1] not in before
    ]
    return [f"{module}, line {item.line}: imports {item.name}, which comes after it in ROOMS" for item in later]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    around = [name[:i] for i, letter in enumerate(name) if letter == "."] + [name]
    return any(fnmatchcase(part, pattern) for part in around for pattern in patterns)


def breaches(module: str, found: list[Import], rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What a module's imports break, one line each; empty for a module that keeps the rules."""
    room = module.split(".")[0]
    lines = []
    for rule in rules:
        if not _matches(module, rule.who) or _matches(module, rule.but):
            continue
        for item in found:
            if item.ours:
                own = item.name.split(".")[0] == room and item.name != ""
                dunder = item.name.startswith("__")
                outside = rule.ours is not None and not _matches(item.name, rule.ours)
                bad = not own and not dunder and (outside or _matches(item.name, rule.not_ours))
            else:
                bad = _matches(item.name, rule.not_libraries)
            if bad:
                shown = f"{PACKAGE}.{item.name}".rstrip(".") if item.ours else item.name
                lines.append(f"{module or PACKAGE}, line {item.line}: imports {shown}; {rule.why}")
    excepted = [library for name, libraries in AT_MODULE_LEVEL.items() if _matches(module, (name,)) for library in libraries]
    allowed = (*CORE_LIBRARIES, *excepted)
    for item in found:
        top = item.name.split(".")[0]
        if item.at_module_level and not item.ours and top not in allowed and top not in sys.stdlib_module_names:
            where = f"{module or PACKAGE}, line {item.line}"
            lines.append(f"{where}: imports {top} at module level; an optional library belongs inside a function")
    return lines
