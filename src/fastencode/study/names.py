"""Display names of regions, probe tasks, metrics and measures. This module imports nothing."""

from __future__ import annotations

__all__ = ["ANSWERS", "BRAIN_MEASURES", "MEASURES", "display_name", "measure_name", "metric_name", "shortened", "task_name"]

TASKS = {
    "mfcc": "MFCC",
    "word": "word identity",
    "phonemes": "phonemes in an utterance",
    "phones": "phones, frame by frame",
    "sentence_type": "phonetic sentence type",
    "sx_si": "SX against SI sentences",
}
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "r2": "R²",
    "r": "correlation r",
    "r_normalized": "r / ceiling",
    "r_residual": "r without low-level features",
    "mlp": "r of a network − r of ridge",
    "mlp_beyond_linear": "r of a network − r of the same without activation function",
}
# Measures of encoding models; all other measures of contrasts are probe tasks.
BRAIN_MEASURES = ("r", "r_normalized", "r_residual", "mlp", "mlp_beyond_linear")
# Measures of change, in the order of their panels.
MEASURES = {
    "cka": "linear CKA to pretrained",
    "cka_debiased": "debiased CKA to pretrained",
    "cca": "cross-validated CCA to pretrained",
    "weight_change": "weight change ‖w − w₀‖ / ‖w₀‖",
    "gradient_norm": "gradient norm, over training",
    "participation_ratio": "dimension by participation ratio",
    "twonn": "dimension by TwoNN",
}
# Answers of findings, with a sign before each; "" for findings without expectation.
ANSWERS = {"yes": "✓ yes", "no": "✗ no", "undecided": "? undecided", "": "– no expectation"}


def display_name(name: object, longest: int = 0) -> str:
    """The display name of a region or participant: spaces instead of underscores, cut with an ellipsis if too long."""
    return shortened(" ".join(str(name).replace("_", " ").split()), longest)


def shortened(words: str, longest: int = 0) -> str:
    """Text, cut with an ellipsis if it is longer than ``longest`` characters; 0: never."""
    return words[: longest - 1].rstrip() + "…" if longest and len(words) > longest else words


def task_name(task: str) -> str:
    """The display name of a probe task; ``label:KIND`` becomes "KIND"."""
    return TASKS.get(task, display_name(task.removeprefix("label:")))


def metric_name(metric: str) -> str:
    """The display name of a metric of probes or of a measure of encoding models."""
    return METRICS.get(metric, display_name(metric))


def measure_name(measure: str) -> str:
    """The display name of anything in the column ``measure``: a measure of change or of encoding models, or a probe task."""
    return MEASURES.get(measure) or METRICS.get(measure) or task_name(measure)
