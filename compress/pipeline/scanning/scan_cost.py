"""What a sensitivity scan will cost, said before it starts, and what would make it cheaper."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from compress.artifacts import Score
from compress.errors import CompressError
from compress.progress import Note
from compress.tasks.base import Resizable, Task

N = TypeVar("N")
"""A network, or what stands for one."""
LONG_S = 60.0
"""From here on it is said how to shorten a scan."""
FEW_IMAGES = 8
"""Fewer tell hardly anything about a metric."""
SMALL_SIDE = 320


@dataclass(frozen=True)
class ScanCost:
    """A scan that evaluates `cells` networks on `images` images each, in `seconds_per_cell`."""

    cells: int
    images: int
    seconds_per_cell: float

    @property
    def seconds(self) -> float:
        """Of the whole scan."""
        return self.cells * self.seconds_per_cell

    def text(self, side: int | None = None) -> str:
        """In one line; a long scan with what fewer images, and a side smaller than `side`, would make of it.

        >>> ScanCost(261, 20, 3.0).text(side=1280)
        '261 cells x 20 images x 0.15 s = about 13 min; images=8 would make it about 5 min, side=960 about 7 min'
        >>> ScanCost(21, 600, 0.3).text()
        '21 cells x 600 images x 0.5 ms = about 6 s'
        """
        per_image = self.seconds_per_cell / max(1, self.images)
        shown = f"{per_image:.2f} s" if per_image >= 0.1 else f"{per_image * 1000:.2g} ms"
        line = f"{self.cells} cells x {self.images} images x {shown} = about {duration(self.seconds)}"
        cheaper = self._cheaper(side) if self.seconds >= LONG_S else []
        if not cheaper:
            return line
        (first, seconds), *others = cheaper
        more = "".join(f", {change} about {duration(shorter)}" for change, shorter in others)
        return f"{line}; {first} would make it about {duration(seconds)}{more}"

    def _cheaper(self, side: int | None) -> list[tuple[str, float]]:
        """Settings, as recipes and the command's options call them, and the seconds that the scan would take then."""
        found = []
        fewer = max(FEW_IMAGES, self.images // 4)
        if fewer < self.images:
            found.append((f"images={fewer}", self.seconds * fewer / self.images))
        # Not half the side: on receipts a deployed detector's hmean of .87 is .83 at three quarters, .5 at a half.
        if side is not None and (smaller := side * 3 // 4 // 32 * 32) >= SMALL_SIDE:
            found.append((f"side={smaller}", self.seconds * (smaller / side) ** 2))
        return found


def announce_cost(
    score: Callable[[N], Score],
    cells: int,
    side: int | None,
    on_note: Note | None,
    *,
    resumed: bool,
    share: float = 1.0,
) -> Callable[[N], float]:
    """The metric of a network; the first one that is scored is timed, and what the scan will cost is told.

    Args:
        score: scores a network.
        cells: how many changed networks the scan has yet to score.
        side: the longest side of the images, where it can be chosen.
        on_note: receives the line.
        resumed: the first one is already a cell of the scan; otherwise it is the network unchanged.
        share: what a cell takes of the time of the network unchanged.
    """
    told = on_note is None

    def evaluate(network: N) -> float:
        nonlocal told
        started = time.monotonic()
        found = score(network)
        seconds = (time.monotonic() - started) * (1.0 if resumed else share)
        cost = ScanCost(cells - resumed, found.count, seconds)
        if on_note and not told and cost.cells > 0:
            on_note(f"{'the scan goes on' if resumed else 'scan'}: {cost.text(side)}")
        told = True
        return found.metric

    return evaluate


def duration(seconds: float) -> str:
    """
    >>> duration(5.4), duration(89), duration(783), duration(9000)
    ('5 s', '89 s', '13 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def side_of(task: Task) -> int | None:
    """The side that a task's images are scored at, where that can be chosen."""
    return task.side if isinstance(task, Resizable) else None


def at_side(task: Task, side: int | None, step: str = "sensitivity") -> Task:
    """The task at another side, as `step` asks; None leaves it as it is.

    Raises:
        CompressError: the task has no side.
        DataError: it cannot have this one.
    """
    if side is None:
        return task
    if not isinstance(task, Resizable):
        raise CompressError(
            f"{step}.side: got {side}, but {task.kind} has no side. Remove it; {step}.images saves time, too."
        )
    return task.with_side(side)
