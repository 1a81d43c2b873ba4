"""Tables of the page: required columns of each with their headings, and the columns that identify a row."""

from __future__ import annotations

__all__ = ["BESIDE", "MEAN", "NAMES", "TABLES", "TEXTS", "WORDS"]

MEAN = "mean"  # in the column participant or story: the mean over participants or stories

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
PROBES = {
    "task": "task",
    "metric": "metric",
    "model": "model",
    "participant": "participant",
    "layer": "layer",
    "score": "score",
    "low": "95 % low",
    "high": "95 % high",
    "baseline": "baseline",
    "control": "shuffled labels",
    "selectivity": "selectivity",
    "n_train": "training rows",
    "n_test": "test rows",
    "n_units": "units",
    "unit": "unit",
    "penalty": "penalty",
    "at_edge": "penalty at grid edge",
}
CHANGE = {"participant": "participant", "model": "model", "layer": "layer", "measure": "measure", "value": "value"}
FINDINGS = {
    "name": "name",
    "statement": "expectation",
    "answer": "held",
    "measure": "measure",
    "region": "region",
    "layers": "layers",
    "models": "models",
    "value": "value",
    "low": "95 % low",
    "high": "95 % high",
    "unit": "unit",
    "n_units": "units",
    "p": "p",
    "p_smallest": "smallest p",
    "p_holm": "p, Holm",
    "family": "family",
    "control_value": "control",
    "control_low": "95 % low",
    "control_high": "95 % high",
    "reason": "reason",
}
SEEDS = {
    "measure": "measure",
    "participant": "participant",
    "model": "model",
    "seed": "seed",
    "layer": "layer",
    "region": "region",
    "value": "value",
    "low": "95 % low",
    "high": "95 % high",
}
SCALING = {
    "model": "model",
    "participant": "participant",
    "region": "region",
    "hours": "hours",
    "r": "r",
    "low": "95 % low",
    "high": "95 % high",
}
MLP = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "r_ridge": "r of ridge",
    "r_mlp": "r of the network",
    "difference": "difference",
    "low": "95 % low",
    "high": "95 % high",
    "settings": "settings tried",
}
DIAGNOSTICS = {
    "participant": "participant",
    "model": "model",
    "finding": "finding",
    "evidence": "evidence",
    "advice": "advice",
}
WARNINGS = {"warning": "warning"}
# Optional columns, and the column that each comes after.
BESIDE = {
    "model": {"delays": "delays (TRs)"},
    "r_normalized": {"r_normalized_low": "95 % low", "r_normalized_high": "95 % high", "significant": "significant voxels"},
    "answer": {"expect": "expected", "limit": "limit"},
    "finding": {"verdict": "verdict"},
}
# Table → its columns, and the columns that identify a row.
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
    "findings": (FINDINGS, ("name",)),
    "probes": (PROBES, ("task", "metric", "model", "participant", "layer")),
    "change": (CHANGE, ("participant", "model", "layer", "measure")),
    "mlp": (MLP, ("participant", "model", "layer", "region")),
    "scaling": (SCALING, ("model", "participant", "region", "hours")),
    "seeds": (SEEDS, ("measure", "participant", "model", "seed", "layer", "region")),
    "diagnostics": (DIAGNOSTICS, ("participant", "model", "finding")),
    "warnings": (WARNINGS, ("warning",)),
}
# Columns with names, and columns with sentences, which are shown unchanged and wrapped.
NAMES = (
    "participant", "model", "delays", "region", "versus", "part", "band", "test_story", "story", "depth", "layers", "task",
    "metric", "measure", "name", "models", "unit", "family", "answer", "expect", "verdict", "finding",
)  # fmt: skip
TEXTS = ("statement", "reason", "settings", "evidence", "advice", "warning")
WORDS = (*NAMES, *TEXTS)
