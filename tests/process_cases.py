"""The command in a process of its own, for tests that kill or interrupt it.

The process is forked from a server that has loaded torch, transformers and the rest once: anew, each takes 8 s of processor time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

SLOW = (
    *("process_cases", "scipy.stats", "matplotlib.backends.backend_agg", "jinja2"),
    *("transformers.models.wav2vec2.modeling_wav2vec2", "transformers.models.hubert.modeling_hubert"),
    *("fastencode.cli.demo", "fastencode.runs.fits", "fastencode.runs.studies.page", "fastencode.runs.training"),
)


def server(*modules: str) -> Any:
    """A multiprocessing context whose processes begin with modules loaded.

    The server of Python 3.11 ignores ``sys.path``, and says nothing when it cannot import what it should: what is in ``sys.path``
    here it gets by PYTHONPATH.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*SLOW, *modules])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


class Command:
    """``fastencode-tune`` on its way, in a session of its own: what it says is in the files ``out`` and ``err`` of a folder."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, pictures: bool = False) -> None:
        self._out, self._err = folder / "out", folder / "err"
        where = (str(self._out), str(self._err), os.getcwd(), dict(os.environ))
        self.process = server().Process(target=_give, args=(list(arguments), *where, pictures))
        self.process.start()

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def until(self, happened: Callable[[], bool], seconds: float = 300) -> None:
        """Wait for something that must happen before the command ends."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.exitcode is None and time.monotonic() < deadline, f"it ended too early: {self.out}{self.err}"
            time.sleep(0.002)

    def tell(self, number: signal.Signals) -> int | None:
        """Send a signal to all of its processes, as a terminal does; returns its exit status."""
        os.killpg(self.process.pid, number)
        return self.end()

    def end(self, seconds: float = 120) -> int | None:
        self.process.join(seconds)
        return self.process.exitcode


def _give(arguments: list[str], out: str, err: str, place: str, variables: dict[str, str], pictures: bool) -> None:
    os.setsid()
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite run in the background ignores it
    import picture_cases
    from fastencode.cli import main

    if not pictures:
        picture_cases.without_pictures()
    sys.exit(main(arguments))
