"""Which channels go first: what pruning by each criterion leaves of a recipe's model, at equal numbers of channels.

    python -m benchmarks.studies.rank_channels recipes/ppocr_cls.yaml --ratio 0.25 0.5

Every group gives up the same share of its channels (kept ones rounded up to the recipe's `align`), so that no scan
has a say; the metric is that of all validation images, of the network as it was cut and as reconstruction on 256
training images leaves it. The seconds are CPU time of ranking.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx

from benchmarks.studies.inputs import model_and_task
from compress.graph import to_onnx, to_torch
from compress.pipeline.evaluation import score_model
from compress.pipeline.models import as_graph_module
from compress.pipeline.training_images import fitting_batches
from compress.prune.brain_surgeon import obs_scores, stored_scores
from compress.prune.channels import kept_outputs, remove_channels
from compress.prune.compensation import reader_equations
from compress.prune.groups import find_groups
from compress.prune.importance import CRITERION_NAMES, OBS
from compress.prune.ranking import Network, Ranking, uniform
from compress.prune.reconstruct import reconstruct
from compress.recipe import PruneStep, load_recipe


@dataclass(frozen=True)
class Row:
    """What a criterion leaves at a ratio: the metric as cut, and reconstructed."""

    criterion: str
    ratio: float
    seconds: float
    pruned: float
    reconstructed: float


def compare(recipe_file: Path, ratios: Sequence[float], images: int | None = None) -> list[Row]:
    """Prune a recipe's model by every criterion; `images` are scored at most."""
    recipe = load_recipe(recipe_file)
    model, task = model_and_task(recipe)
    module = to_torch(model)
    step = recipe.find_step(PruneStep)
    groups = find_groups(module, task.input_shape)
    fitting = list(fitting_batches(module, task))

    def score(network: fx.GraphModule) -> float:
        return score_model(to_onnx(network, model), task, 1, images).metric

    whole = score(module)
    rows = [Row("-", 0.0, 0.0, whole, whole)]
    for criterion in CRITERION_NAMES:
        started = time.process_time()
        scores: dict[str, tuple[float, ...]] = {}
        if criterion == OBS:
            scores = stored_scores(obs_scores(module, groups, reader_equations(module, groups, fitting)))
        network = Network(module, groups, task.input_shape, criterion, step.align if step else 1, scores=scores)
        ranking = Ranking(network)
        seconds = time.process_time() - started
        for ratio in ratios:
            removed = ranking.removed(uniform(network, ratio))
            pruned = as_graph_module(remove_channels(module, groups, removed))
            before = score(pruned)
            reconstruct(module, pruned, kept_outputs(module, groups, removed), fitting)
            rows.append(Row(criterion, ratio, seconds, before, score(pruned)))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--ratio", type=float, nargs="+", default=[0.25, 0.5], help="share of every group's channels")
    parser.add_argument("--images", type=int, help="validation images that are scored, at most")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| ratio | criterion | s | pruned | reconstructed |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for row in sorted(compare(given.recipe, given.ratio, given.images), key=lambda row: row.ratio):
        print(f"| {row.ratio:g} | {row.criterion} | {row.seconds:.1f} | {row.pruned:.4f} | {row.reconstructed:.4f} |")


if __name__ == "__main__":
    main()
