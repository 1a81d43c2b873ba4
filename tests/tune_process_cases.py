"""What tests of the trainer share that runs it in processes of its own: killed at a place, or several at once."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import torch

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import checkpoint, training, validation
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.trainer import brain_tune
from process_cases import server
from tune_cases import Tones

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch": 8,
    "learning_rate": 3e-3,
    "clip_seconds": 2.0,
    "log_every": 2,
    "save_minutes": 1e-6,  # a state after each update
    "keep": (1,),
    # Adapters with dropout, and masks: what draws at random.
    "trained": "lora",
    "lora": LoraConfig(rank=2, dropout=0.2),
    "own_weight": 0.1,
}
PLACES: dict[str, tuple[Any, str]] = {
    "update": (training.Training, "update"),
    "file of a state": (checkpoint, "save_file"),
    "folder in its place": (checkpoint.os, "replace"),
    "validation": (validation.Sums, "add"),
    "end of an epoch": (training.Training, "end_epoch"),
    "last files": (training.Training, "finish"),
}


def work(
    world: tuple[Path, Path], out: Path, settings: dict[str, Any], place: str, count: int, ranks: tuple[int, int, int]
) -> None:
    """A run in a process of its own, which ends itself by SIGKILL when a function is called for the ``count``-th time.

    ``world`` are the folders of the data and of the model. ``place`` is one of ``PLACES``, or empty. ``ranks`` are the number of
    this process, how many there are, and the port at which they meet.
    """
    torch.set_num_threads(1)
    rank, size, port = ranks
    if size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    if place:
        owner, name = PLACES[place]
        before, left = getattr(owner, name), [count]

        def counted(*rest: Any, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*rest, **more)

        setattr(owner, name, counted)
    data, model = Tones.read(str(world[0])), SpeechEncoder(world[1])
    brain_tune(model, data, TuneConfig(**settings), out, validation=["watched"], show_progress=False)


def run(
    world: tuple[Path, Path], out: Path, place: str = "", count: int = 1, processes: int = 1, **more: Any
) -> list[int | None]:
    """The exit codes of the processes of a run."""
    context = server(__name__)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        started.append(
            context.Process(target=work, args=(world, out, {**SETTINGS, **more}, place, count, (rank, processes, port)))
        )
        started[-1].start()
    for one in started:
        one.join(300)
    return [one.exitcode for one in started]
