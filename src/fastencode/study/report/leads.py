"""Texts at the start and end of pages: titles, what was done, and the limits of the results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fastencode.study.config import WHOLE

__all__ = [
    "ALICE_NOTES",
    "ALICE_TITLE",
    "ALIGN_NOTES",
    "ALIGN_TITLE",
    "DEMO_NOTES",
    "STUDY_NOTES",
    "alice_lead",
    "align_lead",
    "demo_lead",
]

ALIGN_TITLE = "Which layer of which model predicts which region"
ALIGN_NOTES = (
    "Intervals resample blocks of the stories scored and average over the participants at hand: they do not speak for other "
    "stories or other participants. Tests over participants do, where there are enough of them."
)
DEMO_NOTES = (
    "Simulated brains show that the tools work; they say nothing about real ones. The intervals resample blocks of the one test "
    "story and average over the participants at hand: they do not speak for other stories or other participants. Ridge is fitted "
    "on the stories the model was tuned on, as in the published work."
    "\n\n"
    "The test story has two tasks. Its repeats say which voxels respond reliably, and those are tuned on; its mean response is "
    "what layers are scored on. The choice is the same for the tuned model and the control, and no prediction takes part in it. "
    "Noise that by chance agrees between repeats is in both, though: choosing voxels on other repeats would exclude that."
)
ALICE_TITLE = "Brain-tuning on real brains: a chapter of Alice in Wonderland"
ALICE_NOTES = (
    "One chapter is little data, the averaged listener is one participant, and synthetic speech is not what the listeners heard: "
    "read the intervals, not the points. They resample blocks of the last scans only."
)

STUDY_NOTES = (
    "The unit of each interval is named beside it. Intervals over blocks of scans or speakers generalise to other stories or "
    "speakers of this kind, not to other participants. Intervals over participants, which need five or more, generalise to other "
    "people who hear these stories. "
    "If voxels are scored by their noise ceiling, the ceiling comes from the same repeats whose mean is scored, unless "
    "data.split_half is set: r is then slightly too high, for all models alike."
)

_LATE = {
    "meaning": "the semantic classes of the words",
    "nothing": "the classes of words of other stories, which nobody hears",
    "spectrum": "the spectrum of the sound as well",
}
_OTHER_WORLDS = {
    "meaning": "",
    "nothing": "\n\nThis is the simulation without the effect: nothing that is heard predicts the late-language region, and the "
    "expectations of a rise in it must not hold.",
    "spectrum": "\n\nThis is the simulation with the opposite effect: the late-language region follows the sound, and the "
    "expectations that late layers become semantic must not hold.",
}

_SHIPPED = "The small self-supervised wav2vec2 of the package"


def align_lead(
    *,
    models: Sequence[str],
    residuals: bool,
    voxels: Mapping[str, int],
    fitted: int,
    tests: Sequence[str],
    ceiling: float,
    known: bool,
    split_half: bool,
) -> str:
    """What ``align`` did.

    Parameters
    ----------
    models : sequence of str
        As the tables call them.
    residuals : bool
        Whether some of them are less low-level features.
    voxels : participant → number of voxels scored
    fitted : int
        Stories that ridges were fitted on.
    tests : sequence of str
        Those that scores are of; at least one.
    ceiling : float
        Least noise ceiling of a voxel that is scored; below 0, all are.
    known : bool
        Whether any noise ceiling of all test stories together is known.
    split_half : bool
        Whether voxels were chosen on one half of the repeats and scored on the other.
    """
    people = ", ".join(f"{who}: {count} voxels" for who, count in voxels.items())
    named = [f"“{story}”" for story in tests]
    scored = f"the story {named[0]}" if len(named) == 1 else f"the stories {', '.join(named)} together, each z-scored by itself"
    less = ""
    if residuals:
        less = (
            " “A less B” is the model A after a ridge took out of its features what the low-level features B predict of them; it "
            "is compared with the first model less the same."
        )
    return (
        f"Ridge regression on {fitted} stor{'y' if fitted == 1 else 'ies'} says how well each layer predicts each voxel of "
        f"{len(voxels)} participant{'s' if len(voxels) > 1 else ''} ({people}). Scores are of {scored}, which no "
        f"ridge was fitted on. The region “{WHOLE}” is every voxel that is scored. Models: {', '.join(models)}.{less}\n\n"
        f"{_choice(len(named), ceiling, known, split_half)}"
    )


def _choice(tests: int, ceiling: float, known: bool, split_half: bool) -> str:
    """Which voxels are scored, and what chose them."""
    if not known and tests == 1:
        return "The test story was heard once, so no noise ceiling is known: all voxels that vary are scored."
    if not known:
        return (
            "Not every test story was repeated, so no noise ceiling of all of them is known. Those that were, if any, chose "
            "the voxels; without them, all voxels that vary are scored."
        )
    chosen = f"Scored are voxels with a significant noise ceiling above {ceiling:g} (false discovery rate 5 %)."
    if ceiling < 0:
        half = " They are scored on the mean of one half of the repeats." if split_half else ""
        return f"All voxels that vary are scored, whatever their noise ceiling.{half}"
    if split_half:
        return f"{chosen} One half of the repeats chose them; they are scored on the mean of the other half."
    return (
        f"{chosen} All repeats chose them, and they are scored on the mean of the same repeats: noise that "
        "by chance agrees between repeats is in both. --split-half chooses voxels on other repeats than those scored."
    )


def demo_lead(
    *,
    minutes: float,
    voxels: Mapping[str, int],
    model: str | None,
    made: bool,
    epochs: int,
    controls: int,
    ceiling: float,
    late_follows: str = "meaning",
    seeds: int = 1,
    others: Sequence[str] = (),
) -> str:
    """What ``demo`` did.

    Parameters
    ----------
    minutes : float
        Of stories that the model was tuned on and watched with.
    voxels : participant → number of voxels
    model : str or None
        Which was tuned; None: the one of the package, or one that was ``made`` from nothing.
    made : bool
    epochs, controls : int
        Of tuning.
    ceiling : float
        Least noise ceiling of a voxel that was tuned on.
    late_follows : {"meaning", "nothing", "spectrum"}
        What drives the late-language region, as :class:`fastencode.world.config.WorldConfig` has it.
    seeds : int
        Models that were tuned on each brain.
    others : sequence of str
        Families of small models that were made and tuned as well.
    """
    brains = ", ".join(f"{who} with {count} voxels" for who, count in voxels.items())
    tuned = "A small wav2vec2, made from nothing on other synthetic stories," if made else _named(model)
    if others:
        tuned += f" and small models in the shapes of {' and '.join(others)}, made from nothing on such stories,"
    each = f"{'are each' if others else 'is'} tuned on each brain for {epochs} epochs"
    each += f" with {seeds} seeds, whose mean is shown" if seeds > 1 else ""
    return (
        f"{minutes:.0f} minutes of synthetic stories and simulated brains ({brains}): auditory voxels follow the spectrum of the "
        f"sound, late-language voxels {_LATE[late_follows]}, silent voxels nothing. {tuned} "
        f"{each}; {_control(controls)} "
        "What a control gains does not come from the pairing of sound and response. Ridge regression then says how well each "
        "layer of each model predicts each region on a test story. "
        "Neither the models nor the ridges are fitted on that story. Its repeats chose the voxels that the models were tuned on: "
        f"those with a significant noise ceiling above {ceiling:g}."
        f"{_OTHER_WORLDS[late_follows]}"
    )


def alice_lead(
    *, listeners: int, left_out: Collection[str], words: int, model: str | None, epochs: int, controls: int, scans: int
) -> str:
    """What was done with the Alice data.

    Parameters
    ----------
    listeners : int
        Who were averaged.
    left_out : collection of str
        Files that are not data.
    words : int
        Of the chapter.
    model : str or None
        Which was tuned; None: the one of the package.
    epochs, controls : int
        Of tuning.
    scans : int
        At the end, that are scored.
    """
    return (
        f"The responses of {listeners} listeners in six regions, detrended, z-scored and averaged; left out because "
        f"the file is not data: {', '.join(left_out) or 'nobody'}. The recording is not part of the data set: the chapter's "
        f"{words} words are spoken by a synthesizer at their real times, so prosody and the speaker's voice are missing. "
        f"{_named(model)} is tuned on the first part of the chapter for {epochs} epochs; {_control(controls)} "
        f"Ridge regression scores every layer on the last {scans} scans."
    )


def _named(model: str | None) -> str:
    return f"The model {model}" if model else _SHIPPED


def _control(controls: int) -> str:
    """How the control was made and is shown."""
    if controls == 1:
        return "a control is tuned as long on the same responses, block-permuted."
    return (
        f"{controls} controls are tuned as long on the same responses, each block-permuted in another order. What is said and "
        "drawn of the control is the mean over them; seeds.csv has each. Intervals of this "
        "mean resample scans and do not speak for other permutations."
    )
