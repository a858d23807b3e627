"""The command that solves a pruned model's weights anew."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.cli import options
from compress.cli.progress import progress, say
from compress.cli.spreading import Keys, spread
from compress.cli.tasks import FittedTaskOptions, Lists, TrainingOptions, make_task
from compress.recipe import ReconstructStep


@dataclass(frozen=True)
class PrunedSource:
    """A pruned model, and what it was made of."""

    model: Annotated[Path, typer.Argument(help="the pruned .onnx file.", metavar="PRUNED")]
    original: Annotated[str, typer.Option(help="the model that was pruned.", metavar="MODEL", show_default=False)]
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="the plan that it was pruned by; default plan.json beside it.", metavar="FILE"),
    ] = None
    weights: options.Weights = None


@spread
def reconstruct(
    source: PrunedSource,
    lists: Lists,
    out: Annotated[Path, typer.Option(help="the .onnx file to write.", metavar="FILE")],
    *,
    step: Annotated[ReconstructStep, Keys()],
    settings: FittedTaskOptions,
    training: TrainingOptions,
) -> None:
    """Solve the weights that pruning left, so that its layers compute what they did: no training, no labels.

    Each layer's weights are the least-squares solution on a few training images: inputs as the pruned model computes
    them, targets as the original did. Labels only score the result. Where it scores worse, it is left out.

    \b
    Example:
      compress reconstruct runs/pruned.onnx --original model.onnx --train train/labels.txt \\
          --data val/labels.txt --out runs/reconstructed.onnx
    """
    options.check_out(out, source.model, source.original)
    plan_file = source.plan_file or source.model.with_name("plan.json")
    plan = artifacts.load(PruningPlan, plan_file)
    from compress import pipeline
    from compress.pipeline.models import model_identity
    from compress.pipeline.stages.stored_plan import check_plan

    execution = training.execution()
    task = make_task(settings, lists.train, lists.data, model=str(source.model), command="reconstruct")
    whole = pipeline.open_model(source.original, source.weights, task.input_shape, say)
    check_plan(plan, plan_file, model_identity(whole))
    pruned = pipeline.open_model(str(source.model), None, task.input_shape, say)
    with progress("Nothing is kept: the same command starts anew.") as on_progress:
        execution = replace(execution, on_progress=on_progress)
        done = pipeline.run_reconstruct(whole, pruned, plan, task, out, step, execution)
    typer.echo(f"{'. '.join(done.notes)}. Written: {out}")
