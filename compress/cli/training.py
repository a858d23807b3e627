"""Commands that train: finetune, and quantize, whose result is the int8 file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import artifacts
from compress.artifacts import PruningPlan, Score
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import spread
from compress.cli.tasks import TrainedTaskOptions, make_task
from compress.errors import CompressError
from compress.recipe import FinetuneStep, PactSettings, QuantizeStep
from compress.recipe.schema import CompareSettings

if TYPE_CHECKING:
    import onnx

    from compress.tasks.base import Task


@spread
def finetune(
    model: options.Model,
    train: options.Train,
    data: options.Val,
    out: Annotated[Path, typer.Option(help="the .onnx file to write.", metavar="FILE")],
    *,
    teacher: options.Teacher = None,
    weights: options.Weights = None,
    epochs: Annotated[int | None, setting(FinetuneStep, "epochs")] = None,
    lr: Annotated[float | None, setting(FinetuneStep, "lr")] = None,
    batch_size: Annotated[int | None, setting(FinetuneStep, "batch_size")] = None,
    optimizer: Annotated[str | None, setting(FinetuneStep, "optimizer")] = None,
    momentum: Annotated[float | None, setting(FinetuneStep, "momentum")] = None,
    weight_decay: Annotated[float | None, setting(FinetuneStep, "weight_decay")] = None,
    warmup_epochs: Annotated[float | None, setting(FinetuneStep, "warmup_epochs")] = None,
    average: Annotated[int | None, setting(FinetuneStep, "average")] = None,
    distill: Annotated[float | None, setting(FinetuneStep, "distill")] = None,
    freeze_bn: Annotated[bool | None, setting(FinetuneStep, "freeze_bn", "--freeze-bn/--live-bn")] = None,
    precision: Annotated[str | None, setting(FinetuneStep, "precision")] = None,
    features: Annotated[float | None, setting(FinetuneStep, "features")] = None,
    mutual: Annotated[float | None, setting(FinetuneStep, "mutual")] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            help="with --features: the plan that MODEL was pruned by; default plan.json beside it, if there is one.",
            metavar="FILE",
        ),
    ] = None,
    settings: TrainedTaskOptions,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Train a pruned model back to its metric; the best epoch on the validation data is kept.

    \b
    Example:
      compress finetune pruned.onnx --teacher model.onnx --train train/labels.txt \\
          --data val/labels.txt --out finetuned.onnx
    """
    values = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "average": average,
        "distill": _distill(distill, teacher),
        "freeze_bn": freeze_bn,
        "precision": precision,
        "features": features,
        "mutual": mutual,
    }
    step = options.build(FinetuneStep, values)
    if plan_file is not None and not step.features:
        raise CompressError("--plan: needs --features, which alone looks at it. Remove it.")
    options.check_out(out, model, teacher or model)
    _check_unlabelled(settings.unlabelled, teacher)
    from compress import pipeline
    from compress.compute.device import find_device

    chosen = find_device(device)
    made = make_task(settings, train, data, model=model, command="finetune")
    proto = pipeline.open_model(model, weights, made.input_shape, say)
    original = pipeline.open_model(teacher, None, made.input_shape) if teacher else None
    kept = _kept_channels(original, proto, plan_file, model, made.input_shape) if step.features else None
    checkpoint = out.with_suffix(".checkpoint")
    with progress(f"{checkpoint} holds the last epoch; the same command goes on from there.") as on_progress:
        if settings.unlabelled and original is not None:
            made = pipeline.label_unlabelled(made, original, threads=threads, on_progress=on_progress)
        score = pipeline.run_finetune(
            proto,
            original,
            made,
            out,
            step,
            seed=seed,
            threads=threads,
            device=chosen,
            kept=kept,
            checkpoint=checkpoint,
            on_progress=on_progress,
            on_note=say,
        )
    checkpoint.unlink(missing_ok=True)
    _print_score(score, out, made)


def _kept_channels(
    original: "onnx.ModelProto | None",
    pruned: "onnx.ModelProto",
    plan_file: Path | None,
    model: str,
    shape: options.Shape,
) -> dict[str, list[int]] | None:
    """The original's channels that a pruned model has; None where there is no plan, as of a model that was not pruned.

    Raises:
        CompressError: there is no teacher, or the plan is not of that model.
    """
    if original is None:
        raise CompressError("--features: needs --teacher, whose layers the model's are compared with.")
    from compress.pipeline.models import same_sizes
    from compress.pipeline.stages.plan import kept_by_plan

    file = plan_file or Path(model).with_name("plan.json")
    if plan_file is None and (not file.is_file() or same_sizes(pruned, original)):
        return None
    # The teacher may be the plan's model trained on, so that it is not known by its fingerprint.
    return kept_by_plan(original, artifacts.load(PruningPlan, file), shape)


@spread
def quantize(
    model: options.Model,
    train: options.Train,
    data: options.Val,
    out: Annotated[
        Path,
        typer.Option(
            help="the int8 .onnx file to write; its .placement.json goes beside it, and with --float-budget its "
            ".sensitivity.json.",
            metavar="FILE",
        ),
    ],
    *,
    teacher: options.Teacher = None,
    weights: options.Weights = None,
    epochs: Annotated[int | None, setting(QuantizeStep, "epochs")] = None,
    lr: Annotated[float | None, setting(QuantizeStep, "lr")] = None,
    batch_size: Annotated[int | None, setting(QuantizeStep, "batch_size")] = None,
    optimizer: Annotated[str | None, setting(QuantizeStep, "optimizer")] = None,
    momentum: Annotated[float | None, setting(QuantizeStep, "momentum")] = None,
    weight_decay: Annotated[float | None, setting(QuantizeStep, "weight_decay")] = None,
    warmup_epochs: Annotated[float | None, setting(QuantizeStep, "warmup_epochs")] = None,
    average: Annotated[int | None, setting(QuantizeStep, "average")] = None,
    distill: Annotated[float | None, setting(QuantizeStep, "distill")] = None,
    calibration: Annotated[int | None, setting(QuantizeStep, "calibration")] = None,
    pact: Annotated[bool | None, setting(PactSettings, "enabled", "--pact/--no-pact")] = None,
    pact_l2: Annotated[float | None, setting(PactSettings, "l2", "--pact-l2")] = None,
    pact_lr_multiplier: Annotated[float | None, setting(PactSettings, "lr_multiplier", "--pact-lr-multiplier")] = None,
    pact_percentile: Annotated[float | None, setting(PactSettings, "percentile", "--pact-percentile")] = None,
    float_layer: options.FloatLayer = None,
    float_budget: Annotated[float | None, setting(QuantizeStep, "float_budget")] = None,
    recurrent: Annotated[str | None, setting(QuantizeStep, "recurrent")] = None,
    optimize: Annotated[str | None, setting(QuantizeStep, "optimize")] = None,
    weight_bits: Annotated[int | None, setting(QuantizeStep, "weight_bits")] = None,
    latency_threads: Annotated[int | None, setting(CompareSettings, "threads", "--latency-threads")] = None,
    settings: TrainedTaskOptions,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Make an int8 ONNX file: calibrate, train with learned ranges (PACT), export, and check the file.

    \b
    Examples:
      compress quantize finetuned.onnx --teacher model.onnx --train train/labels.txt \\
          --data val/labels.txt --epochs 5 --out int8.onnx
      compress quantize model.onnx --train train/labels.txt --data val/labels.txt --epochs 0 --out int8.onnx
    """
    ranges = {"enabled": pact, "l2": pact_l2, "lr_multiplier": pact_lr_multiplier, "percentile": pact_percentile}
    values = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "average": average,
        "distill": _distill(distill, teacher),
        "calibration": calibration,
        "pact": {key: value for key, value in ranges.items() if value is not None},
        "float_layers": float_layer,
        "float_budget": float_budget,
        "recurrent": recurrent,
        "optimize": optimize,
        "weight_bits": weight_bits,
    }
    step = options.build(QuantizeStep, values)
    timed = options.build(CompareSettings, {"threads": latency_threads})
    options.check_out(out, model, teacher or model)
    _check_unlabelled(settings.unlabelled, teacher)
    from compress import pipeline
    from compress.compute.device import find_device
    from compress.report import tables, terminal
    from compress.report.quant_table import quant_table

    chosen = find_device(device)
    made = make_task(settings, train, data, model=model, command="quantize")
    proto = pipeline.open_model(model, weights, made.input_shape, say)
    original = pipeline.open_model(teacher, None, made.input_shape) if teacher else None
    checkpoint = out.with_suffix(".checkpoint")
    with progress(f"{checkpoint} holds the last epoch; the same command goes on from there.") as on_progress:
        if settings.unlabelled and original is not None:
            made = pipeline.label_unlabelled(made, original, threads=threads, on_progress=on_progress)
        result = pipeline.run_quantize(
            proto,
            original,
            made,
            out,
            step,
            seed=seed,
            threads=threads,
            device=chosen,
            latency_threads=timed.threads,
            checkpoint=checkpoint,
            on_progress=on_progress,
            on_note=say,
        )
    checkpoint.unlink(missing_ok=True)
    _print_score(pipeline.score_model(out, made, threads), out, made)
    for note in result.notes:
        typer.echo(f"Note: {note}", err=True)
    if result.sensitivity is not None:
        terminal.print_table(quant_table(result.sensitivity), terminal.wide_console())
    parity = result.parity
    typer.echo(f"File against its network: {tables.parity(parity)} ({parity.count} images).")


def _distill(weight: float | None, teacher: str | None) -> float | None:
    """Without a teacher there is nothing to stay near.

    Raises:
        CompressError: a weight is given, but no teacher.
    """
    if teacher is None and weight:
        raise CompressError(f"--distill: got {weight:g}, but there is no --teacher. Give the original model.")
    return 0.0 if teacher is None else weight


def _check_unlabelled(unlabelled: list[Path] | None, teacher: str | None) -> None:
    """Without a teacher nothing is known of these images.

    Raises:
        CompressError: there are some, but no teacher.
    """
    if unlabelled and teacher is None:
        raise CompressError(
            f"--unlabelled: got {unlabelled[0]}, but there is no --teacher to say what is in it. Give the original "
            "model."
        )


def _print_score(score: Score, out: Path, task: "Task") -> None:
    from compress.report import tables

    typer.echo(f"{score.name} {score.metric:.4f} on {tables.scored(score)}. Written: {out}")
    for warning in task.warnings():
        typer.echo(f"Note: {warning}", err=True)
