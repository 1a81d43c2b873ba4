"""Brain-tuning: one loop, read from top to bottom.

    clips ─► frozen CNN (cached) ─► transformer ─► state ─► heads of all who heard them ─► loss ─► gradients ─► update

What the loop does. Before the first update, responses are z-scored into files, the frozen CNN's frames too where that pays, and
the untuned model is validated. An epoch takes all training clips, in batches whose order follows from the seed and the epoch. A
batch is one update: the losses of all participants, their gradients, added over the processes, and a step of AdamW. After each
epoch the model is validated and logged, kept if asked for, and the state is saved. At the end stand model, heads, curves and
card.

How a row of responses becomes a gradient:

    Dataset.responses ─► lessons.cache_responses: z-scored within its run, in a file that is mapped into memory
    ─► batches.Sources.part: with the other rows of its batch, in a thread that is ahead of the loop
    ─► objectives.Objective.learn: one participant after the other ─► loss.voxel_loss: one tile of voxels after another

From a kill to the next update. The same command compares ``run.json`` with what it is given now, and refuses what differs. It
loads the newest whole state and cuts the log back to the size that the state knows. It makes the order of the epoch again and
leaves out the batches that the state has seen; updates after that state are computed once more. On a CPU the run ends with the
bits of a run that was not killed: batches, masks and dropout follow from the seed and the number of the update, all else is in
the state.

What is left out, and why. Sharded weights: the largest of these models, XLS-R, has 2.2 billion parameters; with gradients,
moments and first values they take 43 GB, which one card holds. Loss scaling: bfloat16 does not need it. A wrapper for several
processes: gradients are added in one message after the backward pass. Other optimizers: all published runs used Adam or AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import InputError, warn
from fastencode.progress import progress
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.checkpoint import RunFolder
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons, choose_lessons
from fastencode.tune.prepare import identity_of
from fastencode.tune.processes import Processes
from fastencode.tune.training import Training
from fastencode.tune.voxel_tiles import multiplies

__all__ = ["brain_tune", "tune_lessons"]


def brain_tune(
    encoder: SpeechEncoder,
    dataset: Dataset,
    config: TuneConfig,
    out: Path,
    *,
    participants: Sequence[str] = (),
    validation: Sequence[str] = (),
    exclude: Sequence[str] = (),
    voxels: Mapping[str, NDArray[np.intp]] | None = None,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
    extend_epochs: bool = False,
    show_progress: bool = True,
) -> Path:
    """Tune a speech model on people's responses to what they heard.

    Parameters
    ----------
    encoder : SpeechEncoder
        The pretrained model: wav2vec2, HuBERT, WavLM or Whisper, float32. Tuned in place.
    dataset : Dataset
        Such as :class:`fastencode.data.stories.Stories`. Its test story is never learned from.
    config : TuneConfig
    out : Path
        Folder of the run: ``model/`` (a Hugging Face folder), ``heads/``, ``log.jsonl``, ``curves.png``, ``README.md`` (the model
        card), ``checkpoints/``, ``run.json``. A run that was killed goes on from its last state, and on a CPU ends with the bits
        of a run that was not.
    participants : sequence of str
        Who is learned from, all in one run: one speech model, a head for each. All by default.
    validation : sequence of str
        Stories that are only predicted, after each epoch.
    exclude : sequence of str
        Stories that are left out.
    voxels : participant → (v,) indices, optional
        All by default. Choose those that respond, for example by their noise ceilings.
    weights : participant → (v,) float32, optional
        Of these voxels in the loss.
    extend_epochs : bool
        Go on with a finished run that had fewer epochs. Rates go on as the longer run has them there.
    show_progress : bool

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        If data or settings do not fit, the folder holds another run, or the disk is full.
    FastencodeError
        If the loss stops being finite, or what is frozen changed.
    """
    lessons = choose_lessons(
        dataset, participants=participants, validation=validation, exclude=exclude, voxels=voxels, weights=weights
    )
    return tune_lessons(encoder, lessons, config, out, extend_epochs=extend_epochs, show_progress=show_progress)


def tune_lessons(
    encoder: SpeechEncoder,
    lessons: Lessons,
    config: TuneConfig,
    out: Path,
    *,
    frames: Path | None = None,
    extend_epochs: bool = False,
    limit: int = 0,
    about: Mapping[str, Any] | None = None,
    begun: Callable[[Path], None] | None = None,
    desc: str = "tuning",
    show_progress: bool = True,
) -> Path:
    """Tune an encoder on responses, or go on where a killed run stopped; see :func:`fastencode.tune.brain_tune`.

    Parameters
    ----------
    encoder : SpeechEncoder
        The pretrained model. Tuned in place.
    lessons : Lessons
    config : TuneConfig
    out : Path
        The run's folder.
    frames : Path, optional
        Folder of frames that :func:`fastencode.speech.extract.extract_frames` made of the same clips: the CNN is not run again.
    extend_epochs : bool
        Whether a run in ``out`` may have fewer epochs.
    limit : int
        Updates and batches of validation to run at most; 0 for all.
    about : mapping, optional
        Plain values that ``run.json`` and the model card repeat.
    begun : callable, optional
        Called with ``out`` by the process that writes, once the folder is known to be this run's: writes ``config.yaml``. By
        default that holds ``config``.
    desc : str
        What the progress bar says.
    show_progress : bool

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        If data or settings do not fit, or the folder holds another run.
    FastencodeError
        If the loss stops being finite, or what is frozen changed.
    """
    if config.targets == "stimulus":  # the same runs, and nobody's responses
        lessons = replace(lessons, voxels={}, weights={})
    processes = Processes.here()
    show_progress = show_progress and processes.is_first
    _check(lessons, config, encoder, processes)
    identity = identity_of(encoder, lessons, config, out, about or {}, processes.size)
    with RunFolder(out, identity, extend=extend_epochs, writes=processes.is_first) as run:
        if run.finished:
            return out
        if processes.is_first and begun is not None:
            begun(out)
        processes.wait()
        training = Training(encoder, lessons, config, run, processes, frames, limit, desc, show_progress)
        training.begin()
        with progress(total=training.n_clips, desc=desc, unit="clip", enabled=show_progress) as bar:
            bar.update(training.n_clips_done)
            while training.state.epoch <= config.epochs and not training.is_over():
                training.model.training_mode(True)
                for batch in training.batches():
                    training.update(batch)
                    bar.update(batch.clips)
                training.end_epoch()
                bar.set_postfix(training.shown, refresh=False)
        training.finish()
    return out


def _check(lessons: Lessons, config: TuneConfig, encoder: SpeechEncoder, processes: Processes) -> None:
    """Raise an :class:`InputError` for settings that do not fit who listens, or how many compute; warn of what is slow here."""
    if config.precision == "bfloat16" and encoder.device == "cpu" and not multiplies(torch.bfloat16):
        warn("this processor has no instructions for products of bfloat16: precision float32 is several times faster here")
    if config.patience and not any(lessons.validation.values()):
        raise InputError(f"patience={config.patience} waits for a lower validation loss: name stories for validation, or give 0")
    if config.fused_head_step and processes.size > 1:
        raise InputError(
            f"fused_head_step updates a head by the gradient of one process, and there are {processes.size}: leave it out"
        )
