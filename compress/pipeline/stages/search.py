"""Several plans at one target, tried: pruned, recovered cheaply, scored on the same images; the best is kept."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import fx

from compress import artifacts
from compress.artifacts import Candidate, Candidates, PruningPlan, Sensitivity, fingerprint
from compress.graph import to_onnx, to_torch
from compress.measure.session import Session
from compress.pipeline.evaluation import default_threads
from compress.pipeline.models import as_graph_module, model_identity
from compress.pipeline.scanning.measures import Measure, ScoreOf, score_by
from compress.pipeline.scanning.scan_cost import at_side
from compress.pipeline.training_images import fitting_batches
from compress.progress import Progress
from compress.prune.adaptive_bn import adapt_batch_norm, check_has_batch_norm
from compress.prune.allocation import Allocation
from compress.prune.candidates import Planner, drafts
from compress.prune.channels import kept_outputs, remove_channels
from compress.prune.ranking import Network
from compress.prune.reconstruct import reconstruct
from compress.recipe import SearchSettings
from compress.tasks.base import Task

CANDIDATES_FILE = "candidates.json"
"""Beside a plan that was searched for: the candidates that were tried so far."""


@dataclass(frozen=True)
class Search:
    """How a plan is searched for.

    Args:
        model: what is pruned, in canonical form.
        task: the data and metric that the scan scores by.
        training: the task with the images that candidates are recovered on.
        settings: how many, and how.
        file: where rows are kept as they are made; a search that was stopped goes on from it.
        side: of the scan's images, where the task has one to choose.
        images: validation images that the scan scores on; default all.
        seed: of what is drawn.
        threads: default every core.
        on_progress: called as (candidates done, in all, message).
    """

    model: onnx.ModelProto
    task: Task
    training: Task
    settings: SearchSettings
    file: Path
    side: int | None = None
    images: int | None = None
    seed: int = 0
    threads: int | None = None
    on_progress: Progress | None = None

    def choose(self, network: Network, scan: Sensitivity, allocation: Allocation, plan_of: Planner) -> PruningPlan:
        """Try plans around the scan's own, and return the best; of equals the first.

        Args:
            network: imported from the model.
            scan: of it.
            allocation: the rule of the scan's own plan, which is the first candidate.
            plan_of: makes a plan of curves by a rule.

        Raises:
            ArtifactError: the file holds candidates of other settings.
            PlanError: they cannot be recovered as asked.
            DataError: there are no training images.
        """
        measure = measure_of(scan)
        rows, best = self._earlier(network, scan, allocation, measure), None
        score_of: ScoreOf | None = None
        made = drafts(scan, allocation, plan_of, self.settings.candidates, self.seed)
        for number, draft in enumerate(made):
            if number == len(rows.rows):
                score_of = score_of or self._score_of(measure)
                score = score_of(self._recovered(network, draft.plan).run).metric
                row = Candidate(draft.origin, draft.plan.macs_after, draft.plan.latency_after, score)
                rows = replace(rows, rows=(*rows.rows, row))
                artifacts.save(rows, self.file)
            row = rows.rows[number]
            if best is None or row.score > rows.rows[best[0]].score:
                best = number, draft.plan
            if self.on_progress is not None:
                text = f"candidate {number} ({row.origin}): {measure} {row.score:.4f}; best: {best[0]}"
                self.on_progress(number + 1, self.settings.candidates, text)
        assert best is not None
        return replace(best[1], notes=(*best[1].notes, _note(rows, best[0])))

    def identity(self) -> str:
        """Of what decides, beside the scan, the model and what it is pruned to."""
        return fingerprint(self.settings.model_dump(), self.training.fingerprint(), self.side, self.images, self.seed)

    def _earlier(self, network: Network, scan: Sensitivity, allocation: Allocation, measure: Measure) -> Candidates:
        identity = fingerprint(
            network.fingerprint, scan.curves, allocation, model_identity(self.model), self.identity()
        )
        fresh = Candidates(identity, measure, self.settings.recover, self.settings.images, ())
        if not self.file.exists():
            return fresh
        found = artifacts.load(Candidates, self.file)
        artifacts.check_fresh(self.file, found.fingerprint, identity)
        return found

    def _score_of(self, measure: Measure) -> ScoreOf:
        images = self.images if measure == "metric" else self.settings.images
        task = at_side(self.task, self.side)
        return score_by(measure, task, self.training, images, self._session(self.model).run)

    def _recovered(self, network: Network, plan: PruningPlan) -> Session:
        """The network pruned by a plan, after what compensates for it cheaply."""
        removed = {name: group.removed for name, group in plan.groups.items()}
        original = as_graph_module(network.module)
        pruned = as_graph_module(remove_channels(original, network.groups, removed))
        self._recover(original, pruned, kept_outputs(original, network.groups, removed))
        return self._session(to_onnx(pruned, self.model))

    def _recover(self, original: fx.GraphModule, pruned: fx.GraphModule, kept: dict[str, list[int]]) -> None:
        if self.settings.recover == "none":
            return
        torch.set_num_threads(self.threads or default_threads())
        batches = fitting_batches(original, self.training, self.settings.images)
        if self.settings.recover == "reconstruct":
            reconstruct(original, pruned, kept, batches, seed=self.seed)
        else:
            adapt_batch_norm(pruned, batches)

    def _session(self, model: onnx.ModelProto) -> Session:
        return Session(model, threads=self.threads or default_threads(), spin=False)


def measure_of(scan: Sensitivity) -> Measure:
    """What a scan's cells are scored by."""
    name = scan.metric_name
    return "divergence" if name == "divergence" else "agreement" if name == "agreement" else "metric"


def check_search(model: onnx.ModelProto, settings: SearchSettings) -> None:
    """Refuse, before anything is computed, what will not work.

    Raises:
        PlanError: the model has no BatchNorm to adapt.
    """
    if settings.recover == "adaptive_bn":
        check_has_batch_norm(to_torch(model))


def _note(found: Candidates, best: int) -> str:
    own, chosen = found.rows[0].score, found.rows[best]
    tried = f"tried {len(found.rows)} plans ({found.measure}, recover: {found.recover})"
    if best == 0:
        return f"{tried}: the scan's own is the best, {own:.4f}"
    return f"{tried}: candidate {best} ({chosen.origin}) is the best, {chosen.score:.4f}; the scan's own {own:.4f}"
