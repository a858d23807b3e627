"""The command for those who hold a deployed file and images without labels: shrink."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.cli import options
from compress.cli.progress import progress, say
from compress.cli.running import GATE_MISSED
from compress.cli.spreading import spread
from compress.cli.tasks import ModelOptions
from compress.data.processing import DEFAULT_PRESET, without_side
from compress.errors import CompressError
from compress.recipe import DataSettings
from compress.recipe.values import TEST


@spread
def shrink(
    model: Annotated[str, typer.Argument(help="the deployed .onnx file, or package.module:factory.", metavar="MODEL")],
    images: Annotated[
        Path, typer.Option(help="folder of images like those that are read; labels are not needed.", metavar="FOLDER")
    ],
    out: Annotated[
        Path,
        typer.Option(help="the .onnx file to write; a folder of its name with _run goes beside it.", metavar="FILE"),
    ],
    *,
    settings: ModelOptions,
    weights: options.Weights = None,
    charset: options.Charset = None,
    macs: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1.0,
            help="share of the multiply-adds to leave; default 0.65 for classification, 0.75 for recognition, 0.6 for "
            "detection.",
            metavar="SHARE",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="passes of fine-tuning over the images; default by their number.")
    ] = None,
    rendered: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="crops to draw and learn from beside the folder's, which the original reads, too; default 1500 for "
            "recognition, 0 otherwise; not for detection.",
        ),
    ] = None,
    spliced: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="for recognition: crops to make of pieces of the folder's and learn from, too (see `compress "
            "splice`); default 1500.",
        ),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(help="for detection: score images with their longest side at most this; default 960."),
    ] = None,
    float_budget: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1.0,
            help="share of the multiply-adds, as 0.1, that may stay in float: the layers that int8 costs most in.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="exit with 1 if the metric drops by more: agreement with the original, or what --test measures.",
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="labelled images that judge the result and nothing else, with a name for the report; may be repeated.",
            metavar="NAME=LIST",
        ),
    ] = None,
    max_skipped: options.MaxSkipped = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
) -> None:
    """Make a deployed model smaller and faster with a folder of images, without labels.

    The original labels the images. A part of them is held back, and the metric is agreement with the original there.
    Scan, prune, fine-tune near the original's outputs, quantise and report are a recipe, which is written into the
    run's folder for you to change and `compress run`. What each stage will take is said first. Stopped, even killed,
    the same command goes on where it was. A PyTorch module is exported into the run's folder first.

    Exit code 1 if the metric drops by more than --max-drop; the file is written all the same.

    \b
    Examples:
      compress shrink cls.onnx --images crops/ --out small.onnx
      compress shrink rec.onnx --charset dict.txt --images crops/ --out small.onnx --max-drop 0.03
      compress shrink my_package.crnn:make --weights crnn.pt --charset dict.txt --images crops/ --out small.onnx
    """
    options.check_out(out, model)
    folder = out.with_name(f"{out.stem}_run")
    options.check_apart(folder, images, "--images")
    tests = _parse_tests(test or ())
    options.build(DataSettings, {"images": [images], "max_skipped": max_skipped})
    shape, processing = options.parse_shape(settings.input_size), settings.processing()
    from compress import pipeline
    from compress.data.unlabelled import describe_foreign
    from compress.pipeline import guessing, labelling
    from compress.pipeline.facts import look_at
    from compress.pipeline.preparing import (
        drafting,
        made_crops,
        originals,
        recipe_file,
        recipe_parts,
        shrink_cost,
        shrinking,
    )
    from compress.pipeline.state import finished_stages
    from compress.report import tables, terminal
    from compress.report.advice import int8_advice

    files = shrinking.list_files(images)
    original = originals.open_original(model, weights, shape, folder, say)
    facts = look_at(original.model, shape, path=Path(model), preset=settings.preset or DEFAULT_PRESET)
    kind, guess = guessing.choose_kind(facts, settings.task)
    if guess:
        say(guess)
    _check_options(kind, charset, side, rendered, spliced)
    charset, labels, names = guessing.find_names(model, kind, charset, None, facts.output[-1])
    boxes, read = guessing.find_boxes(model, kind)
    for line in filter(None, (names, read)):
        say(line)
    use_space = True
    if kind == "recognition":
        charset, use_space = recipe_parts.fits_charset(facts, charset)
    seen = None if shape is not None else lambda: files
    facts, given, lines = guessing.complete(facts, kind, processing, original.model, seen)
    for line in lines:
        say(line)
    resize = guessing.processing_of(kind, given).resize
    if side is not None and resize != "limit":
        raise CompressError(f"--side: {without_side(resize)}")
    wishes = recipe_parts.Wishes(
        kind,
        charset=charset,
        labels=labels,
        use_space=use_space,
        input=shape,
        macs=macs,
        epochs=epochs,
        side=side,
        threads=threads,
        seed=seed,
        rendered=rendered,
        spliced=spliced,
        max_drop=max_drop,
        float_budget=float_budget,
        max_skipped=max_skipped,
        tests=tests,
        processing=given,
        boxes=boxes,
    )
    with progress("Nothing was written.") as on_progress:
        chosen = shrinking.choose_files(images, folder, max_skipped, on_progress)
    files = list(chosen.files)
    for line in filter(None, (*chosen.warnings, describe_foreign(images))):
        say(line)
    content = shrinking.shrink_recipe(facts, images, len(files), wishes)
    content |= {"name": f"{original.name}, shrunk", "model": str(original.file.absolute())}
    artifacts.check_writable(folder)
    command = shlex.join(["compress", *sys.argv[1:]])
    with progress("Nothing is kept of it; the same command draws them again.") as on_progress:

        def draw() -> None:
            original.write()
            made_crops.make_crops(folder, wishes, files, content["data"]["held_back"], on_progress)

        recipe = recipe_file.write_recipe(content, folder, command, draw, say)
    with artifacts.lock(folder):
        labelling.forget_stale(recipe, say)
    if original.export is not None:
        say(f"{model}: exported to {original.file}{drafting.fixed_sizes(original.file, shape)}.")
    pace, cells = shrink_cost.measure(recipe, files)
    work = shrink_cost.count_work(recipe, len(files), shrink_cost.sample_sizes(files), cells)
    say("\n".join(shrink_cost.plan_lines(recipe, work, pace, finished_stages(recipe))))
    with progress(f"{folder} holds what is done; the same command goes on from there.") as on_progress:
        staged = shrinking.with_stages(on_progress, recipe, shrink_cost.stage_seconds(work, pace))
        report = pipeline.run_recipe(recipe, command, staged, say)
    artifacts.write_atomic(out, (folder / "int8.onnx").read_bytes())
    console = terminal.wide_console()
    for line in tables.headlines(report):
        typer.echo(line)
    terminal.print_table(tables.gate_table(report), console)
    if advice := int8_advice(report, "The same command with --float-budget 0.1"):
        typer.echo(advice)
    typer.echo(f"{_sizes(original.file, out)} Report: {folder / 'report.md'}. Written: {out}")
    if not all(gate.passed for gate in report.gates):
        typer.echo(f"Gates missed: {', '.join(gate.name for gate in report.gates if not gate.passed)}.", err=True)
        raise typer.Exit(GATE_MISSED)


def _sizes(model: Path, out: Path) -> str:
    before, after = model.stat().st_size, out.stat().st_size
    return f"{before / 1000:.0f} -> {after / 1000:.0f} KB."


def _check_options(
    kind: str, charset: Path | None, side: int | None, rendered: int | None, spliced: int | None
) -> None:
    """Refuse what would be ignored.

    Raises:
        CompressError: an option is not for this kind.
    """
    if charset is not None and kind != "recognition":
        raise CompressError(f"--charset: not for {kind}. Remove it, or use --task recognition.")
    if rendered and kind == "detection":
        raise CompressError("--rendered: not for detection, crops of words are no scenes. Remove it.")
    if spliced and kind != "recognition":
        raise CompressError(f"--spliced: not for {kind}. Remove it, or use --task recognition.")
    if side is not None and kind != "detection":
        raise CompressError(f"--side: not for {kind}. Remove it, or use --task detection.")


def _parse_tests(given: Sequence[str]) -> dict[str, Path]:
    """Read `lines=a/labels.txt`; one without a name is called `test`.

    Raises:
        CompressError: two have the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name, path = (name, path) if equals else (TEST, text)
        if name in found:
            raise CompressError(f"--test: {name!r} is given twice. Use another name for each: NAME=LIST.")
        found[name] = Path(path)
    return found
