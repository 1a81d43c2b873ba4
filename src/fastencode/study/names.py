"""What tables call things, as people read it: regions, probe tasks, metrics, measures of change. Imports nothing."""

from __future__ import annotations

__all__ = ["ANSWERS", "MEASURES", "display_name", "measure_name", "metric_name", "shortened", "task_name"]

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
    "mlp": "r of a network less r of ridge",
    "mlp_beyond_linear": "r of a network less r without its nonlinearity",
}
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
# Answers of findings, with the sign that stands before each; "" where nothing was expected.
ANSWERS = {"yes": "✓ yes", "no": "✗ no", "undecided": "? undecided", "": "– no expectation"}


def display_name(name: object, longest: int = 0) -> str:
    """A region's or participant's name for people: underscores become spaces, and an overlong name ends with an ellipsis."""
    return shortened(" ".join(str(name).replace("_", " ").split()), longest)


def shortened(words: str, longest: int = 0) -> str:
    """Overlong words end with an ellipsis."""
    return words[: longest - 1].rstrip() + "…" if longest and len(words) > longest else words


def task_name(task: str) -> str:
    """A probe task for people; a task of labels, ``label:KIND``, is called by its kind."""
    return TASKS.get(task, display_name(task.removeprefix("label:")))


def metric_name(metric: str) -> str:
    """A metric of probes, or what a score of responses is, for people."""
    return METRICS.get(metric, display_name(metric))


def measure_name(measure: str) -> str:
    """A measure of change, a score of responses or a probe task for people: what the column ``measure`` may hold."""
    return MEASURES.get(measure) or METRICS.get(measure) or task_name(measure)
