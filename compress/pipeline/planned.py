"""Prune by a plan that is given: as it was stored, or edited since."""

from dataclasses import replace
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import GroupPlan, PruningPlan
from compress.errors import ArtifactError
from compress.graph import save_model, to_onnx, to_torch
from compress.measure.cost import module_cost, parameter_count
from compress.pipeline.guessing import shape_for
from compress.pipeline.stages import PLAN_FILE, _check_unedited, model_identity
from compress.pipeline.timing import as_graph_module
from compress.prune.apply import apply_plan

EDITED = "the plan was edited by hand: what it removes was not chosen by its target"


def run_plan(
    model: onnx.ModelProto, out_file: Path, plan_file: Path, *, input_shape: tuple[int, int, int] | None = None
) -> PruningPlan:
    """Prune by a plan in a file; the plan is stored as plan.json beside the pruned file.

    An edited plan is carried out as it is. What is stored says so, and what the plan comes to.

    Args:
        model: the one that the plan was made for.
        out_file: the .onnx file to write.
        plan_file: the plan.
        input_shape: (C, H, W) that multiply-adds refer to; default the plan's.

    Raises:
        ArtifactError: the plan is damaged, or of another model, or another plan.json lies beside the pruned file that
            was edited and would be overwritten.
        PlanError: it names channels that the model does not have, or leaves a layer none.
    """
    stored = out_file.with_name(PLAN_FILE)
    if stored.resolve() != plan_file.resolve():
        _check_unedited(stored)
    plan, edited = artifacts.load_edited(PruningPlan, plan_file)
    check_plan(plan, plan_file, model_identity(model))
    shape = shape_for(model, input_shape, plan.input_shape)
    module = to_torch(model)
    pruned = apply_plan(module, plan, shape)
    if edited:
        plan = replace(
            plan,
            input_shape=shape,
            groups={name: _as_it_is(group) for name, group in plan.groups.items()},
            macs_before=module_cost(module, shape)[1],
            params_before=parameter_count(module),
            macs_after=module_cost(pruned, shape)[1],
            params_after=parameter_count(pruned),
            latency_before=None,
            latency_after=None,
            latency_precision="",
            notes=tuple(dict.fromkeys((*plan.notes, EDITED))),
        )
    with artifacts.lock(stored), artifacts.lock(out_file):
        artifacts.save(plan, stored)
        save_model(to_onnx(as_graph_module(pruned), model), out_file)
    return plan


def check_plan(plan: PruningPlan, file: Path, identity: str) -> None:
    """Refuse a plan of another model.

    Raises:
        ArtifactError: it is, or does not say of which it is.
    """
    if not plan.model:
        raise ArtifactError(f"{file}: does not say which model it is for: an earlier version wrote it. Make it again.")
    if plan.model != identity:
        raise ArtifactError(
            f"{file}: stale: the plan is for another model (fingerprint {plan.model}, now {identity}). "
            "Make a plan for this model."
        )


def _as_it_is(group: GroupPlan) -> GroupPlan:
    """A group with the ratio that its channels come to."""
    removed = tuple(sorted(set(group.removed)))
    return replace(group, removed=removed, pruning_ratio=len(removed) / group.channels)
