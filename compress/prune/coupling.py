"""Channel groups of what `compress.prune.following` found: orbits of shuffled channels, heads and widths of attention.

Labels that are joined go together, so that each set of them is a channel of ours. Three kinds of groups are made:

- Channels with members in the same layers, as many in each. ShuffleNet's shuffles and splits bring 1, 2, 4, ...
  channels of a layer together, which are groups of their own.
- Heads of attention: all their places in queries, keys and values.
- Widths of heads: one place of a head's queries and keys, or of its values. Heads may lose different places, but as
  many each (`ChannelGroup.blocks`). Queries, keys and values that one Reshape lays out together lose as many as one
  another.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from compress.prune.channel_labels import NONE
from compress.prune.channels import ChannelGroup, Member, Size
from compress.prune.followed import Followed
from compress.prune.following import follow
from compress.prune.layouts import Grid, slices_along

HEADS = ":heads"
"""Behind the name of the first layer that makes the queries, keys or values of a group of heads."""
TOGETHER = "has channels that can only go all at once: shuffles, splits, sums and normalisation connect them"
UNHEARD = "no layer reads it"
PICKED = "has channels that are picked by their number"


@dataclass(frozen=True)
class _Channels:
    """A group in the making: the labels of each channel."""

    labels: tuple[frozenset[int], ...]
    blocks: int = 1
    suffix: str = ""
    by_row: bool = False
    """The channels are places in rows that lie beside one another: sizes count those of one row."""


def find_coupled(
    module: fx.GraphModule,
    input_shape: tuple[int, int, int],
    protect: Collection[str] = (),
    *,
    layer_norms: bool = False,
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Find the groups of a network, and why the other layers' channels stay.

    Args:
        module: from `to_torch`; it is left as it was.
        input_shape: (C, H, W).
        protect: names of layers whose channels must stay.
        layer_norms: whether channels that a LayerNorm normalises may go.

    Returns:
        The groups, in the order of their first channels, and layer -> reason.
    """
    followed = follow(module, input_shape, layer_norms=layer_norms)
    if followed is None:
        return [], {}
    for name in protect:
        for holders in (followed.made, followed.carried):
            followed.labels.keep(holders.get(name, ()), f"{name} is to be protected")
    return _Coupling(followed).groups()


class _Coupling:
    """Sets of labels that go together, as groups."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self._labels = followed.labels
        products = followed.products
        for grid in followed.layouts.grids:
            attended = set(grid.labels.reshape(-1).tolist()) <= products.attended
            if (grid.mixed or not attended) and not self._has_whole_rows(grid):
                self._unite(grid)
        while (uneven := self._uneven_grid()) is not None:
            self._unite(uneven)
        self._uses = _uses_of(followed)
        self._modules = {*followed.made, *followed.carried}
        self._makers = {label for labels in followed.made.values() for label in labels.tolist()}
        self._order = {name: place for place, name in enumerate((*followed.made, *followed.carried))}
        self._classes = {root: frozenset(labels) for root, labels in self._labels.classes().items()}
        self._stays = self._labels.reasons()

    def groups(self) -> tuple[list[ChannelGroup], dict[str, str]]:
        """All groups that can be pruned, and layer -> why its channels stay."""
        widths = list(self._widths())
        taken = {label for channels in widths for labels in channels.labels for label in labels}
        found: list[ChannelGroup] = []
        problems: dict[str, str] = {}
        for channels in sorted((*self._orbits(taken), *widths, *self._heads()), key=lambda each: min(each.labels[0])):
            group = self._group(channels)
            problem = self._problem(channels, group)
            if problem:
                problems.setdefault(group.name, problem)
            else:
                found.append(replace(group, name=_free_name(group.name + channels.suffix, found)))
        return found, self._protected(found, problems)

    def _protected(self, found: Sequence[ChannelGroup], problems: Mapping[str, str]) -> dict[str, str]:
        held = {member.layer for group in found for member in group.members if member.side == "out"}
        reasons: dict[str, str] = {}
        for name, labels in self._followed.made.items():
            why = (self._stays.get(self._labels.find(label)) for label in labels.tolist())
            reasons[name] = problems.get(name) or next(filter(None, why), UNHEARD)
        return {name: why for name, why in reasons.items() if name not in held}

    def _orbits(self, taken: Collection[int]) -> Iterator[_Channels]:
        """Channels that go as they are, by the layers that hold them and how many of each."""
        found: dict[Hashable, list[frozenset[int]]] = defaultdict(list)
        for root, labels in self._classes.items():
            if root not in self._stays and labels.isdisjoint(taken) and any(place in self._makers for place in labels):
                held = Counter((use.layer, use.side) for label in labels for use in self._uses.get(label, ()))
                found[frozenset(held.items())].append(labels)
        for channels in found.values():
            yield _Channels(tuple(channels))

    def _widths(self) -> Iterator[_Channels]:
        """Places of heads, of all rows that lie in one tensor together."""
        parts: list[dict[tuple[int, ...], None]] = []
        for grid in self._ragged():
            rows = dict.fromkeys(self._rows(grid))
            joined = [part for part in parts if part.keys() & rows.keys()]
            parts = [part for part in parts if part not in joined]
            parts.append({row: None for part in (*joined, rows) for row in part})
        for part in parts:
            places = tuple(self._classes[place] for row in part for place in row)
            yield _Channels(places, blocks=len(part), by_row=True)

    def _heads(self) -> Iterator[_Channels]:
        """Whole heads of each attention; of those that share some heads, none but the first."""
        products, taken = self._followed.products, set[int]()
        for attention in products.heads:
            roots = dict.fromkeys(self._labels.find(head) for head in attention)
            if not taken.isdisjoint(roots):
                continue
            taken.update(roots)
            heads = []
            for root in roots:
                places = {place for head in self._classes[root] for place in products.places.get(head, ())}
                heads.append(self._classes[root].union(*(self._classes[self._labels.find(place)] for place in places)))
            fixed = any(self._labels.find(label) in self._stays for head in heads for label in head)
            apart = sum(map(len, heads)) == len(frozenset[int]().union(*heads))
            if apart and not fixed and len(heads) > 1:
                yield _Channels(tuple(heads), suffix=HEADS)

    def _group(self, channels: _Channels) -> ChannelGroup:
        """The group, named after its first layer alone."""
        owner = {label: number for number, labels in enumerate(channels.labels) for label in labels}
        members = self._members(owner, len(channels.labels), apart=bool(channels.blocks > 1 or channels.suffix))
        carries = [member.layer for member in members if member.side == "out" and member.layer in self._modules]
        silent = {label: number for label, number in owner.items() if label in self._followed.products.summed}
        factors = self._members(silent, len(channels.labels), apart=False)
        return ChannelGroup(
            name=next(name for name in self._followed.made if name in carries),
            channels=len(channels.labels),
            layers=tuple(dict.fromkeys(carries)),
            members=tuple(members),
            blocks=channels.blocks,
            factors=tuple(member for member in factors if member.side == "out" and member.layer in self._modules),
            sizes=tuple(self._sizes(channels, owner)),
        )

    def _members(self, owner: Mapping[int, int], count: int, apart: bool) -> list[Member]:
        """Where labels are in each layer; `apart`: queries, keys and values of one layer are members of their own."""
        places: dict[tuple[str, str, int], list[list[int]]] = {}
        for label, number in sorted(owner.items()):
            for use in self._uses.get(label, ()):
                key = use.layer, use.side, use.dim
                places.setdefault(key, [[] for _ in range(count)])[number].append(use.index)
        members = []
        for (layer, side, dim), found in sorted(places.items(), key=lambda item: self._rank(*item[0])):
            for indices in _runs(found) if apart else [[tuple(sorted(each)) for each in found]]:
                members.append(Member(layer, side, tuple(indices), dim))
        return members

    def _rank(self, layer: str, side: str, dim: int) -> tuple[bool, int]:
        return side == "in", self._order.get(layer, len(self._order))

    def _sizes(self, channels: _Channels, owner: Mapping[int, int]) -> Iterator[Size]:
        for use in self._followed.layouts.sizes:
            depends = not use.depends.isdisjoint(owner)
            for place, (twin, axis) in use.counted.items():
                counted = self._counted(twin, axis, channels, owner)
                if depends or any(counted):
                    yield Size(use.node, use.numbers, place, counted, use.axis)

    def _counted(
        self, twin: Tensor, axis: int, channels: _Channels, owner: Mapping[int, int]
    ) -> tuple[tuple[int, ...], ...]:
        """The places along an axis that go with each channel."""
        slices = slices_along(twin, axis)
        if channels.by_row and len(slices[0]) > 1:
            line = [owner.get(each[0]) for each in slices]
            size = len(channels.labels) // channels.blocks
            whole = any(line == list(range(start, start + size)) for start in range(0, len(channels.labels), size))
            slices = [each[:1] for each in slices] if whole else []
        counted: list[list[int]] = [[] for _ in channels.labels]
        for place, labels in enumerate(slices):
            owners = {owner.get(label) for label in labels}
            number = owners.pop()
            if number is not None and not owners:
                counted[number].append(place)
        return tuple(map(tuple, counted))

    def _problem(self, channels: _Channels, group: ChannelGroup) -> str:
        """Why a group cannot be pruned; empty where it can."""
        if group.channels // group.blocks < 2:
            several = any(len(indices) > 1 for member in group.members for indices in member.indices)
            return TOGETHER if several else "has a single channel"
        readers = [member for member in (*group.members, *group.factors) if member.side == "in"] + list(group.factors)
        if not all(any(member.indices[channel] for member in readers) for channel in range(group.channels)):
            return UNHEARD
        indices = {use.node for use in self._followed.layouts.sizes if use.is_index}
        return PICKED if any(size.node in indices for size in group.sizes) else ""

    def _unite(self, grid: Grid) -> None:
        """Let all rows of a grid lose the same places; channels are along its longest axis."""
        sizes = list(grid.labels.shape)
        axis = max(range(len(sizes)), key=lambda each: (sizes[each], each))
        lines = grid.labels.movedim(axis, -1).reshape(-1, sizes[axis])
        self._labels.join(lines, lines[:1], "is laid out together with channels that stay")

    def _rows(self, grid: Grid) -> list[tuple[int, ...]]:
        return [tuple(self._labels.find(label) for label in row) for row in grid.rows]

    def _ragged(self) -> list[Grid]:
        """Grids whose rows are heads that may lose different places."""
        return [
            grid for grid in self._followed.layouts.grids if len(set(self._rows(grid))) > 1 and not self._is_even(grid)
        ]

    def _is_even(self, grid: Grid) -> bool:
        """Whether the classes of a grid are the same along one of its axes: then any of them may go."""
        found = torch.tensor(self._rows(grid)).reshape(grid.labels.shape)
        return any(
            bool((found == found.narrow(axis, 0, 1)).all()) for axis in range(found.ndim) if found.shape[axis] > 1
        )

    def _has_whole_rows(self, grid: Grid) -> bool:
        """Whether each row goes as a whole, as GroupNorm's do: then any of them may."""
        return grid.labels.ndim == 2 and all(len(set(row)) == 1 for row in self._rows(grid))

    def _uneven_grid(self) -> Grid | None:
        """A grid of heads whose rows share some places, but not all, or have fixed ones."""
        fixed = self._labels.reasons()
        owners: dict[int, tuple[int, ...]] = {}
        for grid in self._ragged():
            for row in self._rows(grid):
                fits = len(set(row)) == len(row) and not any(place in fixed for place in row)
                if not fits or any(owners.setdefault(place, row) != row for place in row):
                    return grid
        return None


@dataclass(frozen=True)
class _Use:
    """A layer, parameter or buffer that has a label."""

    layer: str
    side: str
    index: int
    dim: int = 0


def _uses_of(followed: Followed) -> dict[int, list[_Use]]:
    """Label -> all that have it."""
    uses: dict[int, list[_Use]] = defaultdict(list)
    for side, layers in (("out", followed.made), ("out", followed.carried), ("in", followed.read)):
        for name, labels in layers.items():
            for index, label in enumerate(labels.tolist()):
                if label != NONE:
                    uses[label].append(_Use(name, side, index))
    for label, owner in followed.labels.owners.items():
        if owner.name not in followed.made:
            uses[label].append(_Use(owner.name, "out", owner.index, owner.dim))
    return uses


def _runs(places: Sequence[Sequence[int]]) -> list[list[tuple[int, ...]]]:
    """The first runs of neighbours of all channels, their second runs, ...

    >>> _runs([[0, 1, 4, 5], [2, 3, 6, 7]])
    [[(0, 1), (2, 3)], [(4, 5), (6, 7)]]
    """
    split: list[list[tuple[int, ...]]] = []
    for found in places:
        runs: list[list[int]] = []
        for place in sorted(found):
            if not runs or place != runs[-1][-1] + 1:
                runs.append([])
            runs[-1].append(place)
        split.append([tuple(run) for run in runs])
    most = max(map(len, split))
    return [[runs[number] if number < len(runs) else () for runs in split] for number in range(most)]


def _free_name(name: str, found: Sequence[ChannelGroup]) -> str:
    """The name, or with a number behind it."""
    taken, number, free = {group.name for group in found}, 1, name
    while free in taken:
        number += 1
        free = f"{name}:{number}" if ":" not in name else f"{name}{number}"
    return free
