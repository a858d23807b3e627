"""Render a data set with known text, of word crops or of whole scenes: a folder for training and one for validation.

    python scripts/render_data.py --out runs/demo_data
    python scripts/render_data.py --out runs/large --train 20000 --val 2000 --seed 7
    python scripts/render_data.py --out runs/demo_scenes --kind scenes

Each folder holds images/ and labels.txt: `path<TAB>text` for words, and PaddleOCR's list of regions for scenes. The
same seed gives the same images; training and validation images have nothing in common. The defaults are what
`make demo` and `make demo-det` use: 1600 crops take about 6 seconds on one core, 200 scenes about 13.
"""

import argparse
import sys
from pathlib import Path

from rich.progress import Progress

from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.errors import CompressError

PARTS = ("train", "val")
KINDS = {"words": (write_dataset, (1200, 400)), "scenes": (write_scenes, (160, 40))}
"""Kind -> its writer, and how many images it writes of each part unless told otherwise."""


def main() -> int:
    options = parse_arguments()
    write, counts = KINDS[options.kind]
    with Progress(transient=True) as bar:
        for number, (part, usual) in enumerate(zip(PARTS, counts, strict=True)):
            count = usual if getattr(options, part) is None else getattr(options, part)
            row = bar.add_task(f"rendering {part}", total=count)
            labels = write(
                options.out / part,
                count,
                # Seeds of the parts never meet, whatever the counts.
                len(PARTS) * options.seed + number,
                on_progress=lambda done, total, message, row=row: bar.update(row, completed=done),
            )
            bar.console.print(f"{labels}: {count} {options.kind}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to make train/ and val/ in")
    parser.add_argument("--kind", choices=KINDS, default="words", help="what to render (default %(default)s)")
    for index, (part, what) in enumerate(zip(PARTS, ("training", "validation"), strict=True)):
        usual = ", ".join(f"{counts[index]} {kind}" for kind, (_, counts) in KINDS.items())
        parser.add_argument(f"--{part}", type=int, help=f"images for {what} (default {usual})")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
