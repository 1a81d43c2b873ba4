"""Real brains: the encoding half and a brain-tuning run on the Alice data set (Brennan et al. 2016).

``examples/alice.py`` shows its use; the subcommand ``alice`` is its alias for one release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastencode.data.brennan import Alice, MeanListener
from fastencode.data.textgrid import Interval
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.studies.config import Arm, DataSettings, StudyConfig
from fastencode.runs.studies.results import Results
from fastencode.runs.studies.study import run_study
from fastencode.speech.audio import write_audio
from fastencode.study.config import AlignConfig, Contrast
from fastencode.study.report.leads import ALICE_TITLE, alice_lead
from fastencode.study.word_rate import WordRateStudy, word_rate_study
from fastencode.tune.config import TuneConfig
from fastencode.world.espeak import SAMPLE_RATE
from fastencode.world.tales import speak_at

__all__ = ["PICTURE_REGIONS", "AliceStudy", "alice_study"]

MARGIN = 0.03  # stated before any run: a change of r by less than this counts as none

PICTURE_REGIONS = ("LATL", "LPTL")

_SOUND = "chapter"


@dataclass(frozen=True)
class AliceStudy:
    """What both halves found.

    Attributes
    ----------
    encoding : str
        The table of the encoding half, one line a measure and one column a region.
    results : Results
        Of the tuning half.
    lead : str
        What was done, for the first words of a page.
    """

    encoding: str
    results: Results
    lead: str


def alice_study(
    stages: Stages,
    data: Path,
    *,
    tune: TuneConfig,
    alignment: AlignConfig,
    model: str | None = None,
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
    tune : TuneConfig
        Of the tuned model and of its controls.
    alignment : AlignConfig
    controls : int
        Controls, each on another permutation of the responses.
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
    study = StudyConfig(
        title=ALICE_TITLE,
        data=DataSettings(str(data), validation=("validation",), test_story="test", tr=alice.tr, ceiling=-1.0, scored=-1.0),
        models={"model": model or "small"},
        tune=asdict(tune),
        arms=(
            Arm("pretrained"),
            Arm("tuned", "brain-tuned", tune={}),
            Arm("control", tune={"targets": "permuted"}, seeds=tuple(range(1, controls + 1))),
        ),
        align=alignment,
        contrasts=_contrasts(alice.regions),
        seed=alignment.seed,
    )
    results = run_study(stages, study, data=chapter, made_by=("speech",))
    stages.check()
    lead = alice_lead(
        listeners=len(alice.listeners),
        left_out=alice.left_out,
        words=encoding.n_words,
        model=model,
        epochs=tune.epochs,
        controls=controls,
        scans=test_rows,
    )
    return AliceStudy(table, results, lead)


def _speak_chapter(folder: Path, words: Sequence[Interval], seconds: float) -> None:
    """The stage that speaks the chapter's words at their real times."""
    write_audio(folder / f"{_SOUND}.wav", speak_at(words, seconds), SAMPLE_RATE)


def _contrasts(regions: Sequence[str]) -> tuple[Contrast, ...]:
    """What was expected, before any run."""

    def contrast(name: str, statement: str, of: str, less: str, expect: str, **more: Any) -> Contrast:
        models = {of: 1.0, less: -1.0}
        return Contrast(name, "r", models, "late", list(regions), statement=statement, expect=expect, **more)

    return (
        contrast("late-rise", "Late layers rise, mean of all regions", "tuned", "pretrained", "above", control="control"),
        contrast("control-flat", "The control's late layers do not rise", "control", "pretrained", "below", limit=MARGIN),
        contrast("above-control", "Late layers rise above the control's", "tuned", "control", "above"),
    )


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
