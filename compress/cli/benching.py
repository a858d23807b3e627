"""Command bench: how fast files run, and how fast a recipe trains. Heavy modules are imported when they are used."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress import artifacts
from compress.artifacts import Latency
from compress.cli import options
from compress.cli.preparing import Changes
from compress.cli.progress import progress, say
from compress.errors import CompressError
from compress.recipe import load_recipe

if TYPE_CHECKING:
    from compress.measure.runtimes import Difference


THREADS, ROUNDS, RUNTIME = 1, 50, "onnxruntime"
"""Of files, where nothing else is given."""


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(help=".onnx files or package.module:factory; speeds are against the first.", metavar="MODEL..."),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option("--input", help="size of an image; required with MODEL.", metavar="C,H,W")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="1 is comparable between machines.")] = THREADS,
    rounds: Annotated[int, typer.Option(min=3, help="timed rounds; each times every file once.")] = ROUNDS,
    weights: options.Weights = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="onnxruntime, openvino or both, with commas: each file in each; openvino needs pip install "
            "'compress[openvino]'.",
            metavar="NAMES",
        ),
    ] = RUNTIME,
    out: Annotated[Path | None, typer.Option(help="write the figures here as JSON, too.", metavar="FILE")] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="instead of files: time the training of this recipe, part by part.", metavar="RECIPE"),
    ] = None,
    changes: Changes = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="with --train: for each part of each stage.", metavar="S")
    ] = 5.0,
) -> None:
    """Time ONNX files against each other, interleaved, so that a slow spell of the machine hits all of them.

    With --train the stages of a recipe that train are timed instead: making batches alone, the teacher alone, the
    network alone (forward, backward, update), and all together, and what they wait for is named. Nothing is trained or
    written. Files that the recipe's run has made so far are what is timed, else the original.

    Exit code 2 if a file was not timed, because a runtime does not load it; the others are shown all the same.

    \b
    Examples:
      compress bench model.onnx int8.onnx --input 3,48,192 --threads 1
      compress bench model.onnx int8.onnx --input 3,48,192 --runtime onnxruntime,openvino
      compress bench --train recipes/demo_cls.yaml --set threads=1 --out speed.json
    """
    if train is not None:
        if models or input_size:
            raise CompressError("--train: not with MODEL or --input, which are the recipe's. Remove them.")
        typed = {
            "--threads": threads != THREADS,
            "--rounds": rounds != ROUNDS,
            "--weights": weights is not None,
            "--runtime": runtime != RUNTIME,
        }
        if others := [flag for flag, given in typed.items() if given]:
            raise CompressError(f"{', '.join(others)}: not with --train. Use keys of the recipe, e.g. --set threads=4.")
        _bench_training(train, changes or [], seconds, out)
        return
    if changes:
        raise CompressError("--set: only with --train RECIPE, whose keys it changes. Remove it.")
    if not models:
        raise CompressError("MODEL: missing. Give .onnx files to time, or --train RECIPE.")
    if input_size is None:
        raise CompressError("--input: missing. Give the size of an image as channels,height,width, e.g. 3,48,192.")
    from compress import pipeline
    from compress.measure import latency, runtimes
    from compress.measure.machine import machine_info
    from compress.report import formats, tables, terminal

    shape = options.parse_shape(input_size)
    assert shape is not None
    names = runtimes.check_runtimes(options.parse_list(runtime) or ())
    named = {name: pipeline.open_any(name, weights, shape, say) for name in models}
    opened = runtimes.open_runners(named, shape, names, threads=threads)
    for failed in opened.failed.values():
        typer.echo(f"Note: not timed: {failed}", err=True)
    with progress("Nothing was to be saved; run it again.") as on_progress:
        found = latency.measure_latency(opened.runners, shape, threads=threads, rounds=rounds, on_progress=on_progress)
    differences = runtimes.output_differences(named, opened, shape)
    sizes = {name: _size(name, len(data)) for name, data in named.items()}
    machine = machine_info()
    console = terminal.wide_console()
    typer.echo(formats.machine_line(machine))
    terminal.print_table(tables.latency_table(found, sizes), console)
    terminal.print_table(tables.difference_table(differences), console, tables.DIFFERENCE_CAPTION)
    if out:
        figures = _bench_json(found, sizes, differences, opened.failed)
        value = {"version": artifacts.VERSION, "input_shape": shape, "machine": asdict(machine), **figures}
        artifacts.write_atomic(out, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
    if opened.failed:
        untimed = ", ".join(f"{file} [{name}]" for file, name in opened.failed)
        raise CompressError(f"not timed: {untimed}. The notes above say why.")


def _size(model: str, otherwise: int) -> int:
    """Bytes of a model as it is deployed, external weights included; of a factory's, those of its export."""
    from compress.graph import deployed_bytes

    return deployed_bytes(Path(model)) if Path(model).is_file() else otherwise


def _bench_json(
    found: Mapping[tuple[str, str], Latency],
    sizes: Mapping[str, int],
    differences: Iterable["Difference"],
    failed: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """The figures by name: the file, and behind it the runtime where that is not onnxruntime.

    >>> figures = _bench_json({("a.onnx", "openvino"): Latency(1.0, 0.9, 1.1, 1, 50)}, {"a.onnx": 12}, (), {})
    >>> list(figures["models"]), figures["models"]["a.onnx [openvino]"]["size_bytes"]
    (['a.onnx [openvino]'], 12)
    """
    models = {
        file if runtime == "onnxruntime" else f"{file} [{runtime}]": {
            **asdict(latency),
            "file": file,
            "runtime": runtime,
            "size_bytes": sizes[file],
        }
        for (file, runtime), latency in found.items()
    }
    return {
        "models": models,
        "differences": [asdict(difference) for difference in differences],
        "failed": [{"file": file, "runtime": runtime, "reason": reason} for (file, runtime), reason in failed.items()],
    }


def _bench_training(path: Path, changes: list[str], seconds: float, out: Path | None) -> None:
    recipe = load_recipe(path, changes)
    from compress.measure.machine import machine_info
    from compress.pipeline.training_speed import measure_training
    from compress.report import formats, tables, terminal

    with progress("Nothing was to be saved; run it again.") as on_progress:
        found = measure_training(recipe, seconds, on_progress)
    machine = machine_info()
    typer.echo(formats.machine_line(machine))
    for stage in found:
        rows = tuple(
            (
                name,
                f"{part.images_per_second:.1f}",
                f"{part.median_ms:.1f}",
                f"{part.p10_ms:.1f}",
                f"{part.p90_ms:.1f}",
                str(part.steps),
            )
            for name, part in stage.parts.items()
        )
        title = f"{stage.stage}, batches of {stage.batch_size}"
        header = ("part", "images/s", "median ms a batch", "p10", "p90", "batches")
        terminal.print_table(tables.Table(title, header, rows), terminal.wide_console())
        typer.echo(f"Timed: {stage.model}")
        typer.echo(f"Bottleneck: {stage.bottleneck}. {stage.advice}")
    if out:
        value = {"version": artifacts.VERSION, "machine": asdict(machine), "stages": [asdict(stage) for stage in found]}
        artifacts.write_atomic(out, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
