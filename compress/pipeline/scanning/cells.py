"""Run a network with one pruned group without computing again what pruning does not reach.

For each group the original's values in front of what it changes are computed once and kept, and each pruning of the
group runs only what lies behind them: as a model of its own, cut out of the original's graph, into which the few pruned
layers are written. Outputs are those of the whole network to the last bit, which is tried out on the first images:
for each group, and each kind of its width, as kernels depend on how many channels are left. Where a cut is not exact,
another is tried, and at last the whole network is run as it is.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from torch import fx, nn

from compress.errors import ModelError
from compress.graph import to_onnx
from compress.graph.cone import BLOCK, Cone, cone_model, cone_of, prefix_model, readers_of
from compress.graph.write import initializers, write_layers
from compress.measure.cost import layer_positions, weight_count
from compress.measure.session import Part, Session
from compress.pipeline.scanning.kept_values import KeptValues
from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.sensitivity import Compensate
from compress.tasks.base import Predict

MEMORY = 2 << 30
"""Bytes of values that are kept, at most."""
CLOSE = 1e-5
"""Difference of outputs that passes where they need not be the same."""

Widths = tuple[tuple[int, bool], ...]
"""What kernels depend on of each number of channels: the block that it fills, and whether it is less than one."""


@dataclass(frozen=True)
class Cut:
    """Where a group's cells begin: what they compute, as a model with the original's weights."""

    cone: Cone
    model: onnx.ModelProto


@dataclass
class _Current:
    """The group whose cells are being run, and how, by its width; None where the whole network must run."""

    group: str = ""
    candidates: list[Cut] = field(default_factory=list)
    cuts: dict[Widths, Cut | None] = field(default_factory=dict)


class Cells:
    """Predictions of a network without some channels of one group.

    Args:
        module: the original, from `to_torch(model)`.
        model: the original, in canonical form.
        groups: whose cells will be run, in this order.
        threads: of onnxruntime.
        memory: bytes of values that are kept, at most; 0 runs whole networks.
        batch_first: the output's first dimension is the images.
        exact: outputs are those of the whole network to the last bit; else up to `CLOSE`, as tried out for each group.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        model: onnx.ModelProto,
        groups: Sequence[ChannelGroup],
        *,
        threads: int = 1,
        memory: int = MEMORY,
        exact: bool = True,
        batch_first: bool = True,
    ) -> None:
        self.exact, self.batch_first = exact, batch_first
        self._module, self._model, self._threads = module, model, threads
        self._types = _types_of(model)
        self._base = to_onnx(module, model)  # what pruned networks are written as, but for what was pruned
        self._cones = {group.name: self._cones_of(group) for group in groups} if memory and _is_plain(model) else {}
        self._order = [group.name for group in groups]
        self._kept = KeptValues(self._values_of, memory)
        self._current = _Current()

    def share(self, input_shape: tuple[int, int, int]) -> float:
        """The mean share of the network's multiply-adds that a cell computes, for images of (C, H, W)."""
        positions = layer_positions(self._module, input_shape)
        macs = {
            node.meta["onnx"]: positions[str(node.target)] * weight_count(self._module.get_submodule(str(node.target)))
            for node in self._module.graph.nodes
            if "onnx" in node.meta and str(node.target) in positions
        }
        values = [node.output[0] for node in self._base.graph.node]
        whole = max(1, sum(macs.values()))
        found = [sum(macs.get(values[place], 0) for place in some[0].nodes) for some in self._cones.values() if some]
        return (sum(found) + whole * (len(self._order) - len(found))) / (whole * max(1, len(self._order)))

    def original(self) -> Predict:
        """The network as it is; what it is called with is what every cell will be called with."""
        session = Session(self._base, threads=self._threads, spin=False)
        calls = itertools.count()

        def predict(images: np.ndarray) -> np.ndarray:
            self._kept.expect(next(calls), images)
            return session.run(images)

        return predict

    def predictor(self, group: ChannelGroup, layers: nn.Module) -> "Cell":
        """What a pruned network predicts.

        Args:
            group: the one that was pruned.
            layers: the pruned network, or at least its layers that changed (see `pruned_layers`).
        """
        if self._current.group != group.name:
            candidates = [Cut(cone, cone_model(self._base, cone, self._types)) for cone in self._cones_of_group(group)]
            self._current = _Current(group.name, candidates=candidates)
        return Cell(self, self._current, layers)

    def pruned_layers(
        self, group: ChannelGroup, removed: Sequence[int], compensate: Compensate | None = None
    ) -> nn.Module:
        """The layers of one group without some of its channels.

        The whole network, where other layers compensate for it, or where the graph's sizes follow.
        """
        if compensate is None and not group.sizes:
            return remove_channels(layers_of(self._module, group), [group], {group.name: removed})
        pruned = remove_channels(self._module, [group], {group.name: removed})
        if compensate is not None:
            compensate(pruned, group, removed)
        return pruned

    def cuts(self, group: ChannelGroup) -> dict[Widths, Cut | None]:
        """How cells of the group that ran last are run, by their widths; None: as whole networks."""
        return dict(self._current.cuts) if self._current.group == group.name else {}

    @property
    def kept_bytes(self) -> int:
        """Of values."""
        return self._kept.nbytes

    def whole(self, layers: nn.Module) -> Session:
        """The whole pruned network."""
        made = onnx.ModelProto()
        made.CopyFrom(self._base)
        write_layers(made, self._module, layers)
        return Session(made, threads=self._threads, spin=False)

    def part(self, cut: Cut, layers: nn.Module) -> Part:
        """What a cut leaves of the pruned network."""
        made = onnx.ModelProto()
        made.CopyFrom(cut.model)
        write_layers(made, self._module, layers)
        return Part(made, threads=self._threads)

    def inputs(self, cut: Cut, call: int, images: np.ndarray) -> dict[str, np.ndarray]:
        """The original's values that a cut's part reads, of the images of this call."""
        following = self._order[self._order.index(self._current.group) :]
        later = [cone.inputs for name in following for cone in self._cones[name][:1]]
        return self._kept.get(cut.cone.inputs, call, images, later)

    def output_name(self) -> str:
        """Of the model."""
        return str(self._model.graph.output[0].name)

    def _values_of(self, names: Sequence[str]) -> "_Prefix":
        return _Prefix(self._base, names, self._threads)

    def _cones_of_group(self, group: ChannelGroup) -> list[Cone]:
        return self._cones.get(group.name, [])

    def _cones_of(self, group: ChannelGroup) -> list[Cone]:
        """Cuts for a group, the shortest first; none where its layers are not found or need most of the network."""
        names = {
            node.meta["onnx"]
            for node in self._module.graph.nodes
            if "onnx" in node.meta and str(node.target) in {member.layer for member in group.members}
        }
        places = readers_of(self._base, names)
        cones = [cone_of(self._base, places, copies=copies) for copies in (True, False)] if places else []
        given = {value.name for value in self._base.graph.input}
        return [
            cone
            for cone in dict.fromkeys(cones)
            if given.isdisjoint(cone.inputs) and all(name in self._types for name in cone.inputs)
        ]


class Cell:
    """A pruned network that is called with the same images in the same order as others of its group."""

    def __init__(self, cells: Cells, current: _Current, layers: nn.Module) -> None:
        self._cells, self._current, self._layers = cells, current, layers
        self._widths = _widths(layers) if cells.exact else ()
        self._calls = 0
        self._session: Session | None = None
        self._part: Part | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The first output for float32 images [N, C, H, W]."""
        call, self._calls = self._calls, self._calls + 1
        if self._widths not in self._current.cuts:
            return self._decide(call, images)
        return self._answer(call, images)

    def _decide(self, call: int, images: np.ndarray) -> np.ndarray:
        """Run the whole network, and find the first cut that gives the same; of one image, where close will do."""
        batch_first = self._cells.batch_first
        count = len(images) if self._cells.exact or not batch_first else 1
        expected = self._whole(images[:count])
        self._current.cuts[self._widths] = None
        for cut in self._current.candidates:
            self._part = None
            try:
                values = _first(self._cells.inputs(cut, call, images), len(images), count)
                found = self._run(cut, values)
                found = found[:count] if batch_first else found
            except ModelError:  # what is cut out does not run alone: the whole network does
                continue
            if self._same(found, expected):
                self._current.cuts[self._widths] = cut
                break
        return expected if count == len(images) else self._answer(call, images)

    def _answer(self, call: int, images: np.ndarray) -> np.ndarray:
        cut = self._current.cuts[self._widths]
        return self._whole(images) if cut is None else self._run(cut, self._cells.inputs(cut, call, images))

    def _same(self, found: np.ndarray, expected: np.ndarray) -> bool:
        if self._cells.exact:
            return np.array_equal(found, expected, equal_nan=True)
        return np.allclose(found, expected, rtol=0.0, atol=CLOSE, equal_nan=True)

    def _run(self, cut: Cut, values: Mapping[str, np.ndarray]) -> np.ndarray:
        self._part = self._part or self._cells.part(cut, self._layers)
        return self._part.run([self._cells.output_name()], values)[0]

    def _whole(self, images: np.ndarray) -> np.ndarray:
        self._session = self._session or self._cells.whole(self._layers)
        return self._session.run(images)


def _first(values: Mapping[str, np.ndarray], images: int, count: int) -> dict[str, np.ndarray]:
    """Values of the first images of a batch; of all, where some do not count images in their first dimension."""
    sliced = all(array.ndim and len(array) == images for array in values.values())
    return {name: array[:count] if sliced else array for name, array in values.items()}


class _Prefix:
    """Computes values of the original from images."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], threads: int) -> None:
        self._names = list(names)
        self._input = model.graph.input[0].name
        self._part = Part(prefix_model(model, names), threads=threads)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._part.run(self._names, {self._input: images}), strict=True))


def layers_of(module: nn.Module, group: ChannelGroup) -> nn.Module:
    """The layers, parameters and buffers that hold channels of a group, under their names; shared, not copied."""
    found = nn.Module()
    layers, parameters = dict(module.named_modules()), dict(module.named_parameters())
    for name in {member.layer for member in group.members}:
        if name in layers:
            found.add_module(name, layers[name])
        elif name in parameters:
            found.register_parameter(name, parameters[name])
        else:
            found.register_buffer(name, module.get_buffer(name))
    return found


def _widths(layers: nn.Module) -> Widths:
    sizes = [size for weight in layers.parameters() for size in weight.shape[:2]]
    return tuple((math.gcd(size, BLOCK), size < BLOCK) for size in sizes)


def _is_plain(model: onnx.ModelProto) -> bool:
    """Whether a model can be cut: one input of float32 images of any number, no graphs inside."""
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    given = [value for value in model.graph.input if value.name not in initializers(model)]
    kind = given[0].type.tensor_type
    batch = kind.shape.dim[0].dim_value if kind.shape.dim else 1
    inner = any(entry.type in graphs for node in model.graph.node for entry in node.attribute)
    return len(given) == 1 and kind.elem_type == onnx.TensorProto.FLOAT and batch == 0 and not inner


def _types_of(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The types of inner values, as far as they are known."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: value.type for value in graph.value_info if value.type.tensor_type.HasField("shape")}
