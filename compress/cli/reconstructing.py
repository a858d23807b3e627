"""The command that solves a pruned model's weights anew."""

from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import spread
from compress.cli.tasks import FittedTaskOptions, make_task
from compress.recipe import ReconstructStep


@spread
def reconstruct(
    model: Annotated[Path, typer.Argument(help="the pruned .onnx file.", metavar="PRUNED")],
    original: Annotated[str, typer.Option(help="the model that was pruned.", metavar="MODEL", show_default=False)],
    train: options.Train,
    data: options.Val,
    out: Annotated[Path, typer.Option(help="the .onnx file to write.", metavar="FILE")],
    *,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="the plan that it was pruned by; default plan.json beside it.", metavar="FILE"),
    ] = None,
    weights: options.Weights = None,
    images: Annotated[int | None, setting(ReconstructStep, "images")] = None,
    positions: Annotated[int | None, setting(ReconstructStep, "positions")] = None,
    ridge: Annotated[float | None, setting(ReconstructStep, "ridge")] = None,
    settings: FittedTaskOptions,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Solve the weights that pruning left, so that its layers compute what they did: no training, no labels.

    Each layer's weights are the least-squares solution on a few training images: inputs as the pruned model computes
    them, targets as the original did. Labels only score the result. Where it scores worse, it is left out.

    \b
    Example:
      compress reconstruct runs/pruned.onnx --original model.onnx --train train/labels.txt \\
          --data val/labels.txt --out runs/reconstructed.onnx
    """
    step = options.build(ReconstructStep, {"images": images, "positions": positions, "ridge": ridge})
    options.check_out(out, model, original)
    plan_file = plan_file or model.with_name("plan.json")
    plan = artifacts.load(PruningPlan, plan_file)
    from compress import pipeline
    from compress.compute.device import find_device
    from compress.pipeline.models import model_identity
    from compress.pipeline.stages.plan import check_plan

    chosen = find_device(device)
    made = make_task(settings, train, data, model=str(model), command="reconstruct")
    whole = pipeline.open_model(original, weights, made.input_shape, say)
    check_plan(plan, plan_file, model_identity(whole))
    pruned = pipeline.open_model(str(model), None, made.input_shape, say)
    with progress("Nothing is kept: the same command starts anew.") as on_progress:
        done = pipeline.run_reconstruct(
            whole,
            pruned,
            plan,
            made,
            out,
            step,
            seed=seed,
            threads=threads,
            device=chosen,
            on_progress=on_progress,
        )
    typer.echo(f"{'. '.join(done.notes)}. Written: {out}")
