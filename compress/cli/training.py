"""Commands that train: finetune, and quantize, whose result is the int8 file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from compress import artifacts
from compress.artifacts import PruningPlan, Score
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import Keys, spread
from compress.cli.tasks import Lists, Source, TrainedTaskOptions, TrainingOptions, make_task
from compress.errors import CompressError
from compress.recipe import FinetuneStep, QuantizeStep
from compress.recipe.schema import CompareSettings

if TYPE_CHECKING:
    import onnx

    from compress.pipeline.execution import Execution
    from compress.tasks.base import Task

S = TypeVar("S", FinetuneStep, QuantizeStep)


FinetuneOptions = Annotated[FinetuneStep, Keys(flags={"freeze_bn": "--freeze-bn/--live-bn"})]
QuantizeOptions = Annotated[
    QuantizeStep,
    Keys(
        without=("pact.asymmetric_hardswish", "pact.symmetric"),
        flags={"pact.enabled": "--pact/--no-pact"},
        types={"float_layers": options.FloatLayer},
    ),
]


@spread
def finetune(
    source: Source,
    lists: Lists,
    out: Annotated[Path, typer.Option(help="the .onnx file to write.", metavar="FILE")],
    *,
    teacher: options.Teacher = None,
    step: FinetuneOptions,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            help="with --features: the plan that MODEL was pruned by; default plan.json beside it, if there is one.",
            metavar="FILE",
        ),
    ] = None,
    settings: TrainedTaskOptions,
    training: TrainingOptions,
) -> None:
    """Train a pruned model back to its metric; the best epoch on the validation data is kept.

    \b
    Example:
      compress finetune pruned.onnx --teacher model.onnx --train train/labels.txt \\
          --data val/labels.txt --out finetuned.onnx
    """
    from compress import pipeline

    step = _with_teacher(step, teacher)
    if plan_file is not None and not step.features:
        raise CompressError("--plan: needs --features, which alone looks at it. Remove it.")
    given = _Given.read(source, lists, out, teacher, settings, training, "finetune")
    kept = None
    if step.features:
        kept = _kept_channels(given.teacher, given.model, plan_file, source.model, given.task.input_shape)
    with given.trained() as (task, execution):
        score = pipeline.run_finetune(given.model, given.teacher, task, out, step, kept=kept, execution=execution)
    _print_score(score, out, task)


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
    from compress.pipeline.stages.stored_plan import kept_by_plan

    file = plan_file or Path(model).with_name("plan.json")
    if plan_file is None and (not file.is_file() or same_sizes(pruned, original)):
        return None
    # The teacher may be the plan's model trained on, so that it is not known by its fingerprint.
    return kept_by_plan(original, artifacts.load(PruningPlan, file), shape)


@spread
def quantize(
    source: Source,
    lists: Lists,
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
    step: QuantizeOptions,
    latency_threads: Annotated[int | None, setting(CompareSettings, "threads", "--latency-threads")] = None,
    settings: TrainedTaskOptions,
    training: TrainingOptions,
) -> None:
    """Make an int8 ONNX file: calibrate, train with learned ranges (PACT), export, and check the file.

    \b
    Examples:
      compress quantize finetuned.onnx --teacher model.onnx --train train/labels.txt \\
          --data val/labels.txt --epochs 5 --out int8.onnx
      compress quantize model.onnx --train train/labels.txt --data val/labels.txt --epochs 0 --out int8.onnx
    """
    from compress import pipeline
    from compress.report import formats, terminal
    from compress.report.quant_table import quant_table

    step = _with_teacher(step, teacher)
    timed = options.build(CompareSettings, {"threads": latency_threads})
    given = _Given.read(source, lists, out, teacher, settings, training, "quantize")
    with given.trained() as (task, execution):
        result = pipeline.run_quantize(
            given.model, given.teacher, task, out, step, latency_threads=timed.threads, execution=execution
        )
    _print_score(pipeline.score_model(out, task, training.threads), out, task)
    for note in result.notes:
        typer.echo(f"Note: {note}", err=True)
    if result.sensitivity is not None:
        terminal.print_table(quant_table(result.sensitivity), terminal.wide_console())
    parity = result.parity
    typer.echo(f"File against its network: {formats.parity(parity)} ({parity.count} images).")


@dataclass(frozen=True)
class _Given:
    """What both commands were given, opened."""

    model: "onnx.ModelProto"
    teacher: "onnx.ModelProto | None"
    task: "Task"
    out: Path
    unlabelled: bool
    execution: "Execution"

    @classmethod
    def read(
        cls,
        source: Source,
        lists: Lists,
        out: Path,
        teacher: str | None,
        settings: TrainedTaskOptions,
        training: TrainingOptions,
        command: str,
    ) -> "_Given":
        """Open model, teacher and data.

        Raises:
            CompressError: one of them cannot be used, or `out` is one of them.
        """
        from compress import pipeline

        options.check_out(out, source.model, teacher or source.model)
        _check_unlabelled(settings.unlabelled, teacher)
        execution = training.execution()
        task = make_task(settings, lists.train, lists.data, model=source.model, command=command)
        model = pipeline.open_model(source.model, source.weights, task.input_shape, say)
        original = pipeline.open_model(teacher, None, task.input_shape) if teacher else None
        return cls(model, original, task, out, bool(settings.unlabelled), execution)

    @contextmanager
    def trained(self) -> "Iterator[tuple[Task, Execution]]":
        """The task, its unlabelled images labelled by the teacher, and how to train; a finished training's checkpoint
        is removed."""
        from compress import pipeline

        file = self.out.with_suffix(".checkpoint")
        with progress(f"{file} holds the last epoch; the same command goes on from there.") as on_progress:
            execution = replace(self.execution, checkpoint=file, on_progress=on_progress)
            task = self.task
            if self.unlabelled and self.teacher is not None:
                task = pipeline.label_unlabelled(task, self.teacher, threads=execution.threads, on_progress=on_progress)
            yield task, execution
        file.unlink(missing_ok=True)


def _with_teacher(step: S, teacher: str | None) -> S:
    """Without a teacher there is nothing to stay near.

    Raises:
        CompressError: a weight is given, but no teacher.
    """
    if teacher is not None:
        return step
    if "distill" in step.model_fields_set and step.distill:
        raise CompressError(f"--distill: got {step.distill:g}, but there is no --teacher. Give the original model.")
    return step.model_copy(update={"distill": 0.0})


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
    from compress.report import formats

    typer.echo(f"{score.name} {score.metric:.4f} on {formats.scored(score)}. Written: {out}")
    for warning in task.warnings():
        typer.echo(f"Note: {warning}", err=True)
