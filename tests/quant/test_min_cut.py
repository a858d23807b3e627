"""The placement of least time is the one that trying all of them finds."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.measure.network_operators import Place
from compress.measure.operator_times import Operator, OperatorTime
from compress.quant.min_cut import Costs, describe, fastest_placement, least_time, read_costs

MS = st.integers(0, 8).map(float)


def cost(
    *sources: str, float_ms: float = 1.0, int8_ms: float | None = 1.0, to_integer: float = 0.0, to_float: float = 0.0
) -> Costs:
    """An operator whose float form has a layout of its own, so that nothing is added for changes of layout."""
    place = Place(Operator("Conv", ((1, 1, 1, 1),) * len(sources)), sources)
    integer = None if int8_ms is None else OperatorTime(int8_ms)
    return Costs(place, OperatorTime(float_ms, before_ms=1e-9), integer, to_integer, to_float)


def total(costs: dict[str, Costs], in_float: frozenset[str], input_cost: float) -> float:
    """Own times, and each tensor's conversion once, however many read it."""
    ms = 0.0
    for name, found in costs.items():
        if name in in_float:
            ms += found.float_time.kernel_ms
        else:
            ms += math.inf if found.integer_time is None else found.integer_time.kernel_ms
    for source in {source for found in costs.values() for source in found.place.sources}:
        readers = [name for name, found in costs.items() if source in found.place.sources]
        if source == "" or source in in_float:
            ms += (input_cost if source == "" else costs[source].to_integer) * any(r not in in_float for r in readers)
        else:
            ms += costs[source].to_float * any(r in in_float for r in readers)
    return ms


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Costs]:
    """Up to seven operators, each reading one or two of those before it, or the input."""
    made: dict[str, Costs] = {}
    for index in range(draw(st.integers(1, 7))):
        known = ["", *made]
        sources = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        int8_ms = draw(st.one_of(st.none(), MS))
        made[f"n{index}"] = cost(*sources, float_ms=draw(MS), int8_ms=int8_ms, to_integer=draw(MS), to_float=draw(MS))
    return made


@given(networks(), MS)
def test_no_assignment_is_faster(costs: dict[str, Costs], input_cost: float) -> None:
    names = list(costs)
    choices = [frozenset(n for n, chosen in zip(names, bits, strict=True) if chosen)
               for bits in itertools.product((False, True), repeat=len(names))]  # fmt: skip
    least = min(total(costs, choice, input_cost) for choice in choices)
    assert total(costs, fastest_placement(costs, input_cost), input_cost) == pytest.approx(least)
    assert least_time(costs, input_cost) == (pytest.approx(least), fastest_placement(costs, input_cost))


def test_converting_back_and_forth_can_cost_more_than_it_gains() -> None:
    costs = {
        "a": cost("", float_ms=1, int8_ms=5, to_integer=2),
        "b": cost("a", float_ms=4, int8_ms=1, to_float=2),
        "c": cost("b", float_ms=1, int8_ms=5),
    }
    assert fastest_placement(costs) == {"a", "b", "c"}  # 3 ms are gained, 4 lost
    costs["b"] = cost("a", float_ms=6, int8_ms=1, to_float=2)
    assert fastest_placement(costs) == {"a", "c"}
    assert fastest_placement(costs, favour=3.0) == {"a", "b", "c"}


def test_the_regions_are_the_network_in_order_and_say_why() -> None:
    costs = {
        "stem": cost("", int8_ms=None, to_integer=0.5),
        "a": cost("stem", float_ms=1, int8_ms=3, to_integer=5),
        "b": cost("a", float_ms=4, int8_ms=1, to_float=5),
        "c": cost("b", float_ms=9, int8_ms=2, to_float=1),
        "end": cost("c", int8_ms=None),
    }
    chosen = fastest_placement(costs)
    assert chosen == {"stem", "end"}
    regions = describe(costs, chosen, {"stem": "first in the network"})
    assert [(r.first, r.last, r.operators, r.precision) for r in regions] == [
        ("stem", "stem", 1, "float32"),
        ("a", "c", 3, "int8"),
        ("end", "end", 1, "float32"),
    ]
    assert [r.reason for r in regions] == [
        "first in the network", "its integer kernels are faster", "no integer kernel"
    ]  # fmt: skip
    assert (regions[1].float_ms, regions[1].int8_ms) == (14.0, 6.0)
    lone = describe({"a": costs["a"], "b": costs["b"]}, {"a", "b"}, {})
    assert lone[0].reason == "its integer kernels are faster, but not by what changing type twice takes"


class Formula:
    """Times by rule: 2 ms an operator in float, 1 in int8; a tensor's conversion takes a thousandth of its elements."""

    def time(self, operator: Operator) -> OperatorTime:
        return OperatorTime(1.0 if operator.precision == "int8" else 2.0, before_ms=0.25, after_ms=0.5)

    def boundary(self, shape: tuple[int, ...], *, to: str) -> float:
        return math.prod(shape) / 1000 + (0.125 if to == "int8" else 0.0)


def test_costs_are_the_tables() -> None:
    places = {
        "conv": Place(Operator("Conv", ((1, 3, 8, 8),), (4, 3, 1, 1)), ("",)),
        "relu": Place(Operator("Relu", ((1, 4, 8, 8),)), ("conv",)),
        "sum": Place(Operator("Add", ((1, 4, 8, 8),) * 2), ("relu", "conv"), rides_along=True),
        "pool": Place(Operator("GlobalAveragePool", ((1, 4, 8, 8),)), ("sum",)),
    }
    found = read_costs(places, {"relu", "sum"}, Formula())
    assert found["conv"].integer_time is None
    assert found["relu"].integer_time == OperatorTime(0.0)  # saturation
    assert found["sum"].float_time == OperatorTime(0.0)  # a float convolution adds it as it writes
    assert found["conv"].to_integer == pytest.approx(0.256 + 0.125 + 0.5)
    assert found["sum"].to_float == pytest.approx(0.256 + 0.5)
    assert (found["pool"].to_integer, found["pool"].to_float) == (0.0, 0.0)  # nobody reads it
