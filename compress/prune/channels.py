"""Groups of coupled channels, and taking channels out: plain slicing of weights.

A channel that a convolution makes is also a channel of the BatchNorm after it, of every layer it is added to, and an
input of every layer that reads it. Such channels can only be removed together. `ChannelGroup` says where each of them
lies, so that removing them needs no graph: the weights named by the members are sliced, nothing else changes.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from compress.errors import PlanError
from compress.graph.queries import output_count
from compress.graph.sizes import set_sizes
from compress.prune.layer_kinds import group_width, is_depthwise, is_grouped
from compress.prune.norms import NormOfKept, shrink_norm
from compress.prune.units import shrink_units, silence_units


@dataclass(frozen=True)
class Member:
    """Where a group's channels lie in one layer.

    `side` is "out" where the layer makes or carries them, "in" where it reads them (and they go no further).
    `indices[k]` are the layer's channels on that side that belong to the group's channel k: mostly one, several behind
    a flattening, none where the layer holds only a part of the group.
    """

    layer: str
    """Module name, or the name of a bare parameter or buffer."""
    side: str
    indices: tuple[tuple[int, ...], ...]
    dim: int = 0
    """Of a bare parameter or buffer: the dimension that counts channels."""


@dataclass(frozen=True)
class Size:
    """A number in a network's graph that counts channels: in a Reshape's target, a Split's parts, a Slice's bounds."""

    node: str
    """Name of the fx node."""
    numbers: tuple[int, ...]
    """All of the node's numbers before pruning (see `compress.graph.sizes.set_sizes`)."""
    place: int
    """Of this one among them."""
    indices: tuple[tuple[int, ...], ...]
    """What each of the group's channels is of the elements that are counted."""
    axis: int = 0
    """Of a Slice, the one that it cuts."""


@dataclass(frozen=True)
class ChannelGroup:
    """Coupled channels: named after the first layer that makes them, whose channel k is the group's channel k.

    Where a layer's channels fall into several groups (channel shuffles, attention), a name has a part behind a colon:
    `LAYER:2`, or `LAYER:heads`.
    """

    name: str
    channels: int
    layers: tuple[str, ...]
    """Modules that make or carry the channels, in the order they run."""
    members: tuple[Member, ...]
    blocks: int = 1
    """The channels lie in this many equal runs (the directions of a recurrent layer), which must stay equal."""
    factors: tuple[Member, ...] = ()
    """Members whose channels are summed over in a product with others, where no layer reads them (queries of
    attention): they are unheard where they are zero."""
    sizes: tuple[Size, ...] = ()
    """Numbers of the graph that follow."""

    @property
    def layer(self) -> str:
        """The layer that it is named after."""
        return self.name.partition(":")[0]


def remove_channels(
    module: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Copy a module without some of its channels; the module itself stays as it is.

    The copy computes what `silence_channels` computes. Removing nothing gives a bit-identical copy.

    Args:
        module: any module that the groups were found in.
        groups: from `find_groups`.
        removed: group name -> channel indices to take out.

    Raises:
        PlanError: a group is unknown, an index out of range, or no channel would be left.
    """
    pruned = copy.deepcopy(module)
    for (layer, side, dim), indices in _by_layer(groups, removed).items():
        shrink_layer(pruned, layer, side, indices, dim=dim)
    if isinstance(pruned, fx.GraphModule):
        _follow_sizes(pruned, groups, removed)
    return pruned


def silence_channels(
    module: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Copy a module with channels kept but unheard: whatever reads them has zero weights for them.

    Queries of attention, which no layer reads, are zero themselves. A LayerNorm leaves the channels out of its mean
    and variance (see `compress.prune.norms`).

    This is what removing channels means, spelled without changing any shape; the pruned network must equal it.
    """
    silent = copy.deepcopy(module)
    with torch.no_grad():
        for (layer, side, _), indices in _by_layer(groups, removed).items():
            target = dict(silent.named_modules()).get(layer)
            if side == "in":
                for name, dim in _tensor_axes(silent.get_submodule(layer), side).items():
                    tensor = getattr(silent.get_submodule(layer), name)
                    places = _places(silent.get_submodule(layer), name, dim, indices)
                    tensor.index_fill_(dim, torch.tensor(places, device=tensor.device), 0.0)
            elif isinstance(target, nn.RNNBase):  # its units read each other
                silence_units(target, indices)
            elif isinstance(target, nn.LayerNorm):
                silent.set_submodule(layer, NormOfKept(target, indices))
        for layer, zeroed in _factors(groups, removed).items():
            for name, dim in _tensor_axes(silent.get_submodule(layer), "out").items():
                if name in ("weight", "bias"):
                    tensor = getattr(silent.get_submodule(layer), name)
                    tensor.index_fill_(dim, torch.tensor(sorted(zeroed), device=tensor.device), 0.0)
    return silent


def kept_outputs(
    module: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Layer -> the output channels that are left of it (a recurrent layer's hidden units, directions one by one).

    Args:
        module: the network before channels are removed.
        groups: from `find_groups`.
        removed: group name -> channel indices to take out.
    """
    layers = dict(module.named_modules())
    kept: dict[str, list[int]] = {}
    for (layer, side, _), indices in _by_layer(groups, removed).items():
        if side == "out" and layer in layers:
            gone = set(indices)
            kept[layer] = [channel for channel in range(output_count(layers[layer])) if channel not in gone]
    return kept


def swap_channels(weight: Tensor, groups: int) -> Tensor:
    """[I, O / groups, ...] of a transposed convolution as [O, I / groups, ...] of a plain one, and back."""
    first, second, *kernel = weight.shape
    parts = weight.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
    return parts.reshape(groups * second, first // groups, *kernel)


def shrink_layer(module: nn.Module, layer: str, side: str, removed: Sequence[int], *, dim: int = 0) -> None:
    """Take channels out of one layer of a module, in place."""
    path, _, last = layer.rpartition(".")
    owner = module.get_submodule(path)
    if not isinstance(getattr(owner, last), nn.Module):
        _set_tensor(owner, last, _without(getattr(owner, last), dim, removed))
        return
    target = getattr(owner, last)
    if isinstance(target, nn.RNNBase) and side == "out":
        shrink_units(target, removed)
        return
    for name, axis in _tensor_axes(target, side).items():
        _set_tensor(target, name, _without(getattr(target, name), axis, _places(target, name, axis, removed)))
    if isinstance(target, nn.GroupNorm | nn.LayerNorm):
        shrink_norm(target, len(removed))
    for name in _size_attributes(target, side):
        setattr(target, name, getattr(target, name) - len(removed))


def parts_to_keep(group: ChannelGroup) -> list[frozenset[int]]:
    """Sets of group channels of which one each must stay, or a layer would have none left."""
    held = {frozenset(channel for channel, indices in enumerate(member.indices) if indices) for member in group.members}
    if group.blocks > 1:
        held |= {frozenset(block) for block in channel_blocks(group)}
    return sorted(held, key=len, reverse=True)


def channel_blocks(group: ChannelGroup) -> list[range]:
    """The runs of channels from which as many must be removed; mostly one, of all channels."""
    size = group.channels // group.blocks
    return [range(start, start + size) for start in range(0, group.channels, size)]


def group_align(group: ChannelGroup, align: int) -> int:
    """The multiple that a group's count keeps so that its layers keep a multiple of `align` channels.

    In grouped convolutions one channel of a group is the same place in each of them: 32 channels, for 32 groups.

    >>> group_align(ChannelGroup("a", 4, ("a",), (Member("a", "out", ((0, 4, 8, 12),) * 4),)), 8)
    2
    """
    own = [member for member in group.members if (member.layer, member.side) == (group.layer, "out")]
    width = max((len(indices) for member in own for indices in member.indices), default=1)
    return align // math.gcd(align, max(1, width))


def is_even(layer: _ConvNd, member: Member) -> bool:
    """Whether each channel of a group is the same places in all of a convolution's groups, so that these stay alike."""
    width = group_width(layer, member.side)
    return width > 1 and all(
        {index % width + width * place for index in indices for place in range(layer.groups)} == set(indices)
        for indices in member.indices
    )


def _by_layer(
    groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str, int], list[int]]:
    """The channels to take out, per layer and side, from all groups together."""
    known = {group.name: group for group in groups}
    found: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for name, channels in removed.items():
        group = known.get(name)
        if group is None:
            raise PlanError(f"channel group {name!r}: not in this model. Known groups: {', '.join(known) or 'none'}.")
        _check_channels(group, channels)
        for member in group.members:
            for channel in channels:
                found[member.layer, member.side, member.dim].update(member.indices[channel])
    return {place: sorted(indices) for place, indices in found.items() if indices}


def _follow_sizes(pruned: fx.GraphModule, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]) -> None:
    """Change the numbers of the graph that count channels, in place."""
    nodes = {node.name: node for node in pruned.graph.nodes}
    gone: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    uses: dict[str, Size] = {}
    for group in groups:
        for size in group.sizes if removed.get(group.name) else ():
            indices = (index for channel in removed[group.name] for index in size.indices[channel])
            gone[size.node][size.place].update(indices)
            uses[size.node] = size
    for name, use in uses.items():
        set_sizes(nodes[name], [number - len(gone[name][place]) for place, number in enumerate(use.numbers)], use.axis)
    if uses:
        pruned.recompile()


def _factors(groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]) -> dict[str, set[int]]:
    """Layer -> its channels that are silenced at their source."""
    found: dict[str, set[int]] = defaultdict(set)
    for group in groups:
        for member in group.factors:
            found[member.layer].update(i for channel in removed.get(group.name, ()) for i in member.indices[channel])
    return {layer: indices for layer, indices in found.items() if indices}


def _check_channels(group: ChannelGroup, channels: Sequence[int]) -> None:
    wrong = [channel for channel in channels if not 0 <= channel < group.channels]
    if wrong:
        raise PlanError(
            f"channel group {group.name!r}: no channel {wrong[0]}. It has channels 0 to {group.channels - 1}."
        )
    for part in parts_to_keep(group):
        if part <= set(channels):
            what = f"all {len(part)} channels of a layer" if len(part) < group.channels else f"all {len(part)} channels"
            raise PlanError(f"channel group {group.name!r}: {what} removed. Keep at least one.")
    counts = [len(set(channels) & set(block)) for block in channel_blocks(group)]
    if len(set(counts)) > 1:
        raise PlanError(
            f"channel group {group.name!r}: {' and '.join(map(str, counts))} channels removed of its {group.blocks} "
            f"{'directions' if len(group.layers) == 1 and not group.sizes else 'heads'}. Remove as many from each."
        )


def _tensor_axes(layer: nn.Module, side: str) -> dict[str, int]:
    """Name of each tensor of the layer that has the side's channels, and the dimension that counts them."""
    if is_depthwise(layer) or isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
        names = ["weight", "bias", "running_mean", "running_var"]
        return {name: 0 for name in names if getattr(layer, name, None) is not None}
    if isinstance(layer, nn.RNNBase):
        return {name: 1 for name, _ in layer.named_parameters() if name.startswith("weight_ih_l0")}
    if isinstance(layer, nn.PReLU):
        return {"weight": 0} if layer.num_parameters > 1 else {}
    transposed = isinstance(layer, _ConvNd) and layer.transposed
    if side == "in":
        return {"weight": 0 if transposed else 1}
    axes = {"weight": 1 if transposed else 0}
    return axes | ({"bias": 0} if layer.bias is not None else {})


def _size_attributes(layer: nn.Module, side: str) -> tuple[str, ...]:
    """Names of the layer's attributes that count the side's channels."""
    if is_depthwise(layer):
        return ("in_channels", "out_channels", "groups")
    if isinstance(layer, _ConvNd):
        return ("in_channels",) if side == "in" else ("out_channels",)
    if isinstance(layer, nn.Linear):
        return ("in_features",) if side == "in" else ("out_features",)
    if isinstance(layer, _NormBase):
        return ("num_features",)
    if isinstance(layer, nn.RNNBase):
        return ("input_size",)
    return ("num_parameters",) if isinstance(layer, nn.PReLU) and layer.num_parameters > 1 else ()


def _places(layer: nn.Module, name: str, dim: int, indices: Sequence[int]) -> list[int]:
    """Where channels lie along a tensor's dimension; a convolution in groups has one of them in its weight's second."""
    if name == "weight" and dim == 1 and is_grouped(layer):
        assert isinstance(layer, _ConvNd)
        width = group_width(layer, "out" if layer.transposed else "in")
        return sorted({index % width for index in indices})
    return list(indices)


def _without(tensor: Tensor, dim: int, removed: Sequence[int]) -> Tensor:
    """The tensor without some indices of one dimension; a parameter stays a parameter."""
    gone = set(removed)
    kept = torch.tensor([k for k in range(tensor.shape[dim]) if k not in gone], dtype=torch.long, device=tensor.device)
    sliced = tensor.detach().index_select(dim, kept)
    return nn.Parameter(sliced, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else sliced


def _set_tensor(owner: nn.Module, name: str, tensor: Tensor) -> None:
    setattr(owner, name, tensor)
