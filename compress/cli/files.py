"""Commands that look at files: inspect, evaluate, bench, report. Heavy modules are imported where they are used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import artifacts
from compress.artifacts import Gallery, Interval, Report, Sensitivity
from compress.cli import options
from compress.cli.progress import say
from compress.cli.spreading import spread
from compress.cli.tasks import TaskOptions, make_task
from compress.errors import ArtifactError, CompressError

if TYPE_CHECKING:
    from compress.tasks.base import Examination, Task


def inspect(model: options.Model, weights: options.Weights = None, input_size: options.Input = None) -> None:
    """Show what is in a model, what it costs, which channels can be pruned, and what stands in the way of training.

    Any ONNX file can be looked at, int8 ones included. The size of image is the file's, or is guessed from its output;
    what was guessed is said.

    \b
    Examples:
      compress inspect model.onnx
      compress inspect model.onnx --input 3,48,192
    """
    from compress import pipeline
    from compress.report.terminal import print_inspection, wide_console

    shape = options.parse_shape(input_size)
    print_inspection(pipeline.inspect_model(model, weights, shape), wide_console())


@spread
def evaluate(
    model: Annotated[
        str, typer.Argument(help="an .onnx file, in float or int8, or package.module:factory.", metavar="MODEL")
    ],
    data: options.Val,
    *,
    weights: options.Weights = None,
    settings: TaskOptions,
    threads: options.Threads = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="onnxruntime or openvino; the latter needs pip install 'compress[openvino]'.", metavar="NAME"
        ),
    ] = "onnxruntime",
    save_images: Annotated[
        int, typer.Option(min=0, help="write pictures of this many images, the worst first.", metavar="N")
    ] = 0,
    images_out: Annotated[
        Path | None,
        typer.Option(help="folder for them and their page, index.html; default MODEL_images.", metavar="FOLDER"),
    ] = None,
) -> None:
    """Score any model on labelled images, and show what it got wrong.

    In brackets stand 95 % intervals, from a bootstrap over the images.

    \b
    Examples:
      compress evaluate int8.onnx --task classification --data val/labels.txt --save-images 20
      compress evaluate rec.onnx --task recognition --charset dict.txt --data val/labels.txt
      compress evaluate int8.onnx --data val/labels.txt --runtime openvino
    """
    if images_out and not save_images:
        raise CompressError("--images-out: needs --save-images N, how many pictures to write.")
    from compress import pipeline
    from compress.measure import runtimes
    from compress.pipeline.diagnosis import check_processing

    runtimes.check_runtimes([runtime])
    other = runtime != runtimes.ONNXRUNTIME
    if save_images and other:
        raise CompressError(f"--runtime: got {runtime!r} with --save-images, whose pictures are of onnxruntime only.")
    made = make_task(settings, (), data, model=model, command="evaluate")
    opened = pipeline.open_any(model, weights, made.input_shape, say)
    if not save_images:
        examined = (
            pipeline.examine_in(runtime, opened, made, threads, name=model)
            if other
            else pipeline.examine_model(opened, made, threads)
        )
        _print_score(examined, made)
        check_processing(opened, made, say, threads=threads or 1)
        return
    name = _file_name(model)
    folder = images_out or Path(f"{name}_images")
    examined, gallery = pipeline.score_with_pictures(
        opened, made, folder, name=name, count=save_images, threads=threads
    )
    _print_score(examined, made)
    _print_gallery(gallery, folder)


def _print_score(examined: "Examination", task: "Task") -> None:
    from compress.measure.intervals import figure_interval
    from compress.report import formats
    from compress.tasks.base import PostProcessing

    ends = {
        name: f" {formats.interval(Interval(*figure_interval(rows)))}"
        for name, rows in examined.tallies.items()
        if rows.size
    }
    score = examined.score
    typer.echo(f"{score.name} {score.metric:.4f}{ends.get(score.name, '')} on {formats.scored(score)}")
    for name, value in score.details.items():
        shown = f"{value:g}" if value == int(value) and name not in ends else f"{value:.4f}"
        typer.echo(f"  {name} {shown}{ends.get(name, '')}")
    if isinstance(task, PostProcessing):
        typer.echo(f"  {formats.postprocessing_line(task.postprocessing())}")
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
    written = write_report(found, folder, _scan_of(found, folder / "sensitivity.json"))
    print_report(found, wide_console())
    typer.echo(f"Written: {', '.join(map(str, written))}")


def _scan_of(report: Report, file: Path) -> Sensitivity | None:
    """The scan that belongs to a report; None where it has none.

    Raises:
        ArtifactError: the file is of another scan.
    """
    if not file.is_file():
        return None
    if not report.scan:
        typer.echo(f"Note: {file} is left out: the report does not say that it belongs to the run.", err=True)
        return None
    scan = artifacts.load(Sensitivity, file)
    artifacts.check_fresh(file, scan.fingerprint, report.scan)
    return scan
