"""Commands that look at files: inspect, evaluate, bench, report. Heavy modules are imported where they are used."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compress import artifacts
from compress.artifacts import Report, Sensitivity
from compress.cli import options
from compress.cli.progress import progress
from compress.errors import ArtifactError, CompressError


def inspect(model: options.Model, weights: options.Weights = None, input_size: options.Input = None) -> None:
    """Show what is in a model, what it costs, and which channels can be pruned.

    \b
    Example:
      compress inspect model.onnx --input 3,48,192
    """
    from compress import pipeline
    from compress.report.terminal import print_inspection

    shape = options.parse_shape(input_size)
    proto = pipeline.open_model(model, weights, shape)
    size_bytes = Path(model).stat().st_size if Path(model).is_file() else proto.ByteSize()
    print_inspection(pipeline.inspect_model(proto, size_bytes, shape), Console())


def evaluate(
    model: Annotated[Path, typer.Argument(help="an .onnx file, in float or int8.", metavar="MODEL")],
    data: options.Val,
    task: options.TaskName = options.CLASSIFICATION,
    input_size: options.Input = None,
    directions: options.Directions = None,
    labels: options.Labels = None,
    threads: options.Threads = None,
) -> None:
    """Score any ONNX file on labelled images, in onnxruntime.

    \b
    Example:
      compress evaluate int8.onnx --task classification --data val/labels.txt
    """
    from compress import pipeline

    made = pipeline.make_task(
        task,
        train=(),
        val=tuple(data),
        input_shape=options.parse_shape(input_size),
        directions=directions,
        labels=options.parse_list(labels),
    )
    score = pipeline.score_file(model, made, threads)
    typer.echo(f"{score.name} {score.metric:.4f} on {score.count} images")
    for name, value in score.details.items():
        typer.echo(f"  {name} {value:.4f}" if value != int(value) else f"  {name} {value:g}")
    for warning in made.warnings():
        typer.echo(f"Note: {warning}", err=True)


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files; speeds are against the first.", metavar="MODEL...")],
    input_size: Annotated[str, typer.Option("--input", help="size of an image.", metavar="C,H,W")],
    threads: Annotated[int, typer.Option(min=1, help="1 is comparable between machines.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="timed rounds; each times every file once.")] = 50,
    out: Annotated[Path | None, typer.Option(help="write the figures here as JSON, too.", metavar="FILE")] = None,
) -> None:
    """Time ONNX files against each other, in turn, so that a slow spell of the machine hits all of them.

    \b
    Example:
      compress bench model.onnx int8.onnx --input 3,48,192 --threads 1
    """
    import json
    from dataclasses import asdict

    from compress.measure.latency import measure_latency
    from compress.measure.machine import machine_info
    from compress.report import tables, terminal

    named = {str(path): path for path in models}
    sizes = {name: _size(path) for name, path in named.items()}
    shape = options.parse_shape(input_size)
    assert shape is not None  # --input is required
    with progress("Nothing was to be saved; run it again.") as on_progress:
        found = measure_latency(named, shape, threads=threads, rounds=rounds, on_progress=on_progress)
    machine = machine_info()
    typer.echo(tables.machine_line(machine))
    terminal.print_table(tables.latency_table(found, sizes), Console())
    if out:
        figures = {name: {**asdict(latency), "size_bytes": sizes[name]} for name, latency in found.items()}
        value = {"version": artifacts.VERSION, "input_shape": shape, "machine": asdict(machine), "models": figures}
        artifacts.write_atomic(out, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def report(folder: Annotated[Path, typer.Argument(help="the output folder of a run.", metavar="FOLDER")]) -> None:
    """Show the report of a run again, and write its report.md and report.html anew.

    \b
    Example:
      compress report runs/demo_cls
    """
    from compress.report import write_report
    from compress.report.terminal import print_report

    if not (folder / "report.json").is_file():
        raise ArtifactError(f"{folder}: holds no report.json. Give the output folder of a finished `compress run`.")
    found = artifacts.load(Report, folder / "report.json")
    curves = folder / "sensitivity.json"
    written = write_report(found, folder, artifacts.load(Sensitivity, curves) if curves.is_file() else None)
    print_report(found, Console())
    typer.echo(f"Written: {', '.join(map(str, written))}")


def _size(path: Path) -> int:
    if not path.is_file():
        raise CompressError(f"{path}: no such file. Give the path of an .onnx file.")
    return path.stat().st_size
