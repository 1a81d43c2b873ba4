"""One contestant of bench/train.py in a process of its own: started by it, not by hand.

    python bench/train_worker.py FOLDER CONTESTANT OPTIONS

Prints one line of JSON: seconds and losses of every update, seconds waited for data, and the most memory that was resident.
Ours is the trainer itself, from the data set on disk on; a watch around its update stops it after as many as are wanted.

Axis letters: b clip of a batch, n sample, t row (scan), v voxel.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TR, RATE, FIRST = 2.0, 16000, 5  # s, Hz, scans before the first row
RATES = {"learning_rate": 1e-4, "head_learning_rate": 1e-3}


class Tones:
    """A data set: each scan hears a low or a high tone, quiet or loud; voxels follow pitch, loudness or both, with noise."""

    tr, test_story = TR, "test"

    def __init__(self, folder: Path, people: dict[str, int], rows: dict[str, int]) -> None:
        self.folder, self.people, self.rows = folder, people, rows

    def make(self, noise: float) -> None:
        """Write sounds and responses."""
        from fastencode.speech.audio import write_audio

        self.folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        mixes = {who: rng.standard_normal((3, voxels), np.float32) for who, voxels in self.people.items()}
        for story, rows in self.rows.items():
            high, loud = rng.integers(0, 2, (2, rows + FIRST))
            t = np.arange((rows + FIRST) * round(TR * RATE)) / RATE
            each = np.repeat(np.stack([np.where(high, 1800.0, 300.0), np.where(loud, 0.5, 0.1)]), round(TR * RATE), axis=1)
            sound = each[1] * np.sin(2 * np.pi * each[0] * t) + 0.01 * rng.standard_normal(len(t))
            write_audio(self.folder / f"{story}.wav", sound.astype(np.float32), RATE)
            signal = np.stack([high, loud, high * loud], axis=1)[FIRST:].astype(np.float32)
            for who, mix in mixes.items():
                values = signal @ mix + noise * rng.standard_normal((rows, self.people[who]), np.float32)
                np.save(self.folder / f"{who}-{story}.npy", values)

    @property
    def participants(self) -> list[str]:
        return list(self.people)

    def stories(self, who: str) -> list[str]:
        return list(self.rows)

    def n_rows(self, run: str) -> int:
        return self.rows[run]

    def row_times(self, run: str, *, middle: bool = False) -> NDArray[np.float64]:
        return TR * (np.arange(self.rows[run]) + FIRST + 0.5 * middle)

    def usable_rows(self, run: str) -> slice:
        return slice(0, self.rows[run])

    def recording(self, run: str) -> str:
        return run

    def sound_file(self, run: str) -> Path:
        return self.folder / f"{run}.wav"

    def n_voxels(self, who: str) -> int:
        return self.people[who]

    def responses(self, who: str, run: str, *, voxels: Any = None) -> NDArray[np.float32]:
        values = np.load(self.response_files(who, run)[0])
        return values if voxels is None else values[:, np.asarray(voxels)]

    def response_files(self, who: str, run: str) -> list[Path]:
        return [self.folder / f"{who}-{run}.npy"]


class Enough(Exception):
    """As many updates as were wanted."""


def ours(folder: Path, options: dict[str, Any], watched: list[dict[str, Any]]) -> None:
    """The trainer, for ``updates`` updates."""
    from fastencode.speech.layers import SpeechEncoder
    from fastencode.tune.lessons import choose_lessons
    from fastencode.tune.objectives import Objective
    from fastencode.tune.trainer import tune_lessons
    from fastencode.tune.training import Training

    update, learn = Training.update, Objective.learn

    def kept(self: Any, *arguments: Any) -> Any:
        losses = learn(self, *arguments)
        watched.append({"losses": dict(losses.losses)})
        return losses

    def timed(self: Any, batch: Any) -> None:
        before = time.perf_counter()
        update(self, batch)
        now = time.perf_counter()
        watched[-1] |= {"update": now - before, "end": now, "cpu": time.process_time(), "waited": self.clock.waited}
        if len(watched) == options["updates"]:
            raise Enough
        if len(watched) == 1:
            forget_peak()

    Objective.learn, Training.update = kept, timed  # type: ignore[method-assign]
    data = dataset(folder, options)
    lessons = choose_lessons(data, participants=options["people"])  # type: ignore[arg-type]
    out, frames = folder / "runs" / options["run"], folder / "frames"
    try:
        tune_lessons(SpeechEncoder(folder / "model"), lessons, config(options), out, frames=frames, show_progress=False)
    except Enough:
        return
    raise SystemExit("there were fewer updates than were wanted")


def config(options: dict[str, Any]) -> Any:
    from fastencode.tune.config import TuneConfig

    return TuneConfig(epochs=2, batch=options["batch"], schedule="constant", warm_up=0.0, **RATES, **options.get("settings", {}))


def naive(folder: Path, options: dict[str, Any], watched: list[dict[str, Any]]) -> None:
    """The straightforward loop over the same batches, from the same first weights: one participant, all data in memory."""
    import torch
    from transformers import Wav2Vec2Model

    from fastencode.speech.audio import read_audio
    from fastencode.speech.layers import unit_variance
    from fastencode.timing.clean import zscore
    from fastencode.tune.batches import order_of_epoch
    from fastencode.tune.heads import LinearHead

    (who,), settings, data = options["people"], config(options), dataset(folder, options)
    (story,) = data.rows
    sound = np.pad(read_audio(data.sound_file(story), sample_rate=RATE), (round(10 * RATE), 0))
    responses_tv = torch.from_numpy(zscore(data.responses(who, story)))
    ends = np.rint((data.row_times(story) + TR) * RATE).astype(int)
    model = Wav2Vec2Model.from_pretrained(folder / "model").eval()
    model.feature_extractor._freeze_parameters()
    first = LinearHead(model.config.hidden_size, data.n_voxels(who), 0, settings.seed, who)
    head = torch.nn.utils.skip_init(torch.nn.Linear, *first.weight.T.shape)
    head.load_state_dict(first.state_dict())
    del first
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": learning, "lr": RATES["learning_rate"]},
            {"params": head.parameters(), "lr": RATES["head_learning_rate"]},
        ],
        weight_decay=settings.weight_decay,
    )
    for place in order_of_epoch([len(ends)], 1, options["batch"], settings)[: options["updates"]]:
        before = time.perf_counter()
        clips_bn = torch.from_numpy(np.stack([sound[end : end + 10 * RATE] for end in ends[place.rows]]))
        with torch.no_grad():
            frames = model.feature_extractor(unit_variance(clips_bn)).transpose(1, 2)
        hidden, _ = model.feature_projection(frames)
        pooled = model.encoder(hidden).last_hidden_state.mean(dim=1)
        loss = torch.nn.functional.mse_loss(head(pooled), responses_tv[place.rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = time.perf_counter()
        row = {"update": now - before, "end": now, "cpu": time.process_time(), "waited": 0.0}
        watched.append({"losses": {who: float(loss.detach())}, **row})
        if len(watched) == 1:
            forget_peak()


def whole_run(folder: Path, options: dict[str, Any], watched: list[dict[str, Any]]) -> None:
    """All epochs of the trainer on the planted data set; what its log says of each epoch."""
    from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
    from fastencode.tune import brain_tune
    from fastencode.tune.config import TuneConfig
    from fastencode.tune.log import read_log

    settings = TuneConfig(epochs=options["epochs"], batch=options["batch"], **options["settings"])
    out, data = folder / "runs" / options["run"], dataset(folder, options)
    brain_tune(SpeechEncoder(SMALL_MODEL), data, settings, out, validation=["watched"], show_progress=False)  # type: ignore[arg-type]
    watched += [row for row in read_log(out / "log.jsonl") if row["kind"] == "epoch"]


def dataset(folder: Path, options: dict[str, Any]) -> Tones:
    return Tones(folder / options["data"], **json.loads((folder / f"{options['data']}.json").read_text(encoding="utf-8")))


def forget_peak() -> None:
    """After the first update, so that the peak is that of updates and not of what came before; Linux only."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory() -> int:
    """The most bytes that were resident in this process since."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    folder, kind, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not answer for us
    import torch

    torch.set_num_threads(options["threads"])
    watched: list[dict[str, Any]] = []
    kinds: dict[str, Any] = {"ours": ours, "naive": naive, "whole run": whole_run}
    kinds[kind](folder, options, watched)
    print(json.dumps({"updates": watched, "peak": peak_memory()}), file=answers, flush=True)
    os._exit(0)  # what it holds is gigabytes, and nothing is left to do


if __name__ == "__main__":
    main()
