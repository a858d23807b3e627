"""The command that makes crops of scenes: crop."""

from pathlib import Path
from typing import Annotated

import typer

from compress.cli import options
from compress.cli.progress import progress
from compress.recipe.schema import DataSettings


def crop(
    labels: Annotated[
        list[Path],
        typer.Argument(help="label lists of a detector (path<TAB>JSON), or ICDAR folders.", metavar="LABELS..."),
    ],
    out: Annotated[
        Path, typer.Option(help="a new folder for the crops (images/) and their list, labels.txt.", metavar="FOLDER")
    ],
    min_height: Annotated[int, typer.Option(min=1, help="leave out crops lower than this, in pixels.")] = 8,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="at most so many crops, drawn over all images; default all.", metavar="N"),
    ] = None,
    max_skipped: options.MaxSkipped = None,
    data_root: options.DataRoot = None,
) -> None:
    """Cut text lines out of labelled scenes, as data for a recogniser or a direction classifier.

    Regions are made rectangles, lines that run down are turned; those marked ### or * or without text are left out.
    The same input gives the same bytes.

    \b
    Example:
      compress crop receipts/labels.txt --out lines --min-height 10
    """
    from compress.data.crops import write_crops
    from compress.data.labels import DEFAULT_RULES, ListRules

    given = options.build(DataSettings, {"val": labels, "max_skipped": max_skipped})
    rules = ListRules(given.max_skipped, DEFAULT_RULES.roots if data_root is None else (data_root,))

    with progress(f"{out} holds the crops so far, without a list; the same command makes all of them.") as on_progress:
        made = write_crops(labels, out, min_height=min_height, limit=limit, rules=rules, on_progress=on_progress)
    for warning in made.warnings:
        typer.echo(f"Note: {warning}", err=True)
    for reason, count in made.skipped.items():
        typer.echo(f"Left out: {count} regions {reason}")
    typer.echo(f"Written: {made.written} crops, {out / 'labels.txt'}")
