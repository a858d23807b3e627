"""Rules from sensitivity curves to ratios: by hand, and by trying out every combination."""

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.prune.allocation import Choice, cheapest, choices, highest_price, rising_drop


def per_share(all_of_it: float) -> Callable[[float], float]:
    """What a share saves, in proportion."""
    return lambda ratio: ratio * all_of_it


CURVE = {0.25: 0.2, 0.5: 0.1, 0.75: 0.4}


@pytest.mark.parametrize(
    ("ratio", "drop"), [(0.0, 0.0), (0.125, 0.1), (0.25, 0.2), (0.5, 0.2), (0.625, 0.3), (0.75, 0.4), (0.8, math.inf)]
)
def test_drops_are_made_to_rise_and_lie_between_the_measured_ones(ratio: float, drop: float) -> None:
    assert rising_drop(CURVE, ratio) == pytest.approx(drop)


def test_a_drop_below_zero_counts_as_none_and_one_that_is_no_number_ends_the_curve() -> None:
    assert rising_drop({0.5: -0.1}, 0.5) == 0.0
    assert rising_drop({0.25: 0.1, 0.5: math.nan, 0.75: 0.2}, 0.25) == pytest.approx(0.1)
    assert rising_drop({0.25: 0.1, 0.5: math.nan, 0.75: 0.2}, 0.75) == math.inf


def test_an_unmeasured_group_stays_whole() -> None:
    assert choices({}, 16, 8, per_share(100.0)) == (Choice(0.0, 0.0, 0.0),)


def test_choices_keep_multiples_of_align_or_everything() -> None:
    found = choices({0.9: 0.9}, 20, 8, per_share(100.0))
    assert [round(20 * (1 - choice.ratio)) for choice in found] == [20, 16, 8]
    assert [choice.drop for choice in found] == pytest.approx([0.0, 0.2, 0.6])
    assert [choice.saved for choice in found] == pytest.approx([0.0, 20.0, 60.0])


def test_a_group_that_saves_nothing_is_left_alone_at_any_price() -> None:
    """A squeeze-and-excite layer: a threshold of .01 would take nine tenths of it."""
    options = choices({0.5: 0.001, 0.875: 0.002}, 16, 1, per_share(0.0))
    assert all(cheapest(options, price).ratio == 0.0 for price in (0.0, 1.0, 1e9))


def test_at_the_highest_price_every_group_gives_all_that_its_curve_allows() -> None:
    options = {
        "a": choices({0.5: 0.9}, 16, 1, per_share(10.0)),
        "b": choices({0.25: 0.1, 0.75: 0.2}, 16, 8, per_share(1000.0)),
    }
    price = highest_price(options)
    assert {name: cheapest(group, price).ratio for name, group in options.items()} == {"a": 0.5, "b": 0.5}
    assert highest_price({"a": choices({0.5: 0.1}, 16, 1, per_share(0.0))}) == 0.0


@given(
    curves=st.lists(
        st.tuples(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4), st.floats(1.0, 100.0)), min_size=1, max_size=3
    ),
    price=st.floats(0.0, 0.1),
)
def test_no_other_combination_saves_as_much_for_a_smaller_sum_of_drops(
    curves: list[tuple[list[float], float]], price: float
) -> None:
    """Lagrange: what is best at some price is best among everything that saves at least as much."""
    groups = [
        choices({(place + 1) / 5: drop for place, drop in enumerate(drops)}, 5, 1, per_share(macs))
        for drops, macs in curves
    ]
    chosen = [cheapest(group, price) for group in groups]
    saved, cost = sum(one.saved for one in chosen), sum(one.drop for one in chosen)
    for other in itertools.product(*groups):
        if sum(one.saved for one in other) >= saved:
            assert sum(one.drop for one in other) >= cost - 1e-9


@given(low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0), drops=st.lists(st.floats(-0.2, 1.0), min_size=1, max_size=9))
def test_a_higher_price_never_prunes_less(low: float, high: float, drops: list[float]) -> None:
    low, high = sorted((low, high))
    options = choices({(place + 1) / 10: drop for place, drop in enumerate(drops)}, 40, 8, per_share(3.0))
    assert cheapest(options, low).ratio <= cheapest(options, high).ratio + 1e-12
