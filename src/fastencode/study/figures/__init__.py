"""Figures of a study, one file for each kind.

Figures are drawn from tidy tables and write no files. A model has the same color and marker in all figures
(``study/conditions.py``). Solid lines: held-out data. Dashed lines: noise ceilings and baselines. Dotted lines: training data and
controls.
"""

from fastencode.study.figures.base import PANELS, crowded, png, svg
from fastencode.study.figures.change import change_figure
from fastencode.study.figures.differences import differences_figure, mlp_figure, participants_figure
from fastencode.study.figures.findings import findings_figure
from fastencode.study.figures.lags import depths, lags_figure
from fastencode.study.figures.layers import layers_figure, picture
from fastencode.study.figures.probes import probes_figure
from fastencode.study.figures.scaling import scaling_figure, seeds_figure
from fastencode.study.figures.surface import fsaverage, surface_figure
from fastencode.study.figures.training import training_figure

__all__ = [
    "PANELS",
    "change_figure",
    "crowded",
    "depths",
    "differences_figure",
    "findings_figure",
    "fsaverage",
    "lags_figure",
    "layers_figure",
    "mlp_figure",
    "participants_figure",
    "picture",
    "png",
    "probes_figure",
    "scaling_figure",
    "seeds_figure",
    "surface_figure",
    "svg",
    "training_figure",
]
