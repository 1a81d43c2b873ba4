"""``fastencode-tune demo``: the study ``demo``, on simulated data with known ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np

from fastencode.cli.output import publish_study
from fastencode.cli.settings import DemoConfig
from fastencode.data.stories import Stories
from fastencode.errors import raise_all
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import settle
from fastencode.runs.executors.where import Where
from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.reading import read_study
from fastencode.runs.studies.results import Results
from fastencode.runs.studies.study import run_study
from fastencode.speech.audio import audio_seconds
from fastencode.speech.layers import SpeechEncoder
from fastencode.study.brains.ceilings import noise_ceiling
from fastencode.study.config import Contrast
from fastencode.study.findings.verdicts import Verdict
from fastencode.study.report.leads import DEMO_NOTES, demo_lead
from fastencode.tune.config import SMALL_FAMILIES, PretrainConfig
from fastencode.tune.pretrain import pretrain

__all__ = ["run"]

CEILING_ERROR = 0.05  # margin, stated before any run


def run(config: DemoConfig) -> Path:
    """Run the demo and return the path of its page."""
    config = config.resolved()
    if config.model:  # fails now if the model cannot be read, not after minutes of simulation
        settle()
        SpeechEncoder(config.model)
    stages = Stages(config.out, prepare=settle, where=Where(config.jobs))
    made = stages.run_all(small_models(config))
    stages.check()
    results = run_study(stages, demo_study(config, made))
    stages.check()
    return publish_study(
        stages,
        results,
        lead=_lead(results, config),
        notes=DEMO_NOTES,
        verdicts=[_ceilings_are_true(results, stages.path("world"))],
        config=config,
        command="fastencode-tune demo",
    )


def small_models(config: DemoConfig) -> list[Stage]:
    """Stages that pretrain small models: the package's own, or with ``full`` small HuBERT and Whisper models."""
    wanted = {"small-model": config.pretraining} if config.pretrain else {}
    if config.full:
        wanted = {f"small-models/{family}": replace(config.pretraining, family=family) for family in SMALL_FAMILIES[1:]}
    return [Stage(name, {"pretraining": of_one}, (), make_small_model, (of_one,)) for name, of_one in wanted.items()]


def make_small_model(folder: Path, config: PretrainConfig) -> None:
    """Pretrain a small model from random weights."""
    pretrain(config, folder)


def demo_study(config: DemoConfig, made: Mapping[str, Path]) -> StudyConfig:
    """The study ``demo`` that ships with the package, with the settings of the command.

    Parameters
    ----------
    config : DemoConfig
        Resolved.
    made : stage → folder
        Of :func:`small_models`.
    """
    models = {"small": str(made.get("small-model", config.model or "small"))}
    models |= {name.partition("/")[2]: str(folder) for name, folder in made.items() if "/" in name}
    problems, study = read_study("demo")
    raise_all(problems)
    assert study is not None
    contrasts = tuple(one for one in study.contrasts if config.probes or one.measure.startswith("r"))
    seeds = {"tuned": tuple(range(config.seeds)), "control": tuple(range(1, config.controls + 1))}
    return replace(
        study,
        data=replace(study.data, ceiling=config.ceiling),
        world=config.world,
        models=models,
        tune=asdict(config.tune),
        align=config.align,
        arms=tuple(replace(arm, seeds=seeds.get(arm.name, arm.seeds)) for arm in study.arms),
        probes=replace(study.probes, speech=config.speech, tasks=study.probes.tasks if config.probes else ()),
        contrasts=contrasts if len(models) == 1 else tuple(_asked_of(key, one, study) for key in models for one in contrasts),
        seed=config.align.seed,
    )


def _asked_of(model: str, contrast: Contrast, study: StudyConfig) -> Contrast:
    """A contrast of the demo for one of several models. Its family stays the same, so Holm's correction is over all models."""
    return replace(
        contrast,
        name=f"{model}-{contrast.name}",
        statement=f"{model}: {contrast.statement}",
        models={arm if arm in study.baselines else f"{model}-{arm}": weight for arm, weight in contrast.models.items()},
        control=None if contrast.control is None else f"{model}-{contrast.control}",
    )


def _lead(results: Results, config: DemoConfig) -> str:
    ground = results.graph.ground
    return demo_lead(
        minutes=sum(audio_seconds(ground.data.sound_file(run)) for run in ground.runs) / 60,
        voxels={who: ground.data.n_voxels(who) for who in ground.participants},
        model=config.model,
        made=config.pretrain,
        epochs=config.tune.epochs,
        controls=config.controls,
        seeds=config.seeds,
        others=("HuBERT", "Whisper") if config.full else (),
        ceiling=config.ceiling,
        late_follows=config.world.late_follows,
    )


def _ceilings_are_true(results: Results, world: Path) -> Verdict:
    """Mean error of estimated noise ceilings over voxels whose true ceiling is above 0, and its 95 % interval over voxels."""
    data, errors = results.graph.ground.data, []
    assert isinstance(data, Stories)
    for who in results.graph.ground.participants:
        with h5py.File(world / "truth" / f"{who}.h5") as file:
            truth = file["ceiling"][:]
        errors.append((noise_ceiling(data.repeats(who, data.test_story)) - truth)[truth > 0])
    error_v = np.concatenate(errors)
    mean, half = float(error_v.mean()), float(1.96 * error_v.std(ddof=1) / np.sqrt(len(error_v)))
    right = "The noise ceiling estimated from repeats is the true one, in the two driven regions"
    return Verdict.within(right, (mean, mean - half, mean + half), CEILING_ERROR, quantity="estimate − truth, mean over voxels")
