"""The processes of one run: alone, or started by ``torchrun`` or ``accelerate launch``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import distributed

from fastencode.errors import require

__all__ = ["Processes"]


@dataclass(frozen=True)
class Processes:
    """Which process this is, and how many there are.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0 on; and how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Processes:
        """Those that the environment names (``WORLD_SIZE``); they find each other through accelerate."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        state = require("accelerate", "tune").PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over processes, in place: one message for all of one dtype."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(one.dtype for one in tensors):
            alike = [one for one in tensors if one.dtype == dtype]
            joined = torch.cat([one.reshape(-1) for one in alike])
            distributed.all_reduce(joined)
            for one, part in zip(alike, joined.split([one.numel() for one in alike]), strict=True):
                one.copy_(part.view_as(one))

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()
