"""Cells of a scan, each timed both ways in turn: the whole pruned network from scratch, and only what pruning reaches.

    python -m benchmarks.studies.time_scan recipes/ppocr_rec_en.yaml --measure metric --every 3

Stops where the two figures of a cell differ: at all by the metric, by more than 1e-5 by the outputs.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.studies.inputs import model_and_task
from compress.artifacts import Score
from compress.graph import to_onnx, to_torch
from compress.measure.session import Session
from compress.pipeline.models import as_graph_module
from compress.pipeline.scanning.cells import Cells
from compress.pipeline.scanning.measures import Measure, score_by
from compress.prune.channel_scores import group_removal_count, lowest_channels, score_group
from compress.prune.channels import remove_channels
from compress.prune.groups import find_groups
from compress.prune.importance import fpgm
from compress.recipe import SensitivityStep, load_recipe


def timed(run: Callable[[], Score]) -> tuple[float, float]:
    """The figure, and the CPU seconds that it took, which other work on the machine does not lengthen."""
    started = time.process_time()
    score = run()
    return score.metric, time.process_time() - started


def compare(recipe_file: Path, measure: Measure, images: int | None, every: int) -> str:
    """Time all cells of every so many-th group at the recipe's ratios; returns one line.

    Raises:
        ValueError: the figures of a cell differ.
    """
    recipe = load_recipe(recipe_file)
    step = recipe.find_step(SensitivityStep) or SensitivityStep()
    model, task = model_and_task(recipe)
    module = to_torch(model)
    groups = find_groups(module, task.input_shape)[::every]
    cells = Cells(module, model, groups, exact=measure == "metric")
    score_of = score_by(measure, task, task, images, cells.original())
    score_of(cells.original())
    seconds, count = [0.0, 0.0], 0
    for group in groups:
        scores = score_group(module, group, fpgm)  # which channels go does not change what a cell takes
        for number in dict.fromkeys(group_removal_count(group, ratio) for ratio in step.ratios):
            if number == 0:
                continue
            removed = lowest_channels(group, scores, number)

            def scratch(removed: tuple[int, ...] = removed, name: str = group.name) -> Score:
                pruned = remove_channels(module, groups, {name: removed})
                return score_of(Session(to_onnx(as_graph_module(pruned), model), threads=1, spin=False).run)

            def reached(removed: tuple[int, ...] = removed, place: int = groups.index(group)) -> Score:
                return score_of(cells.predictor(groups[place], cells.pruned_layers(groups[place], removed)))

            found = [timed(scratch), timed(reached)]
            if abs(found[0][0] - found[1][0]) > (0 if measure == "metric" else 1e-5):
                raise ValueError(f"{group.name} less {number} channels: {found[0][0]} and {found[1][0]}")
            seconds = [total + each for total, (_, each) in zip(seconds, found, strict=True)]
            count += 1
    return (
        f"{count} cells of {len(groups)} groups, {measure}: from scratch {seconds[0]:.1f} s, what is reached "
        f"{seconds[1]:.1f} s, {seconds[0] / seconds[1]:.2f}x"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--measure", choices=("metric", "divergence", "agreement"), default="metric")
    parser.add_argument("--images", type=int, help="default all validation images, or the measure's own number")
    parser.add_argument("--every", type=int, default=1, help="of the groups")
    given = parser.parse_args(arguments)
    print(compare(given.recipe, given.measure, given.images, given.every))


if __name__ == "__main__":
    main()
