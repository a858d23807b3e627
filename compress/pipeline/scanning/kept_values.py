"""Values inside the original network, kept of the images that every cell of a scan sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.errors import DataError

Values = Mapping[str, np.ndarray]
SAMPLE = 4096
"""Pixels of a batch by which it is known again."""


@dataclass
class _Call:
    """What is kept of one call's images: a sample of their pixels, and values by name."""

    sample: bytes
    size: int
    values: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.values.values())


class KeptValues:
    """Values by the number of the call, since every cell is scored on the same images in the same order.

    Where all fit, the values that later groups need are computed with those of the first: in one pass.

    Args:
        prefix: names of values -> what computes them from images.
        memory: bytes, at most.
    """

    def __init__(self, prefix: Callable[[Sequence[str]], Callable[[np.ndarray], Values]], memory: int) -> None:
        self._make_prefix = prefix
        self._memory = memory
        self._calls: dict[int, _Call] = {}
        self._names: tuple[str, ...] = ()
        self._prefix: Callable[[np.ndarray], Values] | None = None
        self._complete = False

    @property
    def nbytes(self) -> int:
        """What is kept."""
        return sum(call.nbytes for call in self._calls.values())

    def expect(self, call: int, images: np.ndarray) -> None:
        """Tell of images that each cell will see, before any values are requested."""
        self._known(call, images)
        self._complete = True

    def get(
        self, names: Sequence[str], call: int, images: np.ndarray, later: Sequence[Sequence[str]] = ()
    ) -> dict[str, np.ndarray]:
        """These values of the images of a call.

        Args:
            names: of the values.
            call: how many calls came before in this cell.
            images: [N, C, H, W].
            later: the values that further groups need, in their order.

        Raises:
            DataError: the images are others than those of the same call before.
        """
        known = self._known(call, images)
        if all(name in known.values for name in names):
            return {name: known.values[name] for name in names}
        if self._prefix is None or not set(names) <= set(self._names):
            self._names = self._choose(names, images, later)
            self._prefix = self._make_prefix(self._names)
            for other in self._calls.values():
                other.values = {name: other.values[name] for name in self._names if name in other.values}
        found = self._prefix(images)
        room = self._memory - self.nbytes + known.nbytes
        needed = {name: found[name] for name in names}
        for values in (found, needed):  # all, or at least these
            if sum(array.nbytes for array in values.values()) <= room:
                known.values = dict(values)
                break
        return needed

    def _known(self, call: int, images: np.ndarray) -> _Call:
        flat = images.reshape(-1)
        now = _Call(flat[:: max(1, flat.size // SAMPLE)].tobytes(), images.nbytes)
        known = self._calls.setdefault(call, now)
        if (known.sample, known.size) != (now.sample, now.size):
            raise DataError("the task gives other images each time it scores, or in another order. It must not.")
        return known

    def _choose(self, names: Sequence[str], images: np.ndarray, later: Sequence[Sequence[str]]) -> tuple[str, ...]:
        """These, and what later groups need, as far as the memory holds them of all images; where those are known."""
        chosen = list(dict.fromkeys(names))
        if len(self._calls) < 2 and not self._complete:
            return tuple(chosen)
        everything = list(dict.fromkeys([*chosen, *(name for some in later for name in some)]))
        scale = sum(call.size for call in self._calls.values()) / images[:1].nbytes
        sizes = {name: array.nbytes * scale for name, array in self._make_prefix(everything)(images[:1]).items()}
        total = sum(sizes[name] for name in chosen)
        for some in later:
            new = [name for name in dict.fromkeys(some) if name not in chosen]
            total += sum(sizes[name] for name in new)
            if total > self._memory:
                break
            chosen += new
        return tuple(chosen)
