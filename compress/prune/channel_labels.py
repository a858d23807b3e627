"""Labels of channels, and which of them can only be removed together.

Every output channel of a layer that makes channels, and every slice of a trained tensor that meets them, has a label:
a whole number above 0. Labels that must go together are joined; one that must stay has a reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

NONE = 0
"""Of an element that no layer's channel is: it is never removed."""


@dataclass(frozen=True)
class Owner:
    """What a label is of: an output channel of a layer, or a slice of a parameter or buffer."""

    name: str
    index: int
    dim: int = 0
    """Of a parameter or buffer: the dimension that is sliced."""


class Labels:
    """Disjoint sets of labels (union-find), with owners and the reasons why some stay."""

    def __init__(self) -> None:
        self._parents = [NONE]
        self.owners: dict[int, Owner] = {}
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Labels that nothing owns yet, [count]."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def owned(self, name: str, count: int, dim: int = 0) -> Tensor:
        """Labels of the channels of a layer, or of the slices of a tensor along a dimension, [count]."""
        made = self.new(count)
        self.owners |= {label: Owner(name, index, dim) for index, label in enumerate(made.tolist())}
        return made

    def find(self, label: int) -> int:
        """The one that stands for all that are joined with this label."""
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def join(self, one: Tensor, other: Tensor, why: str) -> None:
        """Join labels element by element; what meets an element without a label must stay, for that reason.

        Args:
            one: any shape.
            other: of a shape that broadcasts with it.
            why: said of a label that meets `NONE`.
        """
        one, other = torch.broadcast_tensors(one, other)
        constant = [axis for axis in range(one.ndim) if one.stride(axis) == other.stride(axis) == 0]
        pairs = torch.stack((_once(one, constant), _once(other, constant)), -1).reshape(-1, 2).unique(dim=0)
        for first, second in pairs.tolist():
            if first == second:
                continue
            if NONE in (first, second):
                self.keep([first or second], why)
            else:
                self._parents[self.find(second)] = self.find(first)

    def keep(self, labels: Iterable[int] | Tensor, why: str) -> None:
        """Say of labels why they must stay; the first reason counts."""
        given = labels.unique().tolist() if isinstance(labels, Tensor) else labels
        for label in given:
            if label != NONE:
                self._reasons.setdefault(label, why)

    def classes(self) -> dict[int, list[int]]:
        """The sets of labels that go together, by the one that stands for each, in the order of their first labels."""
        found: dict[int, list[int]] = {}
        for label in range(1, len(self._parents)):
            found.setdefault(self.find(label), []).append(label)
        return dict(sorted(found.items(), key=lambda item: item[1][0]))

    def reasons(self) -> dict[int, str]:
        """Class -> why it stays; of several reasons that of the first label."""
        found: dict[int, str] = {}
        for label in sorted(self._reasons):
            found.setdefault(self.find(label), self._reasons[label])
        return found


def varying_axes(twin: Tensor) -> list[int]:
    """The axes along which a tensor of labels is not constant.

    >>> varying_axes(torch.tensor([[1, 2], [1, 2]]))
    [1]
    """
    small = _once(twin, [axis for axis in range(twin.ndim) if twin.stride(axis) == 0])
    return [axis for axis in range(twin.ndim) if not bool((small == small.narrow(axis, 0, 1)).all())]


def thinned(twin: Tensor) -> Tensor:
    """The same labels, with the axes along which they are constant stored once (a stride of 0)."""
    varying = varying_axes(twin)
    return _once(twin, [axis for axis in range(twin.ndim) if axis not in varying]).clone().expand(twin.shape)


def core(twin: Tensor) -> Tensor:
    """The labels along the axes on which they vary alone.

    >>> core(torch.tensor([[[1], [2]], [[1], [2]]]))
    tensor([1, 2])
    """
    varying = varying_axes(twin)
    constant = [axis for axis in range(twin.ndim) if axis not in varying]
    return _once(twin, constant).squeeze(tuple(constant)) if constant else twin


def _once(twin: Tensor, axes: Iterable[int]) -> Tensor:
    for axis in axes:
        twin = twin.narrow(axis, 0, 1)
    return twin
