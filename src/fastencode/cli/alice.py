"""``fastencode-tune alice``: the encoding half and a brain-tuning run on real fMRI (Brennan et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastencode.cli.output import control_text, publish
from fastencode.cli.settings import AliceConfig
from fastencode.data.brennan import Alice, MeanListener
from fastencode.data.textgrid import Interval
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import settle
from fastencode.runs.experiment import Experiment, Outcome, before_and_after, contrast
from fastencode.speech.audio import write_audio
from fastencode.speech.layers import SMALL_MODEL
from fastencode.study.config import WHOLE
from fastencode.study.verdicts import Verdict, layer_thirds
from fastencode.study.word_rate import WordRateStudy, word_rate_study
from fastencode.world.espeak import SAMPLE_RATE
from fastencode.world.tales import speak_at

__all__ = ["run"]

MARGIN = 0.03  # stated before any run: a change of r by less than this counts as none

_GROUP = "mean listener"
_SOUND = "chapter"
_NOTES = (
    "One chapter is little data, the averaged listener is one participant, and synthetic speech is not what the listeners heard: "
    "read the intervals, not the points. They resample blocks of the last scans only."
)


def run(config: AliceConfig) -> Path:
    """Run both halves and return the path of the page."""
    alice = Alice(config.data)
    stages = Stages(config.out, prepare=settle)
    encoding = word_rate_study(alice)
    say(_encoding_table(encoding))
    files = {path.name: path for path in sorted(config.data.glob("*")) if path.is_file()}
    seconds = float(alice.scan_times[-1]) + alice.tr
    speech = stages.run(Stage("speech", {}, (), _speak_chapter, (alice.words, seconds), inputs=files))
    chapter = MeanListener(alice, speech / f"{_SOUND}.wav", config.validation_rows, config.test_rows)
    experiment = Experiment(chapter, ("train",), "validation", {_GROUP: np.arange(len(alice.regions))})
    outcome = before_and_after(
        stages,
        experiment,
        source="speech",
        model=config.model or SMALL_MODEL,
        tune=config.tune,
        alignment=config.align,
        jobs=config.jobs,
        controls=config.controls,
    )
    return publish(
        stages,
        outcome,
        title="Brain-tuning on real brains: a chapter of Alice in Wonderland",
        lead=_lead(alice, config, encoding),
        notes=_NOTES,
        picture_regions=("LATL", "LPTL"),
        verdicts=_verdicts(outcome),
        config=config,
        command="fastencode-tune alice",
        facts={"encoding half": _encoding_table(encoding)},
    )


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


def _lead(alice: Alice, config: AliceConfig, study: WordRateStudy) -> str:
    left_out = ", ".join(study.left_out) or "nobody"
    model = f"The model {config.model}" if config.model else "The small self-supervised wav2vec2 of the package"
    return (
        f"The responses of {len(alice.listeners)} listeners in six regions, detrended, z-scored and averaged; left out because "
        f"the file is not data: {left_out}. The recording is not part of the data set: the chapter's {study.n_words} words are "
        f"spoken by a synthesizer at their real times, so prosody and the speaker's voice are missing. {model} is tuned "
        f"on the first part of the chapter for {config.tune.epochs} epochs; {control_text(config.controls)} "
        f"Ridge regression scores every layer on the last {config.test_rows} scans."
    )
