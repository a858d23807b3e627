"""Reconstruction: the weights that a pruned network still has, solved anew so that its layers compute what they did.

The original and the pruned network run side by side over a few images, one layer at a time. At each layer with weights
the pruned one's are the solution of a ridge regression: its inputs are what the pruned network computes by then, with
all layers before it solved already; its targets are what the original computed there, without the channels that are
gone. No label is read and nothing is trained; every layer is computed once.

Source: channel pruning by least squares (He, Zhang and Sun 2017), applied in the order of execution, so that a layer
also takes back the errors of those before it; the penalty holds weights near what they were (ridge 1e-3 of the Gram
matrix's mean diagonal, measured).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn.modules.batchnorm import _BatchNorm

from compress.compute.device import device_of
from compress.errors import ModelError
from compress.graph.queries import norm_behind, output_count
from compress.progress import Progress
from compress.prune.least_squares import Normal, Regression
from compress.prune.regression import regressions

WIDEST = 4700
"""Inputs of a layer above which it stays as it is; a 3x3 convolution of 512 channels has 4609. Their Gram matrix takes
177 MB and its solution half a minute."""
POSITIONS, RIDGE = 400, 1e-3
"""Rows that are drawn from each image; share of the Gram matrix's mean diagonal."""


@dataclass(frozen=True)
class SolvedLayer:
    """How far a layer's outputs were from the original's, relative to their mean square, before and after."""

    name: str
    before: float
    after: float


def reconstruct(
    original: fx.GraphModule,
    pruned: fx.GraphModule,
    kept: Mapping[str, Sequence[int]],
    batches: Iterable[np.ndarray],
    *,
    positions: int = POSITIONS,
    ridge: float = RIDGE,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> tuple[SolvedLayer, ...]:
    """Solve the weights of a pruned network anew, in place; its BatchNorms keep all but the means that take up a bias.

    Args:
        original: the network as it was; not changed.
        pruned: the same graph with fewer channels, on the same device.
        kept: layer -> the original's output channels that are left; of a layer that is not named, all.
        batches: images [N, C, H, W] float32, of any number and of several sizes; kept in memory, with the activations
            that later layers read (see `bytes_per_pixel`).
        positions: rows drawn from each image, at most.
        ridge: how firmly weights are held where they were.
        seed: of what is drawn.
        on_progress: called as (layers done, in all, message).

    Raises:
        ModelError: the two networks differ in more than their channels, or there are no images.
    """
    _check_pair(original, pruned, kept)
    images = _on_device(batches, pruned)
    if not images:
        raise ModelError("reconstruct: no images. Give some of the kind that the network reads.")
    before, after = _Walk(original, images), _Walk(pruned, images)
    layers = [node for node in _modules(pruned) if _has_weights(pruned, node)]
    firsts = {node.name: node for node in _modules(original)}
    solved: list[SolvedLayer] = []
    with torch.no_grad():
        for number, second in enumerate(layers):
            first = firsts[second.name]
            before.run_to(first)
            after.run_to(second, itself=False)
            solved += _solve(before, after, first, second, kept, positions, ridge, seed + len(solved))
            if on_progress:
                on_progress(number + 1, len(layers), f"reconstructing {second.target}")
    return tuple(solved)


def _modules(module: fx.GraphModule) -> list[fx.Node]:
    """The nodes that are layers and activations; what lies between may differ, where sizes were computed."""
    return [node for node in module.graph.nodes if node.op == "call_module"]


def _check_pair(original: fx.GraphModule, pruned: fx.GraphModule, kept: Mapping[str, Sequence[int]]) -> None:
    """Raise ModelError where two networks differ in more than the channels that are gone."""
    names = [[node.name for node in _modules(module)] for module in (original, pruned)]
    if names[0] != names[1]:
        raise ModelError("reconstruct: the models differ in their operators. Give the one that was pruned.")
    for name, layer in original.named_modules():
        count = output_count(layer)
        left, found = len(kept.get(name, range(count))), output_count(pruned.get_submodule(name))
        if found != left:
            raise ModelError(
                f"reconstruct: layer {name!r} of the pruned model has {found} channels, and the plan leaves it {left}. "
                "Give the plan that it was pruned by."
            )


def _on_device(batches: Iterable[np.ndarray], module: fx.GraphModule) -> list[Tensor]:
    """Images where a network's weights are."""
    device = device_of(module)
    return [torch.from_numpy(np.ascontiguousarray(batch)).to(device) for batch in batches]


def left_out(pruned: fx.GraphModule) -> list[str]:
    """The layers with more than `WIDEST` inputs, which `reconstruct` leaves as they are: its time grows with the cube
    of a layer's inputs, its memory with the square."""
    layers = {name: _regressions(pruned, pruned, name) for name, _ in pruned.named_modules()}
    return [name for name, found in layers.items() if any(each.start().shape[1] > WIDEST for each in found)]


def layer_equations(
    module: fx.GraphModule,
    layers: Collection[str],
    batches: Iterable[np.ndarray],
    positions: int = POSITIONS,
    seed: int = 0,
    widest: int | None = None,
    on_progress: Progress | None = None,
) -> dict[str, list[tuple[Regression, Normal]]]:
    """The normal equations of some of a network's layers, of their own inputs and outputs.

    Args:
        module: the network.
        layers: names of the layers.
        batches: images [N, C, H, W] float32.
        positions: rows drawn from each image, at most.
        seed: of what is drawn.
        widest: leave out layers of more inputs.
        on_progress: called as (layers done, in all, message).
    """
    walk = _Walk(module, _on_device(batches, module))
    found: dict[str, list[tuple[Regression, Normal]]] = {}
    with torch.no_grad():
        for node in module.graph.nodes:
            walk.run(node)
            name = str(node.target)
            if node.op == "call_module" and name in layers:
                solvable = _regressions(module, module, name)
                if all(widest is None or each.start().shape[1] <= widest for each in solvable):
                    seen, made = walk.values(_input(node)), walk.values(node)
                    found[name] = [(each, _summed(each, seen, seen, made, positions, seed)) for each in solvable]
                if on_progress:
                    on_progress(len(found), len(layers), f"equations of {name}")
            walk.forget(node)
    return found


def bytes_per_pixel(module: fx.GraphModule, image: Tensor) -> float:
    """Memory that `reconstruct` takes for each pixel of its images.

    Args:
        module: the original network.
        image: one image [1, C, H, W].
    """
    walk = _Walk(module, [image])
    most = 0
    with torch.no_grad():
        for node in module.graph.nodes:
            walk.run(node)
            most = max(most, walk.size())
            walk.forget(node)
    return 2 * most / (image.shape[-1] * image.shape[-2])


class _Walk:
    """A network run node by node over all batches; values go when nothing reads them any more."""

    def __init__(self, module: fx.GraphModule, images: Sequence[Tensor]) -> None:
        self.module = module.eval()
        self._images = images
        self._runner = fx.Interpreter(module)
        self._values: list[dict[fx.Node, Any]] = [{} for _ in images]
        self._dying = _last_reads(module)
        self._left = list(reversed(module.graph.nodes))
        self._last: fx.Node | None = None

    def run_to(self, node: fx.Node, *, itself: bool = True) -> None:
        """Compute the nodes up to one, or those before it; what the last of them read is kept until the next is run."""
        while self._left and (itself or self._left[-1] is not node) and self._last is not node:
            if self._last is not None:
                self.forget(self._last)
            self._last = self._left.pop()
            self.run(self._last)

    def run(self, node: fx.Node) -> None:
        """Compute a node for every batch."""
        for values, batch in zip(self._values, self._images, strict=True):
            self._runner.env = values
            self._runner.args_iter = iter([batch])
            values[node] = self._runner.run_node(node)

    def values(self, node: fx.Node) -> list[Any]:
        """A node's value of every batch."""
        return [values[node] for values in self._values]

    def forget(self, node: fx.Node) -> None:
        """Drop what nothing behind this node reads."""
        for gone in self._dying[node]:
            for values in self._values:
                values.pop(gone, None)

    def size(self) -> int:
        """Bytes of all values."""
        return sum(_bytes(value) for values in self._values for value in values.values())


def _last_reads(module: fx.GraphModule) -> Mapping[fx.Node, list[fx.Node]]:
    """Node -> the nodes whose values it is the last to read; itself where nothing reads it."""
    last = {}
    for node in module.graph.nodes:
        last[node] = node
        for given in node.all_input_nodes:
            last[given] = node
    dying: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for given, node in last.items():
        dying[node].append(given)
    return dying


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


def _has_weights(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = module.get_submodule(str(node.target))
    return not isinstance(layer, _BatchNorm) and next(layer.parameters(), None) is not None


def _regressions(
    module: fx.GraphModule, original: fx.GraphModule, name: str, kept: Sequence[int] | None = None
) -> list[Regression]:
    """What of a layer can be solved for, by its name; `kept` are the original's channels that are left, default all."""
    whole, norm = original.get_submodule(name), norm_behind(module, name)
    left = range(output_count(whole)) if kept is None else kept
    return regressions(module.get_submodule(name), whole, left, module.get_submodule(norm) if norm else None)


def _solve(
    before: _Walk,
    after: _Walk,
    first: fx.Node,
    second: fx.Node,
    kept: Mapping[str, Sequence[int]],
    positions: int,
    ridge: float,
    seed: int,
) -> list[SolvedLayer]:
    """Solve one layer, and put the solution into the pruned network."""
    name = str(second.target)
    seen, given, made = before.values(_input(first)), after.values(_input(second)), before.values(first)
    solved: list[SolvedLayer] = []
    for regression in _regressions(after.module, before.module, name, kept.get(name)):
        start = regression.start()
        if start.shape[1] > WIDEST:
            continue
        normal = _summed(regression, given, seen, made, positions, seed)
        weights = normal.solve(start, ridge, has_bias=regression.has_bias)
        errors = normal.error(start), normal.error(weights)
        if bool(torch.isfinite(weights).all()) and errors[1] <= errors[0]:
            regression.assign(weights.to(start))
            solved.append(SolvedLayer(name, *errors))
    return solved


def _summed(
    regression: Regression,
    given: Sequence[Tensor],
    seen: Sequence[Tensor],
    made: Sequence[Any],
    positions: int,
    seed: int,
) -> Normal:
    """The normal equations over all batches."""
    generator = torch.Generator().manual_seed(seed)
    total: Normal | None = None
    for one, other, wanted in zip(given, seen, made, strict=True):
        part = Normal.of(regression.rows(one, other, wanted, positions, generator))
        if total is None:
            total = part
        else:
            total.add(part)
    assert total is not None
    return total


def _input(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0]
