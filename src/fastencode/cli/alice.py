"""``fastencode-tune alice``: the encoding half and a brain-tuning run on real fMRI (Brennan et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.cli.output import publish
from fastencode.cli.settings import AliceConfig
from fastencode.data.brennan import Alice
from fastencode.data.espeak import SAMPLE_RATE
from fastencode.data.tales import speak_at
from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import settle
from fastencode.runs.experiment import Experiment, Outcome, before_and_after, contrast
from fastencode.speech.audio import write_audio
from fastencode.speech.layers import SMALL_MODEL
from fastencode.study.tables import WHOLE
from fastencode.study.verdicts import Verdict, layer_thirds
from fastencode.study.word_rate import WordRateStudy, word_rate_study
from fastencode.timing.clean import detrend_polynomial, zscore

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
    chapter = _Chapter(alice, [*files.values()], speech / f"{_SOUND}.wav", config)
    experiment = Experiment(chapter, ("train",), "validation", {_GROUP: np.arange(len(alice.regions))})
    outcome = before_and_after(
        stages,
        experiment,
        source="speech",
        model=config.model or SMALL_MODEL,
        tune=config.tune,
        alignment=config.align,
        jobs=config.jobs,
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


class _Chapter:
    """The mean listener and the chapter's three parts, as a data set; each region is one voxel.

    Parameters
    ----------
    alice : Alice
    files : list of Path
        Those of the data set.
    sound : Path
        The spoken chapter.
    config : AliceConfig
        How many scans at the end are scored, and watched before them.
    """

    tr, test_story = Alice.tr, "test"

    def __init__(self, alice: Alice, files: list[Path], sound: Path, config: AliceConfig) -> None:
        self._sound, self._regions, self._files = sound, alice.regions, files
        mean = np.mean([zscore(detrend_polynomial(alice.timecourses(name), 3)) for name in alice.listeners], axis=0)
        begins = alice.scan_times[alice.discarded :]
        cuts = np.cumsum([len(begins) - config.test_rows - config.validation_rows, config.validation_rows])
        self._parts = dict(zip(("train", "validation", "test"), np.split(np.arange(len(begins)), cuts), strict=True))
        self._begins, self._responses = begins, mean.astype(np.float32)

    def n_rows(self, run: str) -> int:
        return len(self._parts[run])

    def row_times(self, run: str, *, middle: bool = False) -> NDArray[np.float64]:
        return np.asarray(self._begins[self._parts[run]] + 0.5 * self.tr * middle)

    def usable_rows(self, run: str) -> slice:
        return slice(0, self.n_rows(run))

    def recording(self, run: str) -> str:
        return self._sound.stem

    def sound_file(self, run: str) -> Path:
        return self._sound

    def check_length(self, run: str, seconds: float, path: Path) -> None:
        """The chapter is spoken as long as the scans last."""

    def n_voxels(self, who: str) -> int:
        return len(self._regions)

    def responses(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        rows = self._responses[self._parts[run]]
        return rows if voxels is None else rows[:, np.asarray(voxels)]

    def is_repeated(self, who: str, run: str) -> bool:
        return False

    def repeats(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        raise InputError(f"{run} was heard once: there are no repeats")

    def rois(self, who: str) -> dict[str, NDArray[np.intp]]:
        return {name: np.array([i]) for i, name in enumerate(self._regions)}

    def response_files(self, who: str, run: str) -> list[Path]:
        return self._files


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
        f"on the first part of the chapter for {config.tune.epochs} epochs, a control as long on the same responses, "
        f"block-permuted, and ridge regression scores every layer on the last {config.test_rows} scans."
    )
