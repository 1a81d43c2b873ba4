"""What the page says beside its figures and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastencode.study.columns import MEAN

__all__ = ["CAPTIONS", "CEILINGS", "DETAILS", "Drawn", "sample"]


class Drawn(NamedTuple):
    """What captions depend on.

    Attributes
    ----------
    n : int
        Participants.
    bands : {"drawn", "crowded", ""}
        Intervals are drawn; there are too many models for that; there are none.
    first : str
        The model that others are compared with.
    level : bool
        Whether a model of one layer is drawn as a level line.
    depths : tuple of str
        The thirds of the layers that have panels of their own.
    """

    n: int
    bands: str
    first: str
    level: bool
    depths: tuple[str, ...] = ()

    @property
    def people(self) -> str:
        return _people(self.n)

    def intervals(self, of: str) -> str:
        if not self.bands:
            return "There are no intervals: the scans that are scored are too few for them. "
        if self.bands == "crowded":
            return "Bands of so many models would hide each other: the 95 % intervals are in the tables below. "
        return f"Bands: 95 % intervals of {of}, from resampling blocks of the scans that are scored. "

    @property
    def each(self) -> str:
        of = self.intervals("the mean over these participants" if self.n > 1 else "r")
        lines = f"Thick lines: mean over {self.people}. Thin lines: each of them. " if self.n > 1 else f"{self.people}. "
        return lines + of + self.level_line

    @property
    def level_line(self) -> str:
        return "A level line is a model of one layer, such as a low-level feature. " if self.level else ""


def sample(participants: int, stories: int = 0) -> str:
    """How many participants and stories a table is of, before what it holds; 0 where its rows say that themselves."""
    if not participants:
        return ""
    heard = f", {stories} stor{'y' if stories == 1 else 'ies'}" if stories else ""
    return f"{_people(participants)}{heard}. "


def _people(n: int) -> str:
    return f"n = {n} participant{'s' if n > 1 else ''}"


def _panels_of_lags(drawn: Drawn) -> str:
    if not drawn.depths:
        return "mean over the layers of each model"
    words = " and ".join([", ".join(drawn.depths[:-1]), drawn.depths[-1]])
    return f"mean over the {words} layers of each model, which have panels of their own, or its only layer"


# What stands under the scores where ceilings are known.
CEILINGS = (
    "The noise ceiling of a voxel is the largest correlation that any prediction could reach with the mean over the test "
    "story's repeats, given how much these differ. The tables show its mean over those of the region's voxels whose ceiling "
    "is above 0. A ceiling is an estimate that is never below 0. In a region that follows nothing, chance lifts the "
    "estimates of some voxels above 0 and cannot take others below, so the mean is above 0 although the true ceiling is 0. "
    "In scores.csv and in the table of every score, r / ceiling is mean r divided by mean ceiling, both over those voxels. "
    "It is not the ratio of the columns beside it, because r counts all voxels of the region, and it means nothing where "
    "the region follows nothing."
)
SCORE = "correlation between predicted and measured responses on held-out data, mean over the region's voxels"
LEVELS = "Panels have the same height in r at different levels, so compare shapes and gaps, and read levels off the axis."
# Heading and caption of each figure.
CAPTIONS: dict[str, tuple[str, Callable[[Drawn], str]]] = {
    "picture": (
        "The result at a glance",
        lambda drawn: (
            f"Vertical: {SCORE}. Horizontal: layer of the speech model that predicts; 0 is what the transformer receives. "
            f"{drawn.each}{LEVELS}"
        ),
    ),
    "layers": (
        "Every layer and region",
        lambda drawn: (
            f"One panel per {'region and participant' if drawn.n > 1 else 'region'}; {drawn.people}. Vertical: {SCORE}. "
            f"{drawn.intervals('r of one participant')}The models are scored on the same data, so overlapping bands do not mean "
            "that two models are alike: their differences have intervals of their own. Dashed: the region's mean "
            "noise ceiling where it is known, above 0 by chance in a region that follows nothing (see Scores); where it lies far "
            f"above the curves, its value is written at the upper edge. {drawn.level_line}{LEVELS}"
        ),
    ),
    "change": (
        "Differences between models",
        lambda drawn: (
            f"Each model's r minus the r of “{drawn.first}” at the same layer: above zero, the model predicts better than that "
            f"one. All panels share one axis. {drawn.each}Intervals are paired: both models are scored on the same blocks. With "
            "many layers and regions, some intervals leave zero out by chance."
        ),
    ),
    "lags": (
        "One lag at a time",
        lambda drawn: (
            "Each ridge sees features of one lag only: of the sound that came so many TRs before the response. "
            f"Vertical: {SCORE}, and {_panels_of_lags(drawn)}. Horizontal: the lag. {drawn.each}Features change little from one "
            "TR to the next, so neighboring lags score alike and are not independent findings. Panels of one region share their "
            f"axis. {LEVELS}"
        ),
    ),
    "training": (
        "How tuning went",
        lambda drawn: (
            f"{drawn.people}. Left: squared error per voxel on the clips tuned on (dotted) and on validation clips (solid). "
            "Right: correlation of the tuned model's own predictions on validation clips, mean over voxels. Validation clips are "
            "never tuned on."
        ),
    ),
}
# Heading of each table, and what its columns are.
DETAILS = {
    "scores": (
        "Every score",
        "r is the mean over the region's voxels; the region “all” is every voxel that was scored. r / ceiling is explained "
        "above. α is the ridge penalty each voxel chose; the last column is the share of voxels that chose the smallest or "
        "largest on offer. Significant voxels: the share of the region's voxels whose p-value, from permuting blocks of scans, "
        "survives a false discovery rate of 5 %. The 95 % intervals resample blocks of the scans that are scored: each says how "
        "sure the number is in view of so many scans of this participant, and does not speak for other stories or participants.",
    ),
    "means": (
        "Means over participants",
        "The mean over participants of r, or of the difference to the model named under “minus”, with its 95 % interval for "
        "these participants, from resampling blocks of the scans that are scored.",
    ),
    "contrasts": (
        "Differences of each participant",
        "r of the model less r of the model named under “minus”, at the same layer. The 95 % interval is paired: both are scored "
        "on the same resampled blocks of scans. It does not speak for other stories or participants.",
    ),
    "tests": (
        "Tests over participants",
        "Two-sided signed-rank tests of r against 0 and of the differences between models. The smallest p is what so many "
        "participants can reach at all. q is p adjusted for the false discovery rate over all layers and regions of a model.",
    ),
    "partition": (
        "What is unique to each",
        "R² on the scans that are scored, averaged over the region's voxels: in total, what is unique to the layer and to each "
        "low-level feature, and what they share. Unique is what is lost when only that one is left out. "
        "There are no intervals.",
    ),
    "lags": (
        "Each lag by itself",
        "r of ridges that see features of one lag only, mean over the region's voxels and over the layers named: all that were "
        "fitted at every lag, and the early, middle and late thirds of them. Participants who lack one of these layers at some "
        f"lag are left out. The participant “{MEAN}” is the mean over participants. The 95 % intervals resample blocks of the "
        "scans that are scored, and do not speak for other stories or participants.",
    ),
    "test_stories": (
        "Each test story by itself",
        "What “Every score” holds of all test stories together, of one at a time. The ridges are the same. The 95 % intervals "
        "resample blocks of that story's scans: each says how sure the number is in view of so many scans of this story and "
        "participant, and does not speak for other stories or participants. A dash stands for the noise ceiling of a story that "
        "was heard once.",
    ),
    "leave_one_out": (
        "Stories left out one by one",
        "r on each story of those that are fitted on, predicted by a ridge on all others, which choose its penalties too. Voxels "
        f"are those that the test stories chose. The story “{MEAN}” is the mean over stories, each counting as much, beside the "
        "standard deviation of r over stories. There is no 95 % interval: what one ridge is scored on, the others are fitted on, "
        "so the standard deviation divided by the root of the number of stories is not a standard error. There is no "
        "noise ceiling, because the repeats of these stories are not read.",
    ),
}
