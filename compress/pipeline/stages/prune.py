"""Prune: a plan from a scan or a ratio, and the network without the channels that it names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from torch import nn

from compress import artifacts
from compress.artifacts import PruningPlan, Sensitivity, fingerprint
from compress.errors import ArtifactError, PlanError
from compress.graph import save_model, to_onnx, to_torch
from compress.graph.activations import is_replacement
from compress.measure.cost import model_cost, module_cost
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import Kernels
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.facts import shape_for
from compress.pipeline.models import as_graph_module, model_identity
from compress.pipeline.scope import Scope
from compress.pipeline.stages.search import CANDIDATES_FILE, Search
from compress.pipeline.stages.stored_plan import PLAN_FILE, check_replaceable, drop_leftover
from compress.pipeline.stages.table_times import is_timed, saved_times, table_timing
from compress.pipeline.state import Run, Stage
from compress.prune.allocation import Allocation
from compress.prune.apply import apply_plan
from compress.prune.candidates import Planner
from compress.prune.plan import NAMES, plan_metric_drop, plan_ratio, plan_shares
from compress.prune.plan import pessimistic as upper_ends
from compress.prune.ranking import Kind, Network
from compress.prune.sensitivity import check_scan
from compress.recipe import PruneStep, QuantizeStep, Recipe, SensitivityStep
from compress.tasks.base import Task

QUIET_SHARE = 0.01
"""Of a network's multiply-adds: products of computed values up to this are not worth a note."""
Choose = Callable[[Network, Sensitivity, Allocation, Planner], PruningPlan]
"""(what is pruned, its scan, the rule, what makes a plan of curves by a rule) -> the plan."""


@dataclass(frozen=True)
class GivenScan:
    """A scan, and the model that it is of, where what is pruned is that with activations replaced."""

    scan: Sensitivity
    of: onnx.ModelProto | None = None


def run_prune(
    model: onnx.ModelProto,
    out_file: Path,
    step: PruneStep,
    *,
    given: GivenScan | None = None,
    input_shape: tuple[int, int, int] | None = None,
    table: LatencyTable | None = None,
    choose: Choose | None = None,
    execution: Execution = HERE,
) -> PruningPlan:
    """Plan, store the plan as plan.json beside the file, and prune by the stored plan.

    With a `table` the plan says what time is predicted before and after, in kernels of `step.precision` (default
    float32); a latency target needs one. A note says how long operators were timed.

    Args:
        model: in canonical form.
        out_file: the .onnx file to write.
        step: target, alignment, criterion (default the scan's, else "fpgm"), the rule from curves to ratios.
        given: a scan.
        input_shape: (C, H, W) that multiply-adds refer to; default the scan's, else the model's.
        table: times of operators.
        choose: tries several plans and returns one (see `compress.pipeline.stages.search`); default the scan's own.
        execution: whom to tell.

    Raises:
        PlanError: the target is not allowed like this, `align` leaves every group whole, or the scan ranks by
            another criterion.
        ArtifactError: the scan is of another model or other groups, or plan.json was edited, or is of
            another model, and would be overwritten.
        ModelError: onnxruntime does not run one of the operators alone, and the target is a latency.
    """
    plan_file = out_file.with_name(PLAN_FILE)
    identity = model_identity(model)
    check_replaceable(plan_file, identity)
    target, allocation, sensitivity = step.target.as_dict(), step.allocation, given.scan if given else None
    if given is not None:
        _check_scan(given, model, identity, input_shape)
        sensitivity = upper_ends(given.scan) if step.pessimistic else given.scan
    elif step.pessimistic:
        raise PlanError("prune.pessimistic: needs a sensitivity scan with a budget. Name one, or remove it.")
    criterion = _criterion(step.criterion, sensitivity)
    shape = shape_for(model, input_shape, sensitivity.input_shape if sensitivity else ())
    module = to_torch(model)
    groups = Scope.of(step).groups(module, shape)
    curves = {name: curve.metric for name, curve in sensitivity.curves.items()} if sensitivity else {}
    scores = sensitivity.scores if sensitivity else {}
    made_from = fingerprint(
        identity, target, step.align, criterion, sorted(step.protect), step.recurrent, allocation, shape, curves,
        *(("layer_norms",) if step.layer_norms else ()), *((scores,) if scores else ()),
    )  # fmt: skip
    network = Network(module, groups, shape, criterion, step.align, made_from, scores=scores)

    def make() -> PruningPlan:
        if choose is None or sensitivity is None:
            return _make_plan(network, target, sensitivity, allocation)
        return choose(network, sensitivity, allocation, lambda scan, rule: _make_plan(network, target, scan, rule))

    if table is not None:
        timing = table_timing(model, shape, table, step.precision or "float32", execution.on_progress)
        with saved_times(table, execution.on_note):
            if "latency" in target or is_timed(module, timing, execution.on_note):
                network = replace(network, timing=timing)
            plan = make()
    else:
        plan = make()
    plan = replace(plan, model=identity, input_shape=shape, notes=(*plan.notes, *_product_notes(model, module, shape)))
    with artifacts.lock(plan_file), artifacts.lock(out_file):
        artifacts.save(plan, plan_file)
        pruned = apply_plan(module, artifacts.load(PruningPlan, plan_file), shape)
        save_model(to_onnx(as_graph_module(pruned), model), out_file)
    return plan


def _product_notes(model: onnx.ModelProto, module: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """What a plan's multiply-adds leave out, where that is much."""
    whole, layers = model_cost(model, shape, 0).macs, module_cost(module, shape)[1]
    if whole - layers < QUIET_SHARE * whole:
        return ()
    return (
        f"multiply-adds are those of layers: {1 - layers / whole:.0%} of the network's, in products of two computed "
        "values as attention's, are in no target",
    )


def _check_scan(
    given: GivenScan, model: onnx.ModelProto, identity: str, input_shape: tuple[int, int, int] | None
) -> None:
    """Refuse a scan that does not fit what is pruned.

    Raises:
        ArtifactError: it is of another model.
    """
    of = identity if given.of is None else model_identity(given.of)
    check_scan(given.scan, of, input_shape)
    if given.of is not None and of != identity and not is_replacement(model, given.of):
        raise ArtifactError(
            "sensitivity: stale: the scanned model and the pruned one differ in more than replaced activations "
            f"(fingerprints {of} and {identity}). Scan the model that is to be pruned."
        )


def _criterion(asked: str | None, scan: Sensitivity | None) -> str:
    """What ranks the channels.

    Raises:
        PlanError: the scan ranks by something else than what is requested.
    """
    if scan is not None and asked not in (None, scan.criterion):
        raise PlanError(
            f"prune.criterion: got {asked!r}, but the sensitivity scan ranks by {scan.criterion!r}. Must be the same."
        )
    return asked or (scan.criterion if scan is not None else "fpgm")


def _make_plan(
    network: Network, target: dict[str, float], sensitivity: Sensitivity | None, allocation: Allocation
) -> PruningPlan:
    if "ratio" in target:
        return plan_ratio(network, target["ratio"])
    shares: dict[Kind, float] = {kind: target[kind] for kind in NAMES if kind in target}
    drop = target.get("metric_drop")
    if shares:
        return plan_shares(network, shares, sensitivity, allocation, drop)
    if sensitivity is None or drop is None:
        raise PlanError("prune.target.metric_drop: needs a sensitivity scan. Run `compress sensitivity` first.")
    return plan_metric_drop(network, sensitivity, drop)


@dataclass(frozen=True)
class Pruning(Stage):
    """The stage of a run: `model` without the channels of a plan, which is made from `scan` or from a ratio."""

    run: Run
    task: Task
    """As it was scanned: its training images may be others than the run's."""
    model: onnx.ModelProto
    step: PruneStep
    scan: Sensitivity | None

    name = "pruned"
    beside = (PLAN_FILE,)
    takes_over = (CANDIDATES_FILE,)

    def identity(self) -> str:
        settings = self.step.model_dump(exclude={"precision", "target", "search"})
        for key in ("pessimistic", "layer_norms"):
            if not settings[key]:
                del settings[key]  # a run of an earlier version goes on
        target = self.step.target
        kernels, threads = timed_kernels(self.run.recipe), self.run.recipe.compare.threads
        search = self._search()
        return fingerprint(
            model_identity(self.model),
            settings,
            target.as_dict(),
            [kernels, threads] if target.latency is not None else "",  # else the plan's times decide nothing
            self._criterion(),
            self._curves(),
            *([self.scan.scores] if self.scan and self.scan.scores else []),
            *([search.identity()] if search else []),
        )

    def compute(self, file: Path) -> None:
        run, search = self.run, self._search()
        drop_leftover(file.with_name(PLAN_FILE), model_identity(self.model))
        run_prune(
            self.model,
            file,
            self.step.model_copy(update={"precision": timed_kernels(run.recipe)}),
            given=GivenScan(self.scan, run.original) if self.scan else None,
            input_shape=run.task.input_shape,
            table=LatencyTable(threads=run.recipe.compare.threads, on_note=run.on_note),
            choose=search.choose if search else None,
            execution=replace(run.execution(), on_note=run.on_note),
        )

    def _curves(self) -> object:
        """What of the scan the plan is made from."""
        if self.scan is None:
            return ""
        return (upper_ends(self.scan) if self.step.pessimistic else self.scan).curves

    def _criterion(self) -> str:
        return self.step.criterion or (self.scan.criterion if self.scan else "fpgm")

    def _search(self) -> Search | None:
        """How the plan is searched for, by the measure of the recipe's scan on its images."""
        recipe = self.run.recipe
        scan = recipe.find_step(SensitivityStep)
        if self.step.search is None or scan is None:
            return None
        return Search(
            self.model,
            self.task,
            self.run.task,
            self.step.search,
            recipe.out / CANDIDATES_FILE,
            side=scan.side,
            images=scan.images,
            seed=recipe.seed,
            threads=self.run.threads,
            on_progress=self.run.on_progress,
        )


def timed_kernels(recipe: Recipe) -> Kernels:
    """What predicts the time of a pruned network: the kernels that the recipe names, or that its last file will use."""
    prune, quantize = recipe.find_step(PruneStep), recipe.find_step(QuantizeStep)
    if prune is not None and prune.precision is not None:
        return prune.precision
    if quantize is None:
        return "float32"
    return "int8" if quantize.optimize == "size" else "mixed"
