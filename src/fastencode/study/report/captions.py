"""Headings and captions of the page's figures and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastencode.study.columns import MEAN

__all__ = ["CAPTIONS", "CEILINGS", "DETAILS", "Drawn", "sample"]


class Drawn(NamedTuple):
    """Properties of a figure's data that its caption depends on.

    Attributes
    ----------
    n : int
        Participants.
    bands : {"drawn", "crowded", ""}
        Intervals are drawn; are left out because there are too many models; or do not exist.
    first : str
        Label of the model that others are compared with, in quotation marks if it is one model.
    level : bool
        Whether a model with one layer is drawn as a horizontal line.
    depths : tuple of str
        Thirds of the layers with panels of their own.
    seeds : int
        Number of seeds in the table.
    unit : str
        Units that intervals of probes resample, if known.
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
            return "There are no intervals, because there are too few scored scans. "
        if self.bands == "crowded":
            return "With so many models, bands would hide each other: the 95 % intervals are in the tables below. "
        return f"Bands: 95 % intervals of {of}, from a block bootstrap over the scored scans. "

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
        """The bands of probes and of hours: intervals of the mean, or the mean of participants' intervals, which is wider."""
        if self.bands != "drawn":
            return self.intervals("") if self.bands else ""
        of = f", from resampling {self.unit} of the test split" if self.unit else ""
        several = (
            "; of a mean, the average of participants' intervals, which is at least as wide as its own" if self.n > 1 else ""
        )
        return f"Bands: 95 % intervals{of}{several}. "

    @property
    def level_line(self) -> str:
        return "A horizontal line is a model with one layer, such as a low-level feature. " if self.level else ""


def sample(participants: int, stories: int = 0) -> str:
    """The number of participants and stories of a table, before its description; "" if both are 0."""
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
    return f"mean over the {words} layers of each model, in separate panels, or its only layer"


# What stands under the scores where ceilings are known.
CEILINGS = (
    "The noise ceiling of a voxel is the largest correlation that any prediction can reach with its mean response to the "
    "repeats of the test story, given how much these differ. The tables show the mean over the region's voxels whose ceiling "
    "is above 0. A ceiling is an estimate that is never below 0. In a region that does not respond to the stimulus, the "
    "estimates of some voxels are above 0 by chance, so the mean is above 0 although the true ceiling is 0. "
    "In scores.csv and in the table of every score, r / ceiling is mean r divided by mean ceiling, both over those voxels. "
    "It is not the ratio of the columns beside it, because r is over all voxels of the region. It is meaningless in a region "
    "that does not respond to the stimulus."
)
SCORE = "correlation between predicted and measured responses on held-out data, mean over the region's voxels"
LEVELS = "All panels span the same range of r, each at its own level: compare shapes and gaps, and read levels from the axis."
# Heading and caption of each figure, in the order of the page.
CAPTIONS: dict[str, tuple[str, Callable[[Drawn], str]]] = {
    "findings": (
        "All expectations in one figure",
        lambda drawn: (
            "One row for each expectation: the measured value and its 95 % interval. The marker shape is the answer, which "
            "is also written on the right: filled circle, yes; filled cross, no; open diamond, undecided. Small open squares "
            "and dotted lines: the same for the control. Shaded: where the whole interval must lie for a yes. Encoding models "
            "and probes have separate axes."
        ),
    ),
    "picture": (
        "The result at a glance",
        lambda drawn: (
            f"Vertical: {SCORE}. Horizontal: layer of the speech model; 0 is the input of the transformer. {drawn.each}{LEVELS}"
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
            f"{drawn.intervals('one participant’s difference')}An interval does not generalise to other participants; the "
            "similarity of the panels shows how much participants differ."
        ),
    ),
    "differences": (
        "Differences between models",
        lambda drawn: (
            f"Each model's r minus the r of {drawn.first} at the same layer: above zero, the model predicts better than that "
            f"one. All panels share one axis. {drawn.each}Intervals are paired: both models are scored on the same blocks. With "
            "many layers and regions, some intervals exclude zero by chance."
        ),
    ),
    "lags": (
        "One lag at a time",
        lambda drawn: (
            "Each ridge uses features at a single lag: of the sound that many TRs before the response. "
            f"Vertical: {SCORE}, and {_panels_of_lags(drawn)}. Horizontal: the lag. {drawn.each}Features change little from one "
            "TR to the next, so neighboring lags score alike and are not independent findings. Panels of a region share their "
            f"axis. {LEVELS}"
        ),
    ),
    "probes": (
        "What each layer encodes: probes",
        lambda drawn: (
            "One linear map for each task, model and layer, fitted on the training split and scored on the test split. Vertical: "
            f"its score, named at the axis of each task. Horizontal: layer. {drawn.thick}{drawn.probe_bands}Dashed: the "
            "baseline without features: the most frequent class, or the mean. Dotted, if there is a control: "
            "a probe on shuffled labels, whose score shows how much the probe can memorise. "
            f"{drawn.level_line}Panels have separate axes."
        ),
    ),
    "change": (
        "How much each layer changed",
        lambda drawn: (
            f"One panel for each measure. {drawn.thick}{drawn.level_line}CKA and CCA compare a layer's features with the same "
            "layer of the pretrained model on the same sounds. CKA is 1 if they are equal up to rotation and scale, CCA if they "
            "are equal up to an invertible linear map. Weight change: relative change of the layer's weights. Dimension: the "
            "number of directions along which features vary. There are no intervals. Axes are logarithmic if values "
            "differ by orders of magnitude."
        ),
    ),
    "mlp": (
        "A network beside the ridge",
        lambda drawn: (
            f"{drawn.people}. Vertical: r of a network with a hidden layer minus r of ridge, on the same features, folds and "
            f"held-out scans. {drawn.intervals('the difference, paired')}Above zero, the network predicts better than ridge. "
            "The table shows how many settings of the network were tried."
        ),
    ),
    "scaling": (
        "More hours of data",
        lambda drawn: (
            "Vertical: correlation with held-out responses, mean over late layers and voxels of the region. Horizontal: "
            f"hours of data that a model was tuned on, as heard. {drawn.thick}{drawn.probe_bands}"
            f"A horizontal line is a model without hours, or with a single number of hours. {LEVELS}"
        ),
    ),
    "seeds": (
        "How much chance in training matters",
        lambda drawn: (
            f"Each line is one seed of one model, mean over {drawn.people}; {drawn.seeds} seeds. If the lines of one model lie "
            "further apart than those of two models, the difference between the models may be chance. Other figures show "
            "means over seeds."
        ),
    ),
    "training": (
        "Course of tuning",
        lambda drawn: (
            f"{drawn.people}. Loss: squared error per voxel on the clips tuned on (dotted) and on validation clips "
            "(solid). To its right: correlation of the tuned model's own predictions on validation clips, mean over voxels. "
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
        "Variance partitioning",
        "R² on the scans that are scored, averaged over the region's voxels: in total, what is unique to the layer and to each "
        "low-level feature, and what they share. Unique variance is what is lost if only this one is left out. "
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
