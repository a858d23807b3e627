"""Commands before a run: check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from compress.errors import CompressError
from compress.recipe import load_recipe

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="change one key, e.g. prune.align=16 or data.val=val.txt; may be repeated.",
        metavar="KEY=VALUE",
    ),
]


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
    what cannot be told so is shown as unknown.

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
    from compress.pipeline.estimate import estimate, estimate_lines
    from compress.pipeline.readiness import find_problems

    images = find_problems(given)
    typer.echo(f"{recipe}: no problems.")
    for line in estimate_lines(given, estimate(given, images)):
        typer.echo(line)
