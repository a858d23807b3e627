"""Commands before a run: init, check."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from compress.cli import options
from compress.cli.progress import say
from compress.cli.spreading import spread
from compress.cli.tasks import ModelOptions
from compress.data.processing import DEFAULT_PRESET
from compress.errors import CompressError
from compress.recipe import DataSettings, load_recipe

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="change one key, e.g. prune.align=16 or data.val=val.txt; may be repeated.",
        metavar="KEY=VALUE",
    ),
]


@spread
def init(
    model: options.Model,
    data: Annotated[
        Path,
        typer.Option(
            help="folder of images like those that are read; or a label list, a folder with labels.txt or with train/ "
            "and val/, an LMDB or an ICDAR folder.",
            metavar="PATH",
        ),
    ],
    *,
    settings: ModelOptions,
    weights: options.Weights = None,
    charset: options.Charset = None,
    labels: options.Labels = None,
    val: Annotated[
        Path | None,
        typer.Option(
            help="labelled images to validate on; default: val/ beside train/, else a part of the label list.",
            metavar="PATH",
        ),
    ] = None,
    max_skipped: options.MaxSkipped = None,
    out: Annotated[Path, typer.Option(help="the recipe to write; nothing is overwritten.", metavar="FILE")] = Path(
        "recipe.yaml"
    ),
) -> None:
    """Write a first recipe for a model and your data, with comments, and say what a run of it will take.

    Kind of task, input and classes are the model's; what was guessed is said. Labels are used where there are some;
    a label list alone is split, into two lists beside the recipe. Images without labels will do: the original labels
    them. Steps and settings are those of `compress shrink`. The recipe passes `compress check`. A PyTorch module is
    exported to a file beside the recipe.

    \b
    Examples:
      compress init cls.onnx --data crops/
      compress init rec.onnx --data words/labels.txt --charset dict.txt --out rec.yaml
      compress init my_package.crnn:make --weights crnn.pt --data words/labels.txt --charset dict.txt
    """
    shape, processing = options.parse_shape(settings.input_size), settings.processing()
    options.build(DataSettings, {"images": [data], "max_skipped": max_skipped})
    from compress.data.unlabelled import describe_foreign
    from compress.pipeline import guessing
    from compress.pipeline.facts import look_at
    from compress.pipeline.preparing import drafting, recipe_parts
    from compress.pipeline.preparing.estimate import estimate, estimate_lines

    drafting.check_absent([out])
    with drafting.exported(model, weights, shape, out, say) as file:
        if str(file) != model:
            say(f"{model}: exported to {file}{drafting.fixed_sizes(file, shape)}.")
        facts = look_at(file, shape, preset=settings.preset or DEFAULT_PRESET)
        named = dataclasses.replace(facts, path=Path(model))
        kind, guess = guessing.choose_kind(named, settings.task, "init")
        if guess:
            say(guess)
        if charset is not None and kind != "recognition":
            raise CompressError(f"--charset: not for {kind}. Remove it, or use --task recognition.")
        if labels is not None and kind != "classification":
            raise CompressError(f"--labels: not for {kind}. Remove it, or use --task classification.")
        charset, names, own = guessing.find_names(model, kind, charset, options.parse_list(labels), facts.output[-1])
        boxes, read = guessing.find_boxes(model, kind)
        for line in filter(None, (own, read)):
            say(line)
        use_space = True
        if kind == "recognition":
            charset, use_space = recipe_parts.fits_charset(named, charset, "init")
        found = drafting.find_data(data, kind, val, max_skipped)
        seen = None if shape is not None else partial(drafting.image_files, found, kind)
        named, given, lines = guessing.complete(named, kind, processing, file, seen)
        facts = dataclasses.replace(named, path=file)
        for line in lines:
            say(line)
        wishes = recipe_parts.Wishes(
            kind, charset=charset, labels=names, use_space=use_space, input=shape, processing=given, boxes=boxes
        )
        content, lists = drafting.draft(facts, found, out, wishes)
        if kind == "classification" and names is None:
            drafting.check_labels(found, facts)
        recipe, images = drafting.write_draft(content, lists, out, shlex.join(["compress", *sys.argv[1:]]))
    typer.echo(f"Written: {', '.join(str(path) for path in (out, *lists))}")
    _warn(images.warnings)
    if found.images is not None and (left_out := describe_foreign(found.images)):
        say(left_out)
    for line in estimate_lines(recipe, estimate(recipe, images)):
        typer.echo(line)
    typer.echo(f"To run it: compress run {shlex.quote(str(out))}")


def _warn(warnings: Iterable[str]) -> None:
    for line in warnings:
        typer.echo(f"Warning: {line}", err=True)


def check(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe; docs/recipes.md lists its keys.", metavar="RECIPE")
    ] = None,
    changes: Changes = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the JSON Schema of recipes, for editors, and exit.")
    ] = False,
) -> None:
    """Look for every problem of a recipe, and say what a run of it will take. Nothing is computed or written.

    Keys, label lists, images' headers, model and charset are looked at. Then come the stages in order, each with the
    time that it will take on this machine, and memory and disk in all. Times come from a few timed passes of the model;
    what cannot be known so is shown as unknown.

    Exit code 2 if there are problems; all of them are listed.

    \b
    Examples:
      compress check recipes/demo_cls.yaml --set finetune.epochs=2
      compress check --schema > recipe.schema.json
    """
    if schema:
        from compress.recipe.json_schema import recipe_schema

        typer.echo(json.dumps(recipe_schema(), indent=1))
        return
    if recipe is None:
        raise CompressError("RECIPE: missing. Give the path of a recipe, or --schema.")
    given = load_recipe(recipe, changes or ())
    from compress.pipeline.preparing.estimate import estimate, estimate_lines
    from compress.pipeline.preparing.readiness import find_problems

    images = find_problems(given)
    typer.echo(f"{recipe}: no problems.")
    _warn(images.warnings)
    for line in estimate_lines(given, estimate(given, images)):
        typer.echo(line)
