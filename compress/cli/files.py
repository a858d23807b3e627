"""Commands that look at files: inspect, evaluate, bench, report. Heavy modules are imported where they are used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import artifacts
from compress.artifacts import Gallery, Report, Score, Sensitivity
from compress.cli import options
from compress.cli.progress import progress
from compress.cli.tasks import make_task
from compress.errors import ArtifactError, CompressError

if TYPE_CHECKING:
    from compress.tasks.base import Task


def inspect(model: options.Model, weights: options.Weights = None, input_size: options.Input = None) -> None:
    """Show what is in a model, what it costs, and which channels can be pruned.

    \b
    Example:
      compress inspect model.onnx --input 3,48,192
    """
    from compress import pipeline
    from compress.report.terminal import print_inspection, wide_console

    shape = options.parse_shape(input_size)
    proto = pipeline.open_model(model, weights, shape)
    size_bytes = Path(model).stat().st_size if Path(model).is_file() else proto.ByteSize()
    print_inspection(pipeline.inspect_model(proto, size_bytes, shape), wide_console())


def evaluate(
    model: Annotated[
        str, typer.Argument(help="an .onnx file, in float or int8, or package.module:factory.", metavar="MODEL")
    ],
    data: options.Val,
    task: options.TaskName = options.CLASSIFICATION,
    weights: options.Weights = None,
    input_size: options.Input = None,
    directions: options.Directions = None,
    labels: options.Labels = None,
    charset: options.Charset = None,
    use_space: options.UseSpace = None,
    widths: options.Widths = None,
    side: options.Side = None,
    processes: options.Processes = None,
    threads: options.Threads = None,
    save_images: Annotated[
        int, typer.Option(min=0, help="write pictures of this many images, the worst first.", metavar="N")
    ] = 0,
    images_out: Annotated[
        Path | None,
        typer.Option(help="folder for them and their page, index.html; default MODEL_images.", metavar="FOLDER"),
    ] = None,
) -> None:
    """Score any model on labelled images, in onnxruntime, and show what it got wrong.

    \b
    Examples:
      compress evaluate int8.onnx --task classification --data val/labels.txt --save-images 20
      compress evaluate rec.onnx --task recognition --charset dict.txt --data val/labels.txt
    """
    if images_out and not save_images:
        raise CompressError("--images-out: needs --save-images N, how many pictures to write.")
    from compress import pipeline

    made = make_task(
        task,
        (),
        data,
        input_size,
        directions=directions,
        labels=labels,
        charset=charset,
        use_space=use_space,
        widths=widths,
        side=side,
        processes=processes,
    )
    opened = pipeline.open_any(model, weights, made.input_shape)
    if not save_images:
        _print_score(pipeline.score_model(opened, made, threads), made)
        return
    name = _file_name(model)
    folder = images_out or Path(f"{name}_images")
    score, gallery = pipeline.score_with_pictures(opened, made, folder, name=name, count=save_images, threads=threads)
    _print_score(score, made)
    _print_gallery(gallery, folder)


def _print_score(score: Score, task: "Task") -> None:
    typer.echo(f"{score.name} {score.metric:.4f} on {score.count} images")
    for name, value in score.details.items():
        typer.echo(f"  {name} {value:.4f}" if value != int(value) else f"  {name} {value:g}")
    for warning in task.warnings():
        typer.echo(f"Note: {warning}", err=True)


def _print_gallery(gallery: Gallery | None, folder: Path) -> None:
    if gallery is None:
        typer.echo("Note: no pictures: the task does not tell what it makes of single images.", err=True)
        return
    from compress.report.terminal import print_gallery, wide_console

    print_gallery(gallery, wide_console())
    typer.echo(f"Written: {folder / 'index.html'}")


def _file_name(model: str) -> str:
    """
    >>> _file_name("runs/int8.onnx"), _file_name("package.module:factory")
    ('int8', 'factory')
    """
    return Path(model).stem if model.endswith(".onnx") or ":" not in model else model.rpartition(":")[2]


def bench(
    models: Annotated[
        list[str],
        typer.Argument(help=".onnx files or package.module:factory; speeds are against the first.", metavar="MODEL..."),
    ],
    input_size: Annotated[str, typer.Option("--input", help="size of an image.", metavar="C,H,W")],
    threads: Annotated[int, typer.Option(min=1, help="1 is comparable between machines.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="timed rounds; each times every file once.")] = 50,
    weights: options.Weights = None,
    out: Annotated[Path | None, typer.Option(help="write the figures here as JSON, too.", metavar="FILE")] = None,
) -> None:
    """Time ONNX files against each other, in turn, so that a slow spell of the machine hits all of them.

    \b
    Example:
      compress bench model.onnx int8.onnx --input 3,48,192 --threads 1
    """
    import json
    from dataclasses import asdict

    from compress import pipeline
    from compress.measure.latency import measure_latency
    from compress.measure.machine import machine_info
    from compress.report import tables, terminal

    shape = options.parse_shape(input_size)
    assert shape is not None  # --input is required
    named = {name: pipeline.open_any(name, weights, shape) for name in models}
    sizes = {name: len(data) for name, data in named.items()}
    with progress("Nothing was to be saved; run it again.") as on_progress:
        found = measure_latency(named, shape, threads=threads, rounds=rounds, on_progress=on_progress)
    machine = machine_info()
    typer.echo(tables.machine_line(machine))
    terminal.print_table(tables.latency_table(found, sizes), terminal.wide_console())
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
    from compress.report.terminal import print_report, wide_console

    if not (folder / "report.json").is_file():
        raise ArtifactError(f"{folder}: holds no report.json. Give the output folder of a finished `compress run`.")
    found = artifacts.load(Report, folder / "report.json")
    curves = folder / "sensitivity.json"
    written = write_report(found, folder, artifacts.load(Sensitivity, curves) if curves.is_file() else None)
    print_report(found, wide_console())
    typer.echo(f"Written: {', '.join(map(str, written))}")
