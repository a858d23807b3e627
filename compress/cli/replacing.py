"""The command that replaces activations."""

from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.artifacts import ActivationScan
from compress.cli import options
from compress.cli.options import setting
from compress.cli.progress import progress, say
from compress.cli.spreading import spread
from compress.cli.tasks import TaskOptions, make_task
from compress.errors import CompressError
from compress.recipe import ReplaceStep


@spread
def replace(
    model: options.Model,
    activation: Annotated[
        str, typer.Option(help="what to replace, and by what: hardswish=relu.", metavar="OLD=NEW", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="the .onnx file to write; activations.json goes beside it.", metavar="FILE")
    ],
    *,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="activation that may be replaced, by the value it computes; may be repeated, * matches any text; "
            "default all.",
            metavar="NAME",
        ),
    ] = None,
    metric_drop: Annotated[float | None, setting(ReplaceStep, "metric_drop")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            "--val",
            help="label list, LMDB or ICDAR folder to score on, needed with --metric-drop; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    images: Annotated[int | None, setting(ReplaceStep, "images")] = None,
    weights: options.Weights = None,
    settings: TaskOptions,
    threads: options.Threads = None,
) -> None:
    """Put a cheaper activation in the place of another, everywhere or where it alone costs little metric.

    onnxruntime has no integer hard-swish; a ReLU costs nothing. Fine-tune the result with the original as the teacher.
    Every figure of --metric-drop is saved at once: stopped, the same command goes on where it was.

    \b
    Examples:
      compress replace model.onnx --data val/labels.txt --activation hardswish=relu --metric-drop 0.02 \\
          --out replaced.onnx
      compress replace model.onnx --activation hardswish=relu --layer '*blocks.1*' --out replaced.onnx
    """
    values = {**_parse_activation(activation), "layers": layer, "metric_drop": metric_drop, "images": images}
    step = options.build(ReplaceStep, values)
    if metric_drop is not None and not data:
        raise CompressError("--metric-drop: needs --data, the validation images that the metric is measured on.")
    options.check_out(out, model)
    from compress import pipeline
    from compress.report import formats, tables, terminal

    made = make_task(settings, (), data, model=model, command="replace") if data else None
    shape = made.input_shape if made else options.parse_shape(settings.input_size)
    proto = pipeline.open_model(model, weights, shape, say)
    scan_file = out.with_name("activations.json")
    with progress(f"{scan_file} holds what is done; the same command goes on from there.") as on_progress:
        done = pipeline.run_replace(proto, made, out, step, threads=threads, on_progress=on_progress, on_note=say)
    if step.metric_drop is not None:
        scan = artifacts.load(ActivationScan, scan_file)
        terminal.print_table(tables.activation_table(scan, done.names), terminal.wide_console())
    else:
        typer.echo("\n".join(done.names))
    scored = ""
    if made:
        score = pipeline.score_model(out, made, threads)
        scored = f"{score.name} {score.metric:.4f} on {formats.scored(score)}, before any training. "
    typer.echo(f"{len(done.names)} activations replaced. {scored}Written: {out}")


def _parse_activation(text: str) -> dict[str, str]:
    """Read `hardswish=relu`.

    Raises:
        CompressError: it is no replacement that exists.
    """
    from compress.graph.activations import REPLACEMENTS

    original, _, replacement = (part.strip() for part in text.partition("="))
    if replacement not in REPLACEMENTS.get(original, ()):
        allowed = ", ".join(f"{old}={new}" for old, many in REPLACEMENTS.items() for new in many)
        raise CompressError(f"--activation: got {text!r}. Must be one of: {allowed}.")
    return {original: replacement}
