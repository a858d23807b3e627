"""How well scans without labels rank cells: Spearman's correlation of their drops with those of the labelled scan.

    python -m benchmarks.studies.rank_measures recipes/ppocr_cls.yaml --images 64 256 --out runs/rank_cls

Each scan is of the recipe's model, at few ratios, and lies in a folder of its own below --out, so that what is there is
taken as it is; seconds are told of scans that were made in one go.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.studies.inputs import model_and_task
from compress.artifacts import Sensitivity
from compress.pipeline import run_sensitivity
from compress.pipeline.execution import Execution
from compress.pipeline.scanning.measures import Measure
from compress.recipe import SensitivityStep, load_recipe

RATIOS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Row:
    """A scan's measure and images, how long it took, and how it ranks: all cells, then those of each ratio."""

    measure: str
    images: int
    seconds: float
    correlations: tuple[float, ...]


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs.

    >>> ranks([0.5, 0.1, 0.5]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: np.ndarray = (ends - (counts - 1) / 2)[inverse]
    return shared


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one side is all the same."""
    if min(len(set(one)), len(set(other))) < 2:
        return float("nan")
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def correlations(scan: Sensitivity, labelled: Sensitivity) -> tuple[float, ...]:
    """Of all cells, and of those at each ratio."""
    groups = [list(scan.ratios), *([ratio] for ratio in scan.ratios)]
    return tuple(spearman(*(drops(each, ratios) for each in (scan, labelled))) for ratios in groups)


def drops(scan: Sensitivity, ratios: Sequence[float]) -> list[float]:
    """Drops of all groups at these ratios."""
    return [scan.baseline - curve.metric[f"{ratio:g}"] for curve in scan.curves.values() for ratio in ratios]


def compare(recipe_file: Path, images: Sequence[int], out: Path) -> list[Row]:
    """Scan a recipe's model by its labels, then by its outputs on so many training images."""
    recipe = load_recipe(recipe_file)
    model, task = model_and_task(recipe)

    def scan(measure: Measure, count: int | None) -> tuple[Sensitivity, float]:
        started = time.monotonic()
        found = run_sensitivity(
            model,
            task,
            out / f"{measure}_{count or 'all'}",
            SensitivityStep(criterion="fpgm", ratios=RATIOS, measure=measure, images=count),
            execution=Execution(threads=1),
        )
        return found, time.monotonic() - started

    labelled, seconds = scan("metric", None)
    rows = [Row("metric", 0, seconds, correlations(labelled, labelled))]
    measures: tuple[Measure, ...] = ("divergence", "agreement")
    for count in images:
        for measure in measures:
            found, seconds = scan(measure, count)
            rows.append(Row(measure, count, seconds, correlations(found, labelled)))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--images", type=int, nargs="+", required=True, help="training images of each further scan")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    print(f"| measure | images | s | all cells | {' | '.join(f'at {ratio:g}' for ratio in RATIOS)} |")
    print("| --- | ---: | ---: |" + " ---: |" * (1 + len(RATIOS)))
    for row in compare(given.recipe, given.images, given.out):
        figures = " | ".join(f"{figure:.3f}".removeprefix("0") for figure in row.correlations)
        print(f"| {row.measure} | {row.images or 'all, labelled'} | {row.seconds:.0f} | {figures} |")


if __name__ == "__main__":
    main()
