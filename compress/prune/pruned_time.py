"""The time of pruned networks, predicted from the times of their operators.

A plan is found by trying hundreds of prunings. Each would have to be written as ONNX to see its operators, so this is
done once for each group: every size of an operator (channels of its inputs, of its weight) falls in proportion to the
channels that the group loses, which gives the operators of any pruning by arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from compress.measure.network_operators import Kernels, Place, Times, predicted_ms
from compress.measure.operator_times import Operator
from compress.prune.channels import ChannelGroup, remove_channels

_SIZES = ("group", "hidden_size")
"""Attributes that count channels."""


@dataclass(frozen=True)
class Timing:
    """How the time of a network is predicted."""

    places: Callable[[nn.Module], Mapping[str, Place]]
    """The operators of the network, pruned or not (see `compress.measure.network_operators.places_of`)."""
    table: Times
    precision: Kernels = "float32"
    """The kernels that are timed: all float32, int8 wherever there are such, or of each operator the faster ones."""
    on_progress: Callable[[int, int, str], None] | None = None


class PrunedTime:
    """Predicted milliseconds of a network by how many channels each group loses.

    Args:
        module: the network.
        groups: its groups.
        trial: channels of each group that are removed once, alone, to see which sizes follow; none if it stays whole.
        timing: what the operators are and how long they take.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ChannelGroup],
        trial: Mapping[str, Sequence[int]],
        timing: Timing,
    ) -> None:
        self._timing = timing
        self._whole = dict(timing.places(module))
        self._slopes = {
            name: _slopes(self._whole, timing.places(remove_channels(module, groups, {name: removed})), len(removed))
            for name, removed in trial.items()
            if removed
        }
        self._known: dict[frozenset[tuple[str, int]], float] = {}

    def ms(self, removed: Mapping[str, int]) -> float:
        """Milliseconds of the network when the groups lose so many channels."""
        key = frozenset((name, count) for name, count in removed.items() if count)
        if key not in self._known:
            self._known[key] = predicted_ms(self.places(removed), self._timing.table, self._timing.precision)
        return self._known[key]

    def places(self, removed: Mapping[str, int]) -> dict[str, Place]:
        """The operators of the network when the groups lose so many channels."""
        lost: dict[str, list[float]] = {}
        for group, count in removed.items():
            for name, slopes in self._slopes.get(group, {}).items() if count else ():
                before = lost.setdefault(name, [0.0] * len(slopes))
                lost[name] = [total + count * slope for total, slope in zip(before, slopes, strict=True)]
        changed = {name: _smaller(self._whole[name], losses) for name, losses in lost.items()}
        return self._whole | changed


def _slopes(whole: Mapping[str, Place], pruned: Mapping[str, Place], removed: int) -> dict[str, tuple[float, ...]]:
    """How much each size of the operators that change falls for each channel removed."""
    found = {}
    for name, place in whole.items():
        before, after = _sizes(place.operator, place.operator), _sizes(place.operator, pruned[name].operator)
        if before != after:
            found[name] = tuple((large - small) / removed for large, small in zip(before, after, strict=True))
    return found


def _sizes(form: Operator, operator: Operator) -> list[int]:
    """All numbers of an operator that can follow channels; attributes are those that `form` has (1 where left out)."""
    shapes = [size for shape in (*operator.inputs, operator.weight) for size in shape]
    attributes = dict(operator.attributes)
    return shapes + [attributes.get(name, 1) for name, _ in form.attributes if name in _SIZES]


def _smaller(place: Place, losses: Sequence[float]) -> Place:
    operator = place.operator
    numbers = iter(max(1, round(size - loss)) for size, loss in zip(_sizes(operator, operator), losses, strict=True))
    inputs = tuple(tuple(next(numbers) for _ in shape) for shape in operator.inputs)
    weight = tuple(next(numbers) for _ in operator.weight)
    attributes = tuple((name, next(numbers) if name in _SIZES else value) for name, value in operator.attributes)
    return replace(place, operator=replace(operator, inputs=inputs, weight=weight, attributes=attributes))
