"""Find groups of coupled channels: what can be pruned in a network, and why the rest cannot.

What torch-pruning says (`compress.prune.channel_dependencies`) and what we follow ourselves (`compress.prune.coupling`)
is checked: a group only counts as prunable if the network really computes the same with half of its channels removed as
with them silenced. What fails the check, or defines the output, is protected, with the reason.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from compress.errors import PlanError
from compress.graph import check_runs
from compress.prune.channel_dependencies import UNFOLLOWED, Traced
from compress.prune.channels import ChannelGroup, is_even
from compress.prune.coupling import find_coupled
from compress.prune.exactness import exact_groups
from compress.prune.hidden_units import find_units
from compress.prune.layer_kinds import NORMALISED, is_grouped, unsupported_reason

INEXACT = "removing its channels would change more than their own contribution"


@dataclass(frozen=True)
class Survey:
    """What can be pruned in a network, and why the rest cannot."""

    groups: list[ChannelGroup]
    protected: dict[str, str] = field(default_factory=dict)
    """Name of a group's first layer -> why its channels stay."""


def find_groups(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    protect: Collection[str] = (),
    recurrent: bool = True,
    *,
    layer_norms: bool = False,
) -> list[ChannelGroup]:
    """The prunable channel groups of a network, in the order they run; see `survey_channels`."""
    return survey_channels(module, input_shape, protect, recurrent, layer_norms=layer_norms).groups


def survey_channels(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    protect: Collection[str] = (),
    recurrent: bool = True,
    *,
    layer_norms: bool = False,
) -> Survey:
    """Find every group of coupled channels of a network, each once.

    Protected are: channels that reach the output with nothing but element-wise operations, pooling or concatenation
    between (the logits, the map of a detector), convolutions in groups, whatever LayerNorm normalises, the groups that
    hold a layer named in `protect`, recurrent layers' units that anything but a convolution, a linear or
    another recurrent layer reads (see `compress.prune.hidden_units`), and whatever torch-pruning fails on.

    Args:
        module: any module that takes images [N, C, H, W]; it is left as it was.
        input_shape: (C, H, W).
        protect: names of layers whose channels must stay.
        recurrent: whether the hidden units of recurrent layers may be removed.
        layer_norms: whether channels that a LayerNorm normalises may be removed, which changes its mean and variance
            (see `compress.prune.norms`); of modules from `to_torch` alone.

    Raises:
        PlanError: `protect` names a layer that the module does not have.
        ModelError: the module does not run on such an image.
    """
    _check_names(module, protect)
    check_runs(module, input_shape)
    traced = Traced(module, input_shape)
    found: list[ChannelGroup] = []
    protected: dict[str, str] = {}
    for group in traced.groups():
        why = _reason_to_protect(group, traced, protect)
        if why:
            protected[group.name] = why
        else:
            found.append(group)
    coupled = {member.layer for group in found for member in group.members if member.side == "out"}
    protected |= {name: why for name, why in traced.unfollowed.items() if name not in coupled | protected.keys()}
    if recurrent:
        _add_units(module, input_shape, protect, found, protected)
    exact = exact_groups(module, input_shape, found)
    for group in found:
        if group not in exact:
            protected[group.name] = INEXACT
    if isinstance(module, fx.GraphModule) and any(map(_is_unfollowed, protected.values())):
        exact = _add_coupled(module, input_shape, protect, exact, protected, layer_norms=layer_norms)
    return Survey(sorted(exact, key=lambda group: traced.rank(group.layer)), protected)


def _is_unfollowed(why: str) -> bool:
    """Whether channels stay as torch-pruning does not follow them, or wrongly, or through what normalises them."""
    return why in (INEXACT, UNFOLLOWED) or why.endswith(NORMALISED)


def _add_coupled(
    module: fx.GraphModule,
    input_shape: tuple[int, int, int],
    protect: Collection[str],
    exact: list[ChannelGroup],
    protected: dict[str, str],
    *,
    layer_norms: bool,
) -> list[ChannelGroup]:
    """Follow channels in our own way where torch-pruning fails to: shuffles, splits, attention, GroupNorm, LayerNorm.

    Groups that are exact already stay as they are; what is found of other layers is put to them.
    """
    held = {member.layer for group in exact for member in group.members if member.side == "out"}
    coupled, reasons = find_coupled(module, input_shape, protect, layer_norms=layer_norms)
    more = [group for group in coupled if held.isdisjoint(group.layers)]
    every = exact_groups(module, input_shape, [*exact, *more], known=exact)
    found = {layer for group in every for layer in group.layers}
    inexact = dict.fromkeys((group.layer for group in more if group not in every), INEXACT)
    for name, why in (reasons | inexact).items():
        if name in protected and _is_unfollowed(protected[name]):
            protected[name] = why
    for name in found & protected.keys():
        del protected[name]
    return every


def _add_units(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    protect: Collection[str],
    found: list[ChannelGroup],
    protected: dict[str, str],
) -> None:
    """Put the hidden units of recurrent layers, which torch-pruning's graph lacks, to the groups it knows."""
    units = find_units(module, input_shape)
    for group in units.groups:
        if group.name not in protect:
            found.append(group)
            protected.pop(group.name, None)
    protected.update({name: why for name, why in units.protected.items() if name not in protect})


def _reason_to_protect(group: ChannelGroup, traced: Traced, protect: Collection[str]) -> str:
    named = sorted(set(protect) & {member.layer for member in group.members if member.side == "out"})
    if named:
        return f"{named[0]} is to be protected"
    if traced.output_layers & {member.layer for member in group.members if member.side == "out"}:
        return "defines the output"
    if group.channels < 2:
        return "has a single channel"
    for member in group.members:
        layer = traced.original(member.layer)
        if is_grouped(layer) and is_even(cast(_ConvNd, layer), member):
            continue
        why = unsupported_reason(layer, member.side) if layer is not None else ""
        if why:
            return f"{member.layer} {why}"
    if not any(member.side == "in" for member in group.members):
        return "no layer reads it"
    return ""


def _check_names(module: nn.Module, protect: Collection[str]) -> None:
    known = [name for name, _ in module.named_modules() if name]
    for name in protect:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else "`compress inspect` lists the layers."
            raise PlanError(f"protect: got {name!r}. The model has no layer of that name. {hint}")
