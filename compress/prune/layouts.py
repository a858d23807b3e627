"""Where tensors of labels are laid out anew: Reshape, Split, Slice and picking by a number.

Such nodes hold numbers that count elements. Each is noted with the labels that it counts, so that it can be made to
follow what is pruned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.graph.modules import COMPUTED
from compress.prune.channel_labels import core, thinned, varying_axes

_END = 1 << 62
"""Ends of slices above this mean: to the end."""


@dataclass(frozen=True)
class SizeUse:
    """Numbers of a node that count elements of a tensor along one of its axes each."""

    node: str
    """Name of the fx node."""
    numbers: tuple[int, ...]
    """See `compress.graph.sizes.set_sizes`."""
    counted: dict[int, tuple[Tensor, int]]
    """Place among the numbers -> labels, and the axis of them that it counts."""
    axis: int = 0
    """Of a Slice, the one that it cuts."""
    is_index: bool = False
    """It picks a place by its number, so that none may go along the axis."""
    depends: frozenset[int] = frozenset()
    """Labels of the tensors from whose sizes the file computes the numbers, which pruning changes in other ways."""


@dataclass
class Grid:
    """Labels that a Reshape lays out from one axis in several, [..., rows, columns]."""

    labels: Tensor
    mixed: bool = False
    """They are read in an order in which rows would have to lose the same columns."""

    @property
    def rows(self) -> list[list[int]]:
        """The labels of each row."""
        found: list[list[int]] = self.labels.reshape(-1, self.labels.shape[-1]).tolist()
        return found


@dataclass
class Layouts:
    """What a network lays out anew."""

    grids: list[Grid] = field(default_factory=list)
    sizes: list[SizeUse] = field(default_factory=list)

    def reshaped(
        self,
        node: str,
        twin: Tensor,
        shape: Sequence[int],
        numbers: Sequence[int] | None,
        depends: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Reshape labels.

        Args:
            node: name of the Reshape.
            twin: labels of what it reads.
            shape: of what it makes.
            numbers: its target; None where it follows what it reads by itself, or cannot.
            depends: see `SizeUse`.
        """
        made = thinned(twin.reshape(tuple(shape)))
        after = varying_axes(made)
        if len(varying_axes(twin)) > 1:
            self._check_order(core(twin))
        if len(after) > 1:
            self.grids.append(Grid(_distinct_rows(core(made))))
        if numbers is not None and after:
            counted = {axis: (made, axis) for axis in after if numbers[axis] > 0}
            self.sizes.append(SizeUse(node, tuple(numbers), counted, depends=depends))
        return made

    def split(
        self, node: str, twin: Tensor, axis: int, parts: Sequence[Tensor], depends: frozenset[int]
    ) -> tuple[Tensor, ...]:
        """Split labels as their values were split into `parts`; `depends` as in `SizeUse`."""
        axis = axis % twin.ndim
        sizes = [part.shape[axis] for part in parts]
        made = twin.split(sizes, axis)
        if axis in varying_axes(twin):
            self._check_cut(twin, axis)
            counted = {place: (part, axis) for place, part in enumerate(made)}
            self.sizes.append(SizeUse(node, tuple(sizes), counted, depends=depends))
        return made

    def sliced(self, node: str, twin: Tensor, axis: int, bounds: tuple[int, int], depends: frozenset[int]) -> None:
        """Note a slice of one axis of labels; `depends` as in `SizeUse`."""
        size = twin.shape[axis]
        first, last = (max(0, bound + size) if bound < 0 else min(bound, size) for bound in bounds)
        self._check_cut(twin, axis)
        counted = {place: (twin.narrow(axis, 0, bound), axis) for place, bound in enumerate((first, last)) if bound}
        self.sizes.append(SizeUse(node, (first, last), counted, axis, depends=depends))

    def picked(self, node: str, twin: Tensor, axis: int) -> None:
        """Note that places of an axis of labels are picked by their numbers."""
        if axis in varying_axes(twin):
            self._check_cut(twin, axis)
            self.sizes.append(SizeUse(node, (0,), {0: (twin, axis)}, axis, is_index=True))

    def _check_order(self, labels: Tensor) -> None:
        """Mark the grids whose labels are read in another order than their own."""
        order = list(dict.fromkeys(labels.reshape(-1).tolist()))
        for grid in self.grids:
            places = {label: place for place, label in enumerate(grid.labels.reshape(-1).tolist())}
            found = [places[label] for label in order if label in places]
            grid.mixed |= found != sorted(found)

    def _check_cut(self, twin: Tensor, axis: int) -> None:
        """Mark the grids whose rows are cut: each would have to lose as many in every part."""
        if len(varying_axes(twin)) < 2:
            return
        line = set(twin.movedim(axis, 0).reshape(twin.shape[axis], -1)[:, 0].tolist())
        for grid in self.grids:
            grid.mixed |= any(len(line.intersection(row)) > 1 for row in grid.rows)


def target_of(before: Sequence[int], twin: Tensor, after: Sequence[int]) -> tuple[int, ...]:
    """A target for a Reshape whose own is computed: 0 keeps a dimension, -1 follows.

    Where more dimensions would have to follow than the one that may, those without labels stay `COMPUTED`.

    Args:
        before: the shape of what it reads.
        twin: its labels.
        after: the shape of what it makes.
    """
    made = thinned(twin.reshape(tuple(after)))
    varying, target = varying_axes(made), list[int]()
    for axis, size in enumerate(after):
        if axis in varying:
            alone = len(set(map(tuple, slices_along(made, axis)))) == size  # else it counts images as well
            target.append(size if alone else -1)
        else:
            target.append(0 if tuple(before[: axis + 1]) == tuple(after[: axis + 1]) else COMPUTED)
    if target.count(COMPUTED) == 1 and -1 not in target:
        target[target.index(COMPUTED)] = -1
    return tuple(target)


def slice_of(
    starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Iterator[tuple[int, int, int, int]]:
    """Start, end, axis and step of each axis that a Slice cuts.

    >>> list(slice_of([1], [3], None, None))
    [(1, 3, 0, 1)]
    """
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        yield start, min(end, _END), place if axes is None else axes[place], 1 if steps is None else steps[place]


def slices_along(twin: Tensor, axis: int) -> list[list[int]]:
    """The labels of each slice along an axis, those along which they are constant once, and runs of equal ones once.

    >>> slices_along(torch.tensor([[[1], [2]], [[1], [2]]]), 1)
    [[1], [2]]
    """
    varying = varying_axes(twin)
    small = twin[tuple(slice(None) if each in (axis, *varying) else slice(0, 1) for each in range(twin.ndim))]
    lines = small.movedim(axis, 0).reshape(twin.shape[axis], -1)
    found: list[list[int]] = lines.unique_consecutive(dim=1).tolist()
    return found


def _distinct_rows(labels: Tensor) -> Tensor:
    """Labels [..., columns] with each row once, where some are repeated (by images of a batch), and each run of equal
    columns as one (pixels of a channel, in a row of many)."""
    labels = labels.unique_consecutive(dim=-1)
    rows = labels.reshape(-1, labels.shape[-1])
    once = list(dict.fromkeys(map(tuple, rows.tolist())))
    return labels if len(once) == len(rows) else torch.tensor(once)
