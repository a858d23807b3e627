"""The network that a plan is for, and its channels by score: what any choice of ratios removes, and what is left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from compress.artifacts import GroupPlan
from compress.errors import PlanError
from compress.measure.cost import layer_positions, macs_at, parameter_count
from compress.prune.channel_scores import channel_scores, group_removal_count, lowest_channels, removal_count
from compress.prune.channels import ChannelGroup, group_align, remove_channels
from compress.prune.importance import CRITERION_NAMES
from compress.prune.pruned_time import PrunedTime, Timing

Kind = Literal["macs", "params", "latency"]


@dataclass(frozen=True)
class Network:
    """What every plan needs to know: the network, its groups, and how channels are ranked and rounded.

    `align`: kept channels (of a recurrent layer: units per direction; of attention: places per head) are a multiple of
    it, rounded up, so that never more is removed than was requested.
    """

    module: nn.Module
    groups: Sequence[ChannelGroup]
    input_shape: tuple[int, int, int]
    criterion: str = "fpgm"
    align: int = 1
    fingerprint: str = ""
    timing: Timing | None = None
    """How the time of a pruned network is predicted; None: it is not."""
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """A scan's channel scores, where the criterion is not one of weights alone."""

    def __post_init__(self) -> None:
        """Check what users set.

        Raises:
            PlanError: unknown criterion, or an align below 1.
        """
        if self.criterion not in CRITERION_NAMES:
            names = ", ".join(CRITERION_NAMES)
            raise PlanError(f"prune.criterion: got {self.criterion!r}. Must be one of {names}.")
        if self.align < 1:
            raise PlanError(f"prune.align: got {self.align}. Must be 1 or more; 8 or 16 suits most CPUs.")


def kept_channels(channels: int, ratio: float, align: int = 1) -> int:
    """How many channels a ratio keeps: a multiple of `align`, rounded up, or all of them.

    >>> kept_channels(40, 0.3), kept_channels(40, 0.3, 16), kept_channels(8, 0.5, 16), kept_channels(24, 0.3, 16)
    (28, 32, 8, 24)
    """
    kept = channels - removal_count(channels, ratio)
    return min(channels, math.ceil(kept / align) * align)


class Ranking:
    """The groups' channels by score, computed once for the many ratios that a bisection tries."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._scores: dict[str, Tensor] = {
            group.name: channel_scores(network.module, group, network.criterion, network.scores)
            for group in network.groups
        }
        self._layers = bare_layers(network.module)
        self._positions = layer_positions(network.module, network.input_shape)
        self._counts: dict[frozenset[tuple[str, int]], tuple[int, int]] = {}
        self._time: PrunedTime | None = None

    def group_plan(self, group: ChannelGroup, ratio: float) -> GroupPlan:
        align = group_align(group, self.network.align)
        kept = group.blocks * kept_channels(group.channels // group.blocks, ratio, align)
        removed = lowest_channels(group, self._scores[group.name], group.channels - kept)
        whole = kept == group.channels and group_removal_count(group, ratio) > 0
        return GroupPlan(
            channels=group.channels,
            layers=group.layers,
            pruning_ratio_asked=ratio,
            pruning_ratio=len(removed) / group.channels,
            removed=removed,
            note=f"stays whole: the next multiple of align {align} is not below its {_width(group)}" if whole else "",
        )

    def macs(self, ratios: Mapping[str, float]) -> int:
        """Multiply-adds of the network really pruned so; ratios that remove the same channels share one answer."""
        return self._counted(ratios)[0]

    def params(self, ratios: Mapping[str, float]) -> int:
        """Parameters of the network really pruned so."""
        return self._counted(ratios)[1]

    def _counted(self, ratios: Mapping[str, float]) -> tuple[int, int]:
        network, removed = self.network, self.removed(ratios)
        key = frozenset((name, len(channels)) for name, channels in removed.items() if channels)
        if key not in self._counts:
            left = remove_channels(self._layers, network.groups, removed)
            self._counts[key] = macs_at(left, self._positions), parameter_count(left)
        return self._counts[key]

    def removed(self, ratios: Mapping[str, float]) -> dict[str, tuple[int, ...]]:
        """The channels that these ratios take out."""
        groups = [group for group in self.network.groups if group.name in ratios]
        return {group.name: self.group_plan(group, ratios[group.name]).removed for group in groups}

    def latency(self, ratios: Mapping[str, float]) -> float:
        """Predicted milliseconds of the network pruned so."""
        network = self.network
        assert network.timing is not None
        if self._time is None:
            # One step of `align` each: a network that lost much may be lowered in another form.
            least = {
                group.name: group_align(group, network.align) / (group.channels // group.blocks)
                for group in network.groups
            }
            trial = self.removed({name: ratio for name, ratio in least.items() if ratio < 1})
            self._time = PrunedTime(network.module, network.groups, trial, network.timing)
        return self._time.ms({name: len(channels) for name, channels in self.removed(ratios).items()})

    def size(self, kind: Kind, ratios: Mapping[str, float]) -> float:
        """What a target is a share of."""
        if kind == "latency":
            return self.latency(ratios)
        return self.macs(ratios) if kind == "macs" else self.params(ratios)


def bare_layers(module: nn.Module) -> nn.Module:
    """A module's layers, parameters and buffers under their names, shared, without its graph, which is slow to copy."""
    bare = nn.Module()
    for name, child in module.named_children():
        bare.add_module(name, child)
    for name, parameter in module.named_parameters(recurse=False):
        bare.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        bare.register_buffer(name, buffer)
    return bare


def _width(group: ChannelGroup) -> str:
    """What `align` is held against."""
    width = group.channels // group.blocks
    parts = "places per head" if group.sizes else "units per direction"
    return f"{width} channels" if group.blocks == 1 else f"{width} {parts}"


def uniform(network: Network, ratio: float) -> dict[str, float]:
    """The same ratio for every group."""
    return {group.name: ratio for group in network.groups}
