"""``fastencode-tune demo``: the whole system, small, on a world whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from fastencode.cli.output import publish
from fastencode.cli.settings import DemoConfig
from fastencode.data.stories import Stories
from fastencode.errors import InputError
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import settle
from fastencode.runs.experiment import MODELS, Experiment, Outcome, before_and_after, contrast
from fastencode.speech.audio import audio_seconds
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.ceilings import noise_ceiling, significant_ceilings
from fastencode.study.leads import DEMO_NOTES, DEMO_TITLE, demo_lead
from fastencode.study.verdicts import Verdict, layer_thirds
from fastencode.tune.config import PretrainConfig
from fastencode.tune.pretrain import pretrain
from fastencode.world.config import WorldConfig
from fastencode.world.simulate import TEST_STORY, VALIDATION_STORY, make_world

__all__ = ["run"]

# Margins, stated before any run.
KEPT = 0.03  # a change of r by less than this counts as none
ZERO = 0.02  # a mean r of less than this counts as zero
CEILING_ERROR = 0.05


def run(config: DemoConfig) -> Path:
    """Run the demo and return the path of its page."""
    config = config.resolved()
    if config.model:  # before minutes of making the world
        settle()
        SpeechEncoder(config.model)
    stages = Stages(config.out, prepare=settle)
    world = stages.run(Stage("world", {"world": config.world}, (), make_world_stage, (config.world,)))
    stories = Stories(world, tr=config.world.tr, test_story=TEST_STORY, test_skip=0)
    ceilings = {who: noise_ceiling(stories.repeats(who, TEST_STORY)) for who in stories.participants}
    experiment = _experiment(stories, ceilings, config.ceiling)
    model: Path | str = config.model or SMALL_MODEL
    if config.pretrain:
        stage = Stage("small-model", {"pretraining": config.pretraining}, (), make_small_model, (config.pretraining,))
        model = stages.run(stage)
    outcome = before_and_after(
        stages,
        experiment,
        source="world",
        model=model,
        tune=config.tune,
        alignment=config.align,
        jobs=config.jobs,
        controls=config.controls,
    )
    return publish(
        stages,
        outcome,
        title=DEMO_TITLE,
        lead=demo_lead(
            minutes=sum(audio_seconds(stories.sound_file(run)) for run in experiment.runs) / 60,
            voxels={who: stories.n_voxels(who) for who in experiment.tuned_on},
            model=config.model,
            made=config.pretrain,
            epochs=config.tune.epochs,
            controls=config.controls,
            ceiling=config.ceiling,
        ),
        notes=DEMO_NOTES,
        verdicts=_verdicts(outcome, ceilings, world),
        config=config,
        command="fastencode-tune demo",
    )


def make_world_stage(folder: Path, config: WorldConfig) -> None:
    """The stage that writes the world."""
    make_world(config, folder)


def make_small_model(folder: Path, config: PretrainConfig) -> None:
    """The stage that makes the small model from nothing."""
    pretrain(config, folder)


def _experiment(stories: Stories, ceilings: Mapping[str, np.ndarray], threshold: float) -> Experiment:
    """Tune on the voxels whose test repeats agree, as one would on the real data set."""
    tuned_on = {}
    for who, ceiling in ceilings.items():
        tuned_on[who] = np.flatnonzero((ceiling > threshold) & significant_ceilings(stories.repeats(who, TEST_STORY)))
        if not len(tuned_on[who]):
            raise InputError(f"no voxel of {who} has a noise ceiling above {threshold}: lower it (--ceiling)")
    train = stories.train_stories(stories.participants[0], exclude=(VALIDATION_STORY,))
    return Experiment(stories, tuple(train), VALIDATION_STORY, tuned_on)


def _verdicts(outcome: Outcome, ceilings: Mapping[str, np.ndarray], world: Path) -> list[Verdict]:
    """What was expected, what was measured (means over participants), and whether it held."""
    every = range(outcome.n_layers)
    thirds = layer_thirds(every)
    early, late = thirds["early"], thirds["late"]
    early_name, late_name = f"layers {early[0]} to {early[-1]}", f"layers {late[0]} to {late[-1]}"
    rise = contrast(outcome, ("late_language",), late, {"tuned": 1, "pretrained": -1})
    kept = contrast(outcome, ("auditory",), early, {"tuned": 1, "pretrained": -1})
    control = contrast(outcome, ("late_language",), late, {"control": 1, "pretrained": -1})
    above = contrast(outcome, ("late_language",), late, {"tuned": 1, "control": -1})
    silent = {model: contrast(outcome, ("silent",), every, {model: 1}) for model in MODELS}
    error = _ceiling_error(ceilings, world)
    tuned_change, control_change = "Δr, tuned − pretrained", "Δr, control − pretrained"
    region = "the late-language region"
    right = "The noise ceiling estimated from repeats is the true one, in the two driven regions"
    return [
        Verdict.above(f"Late layers ({late_name}) rise in {region}", rise, quantity=tuned_change),
        Verdict.above(f"Early layers ({early_name}) keep the auditory region", kept, -KEPT, quantity=tuned_change),
        Verdict.below(f"The control's late layers do not rise in {region}", control, KEPT, quantity=control_change),
        Verdict.above(f"Late layers rise above the control's in {region}", above, quantity="Δr, tuned − control"),
        *(Verdict.within(f"Silent voxels stay at zero ({model} model, all layers)", r, ZERO) for model, r in silent.items()),
        Verdict.within(right, error, CEILING_ERROR, quantity="estimate − truth, mean over voxels"),
    ]


def _ceiling_error(ceilings: Mapping[str, np.ndarray], world: Path) -> tuple[float, float, float]:
    """Mean error of the estimated ceilings where the true one is above 0, and its 95 % interval; each has its own noise."""
    errors = []
    for participant, estimate in ceilings.items():
        with h5py.File(world / "truth" / f"{participant}.h5") as file:
            truth = file["ceiling"][:]
        errors.append((estimate - truth)[truth > 0])
    error_v = np.concatenate(errors)
    mean, half = float(error_v.mean()), float(1.96 * error_v.std(ddof=1) / np.sqrt(len(error_v)))
    return mean, mean - half, mean + half
