"""What to try next, by a run's report."""

from compress.artifacts import Report

INT8_LOSS = 0.02
"""What int8 may cost, of the metric, before it is said what helps."""
FLOAT_STAGES = ("finetuned", "reconstructed", "pruned", "replaced", "canonical", "baseline")
"""Stages of float files, the last one first: what is quantised is the first of these that a run has."""


def int8_advice(report: Report, setting: str) -> str:
    """What to try where the int8 file loses much that the float file has; empty where it does not, or where it was
    tried.

    Args:
        report: of a run.
        setting: what the user types to leave layers in float.
    """
    scores = {stage.stage: stage.score for stage in report.stages}
    before = next((scores[name] for name in FLOAT_STAGES if name in scores), None)
    if "int8" not in scores or before is None or report.quant_sensitivity is not None:
        return ""
    loss = before.metric - scores["int8"].metric
    if loss <= INT8_LOSS:
        return ""
    return (
        f"Of {before.name}, int8 alone costs {loss:.4f}. {setting} leaves the layers that cost most in float, within a "
        "tenth of the multiply-adds; what was done before is kept."
    )
