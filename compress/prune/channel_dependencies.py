"""Which channels depend on one another, by torch-pruning: the only file that knows it.

torch-pruning follows channels through a network by its autograd graph. It is asked once, on a copy; what it says is
turned into plain index lists (`ChannelGroup`).
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning.dependency import index_mapping

from compress.graph import run_quietly
from compress.prune.channels import ChannelGroup, Member, is_even
from compress.prune.layer_kinds import group_width, is_depthwise, is_grouped
from compress.prune.tracing import WEIGHTED, buffers_to_parameters, execution_order, replace_recurrent

UNFOLLOWED = "has channels that cannot be followed through the operators behind it"
NO_GRADIENT = "reaches the output through operators without a gradient, as ArgMax, where channels cannot be followed"
_MOST_NUMBERED = 500_000
"""Channels, a flattened map's positions included, that torch-pruning may number in a search for one group. A VGG's
25,088 flattened inputs take 50,000; numbering takes it about a microsecond each."""


class Traced:
    """A copy of the network prepared for torch-pruning, and the graph it finds."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self._originals = dict(module.named_modules())
        self.module = copy.deepcopy(module).eval().requires_grad_(True)
        self._names = replace_recurrent(self.module)
        buffers_to_parameters(self.module)
        self._names |= {id(layer): name for name, layer in self.module.named_modules() if id(layer) not in self._names}
        self._names |= {id(tensor): name for name, tensor in self.module.named_parameters()}
        image = torch.zeros(1, *input_shape, device=next((p.device for p in self.module.parameters()), None))
        self._order: dict[str, int] = {}
        self.unfollowed: dict[str, str] = {}
        """Layers whose channels torch-pruning fails to follow, and why."""
        self.output_layers: set[str] = set()
        self._graph = torch_pruning.DependencyGraph()
        self._graph.module2node = {}
        self._broken: dict[int, Exception] = {}
        """id of torch-pruning's nodes whose channels it cannot number -> why."""
        try:
            self._order = execution_order(self.module, image, self._names)
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of bare parameters, which are handled
                try:
                    # Without forward_fn it first takes the batch apart, and tries the single image.
                    self._graph.build_dependency(self.module, image, forward_fn=run_quietly, verbose=False)
                except Exception:
                    if not self._graph.module2node:
                        raise
                    self._broken = _number_channels(self._graph)  # the last step, which fails as a whole
            self._steps = _Steps(1000 + 20 * len(self._graph.module2node))
            for node in self._graph.module2node.values():
                for dependency in node.dependencies:
                    dependency.index_mapping = _CountedMappings(dependency.index_mapping, self._steps)
                node.dependencies = _Counted(node.dependencies, self._steps)
            self.output_layers = self._layers_before_output()
            self.unfollowed = self._without_gradient()
        except Exception:  # on networks that it does not know it fails in any way
            self._graph.module2node = {}
            layers = (layer for layer in self.module.modules() if isinstance(layer, WEIGHTED))
            self.unfollowed = {self._names[id(layer)]: UNFOLLOWED for layer in layers}

    def groups(self) -> Iterator[ChannelGroup]:
        """Every group that torch-pruning can follow, once; the others are then in `unfollowed`.

        As its `get_all_groups`, which loses all groups that come after one it fails on.
        """
        seen: set[int] = set()
        for layer in list(self._graph.module2node):
            if not isinstance(layer, WEIGHTED) or id(layer) in seen:
                continue
            self._steps.done = self._steps.numbered = 0
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)  # it warns of what it did not follow to the end
                    pruner = self._graph.get_pruner_of_module(layer)
                    channels = list(range(pruner.get_out_channels(layer)))
                    found = self._graph.get_pruning_group(layer, pruner.prune_out_channels, channels)
                for node in (node for item in found for node in (item.dep.source, item.dep.target)):
                    if id(node) in self._broken:
                        raise self._broken[id(node)]
                group = _alike_in_groups(_as_group(_members_of(found, self), self), self)
            except Exception:  # e.g. ZeroDivisionError where channels are shuffled
                self.unfollowed[self._names[id(layer)]] = UNFOLLOWED
                continue
            seen |= {id(item.dep.target.module) for item in found if self.is_output_channel_fn(item.dep.handler)}
            yield group

    def name_of(self, part: Any) -> str | None:
        """The name a layer or tensor has in the original module; None for torch-pruning's own operations."""
        return self._names.get(id(part))

    def original(self, name: str) -> nn.Module | None:
        """The original module's layer of that name; None for a bare tensor."""
        return self._originals.get(name)

    def rank(self, name: str) -> int:
        """Position in the order of execution."""
        return self._order.get(name, len(self._order))

    def is_output_channel_fn(self, handler: Any) -> bool:
        """Whether a pruning function of torch-pruning takes output channels."""
        return bool(self._graph.is_out_channel_pruning_fn(handler))

    def _without_gradient(self) -> dict[str, str]:
        """Layers that torch-pruning cannot see, as no gradient leads to them from an output."""
        layers = (layer for layer in self.module.modules() if isinstance(layer, WEIGHTED))
        unseen = (self._names[id(layer)] for layer in layers if layer not in self._graph.module2node)
        return {name: NO_GRADIENT for name in unseen if name in self._order}

    def _layers_before_output(self) -> set[str]:
        """The weighted layers that reach the output through no other one.

        Walks back from the outputs; BatchNorm, activations, softmax, sums, pooling, concatenation and depthwise
        convolutions are passed through, as they keep channels apart.
        """
        inner = set()
        for node in self._graph.module2node.values():
            inner |= {id(source) for source in node.inputs}
        stack = [node for node in self._graph.module2node.values() if id(node) not in inner]
        seen: set[int] = set()
        found: set[str] = set()
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node.module, WEIGHTED) and not is_depthwise(node.module):
                found.add(self.name_of(node.module) or "")
            else:
                stack.extend(node.inputs)
        return found


@dataclass
class _Steps:
    """How often torch-pruning may go on from a node, and how many channels it may number, in a search for one group."""

    most: int
    done: int = 0
    numbered: int = 0


class _Counted(list[Any]):
    """Where torch-pruning goes on from a node; fails where a search never ends (channels added to their neighbours)."""

    def __init__(self, items: Iterable[Any], steps: _Steps) -> None:
        super().__init__(items)
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        self._steps.done += 1
        if self._steps.done > self._steps.most:
            raise RecursionError("the search for a group does not end")
        return super().__iter__()


class _CountedMappings(list[Any]):
    """How torch-pruning numbers a node's channels at the next one, if at all.

    Fails where they grow too many: maps that are flattened and put together in a row (YOLO's heads) are taken for
    channels, billions of them.
    """

    def __init__(self, items: Iterable[Any], steps: _Steps) -> None:
        super().__init__(items)
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        return (mapping and partial(self._numbered, mapping) for mapping in super().__iter__())

    def _numbered(self, mapping: Any, channels: Sequence[Any]) -> Any:
        spread = 1 if getattr(mapping, "reverse", False) else getattr(mapping, "_stride", 1)
        self._steps.numbered += len(channels) * spread
        if self._steps.numbered > _MOST_NUMBERED:
            raise RecursionError("channels become too many to be numbered")
        return mapping(channels)


class _Part:
    """torch-pruning's graph as if it held one node."""

    def __init__(self, graph: Any, layer: Any) -> None:
        self._graph = graph
        self.module2node = {layer: graph.module2node[layer]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)


def _number_channels(graph: Any) -> dict[int, Exception]:
    """Number channels across concatenations and the like node by node, where torch-pruning fails on all together.

    Returns:
        id of each node that it fails on -> why.
    """
    broken: dict[int, Exception] = {}
    for layer, node in graph.module2node.items():
        try:
            index_mapping.update_index_mapping(_Part(graph, layer))
        except Exception as error:  # any kind: it takes for granted how networks look
            broken[id(node)] = error
            node.type = torch_pruning.ops.OPTYPE.ELEMENTWISE  # else every search for a group would try it again
    return broken


def _members_of(group: Any, traced: Traced) -> list[Member]:
    """torch-pruning's group as index lists per channel of its root."""
    root = group[0]
    position = {channel: place for place, channel in enumerate(root.idxs)}
    members = []
    for item in group:
        name = traced.name_of(item.dep.target.module)
        if name is None:  # torch-pruning's own element-wise, concat, ... nodes hold no weights
            continue
        places: list[list[int]] = [[] for _ in root.idxs]
        for index, root_index in zip(item.idxs, item.root_idxs, strict=True):
            places[position[root_index]].append(int(index))
        tensor = isinstance(item.dep.target.module, nn.Parameter)
        dim = item.dep.target.pruning_dim % item.dep.target.module.ndim if tensor else 0
        carries = tensor or is_depthwise(item.dep.target.module) or traced.is_output_channel_fn(item.dep.handler)
        member = Member(name, "out" if carries else "in", tuple(tuple(sorted(place)) for place in places), dim)
        if member not in members:
            members.append(member)
    return members


def _as_group(members: list[Member], traced: Traced) -> ChannelGroup:
    """Name the group after the first layer whose own channels are the group's channels, and number them by it."""
    count = len(members[0].indices)
    roots = [member for member in members if _is_root(member, count, traced)] or members[:1]
    root = min(roots, key=lambda member: traced.rank(member.layer))
    order = sorted(range(count), key=lambda channel: root.indices[channel])
    renumbered = (
        Member(member.layer, member.side, tuple(member.indices[channel] for channel in order), member.dim)
        for member in members
    )
    ranked = sorted(renumbered, key=lambda member: (member.side == "in", traced.rank(member.layer)))
    layers = tuple(member.layer for member in ranked if member.side == "out" and traced.original(member.layer))
    return ChannelGroup(root.layer, count, layers, tuple(ranked))


def _alike_in_groups(group: ChannelGroup, traced: Traced) -> ChannelGroup:
    """The same channels put together so that convolutions in groups lose the same places in each of theirs.

    As it was where that cannot be: a layer's groups hold a channel each, or places are mixed on the way.
    """
    grouped = [
        (member, cast(_ConvNd, traced.original(member.layer)))
        for member in group.members
        if is_grouped(traced.original(member.layer))
    ]
    if not grouped:
        return group
    sets: dict[int, set[int]] = {channel: {channel} for channel in range(group.channels)}
    for member, layer in grouped:
        width = group_width(layer, member.side)
        first: dict[int, int] = {}
        for channel, indices in enumerate(member.indices):
            for index in indices:
                joined = sets[first.setdefault(index % width, channel)] | sets[channel]
                sets.update(dict.fromkeys(joined, joined))
    classes = sorted({min(joined): sorted(joined) for joined in sets.values()}.values())
    members = tuple(
        replace(
            member, indices=tuple(tuple(sorted(i for c in joined for i in member.indices[c])) for joined in classes)
        )
        for member in group.members
    )
    merged = replace(group, channels=len(classes), members=members)
    layers = [(traced.original(member.layer), member) for member in members]
    even = all(is_even(cast(_ConvNd, layer), member) for layer, member in layers if is_grouped(layer))
    return merged if even and merged.channels > 1 else group


def _is_root(member: Member, count: int, traced: Traced) -> bool:
    layer = traced.original(member.layer)
    covered = sorted(index for indices in member.indices for index in indices)
    return (
        member.side == "out"
        and isinstance(layer, WEIGHTED)
        and not is_depthwise(layer)
        and covered == list(range(count))
        and all(len(indices) == 1 for indices in member.indices)
    )
