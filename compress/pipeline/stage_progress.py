"""Progress of a whole run: which stage of how many, and how long it is to the end of the run."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from compress.pipeline.scanning.scan_cost import duration
from compress.progress import Progress

MAIN_PART = 0.5
"""A counter that takes at least this share of what its stage is expected to take is taken for the whole stage."""
SEEN = 0.02
"""Share of a counter from which on its pace is believed, where it is known to be the whole stage's."""
BEFORE = "with the original"
"""How messages end of what comes before a stage: the original's answers to images."""
BEFORE_CELLS = ("equations of ", "ranking the channels of ")
"""How messages begin of what a scan does before its cells."""
VERIFYING = "reading images in full"
"""Message of `--verify`, which is of no stage."""
SCANS = ("scan", "sensitivity")
"""Stages of one counter, but for what comes before."""


def staged(
    on_progress: Progress, names: Sequence[str], now: Callable[[str], int], left: "TimeLeft | None" = None
) -> Progress:
    """Progress that also says which stage of how many it is of, and, where that is expected, how long the run takes on.

    Args:
        on_progress: is called in its place.
        names: of the stages, in order.
        now: message -> place of the stage that it is of.
        left: what the stages are expected to take; None says nothing of the run's end.
    """

    def tell(done: int, total: int, message: str) -> None:
        if message == VERIFYING:
            on_progress(done, total, message)
            return
        stage = now(message)
        is_scan = names[stage] in SCANS and not message.endswith(BEFORE) and not message.startswith(BEFORE_CELLS)
        to_the_end = left.line(stage, done, total, is_scan or message.startswith("epoch ")) if left else ""
        on_progress(done, total, f"stage {stage + 1} of {len(names)}{to_the_end}, {names[stage]}: {message}")

    return tell


def stages_done(folder: Path, marks: Sequence[Collection[str]]) -> int:
    """How many stages of a run are finished in its folder: of each, names of files any of which says so."""
    return next(
        (number for number, names in enumerate(marks) if not any((folder / name).exists() for name in names)),
        len(marks),
    )


class TimeLeft:
    """The seconds to the end of a run: what its later stages are expected to take, corrected by how long earlier ones
    took, and of the present one what its counter says."""

    def __init__(self, expected: Sequence[float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """Take the seconds of each stage, None where they are unknown."""
        self._expected, self._clock = expected, clock
        self._stage, self._began = -1, 0.0
        self._took = self._planned = 0.0
        self._last, self._counter_began, self._counter_first = (0, -1), 0.0, 0

    def line(self, stage: int, done: int, total: int, whole: bool = False) -> str:
        """The time left as it is shown, behind the stage's number."""
        seconds, is_all = self.seconds(stage, done, total, whole)
        if seconds is None:
            return ""
        return f" (run: {'about' if is_all else 'at least'} {duration(seconds)} left)"

    def seconds(self, stage: int, done: int, total: int, whole: bool = False) -> tuple[float | None, bool]:
        """Seconds to the end of the run, None where nothing is known, and whether they cover every stage.

        Args:
            stage: the present one, from 0.
            done: what its present counter has counted.
            total: of how many.
            whole: whether the counter is known to be that of all of the stage.
        """
        now = self._clock()
        if stage != self._stage:
            self._finish(now)
            self._stage, self._began = stage, now
            self._last = (0, -1)
        if total != self._last[1] or done < self._last[0]:  # another counter
            self._counter_began, self._counter_first = now, done
        self._last = (done, total)
        later = [self._expected[place] for place in range(stage + 1, len(self._expected))]
        parts = [
            self._present(now, done, total, whole),
            *(None if part is None else self._scaled(part) for part in later),
        ]
        known = [part for part in parts if part is not None]
        return (sum(known) if known else None), len(known) == len(parts)

    def _present(self, now: float, done: int, total: int, whole: bool) -> float | None:
        """Seconds to the end of the present stage, None where they are unknown."""
        counted = done - self._counter_first
        pace = (now - self._counter_began) / counted if counted > 0 else None
        by_counter = None if pace is None else pace * (total - done)
        expected = self._expected[self._stage]
        if expected is None:
            return by_counter
        planned = self._scaled(expected)
        believed = (whole and done >= SEEN * total) or (pace or 0.0) * total >= MAIN_PART * planned
        if by_counter is not None and believed:
            return by_counter
        return max(by_counter or 0.0, planned - (now - self._began), 0.0)

    def _finish(self, now: float) -> None:
        if 0 <= self._stage < len(self._expected) and (planned := self._expected[self._stage]) is not None:
            self._took += now - self._began
            self._planned += planned

    def _scaled(self, seconds: float) -> float:
        """By how far off finished stages were, each counting by its part of the run: a short one says little."""
        run = sum(part for part in self._expected if part is not None)
        return seconds * (run + self._took) / (run + self._planned) if run else seconds
