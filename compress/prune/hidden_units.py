"""Find who reads the hidden units of recurrent layers; torch-pruning cannot look into or behind such a layer.

The network is run once as an fx graph. Behind each recurrent layer a twin of its output travels along: whole numbers
that say which unit each element is. Operations that only move elements (transpose, reshape, concatenate, ...) move the
twin as well, element-wise ones leave it, and at the next layer it says which of that layer's inputs is which unit.
Where anything else reads the units, the layer keeps them all, with the reason.
"""

import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.conv import _ConvNd

from compress.compute.modes import evaluating
from compress.graph import modules
from compress.prune.channels import ChannelGroup, Member
from compress.prune.units import unit_blocks

FOREIGN = -1
"""In a twin: an element that is no recurrent layer's unit."""
_JOINS: set[Any] = {torch.cat, torch.concat, torch.stack}
_MOVES: set[Any] = _JOINS | {
    modules.recurrent_output,
    modules.recurrent_state,
    modules.onnx_reshape,
    modules.onnx_unsqueeze,
    modules.onnx_slice,
    operator.getitem,
    *(getattr(torch, name) for name in ("permute", "transpose", "reshape", "flatten", "squeeze", "unsqueeze")),
    *(getattr(torch, name) for name in ("select", "narrow", "chunk", "split", "clone", "unbind", "movedim", "flip")),
    *("permute", "transpose", "reshape", "view", "flatten", "squeeze", "unsqueeze", "contiguous", "expand", "t"),
    *("select", "narrow", "chunk", "split", "clone", "unbind", "movedim", "flip"),
}
"""Functions, and names of methods, whose result holds nothing but elements of their operands."""
ELEMENTWISE: set[Any] = {
    *(torch.relu, torch.tanh, torch.sigmoid, torch.dropout),
    *(F.relu, F.tanh, F.sigmoid, F.hardswish, F.hardsigmoid, F.leaky_relu, F.elu, F.gelu, F.silu, F.dropout),
    *("relu", "tanh", "sigmoid", "detach"),
}
ELEMENTWISE_LAYERS = (
    *(nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
    *(nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, modules.HardSigmoid),
)
_SIZES = ("shape", "ndim", "dtype", "device")
"""Attributes that hold no elements; what a network makes of its shapes follows the pruned ones by itself."""


@dataclass(frozen=True)
class Units:
    """The recurrent layers of a network: the group that the units of each are, or why they stay."""

    groups: list[ChannelGroup] = field(default_factory=list)
    protected: dict[str, str] = field(default_factory=dict)


def find_units(module: nn.Module, input_shape: tuple[int, int, int]) -> Units:
    """Find the hidden units of every recurrent layer as a group of its own, and who reads them.

    Args:
        module: an fx GraphModule, or a module that torch.fx can trace; it is left as it was.
        input_shape: (C, H, W).
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.RNNBase)}
    if not layers:
        return Units()
    follower = _follow(module, layers, input_shape)
    if follower is None:
        return Units(protected=dict.fromkeys(layers, "is recurrent, and torch.fx cannot follow the network around it"))
    units = Units()
    for name, layer in layers.items():
        members = [*dict.fromkeys(follower.readers[name])]
        reason = follower.problems.get(name) or _problem(layer, members)
        if reason:
            units.protected[name] = reason
        else:
            units.groups.append(_as_group(name, layer, members))
    return units


def _follow(module: nn.Module, layers: dict[str, nn.RNNBase], input_shape: tuple[int, int, int]) -> "_Follower | None":
    """Run the network; on two images, to tell batch from other dimensions, or on one if it takes no more."""
    with evaluating(module), torch.no_grad():
        try:
            graph = module if isinstance(module, fx.GraphModule) else fx.symbolic_trace(module)
        except Exception:  # tracing runs the network's own code, which may fail in any way
            return None
        device = next((parameter.device for parameter in module.parameters()), None)
        for batch in (2, 1):
            follower = _Follower(graph, layers)
            try:
                follower.run(torch.zeros(batch, *input_shape, device=device))
            except Exception:  # the same; e.g. a network exported for a single image
                continue
            return follower
    return None


class _Follower(fx.Interpreter):
    """Runs an fx graph on an image, and beside it on the twins of what recurrent layers compute."""

    def __init__(self, module: fx.GraphModule, layers: dict[str, nn.RNNBase]) -> None:
        super().__init__(module)
        self.problems: dict[str, str] = {}
        self.readers: dict[str, list[Member]] = {name: [] for name in layers}
        self._names = {id(layer): name for name, layer in layers.items()}
        self._layers = layers
        self._first: dict[str, int] = {}
        count = 0
        for name, layer in layers.items():
            self._first[name] = count
            count += _unit_count(layer)
        self._twins: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note what its result's elements are."""
        value = super().run_node(n)
        layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        followed = [given for given in n.all_input_nodes if given in self._twins]
        if layer is not None and (name := self._names.get(id(layer))) is not None:
            self._check_alone(name, n)
            if followed:
                self._read(n, layer, followed)
            if name not in self.problems:
                self._twins[n] = _twin(layer, value, self._first[name])
        elif followed:
            twin = self._passed_on(n, layer, followed, value)
            if twin is not None:
                self._twins[n] = twin
        return value

    def _check_alone(self, name: str, n: fx.Node) -> None:
        layer = self._layers[name]
        if getattr(layer, "proj_size", 0):
            self.problems[name] = "projects its hidden units"
        elif len(n.args) + len(n.kwargs) > 1:
            self.problems[name] = "is given an initial state"

    def _passed_on(self, n: fx.Node, layer: nn.Module | None, followed: list[fx.Node], value: Any) -> Any:
        """The twin of a node's result; None where it ends, or is lost, which is noted."""
        if n.op == "output":
            self._lose(followed, "defines the output")
        elif isinstance(layer, nn.Linear | _ConvNd):
            self._read(n, layer, followed)
        elif isinstance(layer, ELEMENTWISE_LAYERS) or (layer is None and n.target in ELEMENTWISE):
            return self._twins[followed[0]]
        elif isinstance(layer, nn.Flatten):
            return layer(self._twins[followed[0]])
        elif layer is None and n.target in _MOVES:
            return self._moved(n)
        elif not asks_for_size(n):
            what = type(layer).__name__ if layer is not None else getattr(n.target, "__name__", str(n.target))
            self._lose(followed, f"has units that {n.name} reads, which is a {what}")
        return None

    def _moved(self, n: fx.Node) -> Any:
        """Move the twins as the node moves the values; what is joined to them is foreign."""

        def substitute(given: fx.Node) -> Any:
            if given in self._twins:
                return self._twins[given]
            value = self.env[given]
            return torch.full_like(value, FOREIGN, dtype=torch.int64) if n.target in _JOINS else value

        args, kwargs = map_arg(n.args, substitute), map_arg(n.kwargs, substitute)
        if n.op == "call_method":
            return getattr(args[0], str(n.target))(*args[1:], **kwargs)
        assert callable(n.target)
        return n.target(*args, **kwargs)

    def _read(self, n: fx.Node, layer: nn.Module, followed: list[fx.Node]) -> None:
        """Note which inputs of a layer are which units."""
        twin = self._twins[followed[0]]
        alone = len(followed) == 1 and followed[0] is n.args[0] and isinstance(twin, Tensor)
        if not alone or (isinstance(layer, _ConvNd) and layer.groups > 1):
            self._lose(followed, f"has units that {n.target} reads in a way that cannot be pruned")
            return
        axis = -layer.weight.ndim + 1 if isinstance(layer, _ConvNd) else -1
        rows = twin.movedim(axis, -1).flatten(0, -2)  # [positions, I]
        if not bool((rows == rows[0]).all()):
            self._lose(followed, f"has units that {n.target} reads in different places at each step")
            return
        for name in self._owners(followed):
            first, size = self._first[name], _unit_count(self._layers[name])
            places: list[list[int]] = [[] for _ in range(size)]
            for place, unit in enumerate(rows[0].tolist()):
                if first <= unit < first + size:
                    places[unit - first].append(place)
            self.readers[name].append(Member(str(n.target), "in", tuple(tuple(place) for place in places)))

    def _lose(self, followed: Collection[fx.Node], reason: str) -> None:
        for name in self._owners(followed):
            self.problems.setdefault(name, reason)

    def _owners(self, followed: Collection[fx.Node]) -> list[str]:
        """The layers whose units are among the twins of some nodes."""
        found: set[int] = set()
        for given in followed:
            found |= _numbers(self._twins[given])
        return [
            name
            for name, first in self._first.items()
            if any(first <= unit < first + _unit_count(self._layers[name]) for unit in found)
        ]


def asks_for_size(n: fx.Node) -> bool:
    """Whether a node's result holds sizes, and no elements of what it reads."""
    if n.op == "call_method":
        return n.target in ("size", "dim")
    return n.target is modules.shape_of or (n.target is getattr and n.args[1] in _SIZES)


def _unit_count(layer: nn.RNNBase) -> int:
    return len(unit_blocks(layer)) * layer.hidden_size


def _numbers(twin: Any) -> set[int]:
    if isinstance(twin, Tensor):
        return set(twin.unique().tolist())
    return set().union(*(_numbers(part) for part in twin))


def _twin(layer: nn.RNNBase, value: Any, first: int) -> Any:
    """The twin of what a recurrent layer returns: its output [..., D*H], and its states [L*D, ..., H]."""
    output, state = value
    size, blocks = layer.hidden_size, unit_blocks(layer)
    directions = 2 if layer.bidirectional else 1
    device = output.device
    steps = (first + torch.arange(directions * size, device=device)).expand(output.shape)
    last = state[0] if isinstance(state, tuple) else state
    starts = {(block.layer, block.direction): first + number * size for number, block in enumerate(blocks)}
    order = [starts[place] for place in sorted(starts)]  # PyTorch stacks states layer by layer
    units = torch.tensor(order, device=device)[:, None] + torch.arange(size, device=device)
    states = units.reshape(len(order), *[1] * (last.ndim - 2), size).expand(last.shape)
    return steps, (states, states) if isinstance(state, tuple) else states


def _problem(layer: nn.RNNBase, members: Collection[Member]) -> str:
    if layer.hidden_size < 2:
        return "has a single unit in each direction"
    if not members:
        return "no layer reads it"
    size = layer.hidden_size
    for member in members:
        held = [bool(indices) for indices in member.indices]
        if any(len(set(held[start : start + size])) > 1 for start in range(0, len(held), size)):
            return f"has units of which {member.layer} reads only some"
    return ""


def _as_group(name: str, layer: nn.RNNBase, members: Collection[Member]) -> ChannelGroup:
    count = _unit_count(layer)
    own = Member(name, "out", tuple((channel,) for channel in range(count)))
    return ChannelGroup(name, count, (name,), (own, *members), blocks=len(unit_blocks(layer)))
