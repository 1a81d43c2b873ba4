"""What a result depends on, as digests: settings, contents of files, and the code that makes it.

The code of a function is what it uses of its own module, and all of every module which that imports, directly or through others,
within its package and this one. Sources count as syntax trees without comments and docstrings, and without what only type
checkers read. Imports inside functions count too, where their names are written out. The compiled kernels count whole, by their
sources. What is installed beside this package does not count: an update of NumPy would remake weeks of work. Its versions are
written down with each result.

Looked at before, and what was left out:

- joblib's Memory keys a function by its own source text, to the comment, and not by what it calls. Here it is the other way
  round. Its pickled arguments as keys are left out: they differ where results do not (a path, an array's memory layout).
- dask's tokenize makes tokens of any object and may fall back on its pickle or on chance. Here a value of an unknown kind is an
  error, as with its ensure_deterministic.
- exca keys by a configuration and a version that people raise by hand. Both are here, the version for what no digest sees, such
  as a library's bug. Its modes (force, retry, read-only) are left out: delete the folder of a stage to make it again.
- Digests of single functions through all modules are left out: which method of which class is called is not known beforehand.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from functools import cache, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastencode.files import check_file, sha256, whole_file
from fastencode.plain import plain

__all__ = ["Code", "Contents", "commit", "digest", "libraries"]

_OURS = __name__.partition(".")[0]
_KERNELS = f"{_OURS}.kernels"
_SETTLED = 2 * 10**9  # ns after which a further change would give a file another time stamp, on any file system
_LIBRARIES = ("fastencode-neuro", "numpy", "scipy", "h5py", "numba", "torch", "transformers", "matplotlib")


def digest(value: Any) -> str:
    """SHA-256 of a plain value, in hexadecimal."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers may depend on."""
    found = {"python": sys.version.split()[0]}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Contents:
    """SHA-256 digests of files' contents, each read once for as long as its path, size and times stay.

    Parameters
    ----------
    path : Path
        The file of what is known; :meth:`save` writes it. Damaged or missing, nothing is known.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._new = path, False
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}

    def unread(self, paths: Iterable[Path]) -> int:
        """Bytes that :meth:`sha256` would have to read for the digests of these files."""
        total = 0
        for path in paths:
            with suppress(OSError):
                name, stamp = _stamp(path)
                total += stamp[0] if self._known.get(name, [])[:-1] != stamp else 0
        return total

    def sha256(self, path: Path) -> str:
        """The digest of a file. Raises :class:`InputError` as :func:`fastencode.files.check_file` does."""
        name, stamp = _stamp(check_file(path))
        known = self._known.get(name)
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        found = sha256(path)
        if time.time_ns() - max(stamp[1:]) > _SETTLED:
            self._known[name], self._new = [*stamp, found], True
        return found

    def save(self) -> None:
        """Write down what was found since; into an existing folder."""
        if self._new:
            with whole_file(self._path) as fresh:
                fresh.write_text(json.dumps(self._known, indent=0) + "\n", encoding="utf-8")
            self._new = False


def _stamp(path: Path) -> tuple[str, list[int]]:
    """A file's whole path, and what changes with its contents: its size and times."""
    status = path.stat()
    return os.path.abspath(path), [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


class _Module(NamedTuple):
    """A module's normalised text, and the modules of the packages that count which it imports."""

    text: str
    imports: frozenset[str]


class Code:
    """Digests of code, each source read once.

    Sources are read from disk. Code that was changed after it was imported, as happens in notebooks, counts as changed at once:
    start Python again to run it.
    """

    def __init__(self) -> None:
        self._modules: dict[str, _Module | None] = {}
        self._trees: dict[str, list[ast.stmt]] = {}

    def of(self, function: Callable[..., Any], arguments: Iterable[Any] = ()) -> str:
        """The digest of a function's code, and of the modules of its arguments' classes.

        Parameters
        ----------
        function : callable
            A function of a module, or a partial of one.
        arguments : iterable
            Also what they hold: items of lists and mappings, attributes of objects of the packages that count.
        """
        while isinstance(function, partial):
            arguments, function = (*arguments, *function.args, *function.keywords.values()), function.func
        tops = {_OURS, function.__module__.partition(".")[0]}
        homes = {home for value in arguments for home in _homes(value, tops, set())}
        here = {name for module, name in homes if module == function.__module__}
        own, waiting = self._used(function, here, tops)
        waiting |= {module for module, _ in homes if module != function.__module__}
        found = {"": own}
        while waiting:
            name = waiting.pop()
            if name in found or name in ("", "__main__", _OURS):  # that only lists names
                continue
            module = self._module(name, tops)
            if module is not None:
                found[name] = module.text
                waiting |= module.imports | {name.rpartition(".")[0]} - tops
        return digest(found)

    def _used(self, function: Callable[..., Any], others: set[str], tops: Set[str]) -> tuple[str, set[str]]:
        """What a function, and some classes, use of its own module, as text, and the modules that this imports."""
        names, module = {function.__qualname__.partition(".")[0], *others}, function.__module__
        if module not in self._trees:
            source = _source(module)
            self._trees[module] = _statements(inspect.getsource(function) if source is None else source)
        used = _reached(self._trees[module], names)
        return _text(used), set(_imported(used, module, tops))

    def _module(self, name: str, tops: Set[str]) -> _Module | None:
        if name not in self._modules:
            source = _kernels() if name == _KERNELS or name.startswith(f"{_KERNELS}.") else _source(name)
            if source is None:  # compiled, or not a module
                self._modules[name] = None
            elif name.startswith(_KERNELS):
                self._modules[name] = _Module(source, frozenset())
            else:
                self._modules[name] = _normalised(source, name, frozenset(tops))
        return self._modules[name]


@lru_cache(maxsize=1024)
def _normalised(source: str, name: str, tops: frozenset[str]) -> _Module:
    """A module by its source: one that stays as it is is parsed once, however many commands a process gives."""
    nodes = _statements(source)
    return _Module(_text(nodes), frozenset(_imported(nodes, name, tops)))


@cache
def _file(name: str) -> Path | None:
    """The source of a module, found without importing it: its package's folder is asked, or that of its topmost one."""
    top, *rest = name.split(".")
    if not rest or top not in sys.modules or not hasattr(sys.modules[top], "__path__"):
        origin = None if rest else getattr(sys.modules.get(top), "__file__", None)
        return Path(origin) if origin else None
    spec = find_spec(f"{top}.{rest[0]}")  # the kernels lie elsewhere in a checkout: only the import system knows
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    if len(rest) > 1 and spec.submodule_search_locations is None:
        return None
    inside = Path(spec.origin).parent.joinpath(*rest[1:])
    choices = [Path(spec.origin)] if len(rest) == 1 else [inside / "__init__.py", inside.with_name(f"{inside.name}.py")]
    return next((path for path in choices if path.is_file()), None)


def _source(name: str) -> str | None:
    path = _file(name)
    return None if path is None else path.read_text(encoding="utf-8")


def _kernels() -> str:
    """Digests of the kernels' sources, and of compiled libraries whose source was not installed."""
    init = _file(_KERNELS)
    files = {} if init is None else {path.name: path for path in init.parent.iterdir() if path.is_file()}
    kept = [name for name in files if name.endswith((".py", ".pyx", ".hpp", ".cuh", ".cu"))]
    kept += [name for name in files if name.endswith((".so", ".pyd")) and f"{name.partition('.')[0]}.pyx" not in files]
    return json.dumps({name: _kernel(files[name]) for name in sorted(kept)})


def _kernel(path: Path) -> str:
    return _text(_statements(path.read_text(encoding="utf-8"))) if path.suffix == ".py" else sha256(path)


def _statements(source: str) -> list[ast.stmt]:
    """A module's statements, normalised; of an import of several names, one for each."""
    apart: list[ast.stmt] = []
    for node in _stripped(ast.parse(source).body):
        if isinstance(node, ast.Import):
            apart += [ast.Import([alias]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            apart += [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
        else:
            apart.append(node)
    return apart


def _stripped(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    """Statements without docstrings, other bare strings, and what is under TYPE_CHECKING."""
    kept: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            kept += _stripped(node.orelse)
            continue
        for part in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            for name in ("body", "orelse", "finalbody"):
                if getattr(part, name, None):
                    setattr(part, name, _stripped(getattr(part, name)) or ([ast.Pass()] if name == "body" else []))
        kept.append(node)
    return kept


def _text(nodes: Iterable[ast.stmt]) -> str:
    return "\n".join(ast.unparse(node) for node in nodes)


def _reached(nodes: list[ast.stmt], wanted: set[str]) -> list[ast.stmt]:
    """The statements of a module that some names need, directly or through others, and those that bind no name.

    All of them, where no statement binds one of the names.
    """
    bound = [set(_binds(node)) for node in nodes]
    if not wanted <= set().union(*bound):
        return nodes
    taken = {place for place, names in enumerate(bound) if not names}
    waiting, seen = set(wanted), set(wanted)
    waiting |= {used for place in taken for used in _names(nodes[place])}
    while waiting:
        seen |= waiting
        fresh = {place for place, names in enumerate(bound) if names & waiting} - taken
        taken |= fresh
        waiting = {used for place in fresh for used in _names(nodes[place])} - seen
    return [nodes[place] for place in sorted(taken)]


def _binds(node: ast.AST) -> Iterator[str]:
    """The names that a statement of a module gives to something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _binds(child)


def _names(node: ast.AST) -> Iterator[str]:
    return (child.id for child in ast.walk(node) if isinstance(child, ast.Name))


def _imported(nodes: Iterable[ast.stmt], module: str, tops: Set[str]) -> Iterator[str]:
    """The modules of the packages that count which statements import, in functions too."""
    path = _file(module)
    package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
    for node in (child for top in nodes for child in ast.walk(top)):
        asked: list[tuple[str, str]] = []
        if isinstance(node, ast.Import):
            asked = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            asked = [(base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "require", "__import__") and isinstance(node.args[0].value, str):
                asked = [(node.args[0].value, "")]
        for base, name in asked:
            if base.partition(".")[0] in tops:
                yield _module_of(base, name)


def _module_of(base: str, name: str) -> str:
    """Where ``from base import name`` leads; the public names of this package to their homes."""
    home = getattr(sys.modules.get(base), "_HOME_OF", {}).get(name) if base == _OURS else None
    if home is not None:
        return f"{base}.{home}"
    return f"{base}.{name}" if name and _file(f"{base}.{name}") is not None else base


def _homes(value: Any, tops: Set[str], seen: set[int]) -> Iterator[tuple[str, str]]:
    """The classes of a value and of what it holds, as far as they are of the packages that count: module, name."""
    if id(value) in seen or value is None or isinstance(value, str | bytes | int | float | np.ndarray):
        return
    seen.add(id(value))
    inside: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inside = value
    kind = value if isinstance(value, type) or inspect.isfunction(value) else type(value)
    if isinstance(value, partial):
        inside = (value.func, *value.args, *value.keywords.values())
    elif kind.__module__.partition(".")[0] in tops:
        yield kind.__module__, kind.__qualname__.partition(".")[0]
        inside = (*inside, *(vars(value).values() if hasattr(value, "__dict__") and kind is not value else ()))
    for item in inside:
        yield from _homes(item, tops, seen)


def commit() -> str:
    """The commit of the checkout that this package lies in, with "+" where tracked files differ; empty for an installed one."""

    def git(*words: str) -> str:
        asked = ["git", "-C", str(Path(__file__).resolve().parent), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
