"""Which cell of a scan is measured next: intervals by hand and by simulation, plans against those of a whole scan."""

from collections.abc import Mapping

import numpy as np
import pytest

from compress.prune.cell_choice import (
    Bounds,
    Cell,
    Group,
    bounds_of,
    image_counts,
    images_spent,
    measure_divergence,
    measure_drop,
    next_action,
    price_for,
)

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
IMAGES = 800


def tally(right: np.ndarray) -> np.ndarray:
    return np.stack([right, np.ones(len(right))], -1).astype(float)


# --- intervals --------------------------------------------------------------------------------------------------


def test_interval_by_hand() -> None:
    """Of four images one is lost: drop 1/4, squared errors 3/4, one more image of error 1."""
    cell = measure_drop(4, tally(np.array([1, 1, 1, 0])), tally(np.array([1, 0, 1, 0])))
    spread = 1.96 * np.sqrt((0.75 + 1) / (5 * 4))
    assert (cell.images, cell.drop) == (4, 0.25)
    assert (cell.low, cell.high) == pytest.approx((0.25 - spread, 0.25 + spread))


def test_images_that_all_agree_leave_a_doubt_that_shrinks() -> None:
    few, many = (measure_drop(count, *[tally(np.ones(count))] * 2) for count in (75, 1200))
    assert few.drop == many.drop == 0.0
    assert few.high == pytest.approx(1.96 / 75, rel=0.01)
    assert many.high == pytest.approx(few.high / 16, rel=0.01)


def test_interval_of_divergences_by_hand() -> None:
    """Of mean 0.2 nats, squared errors 2 x 0.1^2 + 2 x 0.2^2, one image more of error 1."""
    cell = measure_divergence(4, np.array([0.1, 0.3, 0.0, 0.4]))
    spread = 1.96 * np.sqrt((0.1 + 1) / (5 * 4))
    assert cell.drop == pytest.approx(1 - np.exp(-0.2))
    assert (cell.low, cell.high) == (0.0, pytest.approx(1 - np.exp(-0.2 - spread)))  # no divergence is below zero


@pytest.mark.parametrize("scale", [0.05, 0.5])
def test_intervals_hold_the_divergence_of_the_whole_set(scale: float) -> None:
    """Of long-tailed divergences: a few images are far off, most are near."""
    rng = np.random.default_rng(0)
    every = scale * rng.gamma(0.3, 1.0, 20_000)
    truth = 1 - np.exp(-every.mean())
    cells = [measure_divergence(64, every[rng.integers(0, 20_000, 64)]) for _ in range(400)]
    assert sum(cell.low <= truth <= cell.high for cell in cells) >= 0.92 * 400


def test_outputs_that_are_not_finite_lose_everything() -> None:
    assert measure_divergence(2, np.array([0.1, np.inf])) == Cell(2, 1.0, 1.0, 1.0)


def test_intervals_hold_the_drop_of_the_whole_set() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(20_000) < 0.8
    after = before & (rng.random(20_000) > 0.1)
    truth = before.mean() - after.mean()
    held = 0
    for _ in range(400):
        some = rng.integers(0, 20_000, 100)
        cell = measure_drop(100, tally(before[some]), tally(after[some]))
        held += cell.low <= truth <= cell.high
    assert 0.92 <= held / 400 <= 0.99


def test_a_ratio_of_sums_is_that_of_hmean() -> None:
    """Found regions over regions: images with more of them weigh more."""
    before, after = np.array([[2.0, 2.0], [6.0, 8.0]]), np.array([[2.0, 2.0], [3.0, 8.0]])
    assert measure_drop(2, before, after).drop == pytest.approx(0.8 - 0.5)


def test_numbers_of_images_double_up_to_all() -> None:
    assert image_counts(1000) == (63, 125, 250, 500, 1000)
    assert image_counts(50) == (25, 50)  # not below 16
    assert image_counts(3) == (3,)


# --- bounds -----------------------------------------------------------------------------------------------------


def test_bounds_between_measured_cells() -> None:
    cells = {0.3: Cell(64, 0.1, 0.05, 0.15), 0.7: Cell(64, 0.5, 0.4, 0.6)}
    found = bounds_of(Group(RATIOS, 10, cells), 0.9)
    assert found[0.0] == Bounds(0.0, 0.0, 0.0)
    assert found[0.3] == Bounds(0.1, 0.05, 0.15)
    assert found[0.5].middle == pytest.approx(0.3)
    assert (found[0.5].low, found[0.5].high) == (0.05, 0.6)
    assert (found[0.9].low, found[0.9].high) == (0.4, 0.9)
    assert set(found) == {0.0, *RATIOS}


def test_a_price_saves_what_is_wanted() -> None:
    """Ten equal groups whose drop is the square of the ratio: each keeps the root of a half, 0.71."""
    groups = {str(index): Group(RATIOS, 100) for index in range(10)}
    curve = {ratio: Bounds(ratio**2, ratio**2, ratio**2) for ratio in (0.0, *RATIOS)}
    price = price_for(groups, dict.fromkeys(groups, curve), left=0.5)
    taken = min(curve, key=lambda ratio: curve[ratio].middle - price * ratio * 100)
    assert taken == pytest.approx(0.3)


# --- what is measured -------------------------------------------------------------------------------------------


class World:
    """Groups whose true drops are known, and tallies of every cell."""

    def __init__(self, seed: int, groups: int = 12) -> None:
        rng = np.random.default_rng(seed)
        self.before = rng.random(IMAGES) < 0.9
        self.order = rng.permutation(IMAGES)
        self.macs = {f"g{index}": int(10 ** rng.uniform(4, 6.5)) for index in range(groups)}
        self.after: dict[tuple[str, float], np.ndarray] = {}
        for name in self.macs:
            knee, steep = rng.uniform(0.3, 1.2), rng.uniform(4, 12)
            for ratio in RATIOS:
                lost = 0.5 / (1 + np.exp(-steep * (ratio - knee))) - 0.5 / (1 + np.exp(steep * knee))
                self.after[name, ratio] = self.before & (rng.random(IMAGES) > lost)
        self.highest = float(self.before.mean())

    def groups(self) -> dict[str, Group]:
        return {name: Group(RATIOS, macs) for name, macs in self.macs.items()}

    def cell(self, name: str, ratio: float, images: int) -> Cell:
        some = self.order[:images]
        return measure_drop(images, tally(self.before[some]), tally(self.after[name, ratio][some]))

    def scan(self, budget: int) -> tuple[dict[str, Group], bool]:
        """What is known when the budget is spent, and whether every decision was settled before."""
        groups, counts = self.groups(), image_counts(IMAGES)
        while (action := next_action(groups, counts, self.highest)) is not None:
            if images_spent(groups, counts) + action.images > budget:
                return groups, False
            groups[action.group].cells[action.ratio] = self.cell(action.group, action.ratio, action.images)
        return groups, True

    def uniform(self, images: int) -> dict[str, Group]:
        groups = self.groups()
        for name, ratio in self.after:
            groups[name].cells[ratio] = self.cell(name, ratio, images)
        return groups

    def regret(self, groups: Mapping[str, Group], left: float) -> float:
        """What the plan of these curves costs at the price of the true curves, above the best plan."""
        true = {name: bounds_of(group, self.highest) for name, group in self.uniform(IMAGES).items()}
        curves = {name: bounds_of(group, self.highest) for name, group in groups.items()}
        price, own = price_for(self.groups(), true, left), price_for(self.groups(), curves, left)
        total = 0.0
        for name, macs in self.macs.items():
            taken = min(curves[name], key=lambda ratio: (curves[name][ratio].middle - own * ratio * macs, ratio))
            costs = {ratio: found.middle - price * ratio * macs for ratio, found in true[name].items()}
            total += costs[taken] - min(costs.values())
        return total


WHOLE = 12 * len(RATIOS) * IMAGES


def test_every_group_is_looked_at_first() -> None:
    groups = World(0).scan(12 * 50)[0]
    assert [dict(group.cells).keys() for group in groups.values()] == [{0.5: 0}.keys()] * 12


def test_a_tenth_of_the_images_plans_better_than_as_many_spread_evenly() -> None:
    budget = WHOLE // 10
    found = {"chosen": 0.0, "even": 0.0}
    for seed in range(2):
        world = World(seed)
        chosen, even = world.scan(budget)[0], world.uniform(IMAGES // 10)
        for left in (0.5, 0.65, 0.8):
            found["chosen"] += world.regret(chosen, left)
            found["even"] += world.regret(even, left)
    assert found["chosen"] < 0.5 * found["even"]


def test_more_budget_never_forgets() -> None:
    """The answer at any time is the beginning of a longer scan."""
    world = World(1)
    short, long = world.scan(WHOLE // 20)[0], world.scan(WHOLE // 8)[0]
    for name, group in short.items():
        assert set(group.cells) <= set(long[name].cells)
        assert all(cell.images <= long[name].cells[ratio].images for ratio, cell in group.cells.items())


def test_what_is_settled_stops() -> None:
    """One group that loses nothing and one that loses everything: no image more than to know that."""
    groups = {"free": Group((0.5,), 1000), "dear": Group((0.5,), 1)}
    groups["free"].cells[0.5] = Cell(100, 0.0, 0.0, 0.0)
    groups["dear"].cells[0.5] = Cell(100, 0.8, 0.75, 0.85)
    assert next_action(groups, image_counts(800), 0.9, targets=(0.6,)) is None


def test_images_spent_counts_each_doubling() -> None:
    group = Group(RATIOS, 1, {0.5: Cell(200, 0, 0, 0), 0.1: Cell(50, 0, 0, 0)})
    assert images_spent({"g": group}, image_counts(IMAGES)) == 50 + 100 + 200 + 50
