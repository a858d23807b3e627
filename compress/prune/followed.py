"""Where the channels of a network are, as `compress.prune.following` finds out: the labels of all layers' channels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.graph.queries import output_count
from compress.prune.channel_labels import Labels, varying_axes
from compress.prune.layer_kinds import group_width, is_grouped, unsupported_reason
from compress.prune.layouts import Layouts
from compress.prune.products import Products

FOREIGN = "has channels that meet values which no layer makes, and which would stay"
_TWICE = "is used twice, and reads other values the other time"


@dataclass
class Followed:
    """Where the channels of a network are."""

    labels: Labels = field(default_factory=Labels)
    made: dict[str, Tensor] = field(default_factory=dict)
    """Layer -> the labels of its output channels."""
    carried: dict[str, Tensor] = field(default_factory=dict)
    """Layer that treats each channel by itself -> their labels."""
    read: dict[str, Tensor] = field(default_factory=dict)
    """Layer -> the labels of its input channels."""
    layouts: Layouts = field(default_factory=Layouts)
    products: Products = field(default_factory=Products)
    _constants: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    """Parameter or buffer -> the dimension along which it has labels, and these."""

    def made_by(self, name: str, layer: nn.Module) -> Tensor:
        """The labels of a layer's output channels, the same whenever it is used."""
        if name not in self.made:
            self.made[name] = self.labels.owned(name, output_count(layer))
            if is_grouped(layer):
                self._join_groups(self.made[name], cast(_ConvNd, layer), "out", name)
        return self.made[name]

    def read_by(self, name: str, layer: nn.Module, twin: Tensor, axis: int) -> None:
        """Note which channels a layer reads along an axis."""
        labels = self._along(twin, axis, f"{name} reads them in different places at each step")
        if is_grouped(layer):
            self._join_groups(labels, cast(_ConvNd, layer), "in", name)
        self.labels.join(self.read.setdefault(name, labels), labels, f"{name} {_TWICE}")

    def carry(self, name: str, twin: Tensor, axis: int) -> Tensor:
        """Note which channels a layer treats one by one along an axis."""
        labels = self._along(twin, axis, f"{name} normalises or filters them together")
        self.labels.join(self.carried.setdefault(name, labels), labels, f"{name} {_TWICE}")
        return twin

    def normalise(self, name: str, twin: Tensor, groups: int) -> Tensor:
        """Note channels [N, C, ...] that a layer normalises in equal groups of its C, each of which goes as a whole.

        Exporters spell GroupNorm by a Reshape and InstanceNorm: what lies in one of its C belongs to several channels.
        """
        varying = varying_axes(twin)
        if 0 in varying:
            self.labels.keep(twin, f"{name} normalises them apart in each image")
            return twin
        labels = twin[(0, slice(None), *(slice(None) if axis in varying else 0 for axis in range(2, twin.ndim)))]
        rows = labels.reshape(groups, -1).unique_consecutive(dim=1)
        self.labels.join(rows, rows[:, :1], f"{name} normalises them together with channels that stay")
        held = labels.reshape(twin.shape[1], -1)[:, 0]
        self.labels.join(self.carried.setdefault(name, held), held, f"{name} {_TWICE}")
        return twin

    def keep_along(self, twin: Tensor, axes: Iterable[int], why: str) -> None:
        """Labels that vary along some axes stay."""
        if {axis % twin.ndim for axis in axes} & set(varying_axes(twin)):
            self.labels.keep(twin, why)

    def meet(
        self,
        twins: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        foreign: Sequence[Tensor],
        shape: Sequence[int],
    ) -> Tensor:
        """Join what an element-wise function brings together.

        Args:
            twins: labels of what it reads.
            constants: parameters and buffers that it reads, by name.
            foreign: other values that it reads.
            shape: of what it makes.

        Returns:
            The labels of what it makes.
        """
        met = [aligned(twin, shape) for twin in twins]
        varying = {axis for twin in met for axis in varying_axes(twin)}
        for name, tensor in constants.items():
            met += self._of_constant(name, tensor, _axes_of(tensor, varying, shape), met, shape)
        for tensor in foreign:
            if _axes_of(tensor, varying, shape):
                self._keep_all(met)
        base = max(met, key=lambda twin: len(varying_axes(twin)))
        for twin in met:
            if varying_axes(base) and not varying_axes(twin):
                self.labels.keep(twin, "has a single channel")
            else:
                self.labels.join(base, twin, FOREIGN)
        return base

    def _of_constant(
        self, name: str, tensor: Tensor, axes: Sequence[int], met: Sequence[Tensor], shape: Sequence[int]
    ) -> list[Tensor]:
        """Labels for a constant that meets channels along one of its dimensions; along several, the channels stay."""
        if not axes:
            return []
        dim = axes[0] - len(shape) + tensor.ndim
        known = self._constants.get(name)
        if len(axes) > 1 or (known is not None and known[0] != dim):
            self._keep_all(met)
            return []
        if known is None:
            known = self._constants[name] = dim, self.labels.owned(name, tensor.shape[dim], dim)
        return [aligned(known[1].reshape(-1, *[1] * (tensor.ndim - dim - 1)).expand(tensor.shape), shape)]

    def _keep_all(self, twins: Iterable[Tensor]) -> None:
        for twin in twins:
            self.labels.keep(twin, FOREIGN)

    def _join_groups(self, labels: Tensor, layer: _ConvNd, side: str, name: str) -> None:
        """Convolutions in groups lose the same places in each of theirs."""
        width, why = group_width(layer, side), f"{name} {unsupported_reason(layer, side)}"
        if width < 2:
            self.labels.keep(labels, why)
        else:
            groups = labels.reshape(-1, width)
            self.labels.join(groups, groups[:1], why)

    def _along(self, twin: Tensor, axis: int, why: str) -> Tensor:
        """The labels along an axis; where they vary along others as well they stay."""
        axis = axis % twin.ndim
        if set(varying_axes(twin)) - {axis}:
            self.labels.keep(twin, why)
            return torch.zeros(twin.shape[axis], dtype=torch.long)
        return twin[tuple(slice(None) if each == axis else 0 for each in range(twin.ndim))]


def aligned(twin: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels spread to a shape that they broadcast to."""
    return twin.reshape(*[1] * (len(shape) - twin.ndim), *twin.shape).expand(tuple(shape))


def _axes_of(tensor: Tensor, varying: Iterable[int], shape: Sequence[int]) -> list[int]:
    """Those of some axes of a shape along which a tensor that broadcasts to it has elements of its own."""
    offset = len(shape) - tensor.ndim
    return [axis for axis in varying if axis >= offset and tensor.shape[axis - offset] > 1]
