"""The stages on files, and the whole run: what the command line calls."""

from compress.pipeline.guessing import guess_task
from compress.pipeline.inputs import (
    examine_in,
    examine_model,
    make_task,
    open_any,
    open_model,
    score_in,
    score_model,
)
from compress.pipeline.inspecting import inspect_model
from compress.pipeline.labelling import label_unlabelled
from compress.pipeline.pictures import score_with_pictures
from compress.pipeline.planned import run_plan
from compress.pipeline.reconstructing import run_reconstruct
from compress.pipeline.replacing import run_replace
from compress.pipeline.run import run_recipe
from compress.pipeline.stages import run_prune, run_sensitivity
from compress.pipeline.training import run_finetune, run_quantize

__all__ = [
    "examine_in",
    "examine_model",
    "guess_task",
    "inspect_model",
    "label_unlabelled",
    "make_task",
    "open_any",
    "open_model",
    "run_finetune",
    "run_plan",
    "run_prune",
    "run_quantize",
    "run_recipe",
    "run_reconstruct",
    "run_replace",
    "run_sensitivity",
    "score_in",
    "score_model",
    "score_with_pictures",
]
