"""How good a scan within a budget is: replayed on the judgements of a whole scan, at shares of its cost.

    python -m benchmarks.studies.replay_budgets recipes/ppocr_cls.yaml --shares 4 10 20 --targets 0.58 0.7

Every cell of the recipe's scan is measured once on all validation images, and its tallies are kept in --out; a budget
then reads the rows that it wants. With --measure divergence or agreement cells are measured on training images, whose
labels are not read. Beside it stands a scan of every cell on as many images as that share. A plan is judged by what the
network pruned by it loses of the metric on all validation images, untrained; behind it the sum of its groups' drops in
the whole scan.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.studies.inputs import model_and_task
from benchmarks.studies.rank_measures import spearman
from compress.artifacts import BudgetedScan, PruningPlan, Sensitivity
from compress.graph import to_onnx, to_torch
from compress.measure.cost import layer_positions
from compress.pipeline import score_model
from compress.pipeline.models import as_graph_module
from compress.pipeline.scanning.cells import Cells
from compress.pipeline.scanning.measures import Measure, count_images
from compress.pipeline.training_images import BATCH
from compress.prune.allocation import rising_drop
from compress.prune.apply import apply_plan
from compress.prune.cell_choice import (
    Cell,
    Group,
    bounds_of,
    image_counts,
    measure_divergence,
    measure_drop,
    next_action,
)
from compress.prune.channel_scores import group_removal_count, lowest_channels, score_group
from compress.prune.channels import ChannelGroup
from compress.prune.groups import find_groups
from compress.prune.importance import CRITERIA
from compress.prune.plan import plan_macs
from compress.prune.ranking import Network
from compress.prune.sensitivity import ScanRequest, empty_scan, group_macs, ratio_key
from compress.recipe import Recipe, SensitivityStep, load_recipe
from compress.tasks.base import Predict

CRITERION = "fpgm"
Tallies = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Replay:
    """A model's groups, and the tallies [N, 2] or divergences [N] of its whole scan: of the model itself under "", else
    "group|ratio"."""

    module: torch.nn.Module
    groups: Sequence[ChannelGroup]
    shape: tuple[int, int, int]
    ratios: tuple[float, ...]
    tallies: Tallies

    @property
    def images(self) -> int:
        """Judgements."""
        return len(self.tallies[""])

    def known(self) -> dict[str, Group]:
        """Groups without a measured cell."""
        positions = layer_positions(self.module, self.shape)
        found = {}
        for group in self.groups:
            counts: dict[int, float] = {}
            for ratio in self.ratios:
                counts.setdefault(group_removal_count(group, ratio), ratio)
            ratios = tuple(ratio for count, ratio in counts.items() if count)
            found[group.name] = Group(ratios, group_macs(self.module, group, positions))
        return found

    def cell(self, name: str, ratio: float, images: int) -> Cell:
        """What a budget would have measured."""
        some = np.random.default_rng(0).permutation(self.images)[:images]
        found = self.tallies[f"{name}|{ratio_key(ratio)}"][some]
        if found.ndim == 1:
            return measure_divergence(images, found)
        return measure_drop(images, self.tallies[""][some], found)

    def every(self, images: int) -> dict[str, Group]:
        """Every cell on so many images."""
        found = self.known()
        for name, group in found.items():
            group.cells |= {ratio: self.cell(name, ratio, images) for ratio in group.ratios}
        return found

    def within(self, share: int, targets: Sequence[float]) -> tuple[dict[str, Group], float]:
        """What a budget of this share of the whole scan knows, and the share that it spent."""
        found, counts, spent = self.known(), image_counts(self.images), 0
        whole = self.images * sum(len(group.ratios) for group in found.values())
        while (action := next_action(found, counts, self.baseline, targets)) is not None:
            if spent + action.images > whole // share:
                break
            found[action.group].cells[action.ratio] = self.cell(action.group, action.ratio, action.images)
            spent += action.images
        return found, spent / whole

    @property
    def baseline(self) -> float:
        """The model's own figure."""
        if self.tallies[""].ndim == 1:
            return 1.0
        right, counted = self.tallies[""].sum(0)
        return float(right / counted)

    def scan(self, found: Mapping[str, Group], upper: bool = False) -> Sensitivity:
        """What a plan is made from."""
        request = ScanRequest(self.ratios, CRITERION, "", "metric", self.shape)
        scan = empty_scan(self.module, self.groups, request, self.baseline)
        curves = {
            name: replace(curve, metric={
                ratio_key(ratio): self.baseline - (cell.high if upper else cell.drop)
                for ratio, cell in sorted(found[name].cells.items())
            })
            for name, curve in scan.curves.items()
        }  # fmt: skip
        return replace(scan, curves=curves, budgeted=BudgetedScan(0.0, 0, 0, 0, 0, (), False))

    def plan_for(self, found: Mapping[str, Group], target: float, rule: Any, upper: bool = False) -> PruningPlan:
        """The plan for a share of the multiply-adds."""
        network = Network(self.module, self.groups, self.shape, CRITERION, 8, "")
        return plan_macs(network, target, self.scan(found, upper), rule)

    def summed_drop(self, plan: PruningPlan) -> float:
        """The sum over groups of the whole scan's drops at the ratios of a plan."""
        whole = {name: {r: c.drop for r, c in group.cells.items()} for name, group in self.every(self.images).items()}
        return sum(rising_drop(whole[name], group.pruning_ratio) for name, group in plan.groups.items())


def judge(task: Any, by: Measure, images: int | None, original: Predict) -> Callable[[Predict], np.ndarray]:
    """What says of each image what a network makes of it."""
    if by == "metric":

        def tallies(predict: Predict) -> np.ndarray:
            examined = task.examine(predict)
            found: np.ndarray = examined.tallies[examined.score.name]
            return found

        return tallies
    batches = list(task.calibration_batches(count_images(task, images), BATCH))
    wanted = [original(batch) for batch in batches]
    compare = task.divergence if by == "divergence" else task.agreement
    return lambda predict: np.concatenate([compare(predict(x), y) for x, y in zip(batches, wanted, strict=True)])


def measure(
    recipe: Recipe, model: onnx.ModelProto, task: Any, file: Path, by: Measure = "metric", images: int | None = None
) -> Replay:
    """Measure every cell, or read what was measured."""
    module = to_torch(model)
    groups = find_groups(module, task.input_shape, (), True)
    step = recipe.find_step(SensitivityStep) or SensitivityStep()
    if not file.is_file():
        cells = Cells(module, model, groups, threads=1)
        of = judge(task, by, images, cells.original())
        tallies = {"": of(cells.original())}
        for group in groups:
            scores = score_group(module, group, CRITERIA[CRITERION])
            for count, ratio in {group_removal_count(group, ratio): ratio for ratio in reversed(step.ratios)}.items():
                layers = cells.pruned_layers(group, lowest_channels(group, scores, count)) if count else None
                if layers is not None:
                    tallies[f"{group.name}|{ratio_key(ratio)}"] = of(cells.predictor(group, layers))
        np.savez(file, **tallies)
    with np.load(file) as stored:
        return Replay(module, groups, task.input_shape, step.ratios, dict(stored))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--shares", type=int, nargs="+", default=[4, 10, 20], help="of the whole scan: 1/4, 1/10, ...")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.58, 0.7], help="multiply-adds left")
    parser.add_argument("--out", type=Path, default=Path("runs/budgets"))
    parser.add_argument("--measure", choices=("metric", "divergence", "agreement"), default="metric")
    parser.add_argument("--images", type=int, help="training images that outputs are compared on")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(given.recipe)
    task: Any
    model, task = model_and_task(recipe)
    replay = measure(recipe, model, task, given.out / "tallies.npz", given.measure, given.images)
    whole = replay.every(replay.images)
    drops = {(name, ratio): cell.drop for name, group in whole.items() for ratio, cell in group.cells.items()}
    columns = [(target, rule) for target in given.targets for rule in ("price", "threshold")]
    print(f"| scan | spent | cells | rank correlation | {' | '.join(f'{rule}, {left:g}x' for left, rule in columns)} |")
    print("| --- | ---: | ---: | ---: |" + " ---: |" * len(columns))

    metric = score_model(model, task, 1).metric

    def lost(plan: PruningPlan) -> float:
        pruned = as_graph_module(apply_plan(replay.module, plan, replay.shape))
        return metric - score_model(to_onnx(pruned, model), task, 1).metric

    def row(name: str, spent: float, found: Mapping[str, Group], upper: bool = False) -> None:
        curves = {group: bounds_of(known, replay.baseline) for group, known in found.items()}
        ranked = spearman([curves[group][ratio].middle for group, ratio in drops], list(drops.values()))
        cells = sum(len(group.cells) for group in found.values())
        plans = [replay.plan_for(found, left, rule, upper) for left, rule in columns]
        shown = " | ".join(f"{lost(plan):.4f} ({replay.summed_drop(plan):.3f})" for plan in plans)
        print(f"| {name} | {spent:.3f} | {cells} | {ranked:.3f} | {shown} |", flush=True)

    row("whole", 1.0, whole)
    for share in given.shares:
        found, spent = replay.within(share, (0.5, 0.65, 0.8))
        row(f"budget 1/{share}", spent, found)
        row(f"budget 1/{share}, `pessimistic`", spent, found, upper=True)
        evenly = replay.every(replay.images // share)
        row(f"every cell on 1/{share}", 1 / share, evenly)
        row(f"every cell on 1/{share}, upper ends", 1 / share, evenly, upper=True)


if __name__ == "__main__":
    main()
