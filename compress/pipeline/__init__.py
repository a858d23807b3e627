"""The stages on files, and the whole run: what the command line calls."""

from compress.pipeline.evaluation import examine_in, examine_model, score_in, score_model
from compress.pipeline.guessing import guess_task
from compress.pipeline.inspecting import inspect_model
from compress.pipeline.labelling import label_unlabelled
from compress.pipeline.models import open_any, open_model
from compress.pipeline.preparing.estimate import announce_stages
from compress.pipeline.run import run_recipe
from compress.pipeline.stages.budgeted_scan import run_budgeted_scan
from compress.pipeline.stages.finetune import run_finetune
from compress.pipeline.stages.int8_scan import run_int8_scan
from compress.pipeline.stages.prune import run_prune
from compress.pipeline.stages.quantize import run_quantize
from compress.pipeline.stages.reconstruct import run_reconstruct
from compress.pipeline.stages.replace import run_replace
from compress.pipeline.stages.scan import run_sensitivity
from compress.pipeline.stages.stored_plan import run_plan
from compress.pipeline.state import with_stages
from compress.pipeline.tasks import make_task
from compress.pipeline.worst_cases import score_with_pictures

__all__ = [
    "announce_stages",
    "examine_in",
    "examine_model",
    "guess_task",
    "inspect_model",
    "label_unlabelled",
    "make_task",
    "open_any",
    "open_model",
    "run_budgeted_scan",
    "run_finetune",
    "run_int8_scan",
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
    "with_stages",
]
