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
        The model that others are compared with, in quotation marks where it is one.
    level : bool
        Whether a model of one layer is drawn as a level line.
    depths : tuple of str
        The thirds of the layers that have panels of their own.
    seeds : int
        Seeds in the table.
    unit : str
        What intervals of probes resample, where the table says it.
    """

    n: int
    bands: str
    first: str
    level: bool
    depths: tuple[str, ...] = ()
    seeds: int = 1
    unit: str = ""

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
    def thick(self) -> str:
        lines = f"Thick lines: mean over {self.people}, where a model belongs to one. Thin lines: each of them. "
        return lines if self.n > 1 else ""

    @property
    def probe_bands(self) -> str:
        """Of probes and of hours: intervals of the mean, or, wider, the mean of participants' intervals."""
        if self.bands != "drawn":
            return self.intervals("") if self.bands else ""
        of = f", from resampling {self.unit} of the test split" if self.unit else ""
        several = (
            "; of a mean, the average of participants' intervals, which is at least as wide as its own" if self.n > 1 else ""
        )
        return f"Bands: 95 % intervals{of}{several}. "

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
# Heading and caption of each figure, in the order of the page.
CAPTIONS: dict[str, tuple[str, Callable[[Drawn], str]]] = {
    "findings": (
        "All expectations in one figure",
        lambda drawn: (
            "One row for each expectation: what was measured and its 95 % interval. The shape of the marker is the answer, which "
            "stands at the right in words: a filled circle is yes, a filled cross no, an open diamond undecided. Small open "
            "squares and dotted lines are the same number of the control. Where an expectation names a side or a margin, the "
            "interval must lie in the shaded part. Scores of responses and scores of probes have axes of their own."
        ),
    ),
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
    "participants": (
        "Differences in each participant",
        lambda drawn: (
            f"As above, one panel for each region and participant; {drawn.people}. Vertical: each model's r minus the r of "
            f"{drawn.first} at the same layer. All panels share one axis. {drawn.level_line}"
            f"{drawn.intervals('one participant’s difference')}An interval does not speak for other participants; how alike the "
            "panels are does."
        ),
    ),
    "differences": (
        "Differences between models",
        lambda drawn: (
            f"Each model's r minus the r of {drawn.first} at the same layer: above zero, the model predicts better than that "
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
    "probes": (
        "What each layer knows: probes",
        lambda drawn: (
            "One linear map for each task, model and layer, fitted on the training split and scored on the test split. Vertical: "
            f"its score, named at the axis of each task. Horizontal: layer. {drawn.thick}{drawn.probe_bands}Dashed: the "
            "baseline, which knows the frequencies of the labels or their mean, and no sound. Dotted, where it was asked for: "
            "the same probe with shuffled labels, whose score is what the probe itself can learn by heart. "
            f"{drawn.level_line}Panels have axes of their own."
        ),
    ),
    "change": (
        "How much each layer changed",
        lambda drawn: (
            f"One panel for each measure. {drawn.thick}{drawn.level_line}CKA and CCA compare a layer's features with the same "
            "layer of the pretrained model on the same sounds. CKA is 1 where they are alike up to a rotation and a scale, "
            "CCA where they are alike up to any linear map. Weight change is of the layer's own weights. Dimensions say along "
            "how many directions features vary. There are no intervals. An axis is logarithmic where values are "
            "of very different size."
        ),
    ),
    "mlp": (
        "A network beside the ridge",
        lambda drawn: (
            f"{drawn.people}. Vertical: r of a network with a hidden layer minus r of ridge, on the same features, folds and "
            f"held-out scans. {drawn.intervals('the difference, paired')}Above zero, the features hold something that a linear "
            "map misses. How many settings of the network were tried is in the table."
        ),
    ),
    "scaling": (
        "More hours of data",
        lambda drawn: (
            "Vertical: correlation with held-out responses, mean over late layers and voxels of the region. Horizontal: "
            f"hours of data that a model was tuned on, those that were heard. {drawn.thick}{drawn.probe_bands}"
            f"A level line is a model without such hours, or with one number of them. {LEVELS}"
        ),
    ),
    "seeds": (
        "How much chance in training matters",
        lambda drawn: (
            f"Each line is one seed of one model, mean over {drawn.people}; {drawn.seeds} seeds. Where lines of one model lie "
            "further apart than the gap between two models, the gap may be chance. The figures above show the mean over seeds."
        ),
    ),
    "training": (
        "How tuning went",
        lambda drawn: (
            f"{drawn.people}. Loss: squared error per voxel on the clips tuned on (dotted) and on validation clips "
            "(solid). Right of it: correlation of the tuned model's own predictions on validation clips, mean over voxels. "
            "Validation clips are never tuned on."
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
    "findings": (
        "Every expectation",
        "Value, with its 95 % interval, is the contrast of the models over layers and region that the columns name. Unit is what "
        "intervals resample and tests count; speakers with unlike numbers of recordings count as fewer, as many as would tell as "
        "much with equal numbers. The smallest p is what so many units can reach at all. Holm: p adjusted for all "
        "expectations of the family.",
    ),
    "probes": (
        "Every probe",
        "Score of a linear map on held-out rows, its 95 % interval from resampling units of the test split, beside the baseline "
        "and the control with shuffled labels, where it was asked for. Selectivity is score less control. The penalty is chosen "
        "on held-out units of the training split.",
    ),
    "change": ("Every measure of change", "Measures as in the figure. The participant is empty where a model belongs to none."),
    "mlp": (
        "Every network",
        "r of ridge and of a network with a hidden layer on the same held-out scans, and their difference with its paired 95 % "
        "interval.",
    ),
    "scaling": ("Every number of hours", "r by hours of data that were heard, with 95 % intervals."),
    "seeds": (
        "Every seed",
        "What other tables show as the mean over seeds, of one seed at a time. The region is empty for probes.",
    ),
}
