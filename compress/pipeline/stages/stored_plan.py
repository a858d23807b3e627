"""A pruning plan in a file: prune by it, as it was stored or edited since, and what it leaves of each layer."""

from dataclasses import replace
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import GroupPlan, PruningPlan
from compress.errors import ArtifactError
from compress.graph import save_model, to_onnx, to_torch
from compress.measure.cost import module_cost, parameter_count
from compress.pipeline.facts import shape_for
from compress.pipeline.models import as_graph_module, model_identity
from compress.prune.apply import apply_plan, planned_groups
from compress.prune.channels import kept_outputs

PLAN_FILE = "plan.json"
"""Beside a pruned model: exactly which channels were removed."""
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
        ArtifactError: the plan is damaged, or of another model, or a plan.json that was edited, or is of another model,
            lies beside the pruned file and would be overwritten.
        PlanError: it names channels that the model does not have, or leaves a layer none.
    """
    stored, identity = out_file.with_name(PLAN_FILE), model_identity(model)
    if stored.resolve() != plan_file.resolve():
        check_replaceable(stored, identity)
    plan, edited = artifacts.load_edited(PruningPlan, plan_file)
    check_plan(plan, plan_file, identity)
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


def check_replaceable(plan_file: Path, identity: str) -> None:
    """Refuse to write over somebody's work.

    Args:
        plan_file: where a plan is to be stored.
        identity: of the model that it is for.

    Raises:
        ArtifactError: the plan that lies there is not as this program wrote it, or is another model's.
    """
    if not plan_file.exists():
        return
    plan, edited = artifacts.load_edited(PruningPlan, plan_file)
    if edited:
        raise ArtifactError(
            f"{plan_file}: edited by hand, or of an earlier version, and would be overwritten. "
            f"Prune by it with `compress prune MODEL --plan {plan_file} --out FILE`, or delete it."
        )
    if plan.model and plan.model != identity:
        raise ArtifactError(
            f"{plan_file}: of another model (fingerprint {plan.model}, now {identity}), and would be overwritten. "
            "Give each model a folder of its own, or delete it."
        )


def drop_leftover(plan_file: Path, identity: str) -> None:
    """Remove the plan of another model that an earlier run left in its own folder; one that was edited stays."""
    if plan_file.exists():
        plan, edited = artifacts.load_edited(PruningPlan, plan_file)
        if not edited and plan.model != identity:
            plan_file.unlink()


def kept_by_plan(model: onnx.ModelProto, plan: PruningPlan, input_shape: tuple[int, int, int]) -> dict[str, list[int]]:
    """Layer -> its output channels that a plan leaves, of layers that lose some.

    Args:
        model: what the plan is for.
        plan: which channels go.
        input_shape: (C, H, W), where the plan does not say.

    Raises:
        PlanError: it names channel groups that the model lacks.
    """
    module = to_torch(model)
    groups = planned_groups(module, plan, shape_for(model, None, plan.input_shape or input_shape))
    return kept_outputs(module, groups, {name: group.removed for name, group in plan.groups.items()})
