"""A run in memory: its beginning, one update, the end of an epoch, the end of the run. ``trainer.py`` has the loop over them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from fastencode.errors import FastencodeError
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.batches import Batch, Place, Sources, ahead, batches_in_order, order_of_epoch
from fastencode.tune.card import write_card
from fastencode.tune.checkpoint import RunFolder, State
from fastencode.tune.config import TuneConfig
from fastencode.tune.curves import draw_curves
from fastencode.tune.lessons import Lessons
from fastencode.tune.log import Log, read_log
from fastencode.tune.model import BrainModel
from fastencode.tune.objectives import BatchLosses, gradient_norms
from fastencode.tune.prepare import make_objective, make_sources
from fastencode.tune.processes import Processes
from fastencode.tune.schedule import shares_of_peak
from fastencode.tune.seeds import seed_of_draw
from fastencode.tune.validation import validate, validate_own

__all__ = ["Training"]


@dataclass
class _Clock:
    """How long an epoch takes, and how much of it is waiting for batches, in s: for the log; no result depends on it."""

    began: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    clips: int = 0

    def times(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.began
        return {
            "seconds": round(seconds, 3),
            "waiting": round(self.waited, 3),
            "clips_per_second": round(self.clips / max(seconds, 1e-9), 3),
        }


class Training:
    """What learns, what it learns from, and where it stands.

    Parameters
    ----------
    encoder, lessons, config, frames, limit, desc, show_progress
        As for :func:`fastencode.tune.trainer.tune_lessons`.
    run : RunFolder
        Held by this run; it is not finished.
    processes : Processes

    Attributes
    ----------
    state : State
        Where the run stands; with the weights and the moments of the optimizer it is all that :meth:`begin` needs to go on.
    shown : dict of str to str
        Losses and correlation of the last validation, for a progress bar.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        lessons: Lessons,
        config: TuneConfig,
        run: RunFolder,
        processes: Processes,
        frames: Path | None,
        limit: int,
        desc: str,
        show_progress: bool,
    ) -> None:
        self.lessons, self.config, self.run, self.processes, self.limit, self.desc = lessons, config, run, processes, limit, desc
        voxels = {who: len(chosen) for who, chosen in lessons.voxels.items()}
        self.model = BrainModel(encoder, config, voxels, tr=lessons.data.tr)
        self.frozen_hash = self.model.frozen_hash()
        self.train, self.validation = make_sources(
            self.model, lessons, config, run.path / "cache", frames, processes, show_progress=show_progress
        )
        self.objective = make_objective(self.model, self.train, config, fit_own=not run.has_state)
        groups = self.objective.groups()
        peaks = (config.learning_rate, config.head_learning_rate)
        self.optimizer = torch.optim.AdamW(
            [{**group, "lr": peak} for group, peak in zip(groups, peaks, strict=True)],
            weight_decay=config.weight_decay,
            fused=True,  # one pass instead of several for each of many small tensors
        )
        # Without the heads: a copy of those of 8 × 30 000 voxels would take 0.7 GB.
        self.first_weights = {
            name: value.detach().clone() for name, value in self.model.trained().items() if self.model.layer_of(name) != "head"
        }
        self.batch_size = config.batch * config.accumulate * processes.size  # clips of an update
        self.per_epoch = len(self._order(1))
        self.state, self.clock, self.saved_at = State(), _Clock(), time.monotonic()
        self.log: Log | None = None  # of the process that writes
        self.shown: dict[str, str] = {}

    # -- beginning

    def begin(self) -> None:
        """Go on from the newest state; without one, validate the model before any update, and save that state."""
        found = self.run.resume(self.objective.saved, self.optimizer)
        self.state = found or State()
        if self.processes.is_first:
            board = self.run.path / "tensorboard"
            self.log = Log(self.run.path / "log.jsonl", size=self.state.log_size, tensorboard=board)
            self.run.write_settings()
        if found is None:
            self._validate(0, None)
            self._keep(0)
            self._save()

    @property
    def n_updates(self) -> int:
        """Updates of all epochs."""
        return self.per_epoch * self.config.epochs

    @property
    def n_clips(self) -> int:
        """Clips of all epochs."""
        return self.config.epochs * sum(len(place) for place in self._order(1))

    @property
    def n_clips_done(self) -> int:
        """Clips learned from so far, those of other processes too."""
        order = self._order(self.state.epoch)
        return (self.state.epoch - 1) * sum(map(len, order)) + sum(map(len, order[: self.state.in_epoch]))

    def _order(self, epoch: int) -> list[Place]:
        """The batches of an epoch, from 1 on; the first ``limit`` of them where there is one."""
        order = order_of_epoch(self.train.n_rows, epoch, self.batch_size, self.config)
        return order[: self.limit] if self.limit else order

    # -- an epoch

    def batches(self) -> Iterator[Batch]:
        """Those of this epoch that are still to come."""
        self.clock = _Clock()
        coming = self._ahead(self.train, self._order(self.state.epoch)[self.state.in_epoch :])
        while True:
            before = time.perf_counter()
            batch = next(coming, None)
            self.clock.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def _ahead(self, sources: Sources, places: Sequence[Place]) -> Iterator[Batch]:
        pin = self.objective.device != "cpu"
        return ahead(sources, places, self.config, self.processes.rank, self.processes.size, pin=pin)

    def update(self, batch: Batch) -> None:
        """One step of the optimizer; before it, a state is saved if the last one is older than ``save_minutes``."""
        state, config = self.state, self.config
        rates = self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        due = time.monotonic() - self.saved_at > 60 * config.save_minutes
        if due and self.objective.steps:  # learning a batch changes the heads: the state is that before
            self._save_if_finite(batch)
        with torch.random.fork_rng(enabled=self.objective.draws):
            if self.objective.draws:
                torch.manual_seed(seed_of_draw(config.seed, state.updates, self.processes.rank))
            losses = self.objective.learn(batch, state.updates, self.processes)
        self._check_finite(losses, batch)
        if due and not self.objective.steps:  # weights whose loss is known to be finite
            self._save()
        self._join(batch)
        norms: dict[str, float] = {}
        logged = (state.updates + 1) % config.log_every == 0
        if logged:
            norms = gradient_norms(self.model.trained(), self.model.layer_of)
        if config.clip_norm:
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], config.clip_norm)
        self.optimizer.step()
        state.updates, state.in_epoch = state.updates + 1, state.in_epoch + 1
        state.loss, state.clips = state.loss + losses.loss * batch.clips, state.clips + batch.clips
        self.clock.clips += batch.clips
        if logged:
            self._log_update(batch, losses, rates, norms)

    def _set_rates(self) -> dict[str, float]:
        """Set the learning rates of this update; returns them for the log."""
        shares = shares_of_peak(
            self.state.updates,
            self.n_updates,
            self.config,
            people=max(1, len(self.lessons.people)),
            stories=len(self.train.runs),
        )
        peaks = (self.config.learning_rate, self.config.head_learning_rate)
        for group, share, peak in zip(self.optimizer.param_groups, shares, peaks, strict=True):
            group["lr"] = peak * share
        for step in self.objective.steps.values():
            step.lr = peaks[1] * shares[1]
        return {"backbone": peaks[0] * shares[0], "heads": peaks[1] * shares[1]}

    def _save_if_finite(self, batch: Batch) -> None:
        loss = validate(self.objective, [batch], self.processes).mean["validation_loss"]
        self.model.training_mode(True)
        if loss is None or math.isfinite(loss):
            self._save()

    @torch.no_grad()
    def _is_finite(self) -> bool:
        """Whether all that learns is: a state with anything else would be no place to go on from."""
        return all(bool(torch.isfinite(value).all()) for value in self.model.trained().values())

    def _check_finite(self, losses: BatchLosses, batch: Batch) -> None:
        """Raise a :class:`FastencodeError` if the loss is not finite, before the optimizer's step."""
        if math.isfinite(losses.loss):
            return
        state = self.state
        place = f"epoch {state.epoch}, batch {state.in_epoch + 1} ({', '.join(batch.stories)})"
        raise self._diverged(f"the loss is not finite in {place}")

    def _diverged(self, what: str) -> FastencodeError:
        rates = f"learning_rate ({self.config.learning_rate:g}) or head_learning_rate ({self.config.head_learning_rate:g})"
        kept = self.run.path / "checkpoints"
        return FastencodeError(
            f"{self.desc}: {what}: lower {rates} and tune into another folder; the last state is kept in {kept}"
        )

    def _join(self, batch: Batch) -> None:
        """Add up the gradients of all processes.

        All processes must send the same tensors, so what has no gradient in this one gets zeros. Not so the heads of those who
        heard no clip of the whole batch: AdamW leaves a parameter without a gradient alone, but decays one whose gradient is 0.
        """
        if self.processes.size == 1:
            return
        quiet = set()
        for who in set(self.objective.people) - set(batch.share):
            quiet |= {id(p) for p in self.model.head(who).parameters()} if not self.config.shared_head else set()
        learning = [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in quiet]
        for p in learning:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        self.processes.add([p.grad for p in learning if p.grad is not None])

    def _log_update(self, batch: Batch, losses: BatchLosses, rates: Mapping[str, float], norms: Mapping[str, float]) -> None:
        state = self.state
        for layer, norm in norms.items():
            state.norms[layer] = state.norms.get(layer, 0.0) + norm
        state.n_norms += 1
        if self.log is None:
            return
        more = {name: value for name in ("own_loss", "word_loss") if (value := getattr(losses, name)) is not None}
        self.log.write(
            "update",
            update=state.updates,
            epoch=state.epoch,
            stories=list(batch.stories),
            loss=losses.loss,
            losses=losses.losses,
            **more,
            learning_rate=rates,
            gradient_norm=norms,
            time=self.clock.times(),
        )

    # -- the end of an epoch

    def end_epoch(self) -> None:
        """Validate, keep the model of this epoch if it is in ``keep`` or the best so far, and save a state."""
        state = self.state
        epoch, norms = state.epoch, {layer: value / state.n_norms for layer, value in state.norms.items()}
        loss = self._validate(epoch, state.loss / max(1, state.clips), norms)
        if loss is not None and not math.isfinite(loss):
            raise self._diverged(f"the validation loss is not finite after epoch {epoch}")
        if not self._is_finite():
            raise self._diverged(f"weights are not finite after epoch {epoch}")
        best = state.best_epoch
        if loss is not None and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.best_epoch = loss, epoch
            if self.config.patience:
                self._keep(epoch, always=True)
        self._keep(epoch)
        state.next_epoch()
        self._save()
        if best != state.best_epoch:  # only now: a run that is killed before goes on from a state that needs it
            self._drop(best)
        self._limit_kept()

    def is_over(self) -> bool:
        """Whether the validation loss has not fallen for ``patience`` epochs."""
        patience, state = self.config.patience, self.state
        return bool(patience) and state.best_epoch > 0 and state.epoch - 1 - state.best_epoch >= patience

    def _validate(self, epoch: int, train_loss: float | None, norms: Mapping[str, float] | None = None) -> float | None:
        """Write the line of an epoch into the log; returns its validation loss, None if nothing was validated."""
        places = batches_in_order(self.validation.n_rows, self.batch_size)
        places = places[: self.limit] if self.limit else places
        found = validate(self.objective, self._ahead(self.validation, places), self.processes)
        means = found.mean
        own = validate_own(self.objective, self._ahead(self.validation, places), self.processes) if self.objective.own else None
        if own is not None and means["validation_loss"] is None:
            means["validation_loss"] = own
        values = {
            "epoch": epoch,
            "updates": self.state.updates,
            "train_loss": train_loss,
            **means,
            **({} if own is None else {"own_loss": own}),
            "participants": found.rows(),
            "weight_change": self._weight_change(),
            "gradient_norm": dict(norms or {}),
            "time": self.clock.times(),
        }
        if self.log is not None:
            self.log.write("epoch", **values)
        shown = {"loss": train_loss, "validation_loss": means["validation_loss"], "validation_r": means["validation_r"]}
        self.shown = {name: f"{value:.3f}" for name, value in shown.items() if value is not None}
        return means["validation_loss"]

    @torch.no_grad()
    def _weight_change(self) -> dict[str, float]:
        """‖w − w₀‖ / ‖w₀‖ of each layer of the speech model and of all heads, w₀ the weights before the first update."""
        sums: dict[str, list[float]] = {}

        def add(where: str, value: torch.Tensor, before: torch.Tensor) -> None:
            layer = sums.setdefault(where, [0.0, 0.0])
            layer[0] += float(torch.linalg.vector_norm(value.detach() - before)) ** 2
            layer[1] += float(torch.linalg.vector_norm(before)) ** 2

        learning = self.model.trained()
        for name, before in self.first_weights.items():
            add(self.model.layer_of(name), learning[name], before)
        for who in self.objective.people[:1] if self.config.shared_head else self.objective.people:
            head = self.model.head(who)  # large: its first weights are drawn again rather than kept
            for value, before in zip(head.parameters(), head.as_begun().parameters(), strict=True):
                add("head", value, before)
        return {layer: math.sqrt(change / max(size, 1e-300)) for layer, (change, size) in sorted(sums.items())}

    # -- what is kept

    def _save(self) -> None:
        """A state to go on from. The log comes first: a state must never know lines that the disk lacks."""
        self.saved_at = time.monotonic()
        if self.log is None:
            return
        self.log.sync()
        self.state.log_size = self.log.size
        self.run.save(self.objective.saved, self.optimizer, self.state)

    def _keep(self, epoch: int, *, always: bool = False) -> None:
        """The model of an epoch, if it is one of ``keep`` or ``always``."""
        if self.processes.is_first and (always or epoch in self.config.keep):
            with self.run.folder(f"checkpoints/epoch-{epoch}") as folder:
                self.save_model(folder)

    def _drop(self, epoch: int) -> None:
        """Remove the model that was the best so far, unless it is one of ``keep``."""
        if self.processes.is_first and epoch and epoch not in self.config.keep:
            self.run.remove_epoch(epoch)

    def _limit_kept(self) -> None:
        """Remove the oldest models beyond ``save_total_limit``; with ``patience`` the best one stays and does not count."""
        limit = self.config.save_total_limit
        if self.processes.is_first and limit:
            for epoch in [one for one in self.run.kept() if one != self.state.best_epoch or not self.config.patience][:-limit]:
                self.run.remove_epoch(epoch)

    def save_model(self, folder: Path) -> None:
        """A Hugging Face folder, and the heads in ``heads/``."""
        self.model.save(folder)
        (folder / "heads").mkdir()
        self.model.save_heads(folder / "heads", self.lessons.voxels)

    def finish(self) -> None:
        """Write the model of the epoch that is kept, its heads, the curves and the card; after a kill, all of them once more."""
        unchanged = self.model.frozen_hash() == self.frozen_hash
        if not unchanged and not self.config.unfreeze:
            raise FastencodeError(f"{self.desc}: the frozen CNN changed while tuning; {self.run.path} got no model")
        if self.log is None:
            return
        early, last = self.is_over(), self.state.epoch - 1
        kept = self.state.best_epoch if self.config.patience and self.state.best_epoch else last
        self.log.write(
            "end",
            why="early stop" if early else "all epochs",
            epoch_kept=kept,
            cnn_unchanged=unchanged,
            updates=self.state.updates,
        )
        self.log.sync()
        self.log.close()
        self.run.publish(self.save_model if kept == last else None, kept)
        draw_curves(self.run.path / "log.jsonl", self.run.path / "curves.png")
        self._write_card()
        self.run.finish()

    def _write_card(self) -> None:
        identity, lessons = self.run.identity, self.lessons
        rows = read_log(self.run.path / "log.jsonl")
        facts = {
            **identity["about"],
            "participants": {who: len(voxels) for who, voxels in lessons.voxels.items()},
            "stories": {"training": list(self.train.runs), "validation": list(self.validation.runs)},
            "updates": self.state.updates,
            "end": rows[-1],
            "hashes": {name: identity[name] for name in ("model", "frozen", "data", "sounds", "voxels")},
        }
        write_card(
            self.run.path / "README.md",
            base_model=identity["base_model"],
            settings=identity["settings"],
            facts=facts,
            epochs=[row for row in rows if row["kind"] == "epoch"],
        )
