"""Follow channels through a network exactly: through splits, shuffles, concatenations and attention.

The network is run once as an fx graph. Beside each value travels its twin, a tensor of the same shape that says of each
element which channel it is (see `compress.prune.channel_labels`). What makes channels gives new labels, what moves
elements moves labels, and what brings elements together joins their labels. Nothing is assumed of how networks look: an
operation that is not known here keeps the channels that reach it, with the reason.

What a Reshape, Split or Slice holds of sizes is noted with the labels that it counts (see `compress.prune.layouts`).
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from compress.compute.modes import evaluating
from compress.graph import elementwise, indexing, interpolation, modules
from compress.prune.channel_labels import NONE, core, thinned, varying_axes
from compress.prune.followed import FOREIGN, Followed, aligned
from compress.prune.hidden_units import ELEMENTWISE, ELEMENTWISE_LAYERS, asks_for_size
from compress.prune.layer_kinds import is_depthwise, unsupported_reason
from compress.prune.layouts import slice_of, target_of
from compress.prune.norms import OPTION
from compress.prune.products import letters_of_einsum, letters_of_matmul

_UNARY: set[Any] = ELEMENTWISE | {
    *(torch.sqrt, torch.exp, torch.erf, torch.clone, torch.Tensor.to, torch.clamp, torch.nn.functional.softplus),
    *(operator.neg, elementwise.shrink, *elementwise.UNARY.values()),
}
_MIXING: set[Any] = {
    *(operator.add, operator.sub, operator.mul, modules.onnx_div, torch.pow, torch.minimum, torch.maximum),
    *(torch.where, torch.fmod, torch.remainder, elementwise.mean_of, modules.leaky, *elementwise.BINARY.values()),
}
"""Element-wise functions of several tensors."""
_MOVES: set[Any] = {torch.permute, torch.squeeze, modules.onnx_unsqueeze, torch.flip, operator.getitem}
_REDUCTIONS: set[Any] = {torch.mean, *elementwise.REDUCTIONS.values()}
_SPATIAL: set[Any] = {modules.resize_by, modules.resize_to, modules.pad_image, indexing.pad, indexing.average_valid}
_SPATIAL |= {interpolation.resize, indexing.pad_same, indexing.pad_reached}
"""Functions of images that treat each channel alike and by itself."""
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_ACTIVATIONS = (*ELEMENTWISE_LAYERS, nn.Softplus, nn.Mish, nn.CELU, nn.Threshold, elementwise.Selu)


class Follower(fx.Interpreter):
    """Runs an fx graph on images, and beside it on the twins of its values."""

    def __init__(self, module: fx.GraphModule, *, layer_norms: bool = False) -> None:
        super().__init__(module)
        self.found = Followed()
        self._layer_norms = layer_norms
        self._twins: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note what its result's elements are."""
        value = super().run_node(n)
        twin = self._twin_of(n, value)
        if twin is not None:
            self._twins[n] = thinned(twin) if isinstance(twin, Tensor) else tuple(thinned(part) for part in twin)
        return value

    def _twin_of(self, n: fx.Node, value: Any) -> Any:
        layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        given = [each for each in n.all_input_nodes if each in self._twins]
        if isinstance(layer, _ConvNd | nn.Linear):
            return self._weighted(n, layer, value)
        if not given or asks_for_size(n):
            return None
        if n.op == "output":
            self._keep(given, "defines the output")
            return None
        if layer is not None:
            return self._layer(n, layer, value)
        return self._function(n, given, value)

    def _layer(self, n: fx.Node, layer: nn.Module, value: Any) -> Any:
        """The twin of what a module without channels of its own makes."""
        name, source = str(n.target), cast(fx.Node, n.args[0])
        twin = self._twins.get(source)
        if isinstance(layer, _ACTIVATIONS) or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            return twin
        if isinstance(layer, _InstanceNorm | nn.GroupNorm) and twin is not None:
            return self.found.normalise(name, twin, getattr(layer, "num_groups", twin.shape[1]))
        if isinstance(layer, _NormBase | nn.PReLU) and twin is not None:
            return self.found.carry(name, twin, 1)
        if isinstance(layer, _POOLING) and twin is not None:
            return self._spatial(n, twin, value)
        if isinstance(layer, nn.Flatten) and twin is not None:
            return self.found.layouts.reshaped(n.name, twin, value.shape, None)
        if isinstance(layer, nn.Softmax | nn.LogSoftmax) and twin is not None:
            self.found.keep_along(twin, [int(layer.dim or 0)], f"{name} is a softmax over them")
            return twin
        if isinstance(layer, nn.RNNBase) and twin is not None:
            self.found.read_by(name, layer, twin, -1)
            self._keep([each for each in n.all_input_nodes if each is not source], f"are states of {name}")
            return None
        if isinstance(layer, nn.LayerNorm) and twin is not None:
            return self._layer_norm(name, layer, twin)
        self._keep(n.all_input_nodes, _unknown(n))
        return None

    def _layer_norm(self, name: str, layer: nn.LayerNorm, twin: Tensor) -> Tensor:
        """Of a LayerNorm, which over channels alone goes with them if it may (see `compress.prune.norms`)."""
        over_channels = len(layer.normalized_shape) == 1 and varying_axes(twin) == [twin.ndim - 1]
        if over_channels and self._layer_norms:
            return self.found.carry(name, twin, -1)
        why = f"is a LayerNorm over them, {OPTION}" if over_channels else unsupported_reason(layer, "out")
        self.found.keep_along(twin, range(-len(layer.normalized_shape), 0), f"{name} {why}")
        return twin

    def _weighted(self, n: fx.Node, layer: _ConvNd | nn.Linear, value: Tensor) -> Tensor | None:
        """Read a layer's inputs and label its outputs; depthwise convolutions carry labels."""
        name, axis = str(n.target), -1 if isinstance(layer, nn.Linear) else 1 - layer.weight.ndim
        twin = self._twins.get(cast(fx.Node, n.args[0]))
        if is_depthwise(layer):
            return None if twin is None else self._spatial(n, self.found.carry(name, twin, axis), value)
        if twin is not None:
            self.found.read_by(name, layer, twin, axis)
        return self.found.made_by(name, layer).reshape(-1, *[1] * (-axis - 1)).expand(value.shape)

    def _spatial(self, n: fx.Node, twin: Tensor, value: Tensor) -> Tensor | None:
        """Of what computes each channel of [N, C, ...] by itself, to any height and width."""
        self.found.keep_along(twin, range(2, twin.ndim), f"{n.name} computes along them")
        if value.ndim != twin.ndim or value.shape[1] != twin.shape[1]:
            self.found.labels.keep(twin, f"{n.name} changes their number")
            return None
        return twin[(slice(None), slice(None), *[slice(0, 1)] * (twin.ndim - 2))].expand(value.shape)

    def _function(self, n: fx.Node, given: list[fx.Node], value: Any) -> Any:
        """The twin of what a function makes."""
        twin = self._twins[given[0]]
        operands = {each: self.env[each] for each in n.all_input_nodes if isinstance(self.env[each], Tensor)}
        if n.target in _UNARY and len(operands) == 1:
            return twin
        if n.target in _MIXING | _UNARY:
            return self._met(operands, value)
        if n.target is modules.onnx_expand:
            return aligned(twin, value.shape)
        if n.target in _MOVES:
            args = map_arg(n.args, lambda each: self._twins.get(each))
            return cast(Callable[..., Any], n.target)(*args, **n.kwargs)
        if n.target in _SPATIAL and isinstance(value, Tensor):
            return self._spatial(n, twin, value)
        special = _SPECIAL.get(n.target)
        if special is None:
            self._keep(given, _unknown(n))
            return None
        return special(self, n, value)

    def _met(self, operands: Mapping[fx.Node, Tensor], value: Tensor) -> Tensor:
        twins = {each: self._twins[each] for each in operands if each in self._twins}
        others = {each: tensor for each, tensor in operands.items() if each not in twins and tensor.numel() > 1}
        named = {str(each.target): tensor for each, tensor in others.items() if each.op == "get_attr"}
        foreign = [tensor for each, tensor in others.items() if each.op != "get_attr"]
        return self.found.meet(list(twins.values()), named, foreign, value.shape)

    def _keep(self, nodes: Iterable[fx.Node], why: str) -> None:
        for each in nodes:
            twin = self._twins.get(each)
            for part in (twin,) if isinstance(twin, Tensor) else twin or ():
                self.found.labels.keep(part, why)

    def _value(self, argument: Any) -> Any:
        """What an argument is, be it a node or a plain value."""
        return self.env[argument] if isinstance(argument, fx.Node) else argument

    def _behind(self, arguments: Iterable[Any]) -> frozenset[int]:
        """The labels of the tensors that some sizes are computed from."""
        stack, seen = [each for each in arguments if isinstance(each, fx.Node)], set[fx.Node]()
        found: set[int] = set()
        while stack:
            n = stack.pop()
            if n in self._twins and isinstance(self._twins[n], Tensor):
                found.update(core(self._twins[n]).reshape(-1).tolist())
            elif n not in seen:
                seen.add(n)
                stack.extend(n.all_input_nodes)
        return frozenset(found - {NONE})

    def _reshape(self, n: fx.Node, value: Tensor) -> Tensor:
        twin = self._twins[cast(fx.Node, n.args[0])]
        source, target = self.env[cast(fx.Node, n.args[0])], n.args[1]
        if isinstance(target, fx.Node):
            numbers = target_of(source.shape, twin, value.shape)
        else:
            numbers = tuple(int(size) for size in cast(Sequence[int], target))
        return self.found.layouts.reshaped(n.name, twin, value.shape, numbers, self._behind(n.args[1:]))

    def _flatten(self, n: fx.Node, value: Tensor) -> Tensor:
        return self.found.layouts.reshaped(n.name, self._twins[cast(fx.Node, n.args[0])], value.shape, None)

    def _split(self, n: fx.Node, value: Sequence[Tensor]) -> tuple[Tensor, ...]:
        twin = self._twins[cast(fx.Node, n.args[0])]
        return self.found.layouts.split(
            n.name, twin, int(cast(int, n.kwargs["dim"])), value, self._behind(n.args[: n.target is torch.chunk])
        )

    def _slice(self, n: fx.Node, value: Tensor) -> Tensor:
        twin = self._twins[cast(fx.Node, n.args[0])]
        starts, ends, axes, steps = (
            None if each is None else [int(number) for number in self._value(each)]
            for each in (*n.args[1:], None, None)[:4]
        )
        assert starts is not None
        assert ends is not None
        for start, end, axis, step in slice_of(starts, ends, axes, steps):
            varies = axis % twin.ndim in varying_axes(twin)
            if varies and (step != 1 or len(starts) > 1):
                self.found.labels.keep(twin, f"{n.name} picks of them by steps, or along several axes")
            elif varies:
                depends = self._behind(n.args[1:])
                self.found.layouts.sliced(n.name, twin, axis % twin.ndim, (start, end), depends)
        return modules.onnx_slice(twin, starts, ends, axes, steps)

    def _pick(self, n: fx.Node, value: Tensor) -> Tensor:
        """One place of an axis."""
        twin = self._twins[cast(fx.Node, n.args[0])]
        axis = int(cast(int, n.args[1])) % twin.ndim
        self.found.layouts.picked(n.name, twin, axis)
        return cast(Tensor, cast(Callable[..., Any], n.target)(twin, *n.args[1:], **n.kwargs))

    def _concatenate(self, n: fx.Node, value: Tensor) -> Tensor:
        """What is joined must have the same places along all other axes."""
        parts = [self._twin_or_none(each) for each in cast(Sequence[fx.Node], n.args[0])]
        twin = torch.cat(parts, dim=int(cast(int, n.kwargs["dim"])))
        axis = int(cast(int, n.kwargs["dim"])) % twin.ndim
        if {each for part in parts for each in varying_axes(part)} - {axis}:
            self.found.labels.join(twin, twin.narrow(axis, 0, 1), FOREIGN)
        return twin

    def _twin_or_none(self, n: fx.Node) -> Tensor:
        twin: Tensor | None = self._twins.get(n)
        return torch.full((), NONE).expand(self.env[n].shape) if twin is None else twin

    def _reduce(self, n: fx.Node, value: Tensor) -> Tensor | None:
        twin = self._twins[cast(fx.Node, n.args[0])]
        axes = cast(Sequence[int] | None, n.kwargs.get("dim"))
        axes = list(range(twin.ndim)) if axes is None else list(axes)
        if {axis % twin.ndim for axis in axes} & set(varying_axes(twin)):
            self.found.labels.keep(twin, f"{n.name} reduces them to one value")
            return None
        return torch.amax(twin, axes, bool(n.kwargs.get("keepdim", True)))

    def _tile(self, n: fx.Node, value: Tensor) -> Tensor | None:
        twin = self._twins[cast(fx.Node, n.args[0])]
        if any(twin.shape[axis] != value.shape[axis] for axis in varying_axes(twin)) or twin.ndim != value.ndim:
            self.found.labels.keep(twin, f"{n.name} repeats them")
            return None
        return twin[
            tuple(slice(None) if axis in varying_axes(twin) else slice(0, 1) for axis in range(twin.ndim))
        ].expand(value.shape)

    def _matmul(self, n: fx.Node, value: Tensor) -> Tensor | None:
        first, second = (self._twin_or_none(cast(fx.Node, each)) for each in n.args)
        letters = letters_of_matmul(first.ndim, second.ndim)
        return self.found.products.multiply(self.found.labels, first, second, letters, value.shape)

    def _einsum(self, n: fx.Node, value: Tensor) -> Tensor | None:
        letters = letters_of_einsum(str(n.args[0])) if len(n.args) == 3 else None
        if letters is None:
            self._keep(n.all_input_nodes, _unknown(n))
            return None
        first, second = (self._twin_or_none(cast(fx.Node, each)) for each in n.args[1:])
        return self.found.products.multiply(self.found.labels, first, second, letters, value.shape)


def _unknown(n: fx.Node) -> str:
    what = n.meta.get("op_type") or getattr(n.target, "__name__", str(n.target))
    return f"{n.meta.get('onnx', n.name)} is a {what}, behind which they are not followed"


_SPECIAL: dict[Any, Callable[[Follower, fx.Node, Any], Any]] = {
    modules.onnx_reshape: Follower._reshape,
    indexing.flatten: Follower._flatten,
    modules.onnx_slice: Follower._slice,
    torch.split: Follower._split,
    torch.chunk: Follower._split,
    torch.select: Follower._pick,
    torch.narrow: Follower._pick,
    torch.cat: Follower._concatenate,
    torch.matmul: Follower._matmul,
    torch.einsum: Follower._einsum,
    indexing.tile: Follower._tile,
    **dict.fromkeys(_REDUCTIONS, Follower._reduce),
}
"""Function -> what it does with labels."""


def follow(module: fx.GraphModule, input_shape: tuple[int, int, int], *, layer_norms: bool = False) -> Followed | None:
    """Follow the channels of a network; on two images, to tell batch from other axes, or on one if it takes no more.

    Args:
        module: from `to_torch`; it is left as it was.
        input_shape: (C, H, W).
        layer_norms: whether channels that a LayerNorm normalises may go.

    Returns:
        Where its channels are; None where the network does not run so.
    """
    with evaluating(module), torch.no_grad():
        device = next((parameter.device for parameter in module.parameters()), None)
        for batch in (2, 1):
            images = torch.zeros(batch, *input_shape, device=device)
            try:
                fx.Interpreter(module).run(images)
            except Exception:  # networks exported for a single image fail in any way
                continue
            follower = Follower(module, layer_norms=layer_norms)
            try:
                follower.run(images)
            except Exception:  # operators take labels in place of values, which some may refuse in any way
                return None
            return follower.found
    return None
