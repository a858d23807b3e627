"""The forms of a lowered network that may be quantised: as it is, or with channels padded; and what operators cost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from compress.graph.padding import ChannelSet, pad_channels, paddable_sets
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import places_of
from compress.measure.operator_times import Operator, OperatorTime, Precision
from compress.progress import Progress
from compress.quant.min_cut import Costs, least_time, read_costs

BLOCKS = (16, 8)
"""Kernels work on so many channels at a time: sets are tried at the next multiple of each."""
GAIN = 0.01
"""A set is padded if the whole network's predicted time falls by more than this share: times of operators are measured,
and of many candidates some look faster by chance."""


@dataclass(frozen=True)
class Form:
    """A lowered network with its operators' times."""

    model: onnx.ModelProto
    costs: Mapping[str, Costs]
    input_cost: float
    """Milliseconds to quantise the network's input."""
    padding: Mapping[str, tuple[int, int]]
    """Set of channels -> how many it had, and how many it has in this form."""


def read_form(
    model: onnx.ModelProto,
    able: Collection[str],
    input_shape: tuple[int, int, int],
    table: LatencyTable,
    on_progress: Progress | None = None,
) -> Form:
    """A lowered model as it is, with what every operator costs.

    Args:
        model: lowered, float.
        able: operators that may run in integers.
        input_shape: (C, H, W).
        table: where times come from; it is saved.
        on_progress: called as (done, in all, message).
    """
    places = places_of(model, input_shape)
    timed = _Reporting(table, 2 * len(places), on_progress)
    costs = read_costs(places, set(able) & set(places), timed)
    input_cost = table.boundary((1, *input_shape), to="int8")
    table.save()
    return Form(model, costs, input_cost, {})


def padded_form(
    plain: Form,
    able: Collection[str],
    input_shape: tuple[int, int, int],
    table: LatencyTable,
    on_progress: Progress | None = None,
) -> Form | None:
    """The form with those sets of channels padded that the table predicts a faster network for; None without any.

    Args:
        plain: from `read_form`; the other arguments as there.
    """

    def predict(widths: Mapping[str, int]) -> float:
        wider = read_form(pad_channels(plain.model, widths), able, input_shape, table) if widths else plain
        return least_time(wider.costs, wider.input_cost)[0]

    sets = paddable_sets(plain.model)
    operators = {name: cost.place.operator for name, cost in plain.costs.items()}
    alike = _alike([found for found in sets if found.channels % max(BLOCKS)], operators)
    chosen = choose_padding(alike, predict, on_progress)
    if not chosen:
        return None
    made = read_form(pad_channels(plain.model, chosen), able, input_shape, table)
    before = {found.name: found.channels for found in sets}
    return replace(made, padding={name: (before[name], to) for name, to in chosen.items()})


def choose_padding(
    groups: Sequence[Sequence[ChannelSet]],
    predict: Callable[[Mapping[str, int]], float],
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Which sets of channels to pad, and to what: one group after the other, on top of what was chosen before.

    Args:
        groups: sets that are padded alike.
        predict: milliseconds of the network with these sets (by name) padded to these widths.
        on_progress: called as (done, in all, message).
    """
    chosen: dict[str, int] = {}
    least = predict(chosen)
    for index, group in enumerate(groups):
        channels = group[0].channels
        for width in sorted({-(-channels // block) * block for block in BLOCKS} - {channels}):
            wider = chosen | {found.name: width for found in group}
            found_ms = predict(wider)
            if found_ms < (1 - GAIN) * least:
                chosen, least = wider, found_ms
        if on_progress is not None:
            on_progress(index + 1, len(groups), "timing padded channels")
    return chosen


def _alike(sets: Sequence[ChannelSet], operators: Mapping[str, Operator]) -> list[list[ChannelSet]]:
    """Sets whose operators have the same sizes gain the same by padding: together they are worth deciding on."""
    found: dict[tuple[int, tuple[Operator, ...]], list[ChannelSet]] = {}
    for each in sets:
        shapes = tuple(operators[name] for name in each.operators if name in operators)
        found.setdefault((each.channels, shapes), []).append(each)
    return list(found.values())


class _Reporting:
    """A latency table that says how far it is."""

    def __init__(self, table: LatencyTable, total: int, on_progress: Progress | None) -> None:
        self._table, self._total, self._on_progress, self._done = table, total, on_progress, 0

    def time(self, operator: Operator) -> OperatorTime:
        """As the table's."""
        self._done = min(self._done + 1, self._total)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total, "timing operators")
        return self._table.time(operator)

    def boundary(self, shape: tuple[int, ...], *, to: Precision) -> float:
        """As the table's."""
        return self._table.boundary(shape, to=to)
