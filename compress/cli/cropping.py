"""The commands that make crops of images: crop, of scenes, and splice, of other crops."""

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


def splice(
    crops: Annotated[
        list[Path],
        typer.Argument(help="folders or label lists of crops, which are not looked at for labels.", metavar="CROPS..."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="a folder for the spliced crops (images/) and their list, labels.txt.", metavar="FOLDER"),
    ],
    count: Annotated[int, typer.Option(min=1, help="crops to make.")] = 1500,
    max_skipped: options.MaxSkipped = None,
    seed: Annotated[int, typer.Option(min=0, help="of all random choices: the same seed, the same crops.")] = 0,
) -> None:
    """Cut pieces out of crops of text and put them side by side, as more data without labels for a recogniser.

    What the original model reads in them is learned: name the list under `data.unlabelled` of a recipe. Leave images
    that judge out. The same input gives the same bytes.

    \b
    Example:
      compress splice train/crops --count 4000 --out spliced
    """
    from compress.data.labels import ListRules
    from compress.data.splices import write_spliced
    from compress.data.unlabelled import list_images

    for path in crops:
        options.check_apart(out, path, "the crops")
    rules = ListRules(options.build(DataSettings, {"images": crops, "max_skipped": max_skipped}).max_skipped)
    files = [file for path in crops for file in list_images(path, rules).files]
    with progress(f"{out} holds the crops so far, without a list; the same command makes all of them.") as on_progress:
        made = write_spliced(out, files, count, seed, on_progress=on_progress)
    typer.echo(f"Written: {count} crops, {made}")
