"""The stage that solves a pruned network's weights anew, without labels (see `compress.prune.reconstruct`)."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnx
import torch

from compress.artifacts import PruningPlan, fingerprint, lock
from compress.compute.memory import catch_out_of_memory
from compress.graph import save_model, to_onnx, to_torch
from compress.pipeline.evaluation import check_fits, default_threads, score_model
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.models import as_graph_module, model_identity
from compress.pipeline.stages.stored_plan import kept_by_plan
from compress.pipeline.state import Run, Stage
from compress.pipeline.training_images import fitting_batches
from compress.prune.reconstruct import WIDEST, left_out, reconstruct
from compress.recipe import ReconstructStep
from compress.tasks.base import Task


@dataclass(frozen=True)
class Reconstructed:
    """What reconstruction brought."""

    notes: tuple[str, ...]


def run_reconstruct(
    original: onnx.ModelProto,
    pruned: onnx.ModelProto,
    plan: PruningPlan,
    task: Task,
    out_file: Path,
    step: ReconstructStep,
    execution: Execution = HERE,
) -> Reconstructed:
    """Solve the pruned network's weights so that its layers compute what the original's did, and write the result.

    Images are drawn from the training data; no label is looked at. Where the result scores worse on the
    validation data than the pruned network did, that one is written as it is, and a note says so.

    Args:
        original: what was pruned, in canonical form.
        pruned: what the plan made of it.
        plan: which channels went.
        task: images and metric.
        out_file: the .onnx file to write.
        step: how many images, rows and how firm a ridge.
        execution: its seed is of what is drawn, its device computes layers and solves.

    Raises:
        DataError: there are no images to train on, or the model does not fit the task.
        ModelError: the two models differ in more than the plan's channels.
        OutputError: another process is writing the file.
    """
    check_fits(original, task)
    threads, device = execution.threads, execution.device
    torch.set_num_threads(threads or default_threads())
    with lock(out_file):
        before, after = to_torch(original), to_torch(pruned)
        kept = kept_by_plan(original, plan, task.input_shape)
        images = list(fitting_batches(before, task, step.images))
        with catch_out_of_memory("reconstruct", f"Try images: {max(1, sum(map(len, images)) // 2)}, or --device cpu."):
            solved = reconstruct(
                before.to(device),
                after.to(device),
                kept,
                images,
                positions=step.positions,
                ridge=step.ridge,
                seed=execution.seed,
                on_progress=execution.on_progress,
            )
        made = to_onnx(as_graph_module(after), pruned)
        scores = [score_model(model, task, threads) for model in (pruned, made)]
        better = scores[1].metric >= scores[0].metric  # a metric of 0 may well stay there, and training starts nearer
        save_model(made if better else pruned, out_file)
    errors = [median(values) for values in zip(*((one.before, one.after) for one in solved), strict=True)]
    what = f"{task.metric_name} {scores[0].metric:.4f} -> {scores[1].metric:.4f} on the validation data"
    if not better:
        return Reconstructed((f"reconstruction did not help ({what}) and was left out",))
    count = sum(len(batch) for batch in images)
    wide = left_out(after)
    skipped = [f"left as they were, as their inputs are more than {WIDEST}: {', '.join(wide)}"] if wide else []
    return Reconstructed(
        (
            f"reconstructed {len({one.name for one in solved})} layers on {count} images without labels: {what}; "
            f"a layer's median squared error {errors[0]:.3g} -> {errors[1]:.3g} of its output's square",
            *skipped,
        )
    )


@dataclass(frozen=True)
class Reconstruction(Stage):
    """The stage of a run: `pruned` with the weights that bring it nearest to `original`."""

    run: Run
    original: onnx.ModelProto
    pruned: onnx.ModelProto
    plan: PruningPlan
    step: ReconstructStep

    name = "reconstructed"

    def identity(self) -> str:
        run, models = self.run, (self.original, self.pruned)
        return fingerprint(
            *map(model_identity, models), run.task.fingerprint(), self.step.model_dump(), run.recipe.seed
        )

    def compute(self, file: Path) -> Reconstructed:
        run = self.run
        return run_reconstruct(
            self.original,
            self.pruned,
            self.plan,
            run.task,
            file,
            self.step,
            run.execution(),
        )
