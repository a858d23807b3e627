"""Commands that find out what to prune, and prune it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from compress import artifacts
from compress.artifacts import PruningPlan, Sensitivity
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import spread
from compress.cli.tasks import FittedTaskOptions, make_task
from compress.errors import CompressError
from compress.recipe import PruneStep, QuantizeStep, SensitivityStep


@spread
def sensitivity(
    model: options.Model,
    data: options.Val,
    out: Annotated[Path, typer.Option(help="folder for sensitivity.json, or int8_sensitivity.json.", metavar="FOLDER")],
    *,
    of: Annotated[
        str,
        typer.Option(
            help="channels: each group of channels pruned; int8: each layer in integers, calibrated on --train.",
            metavar="WHAT",
        ),
    ] = "channels",
    criterion: Annotated[str | None, setting(SensitivityStep, "criterion")] = None,
    ratios: Annotated[str | None, setting(SensitivityStep, "ratios")] = None,
    images: Annotated[int | None, setting(SensitivityStep, "images")] = None,
    measure: Annotated[str | None, setting(SensitivityStep, "measure")] = None,
    recover: Annotated[str | None, setting(SensitivityStep, "recover")] = None,
    budget: Annotated[str | None, setting(SensitivityStep, "budget")] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="label list or folder of training images, for --of int8, --measure divergence or agreement and "
            "--recover reconstruct, which do not look at labels; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    float_budget: Annotated[float | None, setting(QuantizeStep, "float_budget")] = None,
    float_layer: options.FloatLayer = None,
    weight_bits: Annotated[int | None, setting(QuantizeStep, "weight_bits")] = None,
    threads: options.Threads = None,
    protect: options.Protect = None,
    recurrent: options.Recurrent = None,
    weights: options.Weights = None,
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
    if of not in ("channels", "int8"):
        raise CompressError(f"--of: got {of!r}. Must be channels or int8.")
    for_int8 = {"--float-budget": float_budget, "--float-layer": float_layer, "--weight-bits": weight_bits}
    for_channels = {
        "--criterion": criterion, "--ratios": ratios, "--recover": recover, "--budget": budget, "--protect": protect,
        "--recurrent": recurrent,
    }  # fmt: skip
    others = [flag for flag, value in (for_int8 if of == "channels" else for_channels).items() if value is not None]
    if others:
        raise CompressError(f"{', '.join(others)}: not with --of {of}. Remove {'it' if len(others) == 1 else 'them'}.")
    if of == "int8":
        layers = {"float_budget": float_budget, "float_layers": float_layer, "weight_bits": weight_bits}
        _scan_int8(model, weights, data, train or (), out, layers, measure, images, settings, threads)
        return
    step = options.build(
        SensitivityStep,
        {
            "criterion": criterion,
            "ratios": options.parse_list(ratios),
            "images": images,
            "measure": measure,
            "recover": recover,
            "budget": budget,
        },
    )
    if step.budget is not None and (step.measure != "metric" or step.recover != "none"):
        raise CompressError("--budget: not with --measure divergence or agreement, nor --recover. Remove one of them.")
    if (step.measure != "metric" or step.recover != "none") and not train:
        raise CompressError(
            "--train: missing. --measure divergence or agreement and --recover reconstruct need training images."
        )
    from compress import pipeline
    from compress.report import tables, terminal

    made = make_task(settings, train or (), data, model=model, command="sensitivity")
    proto = pipeline.open_model(model, weights, made.input_shape, say)
    with progress(
        f"{out / 'sensitivity.json'} holds what is done; the same command goes on from there."
    ) as on_progress:
        common: dict[str, Any] = {
            "criterion": step.criterion,
            "ratios": step.ratios,
            "images": step.images,
            "protect": tuple(protect or ()),
            "recurrent": recurrent is not False,
            "threads": threads,
            "on_progress": on_progress,
            "on_note": say,
        }
        if step.budget is not None:
            found = pipeline.run_budgeted_scan(proto, made, out, budget=step.budget, **common)
        else:
            found = pipeline.run_sensitivity(proto, made, out, measure=step.measure, recover=step.recover, **common)
    terminal.print_table(tables.sensitivity_table(found), terminal.wide_console())
    terminal.print_heat(found, terminal.wide_console())
    typer.echo(f"{found.metric_name} of the model itself: {found.baseline:.4f}. Written: {out / 'sensitivity.json'}")


def _scan_int8(
    model: str,
    weights: Path | None,
    data: list[Path],
    train: Sequence[Path],
    out: Path,
    layers: Mapping[str, object],
    measure: str | None,
    images: int | None,
    settings: FittedTaskOptions,
    threads: int | None,
) -> None:
    """What each layer costs in integers.

    Raises:
        CompressError: there are no training images, or a setting is not one.
    """
    if not train:
        raise CompressError("--train: missing. --of int8 calibrates on training images.")
    step = options.build(QuantizeStep, layers)
    scan = options.build(SensitivityStep, {"measure": measure, "images": images})
    from compress import pipeline
    from compress.pipeline.stages.int8_scan import FILE, Scanned, default_measure
    from compress.pipeline.stages.quantize import float_layers_of
    from compress.report import terminal
    from compress.report.quant_table import quant_lines, quant_table

    made = make_task(settings, train, data, model=model, command="sensitivity")
    proto = pipeline.open_model(model, weights, made.input_shape, say)
    by = scan.measure if measure else default_measure(made)
    given = Scanned(proto, made, step, float_layers_of(proto, step), by, scan.images)
    file = out / FILE
    with progress(f"{file} holds what is done; the same command goes on from there.") as on_progress:
        found = pipeline.run_int8_scan(given, file, parts=True, threads=threads, on_progress=on_progress, on_note=say)
    terminal.print_table(quant_table(found), terminal.wide_console())
    for line in quant_lines(found):
        typer.echo(line)
    typer.echo(f"Written: {file}")


def prune(
    model: options.Model,
    out: Annotated[Path, typer.Option(help="the .onnx file to write; plan.json goes beside it.", metavar="FILE")],
    ratio: Annotated[
        float | None, typer.Option(help="the same share of every group, in [0, 1).", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="macs=SHARE, params=SHARE or latency=SHARE left, or metric_drop=MOST, or several with commas; needs "
            "--sensitivity.",
            show_default=False,
        ),
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="the plan.json of this model, edited or not: removes exactly its channels.", metavar="FILE"
        ),
    ] = None,
    sensitivity_file: Annotated[
        Path | None, typer.Option("--sensitivity", help="the sensitivity.json of this model.", metavar="FILE")
    ] = None,
    scanned: Annotated[
        str | None,
        typer.Option(
            help="the model that the scan is of, where MODEL is what `compress replace` made of it.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    align: Annotated[int | None, setting(PruneStep, "align")] = None,
    criterion: Annotated[str | None, typer.Option(help="fpgm, l1 or l2; default the scan's, else fpgm.")] = None,
    allocation: Annotated[str | None, setting(PruneStep, "allocation")] = None,
    pessimistic: Annotated[bool | None, setting(PruneStep, "pessimistic", "--pessimistic")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="kernels whose times predict the latency: float32, int8, or mixed.  [default: mixed]"),
    ] = None,
    protect: options.Protect = None,
    recurrent: options.Recurrent = None,
    weights: options.Weights = None,
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
    if [ratio, target, plan_file].count(None) != 2:
        raise CompressError(
            "--ratio, --target, --plan: give exactly one of them, e.g. --ratio 0.3 or --target macs=0.5."
        )
    if scanned is not None and sensitivity_file is None:
        raise CompressError("--scanned: needs --sensitivity, the scan of that model.")
    shape = options.parse_shape(input_size)
    if plan_file is not None:
        decided = {
            "--sensitivity": sensitivity_file, "--align": align, "--criterion": criterion, "--allocation": allocation,
            "--pessimistic": pessimistic,
            "--precision": precision, "--protect": protect, "--recurrent": recurrent,
        }  # fmt: skip
        given = [flag for flag, value in decided.items() if value is not None]
        _prune_by_plan(model, weights, plan_file, out, shape, given)
        return
    wanted = {"ratio": ratio} if ratio is not None else options.parse_target(str(target))
    step = options.build(
        PruneStep,
        {
            "target": wanted,
            "align": align,
            "criterion": criterion,
            "allocation": allocation,
            "pessimistic": pessimistic,
            "precision": precision,
        },
    )
    if "ratio" not in step.target.as_dict() and sensitivity_file is None:
        raise CompressError(f"--target: {target} needs --sensitivity FILE. Make one with `compress sensitivity`.")
    options.check_out(out, model)
    scan = artifacts.load(Sensitivity, sensitivity_file) if sensitivity_file else None
    if scan and step.criterion and step.criterion != scan.criterion:
        raise CompressError(f"--criterion: got {step.criterion}, but {sensitivity_file} ranks by {scan.criterion}.")
    from compress import pipeline
    from compress.measure.latency_table import LatencyTable

    with progress("The times measured so far are kept; the same command goes on from there.") as on_progress:
        plan = pipeline.run_prune(
            pipeline.open_model(model, weights, shape, say),
            out,
            target=step.target.as_dict(),
            align=step.align,
            criterion=step.criterion,
            sensitivity=scan,
            scanned=pipeline.open_model(scanned, None, shape) if scanned else None,
            input_shape=shape,
            protect=tuple(protect or ()),
            recurrent=recurrent is not False,
            allocation=step.allocation,
            pessimistic=step.pessimistic,
            table=LatencyTable(on_note=say),
            precision=step.precision or "mixed",
            on_progress=on_progress,
            on_note=say,
        )
    _print_plan(plan, out)


def _prune_by_plan(
    model: str, weights: Path | None, plan_file: Path, out: Path, shape: options.Shape | None, others: list[str]
) -> None:
    """Remove what a plan names.

    Raises:
        CompressError: options are given that the plan has decided already.
    """
    if others:
        remove = "it" if len(others) == 1 else "them"
        raise CompressError(f"{', '.join(others)}: --plan has decided that. Remove {remove}.")
    options.check_out(out, model)
    from compress import pipeline

    plan = pipeline.run_plan(pipeline.open_model(model, weights, shape, say), out, plan_file, input_shape=shape)
    _print_plan(plan, out)


def _print_plan(plan: PruningPlan, out: Path) -> None:
    """What was removed, and what came out otherwise than asked."""
    from compress.report import tables

    pruned = sum(bool(group.removed) for group in plan.groups.values())
    typer.echo(
        f"{pruned} of {len(plan.groups)} groups pruned: MACs {tables.count(plan.macs_before)} -> "
        f"{tables.count(plan.macs_after)} ({tables.ratio(plan.macs_after, plan.macs_before)}), params "
        f"{tables.count(plan.params_before)} -> {tables.count(plan.params_after)}. Written: {out}"
    )
    if plan.latency_before and plan.latency_after is not None:
        typer.echo(
            f"Predicted on this machine, one thread, {plan.latency_precision} kernels: {plan.latency_before:.2f} -> "
            f"{plan.latency_after:.2f} ms ({tables.ratio(plan.latency_after, plan.latency_before)})."
        )
    for note in plan.notes:
        typer.echo(f"Note: {note}", err=True)
    for name, group in plan.groups.items():
        if group.note:
            typer.echo(f"Note: {name}: {group.note}", err=True)
