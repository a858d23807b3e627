"""The commands that need no data: `render` makes some, `demo` compresses a model that ships on it."""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.cli.preparing import Changes
from compress.cli.progress import progress
from compress.cli.running import finish
from compress.errors import CompressError
from compress.progress import Progress

PARTS = ("train", "val")
SETTINGS, RENDERED = ".render-settings", ".rendered"
"""In a folder that was rendered into: what, and that it was finished."""


class Kind(enum.StrEnum):
    """What is rendered."""

    words = "words"
    scenes = "scenes"


USUAL = {Kind.words: (1200, 400), Kind.scenes: (160, 40)}
"""How many images there are of each part, where nobody says how many."""


class Demo(enum.StrEnum):
    """A model that ships."""

    classification = "classification"
    recognition = "recognition"
    detection = "detection"


def render(
    out: Annotated[Path, typer.Option(help="folder to make train/ and val/ in.", metavar="FOLDER")],
    kind: Annotated[Kind, typer.Option(help="crops of words, or whole scenes for detection.")] = Kind.words,
    train: Annotated[
        int | None, typer.Option(min=1, help="images for training; default 1200 words or 160 scenes.")
    ] = None,
    val: Annotated[
        int | None, typer.Option(min=1, help="images for validation; default 400 words or 40 scenes.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of all random choices: the same seed, the same images.")] = 0,
) -> None:
    """Render images of text with labels, for a first try or beside real data.

    Each of train/ and val/ holds images/ and labels.txt: `path<TAB>text` for words, PaddleOCR's list of regions for
    scenes. The two have no image in common. 1600 words take about 6 seconds on one core, 200 scenes about 13.

    \b
    Examples:
      compress render --out data
      compress render --out scenes --kind scenes --train 400 --seed 7
    """
    usual = USUAL[kind]
    counts = (usual[0] if train is None else train, usual[1] if val is None else val)
    with progress("The same command begins again.") as on_progress:
        for labels, count in zip(render_parts(out, kind, counts, seed, on_progress), counts, strict=True):
            typer.echo(f"{labels}: {count} {kind}")


def render_parts(out: Path, kind: Kind, counts: tuple[int, int], seed: int, on_progress: Progress) -> list[Path]:
    """Render training and validation images; returns their label lists.

    Raises:
        CompressError: something else lies there.
        OutputError: nothing can be written there.
    """
    _check_own(out, f"{kind} {counts[0]} {counts[1]} seed {seed}")
    from compress.data.synthetic import write_dataset
    from compress.data.synthetic_scenes import write_scenes

    write: Callable[..., Path] = write_dataset if kind is Kind.words else write_scenes
    # Seeds of the parts never meet, whatever the counts.
    seeds = [len(PARTS) * seed + number for number in range(len(PARTS))]
    return [
        write(out / part, count, own_seed, on_progress=on_progress)
        for part, count, own_seed in zip(PARTS, counts, seeds, strict=True)
    ]


def _check_own(out: Path, settings: str) -> None:
    """Note what is rendered into a folder, and refuse one with other images: theirs would be mixed or overwritten."""
    note = out / SETTINGS
    if any((out / part).exists() for part in PARTS) and not (note.is_file() and note.read_text() == settings):
        raise CompressError(f"--out: {out} holds other images in train/ or val/. Give another folder, or delete it.")
    artifacts.write_atomic(note, settings.encode())


def demo(
    kind: Annotated[Demo, typer.Argument(help="which of the models that ship.")] = Demo.classification,
    out: Annotated[Path, typer.Option(help="folder for images, recipe and results.", metavar="FOLDER")] = Path(
        "compress-demo"
    ),
    changes: Changes = None,
) -> None:
    """Compress a small model that ships, on text that is rendered here: scan, prune, train, int8 file, report.

    Nothing else is needed. The classifier takes one minute on two cores, the detector and the recogniser about four.
    The folder then holds an ordinary recipe to read and to change; the same command goes on where it was stopped.

    \b
    Examples:
      compress demo
      compress demo detection --out runs/demo
    """
    from compress.zoo import demos

    folder = out / kind
    rendered = folder / "data"
    if not (rendered / RENDERED).exists():
        images = Kind.scenes if kind is Demo.detection else Kind.words
        with progress("The same command begins with the images again.") as on_progress:
            render_parts(rendered, images, USUAL[images], 0, on_progress)
        (rendered / RENDERED).touch()
    recipe = demos.write_recipe(kind, folder)
    typer.echo(f"Recipe: {recipe}", err=True)
    try:
        finish(recipe, changes, folder / "run")
    finally:
        if (page := folder / "run" / "report.html").exists():
            typer.echo(f"Look at {page}. For a model of yours: compress init MODEL --data LABELS")
