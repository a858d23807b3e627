"""Commands that find out what to prune, and prune it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import artifacts
from compress.artifacts import PruningPlan, Sensitivity
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import Keys, spread
from compress.cli.tasks import FittedTaskOptions, Source, make_task
from compress.errors import CompressError
from compress.progress import them
from compress.recipe import PruneStep, QuantizeStep, SensitivityStep

if TYPE_CHECKING:
    from compress.pipeline.execution import Execution


@dataclass(frozen=True)
class ScopeOptions:
    """What may be pruned."""

    protect: options.Protect = None
    recurrent: options.Recurrent = None
    layer_norms: options.LayerNorms = None


@dataclass(frozen=True)
class ScanData:
    """The images of a scan."""

    data: options.Val
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="label list or folder of training images, for --of int8, --criterion obs, --measure divergence or "
            "agreement and --recover reconstruct, which do not look at labels; may be repeated.",
            metavar="FILE",
        ),
    ] = None


SENSITIVITY_KEYS = Keys(without=("side",), read={"ratios": options.parse_list, "budget": str})
INT8_KEYS = Keys(only=("float_budget", "float_layers", "weight_bits"), types={"float_layers": options.FloatLayer})


@spread
def sensitivity(
    source: Source,
    lists: ScanData,
    out: Annotated[Path, typer.Option(help="folder for sensitivity.json, or int8_sensitivity.json.", metavar="FOLDER")],
    *,
    of: Annotated[
        str,
        typer.Option(
            help="channels: each group of channels pruned; int8: each layer in integers, calibrated on --train.",
            metavar="WHAT",
        ),
    ] = "channels",
    step: Annotated[SensitivityStep, SENSITIVITY_KEYS],
    layers: Annotated[QuantizeStep, INT8_KEYS],
    threads: options.Threads = None,
    scope: ScopeOptions,
    settings: FittedTaskOptions,
) -> None:
    """Measure how much the metric drops when each group of channels is pruned, or each layer computes in integers.

    Others stay as they are, and nothing is trained. With --of int8 the figure is --measure divergence by default, and
    --float-budget, --float-layer and --weight-bits are those of `compress quantize`.
    What it will cost is said first. Every figure is saved at once: stopped, the same command goes on where it was.

    \b
    Examples:
      compress sensitivity model.onnx --task classification --data val/labels.txt --out runs/cls
      compress sensitivity model.onnx --data val/labels.txt --train train/labels.txt --measure divergence \\
          --recover reconstruct --out runs/cls
      compress sensitivity model.onnx --data val/labels.txt --budget 5m --out runs/cls
      compress sensitivity model.onnx --of int8 --data val/labels.txt --train train/labels.txt \\
          --float-budget 0.05 --out runs/cls
    """
    _check_fitting(of, step, layers, scope)
    from compress.pipeline.execution import Execution

    execution = Execution(threads=threads, on_note=say)
    if of == "int8":
        _scan_int8(source, lists, out, step, layers, settings, execution)
        return
    if step.budget is not None and step.recover != "none":
        raise CompressError("--budget: not with --recover reconstruct. Remove one of them.")
    on_images = {"--criterion obs": step.criterion == "obs", "--recover reconstruct": step.recover != "none"}
    on_images[f"--measure {step.measure}"] = step.measure != "metric"
    if any(on_images.values()) and not lists.train:
        asked = " and ".join(flag for flag, given in on_images.items() if given)
        raise CompressError(f"--train: missing. It names the training images for {asked}; labels are not looked at.")
    from compress import pipeline
    from compress.pipeline.scope import Scope
    from compress.report import tables, terminal

    task = make_task(settings, lists.train or (), lists.data, model=source.model, command="sensitivity")
    model = pipeline.open_model(source.model, source.weights, task.input_shape, say)
    scan = pipeline.run_sensitivity if step.budget is None else pipeline.run_budgeted_scan
    with progress(
        f"{out / 'sensitivity.json'} holds what is done; the same command goes on from there."
    ) as on_progress:
        found = scan(
            model,
            task,
            out,
            step,
            scope=Scope(tuple(scope.protect or ()), scope.recurrent is not False, scope.layer_norms is True),
            execution=replace(execution, on_progress=on_progress),
        )
    terminal.print_table(tables.sensitivity_table(found), terminal.wide_console())
    terminal.print_heat(found, terminal.wide_console())
    typer.echo(f"{found.metric_name} of the model itself: {found.baseline:.4f}. Written: {out / 'sensitivity.json'}")


def _check_fitting(of: str, step: SensitivityStep, layers: QuantizeStep, scope: ScopeOptions) -> None:
    """Refuse options that are for the other kind of scan.

    Raises:
        CompressError: naming them.
    """
    if of not in ("channels", "int8"):
        raise CompressError(f"--of: got {of!r}. Must be channels or int8.")
    if of == "channels":
        given = {"float_layer" if key == "float_layers" else key for key in layers.model_fields_set}
    else:
        given = {"criterion", "ratios", "recover", "budget"} & step.model_fields_set
        given |= set(options.given(vars(scope)))
    if given:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in sorted(given))
        raise CompressError(f"{flags}: not with --of {of}. Remove {them(len(given))}.")


def _scan_int8(
    source: Source,
    lists: ScanData,
    out: Path,
    step: SensitivityStep,
    layers: QuantizeStep,
    settings: FittedTaskOptions,
    execution: "Execution",
) -> None:
    """What each layer costs in integers.

    Raises:
        CompressError: there are no training images.
    """
    if not lists.train:
        raise CompressError("--train: missing. --of int8 calibrates on training images.")
    from compress import pipeline
    from compress.pipeline.stages.int8_scan import FILE, Scanned, default_measure
    from compress.pipeline.stages.quantize import float_layers_of
    from compress.report import terminal
    from compress.report.quant_table import quant_lines, quant_table

    task = make_task(settings, lists.train, lists.data, model=source.model, command="sensitivity")
    model = pipeline.open_model(source.model, source.weights, task.input_shape, say)
    by = step.measure if "measure" in step.model_fields_set else default_measure(task)
    given = Scanned(model, task, layers, float_layers_of(model, layers), by, step.images)
    file = out / FILE
    with progress(f"{file} holds what is done; the same command goes on from there.") as on_progress:
        found = pipeline.run_int8_scan(
            given, file, parts=True, threads=execution.threads, on_progress=on_progress, on_note=say
        )
    terminal.print_table(quant_table(found), terminal.wide_console())
    for line in quant_lines(found):
        typer.echo(line)
    typer.echo(f"Written: {file}")


@dataclass(frozen=True)
class Amount:
    """How much is removed: exactly one of these."""

    ratio: Annotated[
        float | None, typer.Option(help="the same share of every group, in [0, 1).", show_default=False)
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            help="macs=SHARE, params=SHARE or latency=SHARE left, or metric_drop=MOST, or several with commas; needs "
            "--sensitivity.",
            show_default=False,
        ),
    ] = None
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="the plan.json of this model, edited or not: removes exactly its channels.", metavar="FILE"
        ),
    ] = None


@dataclass(frozen=True)
class ScanFile:
    """The scan that a plan is made from."""

    sensitivity_file: Annotated[
        Path | None, typer.Option("--sensitivity", help="the sensitivity.json of this model.", metavar="FILE")
    ] = None
    scanned: Annotated[
        str | None,
        typer.Option(
            help="the model that the scan is of, where MODEL is what `compress replace` made of it.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is made; by their keys in a recipe's `prune` step."""

    align: Annotated[int | None, setting(PruneStep, "align")] = None
    criterion: Annotated[
        str | None, typer.Option(help="fpgm, l1 or l2, or obs with a scan by obs; default the scan's, else fpgm.")
    ] = None
    allocation: Annotated[str | None, setting(PruneStep, "allocation")] = None
    pessimistic: Annotated[bool | None, setting(PruneStep, "pessimistic", "--pessimistic")] = None
    precision: Annotated[
        str | None,
        typer.Option(help="kernels whose times predict the latency: float32, int8, or mixed.  [default: mixed]"),
    ] = None
    protect: options.Protect = None
    recurrent: options.Recurrent = None
    layer_norms: options.LayerNorms = None


@spread
def prune(
    source: Source,
    out: Annotated[Path, typer.Option(help="the .onnx file to write; plan.json goes beside it.", metavar="FILE")],
    amount: Amount,
    scan: ScanFile,
    how: PlanOptions,
    input_size: options.Input = None,
) -> None:
    """Remove whole channels: the same share everywhere, by sensitivity, or as a plan says.

    The time of the pruned network is predicted from the times of its operators on this machine. Each is measured once
    and kept in the user's cache folder, or the folder in COMPRESS_CACHE.

    \b
    Examples:
      compress prune model.onnx --ratio 0.3 --align 16 --out pruned.onnx
      compress prune model.onnx --sensitivity runs/cls/sensitivity.json --target macs=0.5 --out pruned.onnx
      compress prune model.onnx --sensitivity runs/cls/sensitivity.json --target latency=0.5 --out pruned.onnx
      compress prune replaced.onnx --sensitivity runs/cls/sensitivity.json --scanned model.onnx \\
          --target macs=0.5 --out pruned.onnx
      compress prune model.onnx --plan plan.json --out pruned.onnx
    """
    if list(vars(amount).values()).count(None) != 2:
        raise CompressError(
            "--ratio, --target, --plan: give exactly one of them, e.g. --ratio 0.3 or --target macs=0.5."
        )
    if scan.scanned is not None and scan.sensitivity_file is None:
        raise CompressError("--scanned: needs --sensitivity, the scan of that model.")
    shape = options.parse_shape(input_size)
    if amount.plan_file is not None:
        decided = {"sensitivity": scan.sensitivity_file, **vars(how)}
        given = [f"--{key.replace('_', '-')}" for key in options.given(decided)]
        _prune_by_plan(source, amount.plan_file, out, shape, given)
        return
    wanted = {"ratio": amount.ratio} if amount.ratio is not None else options.parse_target(str(amount.target))
    step = options.build(PruneStep, {"target": wanted, "precision": "mixed", **options.given(vars(how))})
    if "ratio" not in step.target.as_dict() and scan.sensitivity_file is None:
        raise CompressError(
            f"--target: {amount.target} needs --sensitivity FILE. Make one with `compress sensitivity`."
        )
    if step.criterion == "obs" and scan.sensitivity_file is None:
        raise CompressError(
            "--criterion: obs ranks by images and needs --sensitivity FILE, a scan by it. Make one with "
            "`compress sensitivity --criterion obs`, or use fpgm."
        )
    options.check_out(out, source.model)
    found = artifacts.load(Sensitivity, scan.sensitivity_file) if scan.sensitivity_file else None
    if found and step.criterion and step.criterion != found.criterion:
        raise CompressError(
            f"--criterion: got {step.criterion}, but {scan.sensitivity_file} ranks by {found.criterion}."
        )
    from compress import pipeline
    from compress.measure.latency_table import LatencyTable
    from compress.pipeline.execution import Execution
    from compress.pipeline.stages.prune import GivenScan

    with progress("The times measured so far are kept; the same command goes on from there.") as on_progress:
        model = pipeline.open_model(source.model, source.weights, shape, say)
        of = pipeline.open_model(scan.scanned, None, shape) if scan.scanned else None
        plan = pipeline.run_prune(
            model,
            out,
            step,
            given=GivenScan(found, of) if found else None,
            input_shape=shape,
            table=LatencyTable(on_note=say),
            execution=Execution(on_progress=on_progress, on_note=say),
        )
    _print_plan(plan, out)


def _prune_by_plan(source: Source, plan_file: Path, out: Path, shape: options.Shape | None, others: list[str]) -> None:
    """Remove what a plan names.

    Raises:
        CompressError: options are given that the plan has decided already.
    """
    if others:
        raise CompressError(f"{', '.join(others)}: --plan has decided that. Remove {them(len(others))}.")
    options.check_out(out, source.model)
    from compress import pipeline

    model = pipeline.open_model(source.model, source.weights, shape, say)
    plan = pipeline.run_plan(model, out, plan_file, input_shape=shape)
    _print_plan(plan, out)


def _print_plan(plan: PruningPlan, out: Path) -> None:
    """What was removed, and what came out otherwise than asked."""
    from compress.report import formats

    pruned = sum(bool(group.removed) for group in plan.groups.values())
    typer.echo(
        f"{pruned} of {len(plan.groups)} groups pruned: MACs {formats.count(plan.macs_before)} -> "
        f"{formats.count(plan.macs_after)} ({formats.ratio(plan.macs_after, plan.macs_before)}), params "
        f"{formats.count(plan.params_before)} -> {formats.count(plan.params_after)}. Written: {out}"
    )
    if plan.latency_before and plan.latency_after is not None:
        typer.echo(
            f"Predicted on this machine, one thread, {plan.latency_precision} kernels: {plan.latency_before:.2f} -> "
            f"{plan.latency_after:.2f} ms ({formats.ratio(plan.latency_after, plan.latency_before)})."
        )
    for note in plan.notes:
        typer.echo(f"Note: {note}", err=True)
    for name, group in plan.groups.items():
        if group.note:
            typer.echo(f"Note: {name}: {group.note}", err=True)
