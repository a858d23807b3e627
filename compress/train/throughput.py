"""How fast a network is trained."""

import time
from collections.abc import Callable


class Throughput:
    """Images per second, of an epoch so far and of all epochs, without what happens between them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing."""
        self._clock = clock
        self._images, self._seconds = 0, 0.0
        self._before = (0, 0.0)
        self._last = clock()

    def start_epoch(self) -> None:
        """Count the time from now on."""
        self._before = (self._images, self._seconds)
        self._last = self._clock()

    def add(self, images: int) -> None:
        """Count a batch, and the time since the last one or the epoch's start."""
        now = self._clock()
        self._images, self._seconds, self._last = self._images + images, self._seconds + now - self._last, now

    def of_epoch(self) -> float:
        """Of this epoch."""
        images, seconds = self._before
        return _rate(self._images - images, self._seconds - seconds)

    def of_all(self) -> float:
        """Of all epochs."""
        return _rate(self._images, self._seconds)


def _rate(images: int, seconds: float) -> float:
    return images / seconds if seconds > 0 else 0.0
