"""Carry out a stored plan."""

from torch import nn

from compress.artifacts import PruningPlan
from compress.errors import PlanError
from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.groups import find_groups


def apply_plan(module: nn.Module, plan: PruningPlan, input_shape: tuple[int, int, int]) -> nn.Module:
    """Copy a module without the channels that the plan removes.

    Args:
        module: the network that the plan was made for; it is left as it was.
        plan: which channels go. Nothing is decided here.
        input_shape: (C, H, W).

    Raises:
        PlanError: the plan names channel groups that the module lacks, or that have other channels.
    """
    groups = {group.name: group for group in planned_groups(module, plan, input_shape)}
    for name, group_plan in plan.groups.items():
        group = groups.get(name)
        if group is None:
            raise PlanError(f"plan: channel group {name!r} is not in this model. Make a plan for this model.")
        if (group.channels, group.layers) != (group_plan.channels, group_plan.layers):
            raise PlanError(
                f"plan: channel group {name!r} has {group.channels} channels in {len(group.layers)} layers here, "
                f"{group_plan.channels} in {len(group_plan.layers)} in the plan. Make a plan for this model."
            )
    return remove_channels(module, list(groups.values()), {name: item.removed for name, item in plan.groups.items()})


def planned_groups(module: nn.Module, plan: PruningPlan, input_shape: tuple[int, int, int]) -> list[ChannelGroup]:
    """The groups of a module that a plan may be of: with those that go through LayerNorms only where it names some."""
    groups = find_groups(module, input_shape)
    if plan.groups.keys() <= {group.name for group in groups}:
        return groups
    return find_groups(module, input_shape, layer_norms=True)
