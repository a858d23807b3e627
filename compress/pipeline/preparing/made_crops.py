"""Crops that a run of `compress shrink` learns from beside the user's: with other text, or spliced of theirs."""

from collections.abc import Sequence
from pathlib import Path

from compress.data.splices import write_spliced
from compress.data.synthetic import write_dataset
from compress.data.unlabelled import split_images
from compress.pipeline.preparing.families import FAMILIES
from compress.pipeline.preparing.recipe_parts import Wishes
from compress.progress import Progress

APART = 1_000_003
"""Added to the seed of drawn crops: those of `compress render` with the same seed may be the user's own images."""


def made_folders(wishes: Wishes) -> dict[str, int]:
    """Folders in the run's of crops that are made for it, and their numbers: another number is another recipe."""
    family = FAMILIES[wishes.kind]
    counts = {
        "rendered": family.rendered if wishes.rendered is None else wishes.rendered,
        "spliced": family.spliced if wishes.spliced is None else wishes.spliced,
    }
    return {f"{name}-{count}-{wishes.seed}": count for name, count in counts.items() if count}


def make_crops(
    folder: Path, wishes: Wishes, files: Sequence[Path], held_back: float, on_progress: Progress | None = None
) -> None:
    """Make the crops that are learned from beside the user's in a run's folder, unless they are there.

    Args:
        folder: of the run.
        wishes: how many.
        files: the user's images.
        held_back: share of them that judges: nothing is cut from it.
        on_progress: called as (done, total, message).

    Raises:
        OutputError: the folder cannot be written.
        DataError: the user's images cannot be parted or decoded.
    """
    for name, count in made_folders(wishes).items():
        made = folder / name
        if name.startswith("spliced"):
            write_spliced(made, split_images(files, held_back)[0], count, wishes.seed, on_progress=on_progress)
        elif not (made / "labels.txt").exists():
            write_dataset(made, count, wishes.seed + APART, on_progress=on_progress)
