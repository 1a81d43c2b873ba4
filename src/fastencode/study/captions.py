"""What the page says beside its figures and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["CAPTIONS", "CEILINGS", "DETAILS", "Drawn"]


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
    """

    n: int
    bands: str
    first: str
    level: bool

    @property
    def people(self) -> str:
        return f"n = {self.n} participant{'s' if self.n > 1 else ''}"

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
        "survives a false discovery rate of 5 %.",
    ),
    "means": (
        "Means over participants",
        "The mean over participants of r, or of the difference to the model named under “minus”, with its 95 % interval for "
        "these participants, from resampling blocks of the scans that are scored.",
    ),
    "contrasts": (
        "Differences of each participant",
        "r of the model less r of the model named under “minus”, at the same layer, with its paired 95 % interval.",
    ),
    "tests": (
        "Tests over participants",
        "Two-sided signed-rank tests of r against 0 and of the differences between models. The smallest p is what so many "
        "participants can reach at all. q is p adjusted for the false discovery rate over all layers and regions of a model.",
    ),
    "partition": (
        "What is unique to each",
        "R² on the scans that are scored, averaged over the region's voxels: in total, what is unique to the layer and to each "
        "low-level feature, and what they share. Unique is what is lost when only that one is left out.",
    ),
}
