"""Tables as the page knows them: the columns that each must have with their headings, and what tells its rows apart."""

from __future__ import annotations

__all__ = ["BESIDE", "MEAN", "TABLES", "WORDS"]

MEAN = "mean"  # stands for all participants, or for all stories, in tables that have rows of these and of their mean

# Columns that each table must have, and their headings on the page.
SCORES = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "n_voxels": "voxels",
    "ceiling": "noise ceiling",
    "r": "r",
    "r_low": "95 % low",
    "r_high": "95 % high",
    "r_normalized": "r / ceiling",
    "alpha_median": "median α",
    "at_edge": "α at grid edge",
}
MEANS = {
    "model": "model",
    "layer": "layer",
    "region": "region",
    "versus": "minus",
    "participants": "participants",
    "mean": "mean",
    "low": "95 % low",
    "high": "95 % high",
}
CONTRASTS = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "versus": "minus",
    "difference": "difference",
    "low": "95 % low",
    "high": "95 % high",
}
TRAINING = {
    "participant": "participant",
    "model": "model",
    "epoch": "epoch",
    "updates": "updates",
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "validation_r": "validation r",
    "seconds": "seconds",
}
TESTS = {
    "model": "model",
    "layer": "layer",
    "region": "region",
    "versus": "against",
    "participants": "participants",
    "mean": "mean",
    "standard_error": "standard error",
    "p": "p",
    "p_smallest": "smallest p",
    "q": "q",
}
PARTITION = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "part": "part",
    "band": "of",
    "r2": "R²",
}
TEST_STORIES = {"test_story": "test story", **SCORES}
LEAVE_ONE_OUT = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "n_voxels": "voxels",
    "story": "story left out",
    "rows": "scans",
    "r": "r",
    "standard_deviation": "standard deviation",
}
LAGS = {
    "participant": "participant",
    "model": "model",
    "lag": "lag (TRs)",
    "depth": "depth",
    "layers": "layers",
    "region": "region",
    "participants": "participants",
    "r": "r",
    "r_low": "95 % low",
    "r_high": "95 % high",
}
# Where they are there, these stand behind the column named.
BESIDE = {
    "model": {"delays": "delays (TRs)"},
    "r_normalized": {"r_normalized_low": "95 % low", "r_normalized_high": "95 % high", "significant": "significant voxels"},
}
# Of each table: its columns, and those that tell its rows apart.
TABLES = {
    "scores": (SCORES, ("participant", "model", "delays", "layer", "region")),
    "means": (MEANS, ("model", "delays", "layer", "region", "versus")),
    "contrasts": (CONTRASTS, ("participant", "model", "delays", "layer", "region")),
    "tests": (TESTS, ("model", "delays", "layer", "region", "versus")),
    "partition": (PARTITION, ("participant", "model", "delays", "layer", "region", "part", "band")),
    "lags": (LAGS, ("participant", "model", "lag", "depth", "region")),
    "test_stories": (TEST_STORIES, ("test_story", "participant", "model", "delays", "layer", "region")),
    "leave_one_out": (LEAVE_ONE_OUT, ("participant", "model", "delays", "layer", "region", "story")),
    "training": (TRAINING, ("participant", "model", "epoch")),
}
# Columns of text.
WORDS = ("participant", "model", "delays", "region", "versus", "part", "band", "test_story", "story", "depth", "layers")
