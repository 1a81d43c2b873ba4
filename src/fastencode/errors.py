"""The package's exceptions and its one warning class, suggestions for misspelt names, and imports of optional libraries."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType

__all__ = [
    "DeviceError",
    "DiskError",
    "FailedStages",
    "FastencodeError",
    "FastencodeWarning",
    "InputError",
    "JobsWritten",
    "MissingLibraryError",
    "Problems",
    "StudyError",
    "nearest",
    "raise_all",
    "require",
    "suggestion",
    "warn",
]


class FastencodeError(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(FastencodeError, ValueError):
    """An argument or a file does not fit the function; the message names the value and the next step."""


class StudyError(InputError):
    """A study does not fit; the message names settings of its file, which are no options of the command."""


class DiskError(InputError):
    """A disk is full, or may not be written to: what is written next would fail as well."""


class FailedStages(FastencodeError):
    """Some stages of a run failed and the others are finished; the message lists what failed, and why."""


class JobsWritten(FastencodeError):
    """Job scripts were written and nothing was run, as asked for; the message says where they are and what comes next."""


class DeviceError(FastencodeError, RuntimeError):
    """The device that the caller named does not exist or cannot be used."""


class MissingLibraryError(FastencodeError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class FastencodeWarning(UserWarning):
    """Every warning of this package."""


class Problems:
    """What is wrong with a command's input, gathered to be told at once.

    Attributes
    ----------
    found : list of str
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def gathered(self, place: str = "") -> Iterator[None]:
        """A context whose error of this package waits for the others; its lines begin with the place, where there is one."""
        try:
            yield
        except FastencodeError as error:
            self.found += [f"{place}: {line}" for line in str(error).splitlines()] if place else [str(error)]


def raise_all(problems: Sequence[str], kind: type[InputError] = InputError) -> None:
    """One error of a kind for all problems, each said once, before anything is made."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        raise kind(problems[0])
    if problems:
        lines = "\n".join(f"- {one}" for one in problems)
        raise kind(f"{len(problems)} things are to be mended first; nothing was made:\n{lines}")


def nearest(name: object, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that are spelt most like ``name``, best first; none if all are less similar than ``cutoff`` (0 to 1)."""
    return get_close_matches(str(name), list(known), n=most, cutoff=cutoff)


def suggestion(name: object, known: Iterable[str], *, otherwise: str | None = None, most: int = 1, cutoff: float = 0.6) -> str:
    """The last part of an error about an unknown name.

    Parameters
    ----------
    name : object
        What was given.
    known : iterable of str
        The names that would have been right.
    otherwise : str, optional
        The text if no known name is similar. Default: "choose from A, B, C", or "leave it out" if there are no known names.
    most : int
        Suggest at most this many names.
    cutoff : float
        Least similarity of a suggestion, from 0 to 1 (:func:`difflib.get_close_matches`).

    Returns
    -------
    str
        Such as "did you mean stories?".
    """
    names = [one for one in known if one]
    if close := nearest(name, names, most=most, cutoff=cutoff):
        return f"did you mean {' or '.join(close)}?"
    if otherwise is not None:
        return otherwise
    return f"choose from {', '.join(names)}" if names else "leave it out"


def warn(message: str) -> None:
    """Issue a :class:`FastencodeWarning` that points at the line which called this package, from any depth inside it."""
    # Python 3.11 has no skip_file_prefixes, which would also need the folders of all of the package's modules.
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, FastencodeWarning, stacklevel=level)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say which extra installs it.

    Parameters
    ----------
    module : str
        Dotted module name, for example ``"soundfile"``.
    extra : str
        The extra of ``fastencode-neuro`` that brings it, for example ``"tune"``.

    Raises
    ------
    MissingLibraryError
        If the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in (top, module):
            reason = f"{top} is not installed"
        else:
            reason = f"{module} could not be imported ({error})"
        raise MissingLibraryError(f"{reason}: pip install 'fastencode-neuro[{extra}]'") from error
