"""How well figures on unlabelled images order ways to choose ranges: Spearman's correlation with agreement elsewhere.

    python -m benchmarks.studies.rank_ranges recipes/int8_rec.yaml --held a/held_out.txt b/held_out.txt

The recipe's model, all that can in integers, calibrated and not trained, with symmetric ranges and two-sided ones, from
each start. Each is compared with the float network on the recipe's training images, and on images of other lists, of
which no label is looked at.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.studies.inputs import model_and_task
from benchmarks.studies.rank_measures import spearman
from compress.graph.lowering import lower_for_int8
from compress.pipeline.stages.int8_scan import network_predict
from compress.pipeline.stages.nearness import STARTS, Nearness, Network, start_in_words
from compress.pipeline.tasks import recipe_task
from compress.pipeline.training_images import BATCH
from compress.recipe import QuantizeStep, Recipe, load_recipe
from compress.tasks.base import Comparable, Predict, Task

HELD = "agreement elsewhere"


@dataclass(frozen=True)
class Compared:
    """Images of a task, and what the float network says of them."""

    task: Task
    batches: list[np.ndarray]
    wanted: list[np.ndarray]

    def distances(self, predict: Predict) -> tuple[np.ndarray, np.ndarray]:
        """Of each image: its divergence [N], and what it adds to agreement [N, 2]."""
        assert isinstance(self.task, Comparable)
        divergences, tallies = [], []
        for batch, wanted in zip(self.batches, self.wanted, strict=True):
            found = predict(batch)
            divergences.append(self.task.divergence(found, wanted))
            tallies.append(self.task.agreement(found, wanted))
        return np.concatenate(divergences), np.concatenate(tallies)


@dataclass
class Row:
    """A way to choose ranges, and its figures by name."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)


def figures(divergences: np.ndarray, tallies: np.ndarray, images: int) -> dict[str, float]:
    """What may be chosen by, from the first so many images.

    >>> found = figures(np.array([0.0, math.log(2), 9.0]), np.array([[1, 1], [0, 1], [0, 1]]), 2)
    >>> {name: round(value, 3) for name, value in found.items()} == {
    ...     "divergence, 2": 0.707, "agreement, 2": 0.5, "nearness, 2": 0.375
    ... }
    True
    """
    few, tally = divergences[:images], tallies[:images].sum(axis=0)
    agreement = float(tally[0] / tally[1])
    return {
        f"divergence, {images}": math.exp(-float(few.mean())),
        f"agreement, {images}": agreement,
        f"nearness, {images}": agreement * float(np.exp(-few).mean()),
    }


def compare(recipe: Recipe, held: Sequence[Path], images: Sequence[int], elsewhere: int) -> list[Row]:
    """Every start with symmetric and with two-sided ranges."""
    model, task = model_and_task(recipe)
    step = recipe.find_step(QuantizeStep)
    assert step is not None
    lowered = lower_for_int8(model)
    other = recipe_task(
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": tuple(held), "unlabelled": ()})})
    )
    sets: list[Compared] = []
    rows = []
    for symmetric in (True, False):
        changed = step.model_copy(update={"pact": step.pact.model_copy(update={"symmetric": symmetric})})
        network = Network(Nearness(task, changed, lambda _: (), 1), lowered)
        if not sets:
            predict = network_predict(network.module)
            sets = [_compared(task, max(images), predict), _compared(other, elsewhere, predict)]
        for percentile in STARTS:
            row = Row(f"{start_in_words(percentile)}, {'symmetric' if symmetric else 'two-sided'}")
            predict = network_predict(network.rounded(network.outputs, percentile))
            known, unknown = (each.distances(predict) for each in sets)
            for count in images:
                row.figures |= figures(*known, count)
            row.figures[HELD] = figures(*unknown, elsewhere)[f"agreement, {elsewhere}"]
            rows.append(row)
            print(f"| {row.name} | " + " | ".join(f"{value:.3f}" for value in row.figures.values()) + " |", flush=True)
    return rows


def _compared(task: Task, images: int, original: Predict) -> Compared:
    batches = list(task.calibration_batches(images, BATCH))
    return Compared(task, batches, [original(batch) for batch in batches])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--held", type=Path, nargs="+", required=True, help="label lists of other images")
    parser.add_argument("--images", type=int, nargs="+", default=[48, 192])
    parser.add_argument("--elsewhere", type=int, default=400, help="images of the other lists")
    given = parser.parse_args(arguments)
    rows = compare(load_recipe(given.recipe), given.held, given.images, given.elsewhere)
    print("\n| chosen by | rank correlation | chosen | agreement elsewhere |\n| --- | ---: | --- | ---: |")
    for name in rows[0].figures:
        values, truth = ([row.figures[each] for row in rows] for each in (name, HELD))
        best = max(rows, key=lambda row: row.figures[name])
        print(f"| {name} | {spearman(values, truth):.2f} | {best.name} | {best.figures[HELD]:.3f} |")


if __name__ == "__main__":
    main()
