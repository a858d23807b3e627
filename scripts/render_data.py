"""Render a data set of word crops with known text: a folder for training and one for validation.

    python scripts/render_data.py --out runs/demo_data
    python scripts/render_data.py --out runs/large --train 20000 --val 2000 --seed 7

Each folder holds images/ and labels.txt (`path<TAB>text`, as PaddleOCR has it). The same seed gives the same
images; training and validation images have nothing in common. The default is what `make demo` uses: 1600 crops
in about 6 seconds on one core.
"""

import argparse
import sys
from pathlib import Path

from rich.progress import Progress

from compress.data.synthetic import write_dataset
from compress.errors import CompressError

PARTS = ("train", "val")


def main() -> int:
    options = parse_arguments()
    with Progress(transient=True) as bar:
        for number, part in enumerate(PARTS):
            count = getattr(options, part)
            row = bar.add_task(f"rendering {part}", total=count)
            labels = write_dataset(
                options.out / part,
                count,
                # Seeds of the parts never meet, whatever the counts.
                len(PARTS) * options.seed + number,
                on_progress=lambda done, total, message, row=row: bar.update(row, completed=done),
            )
            bar.console.print(f"{labels}: {count} crops")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to make train/ and val/ in")
    parser.add_argument("--train", type=int, default=1200, help="crops for training (default %(default)s)")
    parser.add_argument("--val", type=int, default=400, help="crops for validation (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
