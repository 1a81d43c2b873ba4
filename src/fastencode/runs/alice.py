"""Real brains: the encoding half and a brain-tuning run on the Alice data set (Brennan et al. 2016).

``examples/alice.py`` shows its use; the subcommand ``alice`` is its alias for one release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastencode.data.brennan import Alice, MeanListener
from fastencode.data.textgrid import Interval
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.experiment import Experiment, Outcome, before_and_after, contrast
from fastencode.speech.audio import write_audio
from fastencode.speech.layers import SMALL_MODEL
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.leads import alice_lead
from fastencode.study.verdicts import Verdict, layer_thirds
from fastencode.study.word_rate import WordRateStudy, word_rate_study
from fastencode.tune.config import TuneConfig
from fastencode.world.espeak import SAMPLE_RATE
from fastencode.world.tales import speak_at

__all__ = ["PICTURE_REGIONS", "AliceStudy", "alice_study"]

MARGIN = 0.03  # stated before any run: a change of r by less than this counts as none

PICTURE_REGIONS = ("LATL", "LPTL")

(_GROUP,) = MeanListener.participants
_SOUND = "chapter"


@dataclass(frozen=True)
class AliceStudy:
    """What both halves found.

    Attributes
    ----------
    encoding : str
        The table of the encoding half, one line a measure and one column a region.
    outcome : Outcome
        Of the tuning half.
    verdicts : list of Verdict
    lead : str
        What was done, for the first words of a page.
    """

    encoding: str
    outcome: Outcome
    verdicts: list[Verdict]
    lead: str


def alice_study(
    stages: Stages,
    data: Path,
    *,
    tune: TuneConfig,
    alignment: AlignConfig,
    model: str | None = None,
    jobs: int = 2,
    controls: int = 3,
    test_rows: int = 100,
    validation_rows: int = 40,
) -> AliceStudy:
    """Repeat the published word-rate numbers, then tune a model on the mean listener and score its layers.

    The recording is not part of the data set: the chapter's words are spoken by a synthesizer at their real times.

    Parameters
    ----------
    stages : Stages
    data : Path
        Folder of the data set, as :class:`fastencode.data.brennan.Alice` reads it.
    tune, alignment, jobs, controls
        As for :func:`fastencode.runs.experiment.before_and_after`.
    model : str, optional
        Folder or hub name of the pretrained encoder; by default the one that ships with the package.
    test_rows, validation_rows : int
        Scans at the end of the chapter to score on, and scans before them to watch while tuning.

    Raises
    ------
    InputError
        If the folder or its files are missing or hold something else, or a setting is out of range.
    FailedStages
        If a stage failed.
    """
    alice = Alice(data)
    encoding = word_rate_study(alice)
    table = _encoding_table(encoding)
    say(table)
    files = {path.name: path for path in sorted(data.glob("*")) if path.is_file()}
    seconds = float(alice.scan_times[-1]) + alice.tr
    speech = stages.run(Stage("speech", {}, (), _speak_chapter, (alice.words, seconds), inputs=files))
    chapter = MeanListener(alice, speech / f"{_SOUND}.wav", validation_rows, test_rows)
    outcome = before_and_after(
        stages,
        Experiment(chapter, ("train",), "validation", {_GROUP: np.arange(len(alice.regions))}),
        source="speech",
        model=model or SMALL_MODEL,
        tune=tune,
        alignment=alignment,
        jobs=jobs,
        controls=controls,
    )
    lead = alice_lead(
        listeners=len(alice.listeners),
        left_out=alice.left_out,
        words=encoding.n_words,
        model=model,
        epochs=tune.epochs,
        controls=controls,
        scans=test_rows,
    )
    return AliceStudy(table, outcome, _verdicts(outcome), lead)


def _speak_chapter(folder: Path, words: Sequence[Interval], seconds: float) -> None:
    """The stage that speaks the chapter's words at their real times."""
    write_audio(folder / f"{_SOUND}.wav", speak_at(words, seconds), SAMPLE_RATE)


def _verdicts(outcome: Outcome) -> list[Verdict]:
    late = layer_thirds(range(outcome.n_layers))["late"]
    regions = tuple(region for region in outcome.found.columns[_GROUP] if region != WHOLE)
    name = f"layers {late[0]} to {late[-1]}"
    rise = contrast(outcome, regions, late, {"tuned": 1, "pretrained": -1})
    control = contrast(outcome, regions, late, {"control": 1, "pretrained": -1})
    above = contrast(outcome, regions, late, {"tuned": 1, "control": -1})
    return [
        Verdict.above(f"Late layers ({name}) rise, mean of all regions", rise, quantity="Δr, tuned − pretrained"),
        Verdict.below("The control's late layers do not rise", control, MARGIN, quantity="Δr, control − pretrained"),
        Verdict.above("Late layers rise above the control's", above, quantity="Δr, tuned − control"),
    ]


def _encoding_table(study: WordRateStudy) -> str:
    """The encoding half on the terminal: one line a measure, one column a region."""
    measures = {
        "word-rate weight": study.weight,
        "its t over listeners": study.t,
        "group mean against word rate, r": study.group_correlation,
        "one listener against the others, r": study.leave_one_out,
        f"ridge on words, last {study.ridge.n_test} scans, r": study.ridge.correlation,
    }
    lines = [f"{study.n_words} words, {len(study.listeners)} listeners; left out: {', '.join(study.left_out) or 'nobody'}"]
    lines += [f"{'our word rate against theirs: ' + name:<62}{r:7.4f}" for name, r in study.predictor_correlation.items()]
    lines.append(f"{'':<36}" + "".join(f"{region:>8}" for region in study.regions))
    lines += [f"{name:<36}" + "".join(f"{value:8.4f}" for value in values) for name, values in measures.items()]
    return "\n".join(lines)
