"""A scan within a budget: which cell to measure next, and on how many images, so that a plan's decisions are settled.

At a price for each multiply-add a group takes the ratio of least drop - price x saved (`compress.prune.allocation`).
A cell's drop is known up to an interval: from its images where it was measured, from its neighbours where it was not. A
group's decision is settled once no other ratio can beat the one that it would take; until then the two say what a wrong
decision may cost, and the one that is known less is measured next: for the first time, which halves the gap between its
neighbours, or on twice the images. Cells that are hopeless or safe never come up.

Source: the pair is that of LUCB (Kalyanakrishnan et al. 2012, "PAC subset selection in stochastic multi-armed bandits",
ICML); here the arms are the ratios of one group, and the groups share a budget.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.artifacts import BudgetedScan

TARGETS = (0.5, 0.65, 0.8)
"""Shares of the multiply-adds left that decisions are settled for, where nobody says which one is wanted."""
DOUBLINGS = 4
"""Images of a cell's first measurement are the whole set's halved so often."""
FEWEST = 16
"""Images that a cell is measured on, at least."""
STEPS = 30
"""Of bisecting a price."""
NORMAL = 1.96
"""Standard errors on either side of a figure in 95 of 100 samples."""


@dataclass(frozen=True)
class Cell:
    """A measured cell: its drop on so many images, and the interval of it."""

    images: int
    drop: float
    low: float
    high: float


@dataclass
class Group:
    """What is known of a group's curve."""

    ratios: tuple[float, ...]
    """That may be measured, rising; no two of them remove the same channels."""
    macs: int
    """What would go if all of its channels went."""
    cells: dict[float, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """What a drop is taken for, and where it may lie."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Action:
    """Measure a cell on so many images; settling its group's decision is worth `gain` of metric."""

    group: str
    ratio: float
    images: int
    gain: float


def image_counts(images: int) -> tuple[int, ...]:
    """Numbers of images that cells are measured on, the last one all of them.

    >>> image_counts(1200), image_counts(20)
    ((75, 150, 300, 600, 1200), (20,))
    """
    counts = [math.ceil(images / 2**halved) for halved in range(DOUBLINGS, -1, -1)]
    return tuple(dict.fromkeys(count for count in counts if count >= min(images, FEWEST)))


def measure_drop(images: int, original: np.ndarray, pruned: np.ndarray) -> Cell:
    """A cell from tallies [N, 2] of the network as it is and pruned, on the same `images`.

    The interval is the normal one of a ratio of sums. One image more, of the largest difference that one image can
    make, is counted in: of images that all agree it is not known that others would.

    >>> measure_drop(100, np.array([[1, 1]] * 100), np.array([[1, 1]] * 90 + [[0, 1]] * 10)).drop
    0.1
    """
    count = len(original)
    (before, errors_before), (after, errors_after) = _linearised(original), _linearised(pruned)
    drop, errors = before - after, errors_before - errors_after
    spread = NORMAL * math.sqrt((float(np.square(errors).sum()) + 1.0) / (count + 1) / count)
    return Cell(images, round(drop, 12), drop - spread, drop + spread)


def measure_divergence(images: int, divergences: np.ndarray) -> Cell:
    """A cell from how far a pruned network's outputs are from the original's on each of its `images`, [N] in nats.

    Its figure is exp(-mean), as in a whole scan by divergence, and its drop is counted from 1. The interval is the
    normal one of the mean, taken through the exponential; one image more, one nat from the mean, is counted in. A
    divergence is infinite where an output is not finite: then everything is lost, for sure.

    >>> measure_divergence(100, np.full(100, math.log(2))).drop
    0.5
    """
    count, mean = len(divergences), float(np.mean(divergences))
    if not math.isfinite(mean):
        return Cell(images, 1.0, 1.0, 1.0)
    errors = float(np.square(divergences - mean).sum())
    spread = NORMAL * math.sqrt((errors + 1.0) / (count + 1) / count)
    drop, low, high = (-math.expm1(-max(0.0, each)) for each in (mean, mean - spread, mean + spread))
    return Cell(images, round(drop, 12), low, high)


def _linearised(tallies: np.ndarray) -> tuple[float, np.ndarray]:
    """A ratio of sums, and each image's part in its error [N] (the delta method)."""
    numerators, denominators = np.asarray(tallies, np.float64).T
    mean = float(denominators.mean())
    if mean == 0:
        return 1.0, np.zeros(len(numerators))
    ratio = float(numerators.sum() / denominators.sum())
    return ratio, (numerators - ratio * denominators) / mean


def bounds_of(group: Group, highest: float) -> dict[float, Bounds]:
    """Where the drop of each ratio may lie; 0 for ratio 0, at most `highest` for ratio 1, rising in between.

    >>> group = Group((0.25, 0.5, 0.75), 100, {0.5: Cell(64, 0.2, 0.1, 0.3)})
    >>> bounds_of(group, 1.0)[0.25]
    Bounds(middle=0.1, low=0.0, high=0.3)
    """
    known = {0.0: Bounds(0.0, 0.0, 0.0), 1.0: Bounds(highest, highest, highest)}
    known |= {ratio: Bounds(cell.drop, cell.low, cell.high) for ratio, cell in group.cells.items()}
    places = sorted(known)
    found = {0.0: known[0.0]}
    for ratio in group.ratios:
        if ratio in known:
            found[ratio] = known[ratio]
            continue
        left = max(place for place in places if place < ratio)
        right = min(place for place in places if place > ratio)
        share = (ratio - left) / (right - left)
        middle = known[left].middle + share * (known[right].middle - known[left].middle)
        low = min(known[left].low, known[right].low)
        found[ratio] = Bounds(middle, low, max(known[left].high, known[right].high))
    return found


def price_for(groups: Mapping[str, Group], curves: Mapping[str, Mapping[float, Bounds]], left: float) -> float:
    """The price of a multiply-add at which this share of them is left, by the likeliest drops.

    A layer between two groups loses inputs and outputs: of a share s that every group keeps s^2 is left.
    """
    whole = sum(group.macs for group in groups.values())
    wanted = (1 - math.sqrt(left)) * whole

    def saved(price: float) -> float:
        return sum(_taken(curves[name], group.macs, price) * group.macs for name, group in groups.items())

    high = 1.0 / max(1, whole)
    while saved(high) < wanted and high < 1.0:
        high *= 2
    low = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if saved(middle) < wanted else (low, middle)
    return high


def _taken(curve: Mapping[float, Bounds], macs: int, price: float) -> float:
    """The ratio that a group takes at a price."""
    return min(curve, key=lambda ratio: (curve[ratio].middle - price * ratio * macs, ratio))


def next_action(
    groups: Mapping[str, Group], counts: Sequence[int], highest: float, targets: Sequence[float] = TARGETS
) -> Action | None:
    """What to measure next; None once every decision is settled as far as images allow.

    Args:
        groups: what is known so far.
        counts: numbers of images, rising (see `image_counts`).
        highest: metric that there is to lose.
        targets: shares of the multiply-adds left that plans may be made for.
    """
    first = next((name for name, group in groups.items() if not group.cells and group.ratios), None)
    if first is not None:
        return Action(first, _middle(groups[first].ratios), counts[0], highest)
    curves = {name: bounds_of(group, highest) for name, group in groups.items()}
    prices = [price_for(groups, curves, left) for left in targets]
    found = [
        action
        for name, group in groups.items()
        for price in prices
        for action in _actions(name, group, curves[name], counts, price)
    ]
    return max(found, key=lambda action: action.gain / action.images, default=None)


def _actions(
    name: str, group: Group, curve: Mapping[float, Bounds], counts: Sequence[int], price: float
) -> Iterator[Action]:
    """What would tell the ratio that a group takes at a price from the one that may yet be better."""
    taken = _taken(curve, group.macs, price)
    others = [ratio for ratio in curve if ratio != taken]
    if not others:
        return
    challenger = min(others, key=lambda ratio: curve[ratio].low - price * ratio * group.macs)
    gain = (curve[taken].high - price * taken * group.macs) - (curve[challenger].low - price * challenger * group.macs)
    if gain <= 0:
        return
    widths = {ratio: curve[ratio].high - curve[ratio].low for ratio in (taken, challenger)}
    for ratio, width in widths.items():
        images = next_count(group.cells.get(ratio), counts)
        if ratio > 0 and width > 0 and images is not None:
            yield Action(name, ratio, images, gain * width / sum(widths.values()))


def next_count(cell: Cell | None, counts: Sequence[int]) -> int | None:
    """Images of a cell's next measurement; None where it saw all."""
    return next((count for count in counts if cell is None or count > cell.images), None)


def _middle(ratios: Sequence[float]) -> float:
    return ratios[len(ratios) // 2]


def images_spent(groups: Mapping[str, Group], counts: Sequence[int]) -> int:
    """Evaluations of an image that it took to know this: cells are measured anew whenever their images double."""
    return sum(
        sum(count for count in counts if count <= cell.images)
        for group in groups.values()
        for cell in group.cells.values()
    )


def too_short(scan: BudgetedScan) -> str:
    """Why a scan measured nothing, with the least budgets that would measure something; empty where it did measure.

    >>> too_short(BudgetedScan(0.1, 10, 0, 9, 64, (0.5,), False, {"a": {}, "b": {}}))
    'the budget of 10 images is too short for one cell, which takes 16 images (1.6 s); one of each group takes 3.2 s'
    """
    if any(scan.cells.values()):
        return ""
    least = image_counts(scan.images_in_all)[0]
    one, each = (math.ceil(10 * scan.seconds_per_image * least * count) / 10 for count in (1, len(scan.cells)))
    return (
        f"the budget of {scan.images} images is too short for one cell, which takes {least} images ({one:g} s); one of "
        f"each group takes {each:g} s"
    )
