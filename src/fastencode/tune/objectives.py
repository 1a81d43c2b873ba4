"""The losses of a batch: that of predicted responses, and beside it the model's own and that of words.

    loss = Σ_who share_who · (loss of who's responses) + own_weight · (own loss) + word_weight · (loss of words)

``share`` is the mean over clips of 1 / (participants who heard the clip). A batch may come in parts, on several processes. The
loss of a part is a mean over its responses, rows or voxels. It is multiplied by their number in the part over that in the batch.
So the sum over parts is the loss of the whole batch, but for temporal_r, where it is the weighted mean of the parts' losses.

Axis letters: b clip of a part, f frame, c CNN channel, r row whose responses are predicted, d width of the state, v voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fastencode.data.textgrid import Interval
from fastencode.tune.batches import Batch, Part
from fastencode.tune.config import TuneConfig
from fastencode.tune.head_step import HeadStep
from fastencode.tune.loss import LossKind, voxel_count, voxel_loss
from fastencode.tune.model import BrainModel, Rows
from fastencode.tune.own_loss import OwnLoss
from fastencode.tune.processes import Processes
from fastencode.tune.seeds import seed_of_draw
from fastencode.tune.word_loss import WordLoss, word_labels

__all__ = ["BatchLosses", "Objective", "gradient_norms"]


@dataclass
class BatchLosses:
    """The losses of one whole batch, on all processes.

    Attributes
    ----------
    loss : float
        The weighted sum, which is made small.
    losses : participant → float
        Of each participant in the batch, before it is multiplied by their share.
    own_loss, word_loss : float or None
        The other losses, before they are multiplied by their weights; None where there is no such loss.
    """

    loss: float
    losses: dict[str, float]
    own_loss: float | None = None
    word_loss: float | None = None


class Objective:
    """The losses of a run.

    Parameters
    ----------
    model : BrainModel
    config : TuneConfig
    people : sequence of str
        Who has a head.
    n_samples : int
        Samples in a clip.
    weights : participant → (v,) array
        Of voxels in the loss; of a participant who is not named, all voxels weigh alike.
    own : OwnLoss, optional
    words : WordLoss, optional
    heard : run → list of Interval
        The words of each run, for ``words``.
    tr : float
        Repetition time in s.

    Attributes
    ----------
    own_weight : float
        Weight of the model's own loss: ``config.own_weight``; 1 with targets stimulus.
    steps : participant → HeadStep
        With ``config.fused_head_step``: what updates a head while its loss is computed. The optimizer then has no part in it.
    """

    def __init__(
        self,
        model: BrainModel,
        config: TuneConfig,
        people: Sequence[str],
        n_samples: int,
        weights: Mapping[str, np.ndarray],
        own: OwnLoss | None,
        words: WordLoss | None,
        heard: Mapping[str, Sequence[Interval]],
        tr: float,
    ) -> None:
        self.model, self.config, self._n, self.own, self.words, self._heard, self._tr = (
            model, config, n_samples, own, words, heard, tr,
        )  # fmt: skip
        self.kind = cast(LossKind, config.loss)
        self.device, self.people = str(model.encoder.device), tuple(people)
        self.weights = {
            who: torch.from_numpy(np.asarray(weights[who], np.float32)).to(self.device) if who in weights else None
            for who in people
        }
        self.own_weight = 1.0 if config.targets == "stimulus" else config.own_weight
        self.steps: dict[str, HeadStep] = {}
        if config.fused_head_step:
            for who in people:
                head = model.head(who)
                self.steps[who] = HeadStep(
                    [head.weight, head.bias], lr=config.head_learning_rate, weight_decay=config.weight_decay
                )

    @property
    def draws(self) -> bool:
        """Whether random numbers are drawn while a batch is learned: dropout."""
        return self.config.train_mode or (self.config.trained == "lora" and self.config.lora.dropout > 0)

    @property
    def saved(self) -> dict[str, torch.Tensor]:
        """All that a state keeps: what learns, what the other losses chose at the start, and the moments of ``steps``."""
        found: dict[str, torch.Tensor] = dict(self.model.trained())
        for name, module in (("own_loss", self.own), ("word_loss", self.words)):
            found |= {} if module is None else {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for who, step in self.steps.items():
            found |= {f"step.{who}.{key}": value for key, value in step.state_dict().items()}
        return found

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's: the speech model; the heads, with the linear maps of the other losses."""
        backbone, heads = self.model.groups()
        stepped = {id(p) for who in self.steps for p in (self.model.head(who).weight, self.model.head(who).bias)}
        more = [p for module in (self.own, self.words) if module is not None for p in module.parameters() if p.requires_grad]
        return [backbone, {**heads, "params": [p for p in heads["params"] if id(p) not in stepped] + more}]

    def frames(self, part: Part) -> torch.Tensor:
        """What the CNN makes of a part's clips, (b, f, c) float32; what the part holds already where it was cached."""
        return part.clips if part.clips.ndim == 3 else self.model.front(part.clips)

    def state(self, part: Part, frames_bfc: torch.Tensor) -> torch.Tensor:
        """What heads read, (r, d) float32."""
        rows = Rows(part.ends, part.keep) if self.config.head == "delays" else None
        return self.model.state(frames_bfc, self._n, rows)

    def own_loss(self, frames_bfc: torch.Tensor, *draw: int) -> torch.Tensor:
        """The model's own loss of a part, a scalar. The numbers ``draw`` and the run's seed decide what is masked."""
        assert self.own is not None
        generator = torch.Generator().manual_seed(seed_of_draw(self.config.seed, *draw))
        with self.model.autocast():
            return self.own(frames_bfc, generator, self.model.call)

    def learn(self, batch: Batch, update: int, processes: Processes) -> BatchLosses:
        """Add a batch's gradients to those of all that learns; returns the losses of the whole batch."""
        ratios = self._ratios(batch, processes)
        sums = dict.fromkeys(batch.share, 0.0)
        own = words = 0.0
        for number, part in enumerate(batch.parts):
            part = part.to(self.device)
            frames = self.frames(part)
            share = len(part.runs) / batch.clips
            total = torch.zeros((), device=self.device)
            if part.targets or self.words is not None:
                state = self.state(part, frames)
                for who in part.targets:
                    scale = batch.share[who] * ratios[number][who]
                    loss = self._brain_loss(who, part, state, scale)
                    sums[who] += float(loss.detach()) * ratios[number][who]
                    total = total + scale * loss
                if self.words is not None:
                    loss = self.words(state, self._labels(part))
                    words += float(loss.detach()) * share
                    total = total + self.config.word_weight * share * loss
            if self.own is not None:
                loss = self.own_loss(frames, update, processes.rank, number)
                own += float(loss.detach()) * share
                total = total + self.own_weight * share * loss
            total.backward()
        return self._whole(batch, sums, own, words, processes)

    def _brain_loss(self, who: str, part: Part, state: torch.Tensor, scale: float) -> torch.Tensor:
        """A participant's loss, which is about to be multiplied by ``scale``: its gradients are made with that factor."""
        rows, responses = part.targets[who]
        head, weight = self.model.head(who), self.weights[who]
        mine = state if len(rows) == len(state) else state[rows]
        more: dict[str, Any] = {"voxel_weight": weight, "scale": scale, "step": self.steps.get(who)}
        return voxel_loss(head.reduce(mine), head.weight, head.bias, responses, kind=self.kind, **more)

    def _ratios(self, batch: Batch, processes: Processes) -> list[dict[str, float]]:
        """The weight of each part's mean in the mean over the whole batch, for each participant."""
        if processes.size == 1 and len(batch.parts) == 1:
            return [dict.fromkeys(batch.share, 1.0)]
        people = list(batch.share)
        counts = torch.zeros((len(batch.parts), len(people)), dtype=torch.float64)
        for number, part in enumerate(batch.parts):
            for place, who in enumerate(people):
                if who in part.targets:
                    weight = self.weights[who]
                    weight = None if weight is None else weight.cpu()
                    counts[number, place] = voxel_count(part.targets[who][1], weight, self.kind)
        total = counts.sum(dim=0).to(self.device)
        processes.add([total])
        ratios = (counts / total.cpu().clamp(min=1e-300)).tolist()
        return [dict(zip(people, row, strict=True)) for row in ratios]

    def _whole(self, batch: Batch, sums: dict[str, float], own: float, words: float, processes: Processes) -> BatchLosses:
        """The losses of the whole batch, from the sums over this process's parts and those of the others."""
        if processes.size > 1:
            joined = torch.tensor([*sums.values(), own, words], dtype=torch.float64, device=self.device)
            processes.add([joined])
            *each, own, words = joined.tolist()
            sums = dict(zip(sums, each, strict=True))
        loss = sum(batch.share[who] * one for who, one in sums.items())
        loss += self.own_weight * own + self.config.word_weight * words
        return BatchLosses(loss, sums, None if self.own is None else own, None if self.words is None else words)

    def _labels(self, part: Part) -> torch.Tensor:
        """Which words of the vocabulary were heard in each of the part's scans, (r, words), 0 or 1."""
        assert self.words is not None
        ends = part.ends[part.keep]
        labels = np.empty((len(ends), len(self.words.vocabulary)), np.float32)
        for run in dict.fromkeys(part.runs):
            here = np.flatnonzero([one == run for one in part.runs])
            labels[here] = word_labels(self._heard[run], ends[here], self._tr, self.words.vocabulary)
        return torch.from_numpy(labels).to(self.device)


def gradient_norms(named: Mapping[str, nn.Parameter], layer_of: Callable[[str], str]) -> dict[str, float]:
    """Layer → Euclidean norm of the gradients of its parameters. ``layer_of`` gives the layer of a parameter by its name."""
    layers: dict[str, list[torch.Tensor]] = {}
    for name, parameter in named.items():
        if parameter.grad is not None:
            layers.setdefault(layer_of(name), []).append(parameter.grad)
    return {
        layer: float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)).float()))
        for layer, grads in sorted(layers.items())
    }
